#include "nn/model.h"

namespace llmtk::nn {

c10::ScalarType Model::dtype() const { return parameters().front().scalar_type(); }

c10::Device Model::device() const { return parameters().front().device(); }

int64_t Model::num_parameters() const {
  int64_t count = 0;
  for (const at::Tensor& parameter : parameters()) count += parameter.numel();
  return count;
}

}  // namespace llmtk::nn
