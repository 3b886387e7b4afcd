#include "nn/attention.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>

#include <limits>

#include "core/error.h"
#include "kernels/backend.h"

namespace llmtk::nn {
namespace {

/// [1, 1, T, S]: query t, at position past + t, sees keys 0 ... past + t.
at::Tensor causal_mask(int64_t past, int64_t length, c10::Device device) {
  const auto options = at::TensorOptions().dtype(c10::kLong).device(device);
  const at::Tensor keys = at::arange(past + length, options);                   // [S]
  const at::Tensor queries = at::arange(past, past + length, options);          // [T]
  return keys.unsqueeze(0).le(queries.unsqueeze(1)).unsqueeze(0).unsqueeze(0);  // [1, 1, T, S]
}

/// Causal, without the keys that are padding. A query sees itself even when it is padding: a row without any key would
/// make NaNs, which would leak into the real rows through the values.
at::Tensor padding_mask(const at::Tensor& real, int64_t past, int64_t length) {
  const at::Tensor causal = causal_mask(past, length, real.device());  // [1, 1, T, S]
  const auto options = at::TensorOptions().dtype(c10::kLong).device(real.device());
  const at::Tensor self =
      at::arange(past + length, options).unsqueeze(0).eq(at::arange(past, past + length, options).unsqueeze(1));
  const at::Tensor keys = real.unsqueeze(1).unsqueeze(1);  // [B, 1, 1, S]
  return causal.logical_and(keys.logical_or(self));        // [B, 1, T, S]
}

/// A token whose position is not its left neighbour's plus one starts another text. Undefined when no row holds two.
at::Tensor packing_mask(const at::Tensor& position_ids) {
  const int64_t length = position_ids.size(1);
  if (length < 2) return {};
  const at::Tensor starts = (position_ids.narrow(1, 1, length - 1) - position_ids.narrow(1, 0, length - 1)).ne(1);
  if (!starts.any().item<bool>()) return {};
  const at::Tensor first = at::zeros({position_ids.size(0), 1}, starts.options().dtype(c10::kLong));
  const at::Tensor text = at::cat({first, starts.cumsum(1)}, 1);                 // [B, T]
  const at::Tensor same = text.unsqueeze(1).eq(text.unsqueeze(2)).unsqueeze(1);  // [B, 1, T, T]
  return same.logical_and(causal_mask(0, length, position_ids.device()));
}

}  // namespace

LayerContext make_layer_context(const at::Tensor& input_ids, const ForwardContext& context, int64_t max_positions) {
  LLMTK_CHECK(input_ids.dim() == 2, "input_ids is ", input_ids.sizes(), ", expected [B, T]");
  const int64_t batch = input_ids.size(0), length = input_ids.size(1);
  const int64_t past = context.cache ? context.cache->length() : 0, total = past + length;
  int64_t longest = total;
  // Columns that are padding take no position.
  if (total > max_positions && context.attention_mask.defined())
    longest = context.attention_mask.sum(1).max().item<int64_t>();
  if (longest > max_positions)
    throw Error(Exit::usage, {.what = "the sequence is longer than the model can see",
                              .got = std::to_string(longest) + " tokens",
                              .expected = "at most " + std::to_string(max_positions),
                              .hint = "shorten the text or the number of new tokens"});
  LayerContext made{.cache = context.cache,
                    .past = past,
                    .length = length,
                    .attentions = context.attentions,
                    .attention_layer = context.attention_layer};

  at::Tensor real = context.attention_mask;
  if (real.defined()) {
    LLMTK_CHECK(real.size(0) == batch && real.size(1) == total, "attention_mask is ", real.sizes(), ", expected [",
                batch, ", ", total, "]");
    real = real.to(input_ids.device(), c10::kBool);
    // On a GPU looking would wait for it; there the mask is simply used.
    if (real.is_cpu() && real.all().item<bool>()) real.reset();
  }

  if (context.position_ids.defined()) {
    made.position_ids = context.position_ids;
    made.default_positions = false;
  } else if (real.defined()) {
    made.position_ids = (real.cumsum(1) - 1).clamp_min(0).narrow(1, past, length);  // [B, T]
    made.default_positions = false;
  } else {
    made.position_ids = at::arange(past, total, input_ids.options().dtype(c10::kLong)).unsqueeze(0);  // [1, T]
  }

  if (real.defined()) {
    made.mask = padding_mask(real, past, length);
  } else if (context.position_ids.defined() && !context.cache && !context.attention_mask.defined()) {
    made.mask = packing_mask(context.position_ids);
  }
  if (!made.mask.defined() && past > 0 && length > 1) made.mask = causal_mask(past, length, input_ids.device());
  return made;
}

namespace {

/// The formula as the textbook has it (Vaswani et al. 2017, eq. 1), with its weights.
at::Tensor explicit_attention(const at::Tensor& q, at::Tensor k, at::Tensor v, const LayerContext& context,
                              double scale, double dropout) {
  if (const int64_t group = q.size(1) / k.size(1); group > 1) {
    k = k.repeat_interleave(group, 1);  // [B, H, S, D]
    v = v.repeat_interleave(group, 1);
  }
  at::Tensor mask = context.mask;
  if (!mask.defined()) mask = causal_mask(k.size(2) - q.size(2), q.size(2), q.device());
  at::Tensor scores = at::matmul(q, k.transpose(2, 3)) * scale;  // [B, H, T, S]
  scores = scores.masked_fill(mask.logical_not(), -std::numeric_limits<double>::infinity());
  at::Tensor weights = at::softmax(scores, -1, c10::kFloat);
  context.attentions->push_back(weights);
  if (dropout > 0) weights = at::dropout(weights, dropout, true);
  return at::matmul(weights.to(v.scalar_type()), v);  // [B, H, T, D]
}

/// Without the processor's bfloat16 instructions LibTorch's attention in bfloat16 is some four times slower than through
/// float32 when a gradient follows; forward alone it is not.
bool backward_is_faster_wide(const at::Tensor& q) {
  return q.is_cpu() && q.scalar_type() == c10::kBFloat16 && q.requires_grad() && c10::GradMode::is_enabled() &&
         !kernels::fast_bfloat16_products();
}

}  // namespace

at::Tensor causal_attention(const at::Tensor& q, at::Tensor k, at::Tensor v, const LayerContext& context, int64_t layer,
                            double scale, double dropout) {
  if (context.cache) std::tie(k, v) = context.cache->append(layer, k, v);  // [B, K, S, D]
  at::Tensor y;
  if (context.attentions && context.attention_layer.value_or(layer) == layer) {
    y = explicit_attention(q, k, v, context, scale, dropout);
  } else {
    const bool causal = !context.mask.defined() && context.length > 1;
    const std::optional<at::Tensor> mask = context.mask.defined() ? std::optional(context.mask) : std::nullopt;
    const bool widen = backward_is_faster_wide(q);
    const auto wide = [&](const at::Tensor& t) { return widen ? t.to(c10::kFloat) : t; };
    y = at::scaled_dot_product_attention(wide(q), wide(k), wide(v), mask, dropout, causal, scale,
                                         q.size(1) != k.size(1))
            .to(q.scalar_type());
  }
  return y.transpose(1, 2).flatten(2);  // [B, T, H * D]
}

}  // namespace llmtk::nn
