#include "nn/attention.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "kernels/elementwise.h"
#include "kernels/step_attention.h"
#include "nn/fused_attention.h"

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

/// A mask among tokens, [B, 1, T, T], where P virtual tokens stand before each row, the last `read` of which are
/// queries too: [B, 1, read + T, P + T].
at::Tensor behind_virtual(const at::Tensor& mask, int64_t virtual_tokens, int64_t read) {
  if (!mask.defined() || virtual_tokens == 0) return mask;
  const at::Tensor seen = at::constant_pad_nd(mask, {virtual_tokens, 0}, true);  // [B, 1, T, P + T]
  if (read == 0) return seen;
  const at::Tensor own = causal_mask(0, virtual_tokens + mask.size(2), mask.device()).narrow(2, 0, read);
  return at::cat({own.expand({mask.size(0), -1, -1, -1}), seen}, 2);
}

/// Throws Error(usage) when a row has more tokens than max_positions.
void check_length(int64_t tokens, const at::Tensor& attention_mask, int64_t max_positions) {
  if (tokens <= max_positions) return;
  // Columns that are padding take no position.
  const int64_t longest = attention_mask.defined() ? attention_mask.sum(1).max().item<int64_t>() : tokens;
  if (longest > max_positions)
    throw Error(Exit::usage, {.what = "the sequence is longer than the model can see",
                              .got = std::to_string(longest) + " tokens",
                              .expected = "at most " + std::to_string(max_positions),
                              .hint = "shorten the text or the number of new tokens"});
}

LayerContext make_step_context(const at::Tensor& input_ids, const ForwardContext& context, int64_t max_positions) {
  LLMTK_CHECK(context.cache && !context.attentions, "a step needs a cache and shows no attentions");
  KVCache& cache = *context.cache;
  check_length(cache.length() + input_ids.size(1), {}, max_positions);
  LLMTK_CHECK(input_ids.size(0) == cache.batch(), "input_ids is ", input_ids.sizes(), " for ", cache.batch(), " rows");
  return {.cache = &cache,
          .step = true,
          .past = cache.virtual_length() + cache.length(),
          .length = input_ids.size(1),
          .default_positions = false,
          .position_ids = cache.places(input_ids.size(1))};
}

}  // namespace

LayerContext make_layer_context(const at::Tensor& input_ids, const ForwardContext& context, int64_t max_positions,
                                const VirtualInputs& before) {
  LLMTK_CHECK(input_ids.dim() == 2, "input_ids is ", input_ids.sizes(), ", expected [B, T]");
  if (context.step) return make_step_context(input_ids, context, max_positions);
  const KVCache* cache = context.cache;
  const int64_t batch = input_ids.size(0), text = (cache ? cache->length() : 0) + input_ids.size(1);
  const int64_t virtual_tokens = (cache ? cache->virtual_length() : 0) + before.length(), read = before.read();
  const int64_t total = virtual_tokens + text, length = read + input_ids.size(1), past = total - length;
  check_length(text, context.attention_mask, max_positions);
  LayerContext made{.cache = context.cache,
                    .past = past,
                    .length = length,
                    .sequence_length = context.sequence_length > 0 ? virtual_tokens + context.sequence_length : 0,
                    .virtual_embeddings = before.embeddings,
                    .virtual_keys_values = before.keys_values,
                    .attentions = context.attentions,
                    .attention_layer = context.attention_layer};

  at::Tensor real = context.attention_mask;
  if (real.defined()) {
    LLMTK_CHECK(real.size(0) == batch && real.size(1) == text, "attention_mask is ", real.sizes(), ", expected [",
                batch, ", ", text, "]");
    real = real.to(input_ids.device(), c10::kBool);
    // On a GPU looking would wait for it; there the mask is simply used.
    if (real.is_cpu() && real.all().item<bool>()) real.reset();
    if (real.defined() && virtual_tokens > 0) {
      real = at::constant_pad_nd(real, {virtual_tokens, 0}, true);
      made.places = real.cumsum(1) - 1;
    }
  }

  const at::Tensor counted = at::arange(past, total, input_ids.options().dtype(c10::kLong)).unsqueeze(0);  // [1, T]
  made.default_positions = !context.position_ids.defined() && !real.defined();
  if (context.position_ids.defined()) {
    made.position_ids = context.position_ids;
    if (virtual_tokens > 0) made.position_ids = made.position_ids + virtual_tokens;
    if (read > 0)
      made.position_ids =
          at::cat({counted.narrow(1, 0, read).expand({made.position_ids.size(0), -1}), made.position_ids}, 1);
  } else {
    made.position_ids = real.defined() ? (real.cumsum(1) - 1).clamp_min(0).narrow(1, past, length) : counted;
  }

  if (real.defined()) {
    made.mask = padding_mask(real, past, length);
  } else if (context.position_ids.defined() && !cache && !context.attention_mask.defined()) {
    made.mask = behind_virtual(packing_mask(context.position_ids), virtual_tokens, read);
    if (made.mask.defined() && virtual_tokens > 0)
      made.places =
          at::cat({at::arange(past, counted.options()).expand({batch, -1}), made.position_ids.expand({batch, -1})}, 1);
  }
  if (!made.mask.defined() && past > 0 && length > 1) made.mask = causal_mask(past, length, input_ids.device());
  return made;
}

LayerContext within_window(LayerContext context, int64_t window) {
  const int64_t past = context.past, total = past + context.length;
  if (window <= 0) return context;
  if (context.step) {
    context.window = window;
    return context;
  }
  if (total <= window) return context;
  if (context.places.defined()) {  // virtual tokens are not further away where padding is between
    const at::Tensor keys = context.places.unsqueeze(1).unsqueeze(1);  // [B, 1, 1, S]
    const at::Tensor queries =
        context.places.narrow(1, past, context.length).unsqueeze(1).unsqueeze(3);  // [B, 1, T, 1]
    context.mask = context.mask.logical_and(keys.gt(queries - window));
    return context;
  }
  context.window = window;
  context.first_key = std::max<int64_t>(0, past + 1 - window);
  if (!context.mask.defined() && context.length == 1) return context;  // it sees all keys that are left
  const auto options = context.position_ids.options();
  const at::Tensor queries = at::arange(past, total, options).unsqueeze(1);  // [T, 1]
  const at::Tensor keys = at::arange(context.first_key, total, options);     // [S]
  const at::Tensor all =
      context.mask.defined() ? context.mask : causal_mask(past, context.length, context.position_ids.device());
  const at::Tensor mask = all.narrow(3, context.first_key, total - context.first_key);  // [B or 1, 1, T, S]
  context.mask = mask.logical_and(keys.gt(queries - window));
  return context;
}

namespace {

/// The queries of one key-value head below each other, so that one product serves them all and no key is repeated:
/// [B, H, T, D] -> [B, K, H / K * T, D].
at::Tensor heads_to_rows(const at::Tensor& x, int64_t key_value_heads) {
  return x.unflatten(1, {key_value_heads, x.size(1) / key_value_heads}).flatten(2, 3);
}
/// And back.
at::Tensor rows_to_heads(const at::Tensor& x, int64_t length) {
  return x.unflatten(2, {x.size(2) / length, length}).flatten(1, 2);
}

/// The formula as the textbook has it (Vaswani et al. 2017, eq. 1): the weights, [B, H, T, S] float32. mask: undefined
/// where every query sees all keys.
at::Tensor attention_weights(const at::Tensor& q, const at::Tensor& k, const at::Tensor& mask,
                             const AttentionOptions& options) {
  at::Tensor scores =
      rows_to_heads(at::matmul(heads_to_rows(q, k.size(1)), k.transpose(2, 3)), q.size(2)).to(c10::kFloat);
  scores = scores * options.scale;  // [B, H, T, S]
  if (options.softcap > 0) scores = kernels::softcap(scores, options.softcap);
  if (mask.defined()) scores = scores.masked_fill(mask.logical_not(), -std::numeric_limits<double>::infinity());
  return at::softmax(scores, -1);
}

/// The values, weighted: [B, H, T, D].
at::Tensor weighted_values(at::Tensor weights, const at::Tensor& v, double dropout) {
  const int64_t length = weights.size(2);
  if (dropout > 0) weights = at::dropout(weights, dropout, true);
  return rows_to_heads(at::matmul(heads_to_rows(weights.to(v.scalar_type()), v.size(1)), v), length);
}

at::Tensor explicit_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const LayerContext& context, const AttentionOptions& options) {
  at::Tensor mask = context.mask;
  if (!mask.defined() && q.size(2) > 1) mask = causal_mask(k.size(2) - q.size(2), q.size(2), q.device());
  const at::Tensor weights = attention_weights(q, k, mask, options);
  const int64_t unseen = context.first_key;
  context.attentions->push_back(unseen > 0 ? at::constant_pad_nd(weights, {unseen, 0}) : weights);
  return weighted_values(weights, v, options.dropout);
}

/// The explicit formula for some queries at a time, so that the scores of all never stand side by side.
at::Tensor softcapped_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const LayerContext& context, const AttentionOptions& options) {
  constexpr int64_t kMostScores = int64_t{1} << 23;  // 32 MiB of them
  const int64_t T = q.size(2), S = k.size(2);
  const int64_t step = std::clamp<int64_t>(kMostScores / std::max<int64_t>(1, q.size(0) * q.size(1) * S), 1, T);
  const torch::nn::Module no_parameters;
  Tensors pieces;
  for (int64_t begin = 0; begin < T; begin += step) {
    const int64_t n = std::min(step, T - begin);
    // The keys from the first query's window to the last query itself.
    const int64_t end = S - T + begin + n;
    const int64_t start = context.window > 0 ? std::max<int64_t>(0, end - n + 1 - context.window) : 0;
    at::Tensor mask;
    if (context.mask.defined())
      mask = context.mask.narrow(2, begin, n).narrow(3, start, end - start);
    else if (n > 1)
      mask = causal_mask(end - n, n, q.device());
    const auto piece = [mask, options](const Tensors& x) -> Tensors {
      return {weighted_values(attention_weights(x[0], x[1], mask, options), x[2], options.dropout)};
    };
    const Tensors inputs = {q.narrow(2, begin, n), k.narrow(2, start, end - start), v.narrow(2, start, end - start)};
    pieces.push_back(checkpoint(no_parameters, inputs, piece)[0]);  // [B, H, n, D]
  }
  return pieces.size() == 1 ? pieces[0] : at::cat(pieces, 2);  // [B, H, T, D]
}

}  // namespace

at::Tensor causal_attention(const at::Tensor& q, at::Tensor k, at::Tensor v, const LayerContext& context, int64_t layer,
                            const AttentionOptions& options) {
  if (context.step)
    return kernels::step_attention(q, k, v, context.cache->blocks(layer), context.cache->held_lengths(),
                                   {.scale = options.scale, .softcap = options.softcap, .window = context.window});
  if (context.cache) std::tie(k, v) = context.cache->append(layer, k, v);  // [B, K, past + T, D]
  put_before(context.virtual_keys_values, layer, k, v);                    // the same
  if (const int64_t unseen = context.first_key; unseen > 0) {
    k = k.narrow(2, unseen, k.size(2) - unseen);  // [B, K, S, D]
    v = v.narrow(2, unseen, v.size(2) - unseen);
  }
  at::Tensor y;
  if (context.attentions && context.attention_layer.value_or(layer) == layer)
    y = explicit_attention(q, k, v, context, options);
  else if (options.softcap > 0)
    y = softcapped_attention(q, k, v, context, options);
  else
    y = fused_attention(
        q, k, v, context.mask,
        {.scale = options.scale, .dropout = options.dropout, .causal = !context.mask.defined() && context.length > 1});
  return y.transpose(1, 2).flatten(2);  // [B, T, H * D]
}

}  // namespace llmtk::nn
