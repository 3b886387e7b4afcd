#include "nn/encoder_attention.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>

#include <cmath>
#include <limits>
#include <utility>

#include "core/error.h"
#include "nn/fused_attention.h"

namespace llmtk::nn {
namespace {

/// [B, T] bool on the ids' device; undefined where every token is real.
at::Tensor real_tokens(const at::Tensor& input_ids, const at::Tensor& attention_mask) {
  if (!attention_mask.defined()) return {};
  LLMTK_CHECK(attention_mask.sizes() == input_ids.sizes(), "attention_mask is ", attention_mask.sizes(), ", expected ",
              input_ids.sizes());
  const at::Tensor real = attention_mask.to(input_ids.device(), c10::kBool);
  // On a GPU looking would wait for it; there the mask is simply used.
  return real.is_cpu() && real.all().item<bool>() ? at::Tensor() : real;
}

/// The formula as the textbook has it (Vaswani et al. 2017, eq. 1), with its weights.
at::Tensor explicit_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const EncoderLayerContext& context, double dropout) {
  at::Tensor scores = at::matmul(q, k.transpose(2, 3)) / std::sqrt(static_cast<double>(q.size(3)));  // [B, N, T, T]
  if (context.mask.defined())
    scores = scores.masked_fill(context.mask.logical_not(), -std::numeric_limits<double>::infinity());
  at::Tensor weights = at::softmax(scores, -1, c10::kFloat);
  context.attentions->push_back(weights);
  if (dropout > 0) weights = at::dropout(weights, dropout, true);
  return at::matmul(weights.to(v.scalar_type()), v);  // [B, N, T, D]
}

}  // namespace

EncoderLayerContext make_encoder_context(const at::Tensor& input_ids, const EncoderContext& context,
                                         int64_t max_positions, VirtualInputs before) {
  LLMTK_CHECK(input_ids.dim() == 2, "input_ids is ", input_ids.sizes(), ", expected [B, T]");
  const int64_t virtual_tokens = before.length();
  EncoderLayerContext made{.real = real_tokens(input_ids, context.attention_mask),
                           .before = std::move(before),
                           .attentions = context.attentions};
  int64_t longest = input_ids.size(1);
  // Columns that are padding take no position.
  if (longest > max_positions && made.real.defined()) longest = made.real.sum(1).max().item<int64_t>();
  if (longest > max_positions)
    throw Error(Exit::usage, {.what = "the text is longer than the model can see",
                              .got = std::to_string(longest) + " tokens",
                              .expected = "at most " + std::to_string(max_positions),
                              .hint = "shorten the text"});
  if (made.real.defined()) {
    // A row of padding alone sees itself: without any key it would be NaNs.
    at::Tensor seen = made.real.logical_or(made.real.any(1, /*keepdim=*/true).logical_not());  // [B, T]
    if (virtual_tokens > 0) seen = at::constant_pad_nd(seen, {virtual_tokens, 0}, true);       // [B, P + T]
    made.mask = seen.unsqueeze(1).unsqueeze(1);
  }
  return made;
}

at::Tensor bidirectional_attention(const at::Tensor& q, at::Tensor k, at::Tensor v, const EncoderLayerContext& context,
                                   double dropout) {
  put_before(context.before.keys_values, 0, k, v);  // [B, N, P + T, D]
  const at::Tensor y = context.attentions ? explicit_attention(q, k, v, context, dropout)
                                          : fused_attention(q, k, v, context.mask, {.dropout = dropout});
  return y.transpose(1, 2).flatten(2);  // [B, T, N * D]
}

at::Tensor first_token(const at::Tensor& x, const at::Tensor& attention_mask) {
  if (!attention_mask.defined()) return x.select(1, 0);
  const at::Tensor first = attention_mask.to(x.device(), c10::kInt).argmax(1);       // of equal ones the first
  return x.gather(1, first.view({-1, 1, 1}).expand({-1, 1, x.size(2)})).squeeze(1);  // [B, H]
}

}  // namespace llmtk::nn
