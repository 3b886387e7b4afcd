#include "nn/causal_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "core/error.h"
#include "kernels/elementwise.h"
#include "kernels/cross_entropy.h"
#include "nn/attention.h"
#include "nn/linear.h"

namespace llmtk::nn {

at::Tensor CausalModel::forward(const at::Tensor& input_ids, const ForwardContext& context) {
  if (context.cache && virtual_tokens() && context.cache->virtual_length() == 0)
    fill_with_virtual_tokens(*context.cache, input_ids.size(0), std::max(context.sequence_length, input_ids.size(1)));
  const VirtualInputs before = context.cache ? VirtualInputs() : virtual_inputs();
  LayerContext layers = make_layer_context(input_ids, context, max_positions(), before);
  std::vector<at::Tensor> hidden_states;
  const at::Tensor hidden = run_layers(input_ids, layers, context.hidden_states ? &hidden_states : nullptr);
  if (context.cache) context.cache->advance(layers.length);
  const auto of_text = [&](const at::Tensor& x) { return x.narrow(1, before.read(), input_ids.size(1)); };
  for (const at::Tensor& x : hidden_states) context.hidden_states->push_back(of_text(x));
  return before.read() > 0 ? of_text(hidden) : hidden;
}

void CausalModel::fill_with_virtual_tokens(KVCache& cache, int64_t batch, int64_t sequence_length) {
  const at::NoGradGuard no_grad;
  LLMTK_CHECK(cache.length() == 0, "a cache of ", cache.length(), " tokens without the virtual ones");
  const VirtualInputs before = virtual_inputs();
  if (before.keys_values.defined()) return cache.put_virtual(before.keys_values);
  const at::Tensor no_ids = at::empty({batch, 0}, at::TensorOptions().dtype(c10::kLong).device(device()));
  const ForwardContext context{.cache = &cache, .sequence_length = sequence_length};
  LayerContext layers = make_layer_context(no_ids, context, max_positions(), before);
  run_layers(no_ids, layers, nullptr);
  cache.advance_virtual(before.read());
}

std::unique_ptr<KVCache> CausalModel::make_cache(int64_t batch, int64_t max_length, CacheType type) const {
  const auto [layers, heads, head_dim] = key_value_shape();
  const int64_t before = virtual_tokens() ? virtual_tokens()->length() : 0;
  return std::make_unique<KVCache>(layers, batch, heads, before + max_length, head_dim, Build{dtype(), device()},
                                   type);
}

at::Tensor CausalModel::logits(const at::Tensor& hidden) {
  const at::Tensor logits = lm_head().forward(hidden);
  const double softcap = final_logit_softcapping();
  return softcap > 0 ? kernels::softcap(logits, softcap) : logits;
}

at::Tensor CausalModel::cross_entropy(const at::Tensor& hidden, const at::Tensor& targets, double scale,
                                      int64_t ignore_index) {
  return kernels::linear_cross_entropy(
      hidden, lm_head().effective_weight(hidden.scalar_type()), targets,
      {.ignore_index = ignore_index, .scale = scale, .softcap = final_logit_softcapping()});
}

at::Tensor CausalModel::log_prob(const at::Tensor& hidden, const at::Tensor& targets, int64_t ignore_index) {
  return log_probs(hidden, targets, {.ignore_index = ignore_index}).log_probs;
}

kernels::LogProbs CausalModel::log_probs(const at::Tensor& hidden, const at::Tensor& targets,
                                         kernels::LogProbOptions options) {
  options.softcap = final_logit_softcapping();
  return kernels::linear_log_prob(hidden, lm_head().effective_weight(hidden.scalar_type()), targets, options);
}

std::map<std::string, at::Tensor> CausalModel::tied_names() {
  const Linear& head = lm_head();
  const bool tied = head.weight.defined() && head.parameters(/*recurse=*/false).empty();
  return tied ? std::map<std::string, at::Tensor>{{"lm_head.weight", head.weight}}
              : std::map<std::string, at::Tensor>();
}

}  // namespace llmtk::nn
