#include "nn/causal_model.h"

#include "kernels/activation.h"
#include "kernels/cross_entropy.h"
#include "nn/attention.h"
#include "nn/linear.h"

namespace llmtk::nn {

at::Tensor CausalModel::forward(const at::Tensor& input_ids, const ForwardContext& context) {
  LayerContext layers = make_layer_context(input_ids, context, max_positions());
  const at::Tensor hidden = run_layers(input_ids, layers, context.hidden_states);
  if (context.cache) context.cache->advance(layers.length);
  return hidden;
}

at::Tensor CausalModel::logits(const at::Tensor& hidden) {
  const at::Tensor logits = lm_head().forward(hidden);
  const double softcap = final_logit_softcapping();
  return softcap > 0 ? kernels::softcap(logits, softcap) : logits;
}

at::Tensor CausalModel::cross_entropy(const at::Tensor& hidden, const at::Tensor& targets, double scale,
                                      int64_t ignore_index) {
  return kernels::linear_cross_entropy(
      hidden, lm_head().effective_weight(), targets,
      {.ignore_index = ignore_index, .scale = scale, .softcap = final_logit_softcapping()});
}

at::Tensor CausalModel::log_prob(const at::Tensor& hidden, const at::Tensor& targets, int64_t ignore_index) {
  return kernels::linear_log_prob(hidden, lm_head().effective_weight(), targets, ignore_index,
                                  final_logit_softcapping());
}

std::map<std::string, at::Tensor> CausalModel::tied_names() {
  const Linear& head = lm_head();
  const bool tied = head.weight.defined() && head.parameters(/*recurse=*/false).empty();
  return tied ? std::map<std::string, at::Tensor>{{"lm_head.weight", head.weight}}
              : std::map<std::string, at::Tensor>();
}

}  // namespace llmtk::nn
