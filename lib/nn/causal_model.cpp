#include "nn/causal_model.h"

#include "core/error.h"
#include "nn/linear.h"

namespace llmtk::nn {

at::Tensor CausalModel::logits(const at::Tensor& hidden) { return lm_head().forward(hidden); }

c10::ScalarType CausalModel::dtype() const { return parameters().front().scalar_type(); }

c10::Device CausalModel::device() const { return parameters().front().device(); }

int64_t CausalModel::num_parameters() const {
  int64_t count = 0;
  for (const at::Tensor& parameter : parameters()) count += parameter.numel();
  return count;
}

}  // namespace llmtk::nn
