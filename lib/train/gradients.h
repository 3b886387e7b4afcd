#pragma once
// The gradients of one optimizer step.

#include <ATen/core/Tensor.h>

#include <vector>

#include "train/parameters.h"

namespace llmtk::train {

/// Where backward leaves the gradients of a step. One micro-batch per step, or float32 parameters: in the parameters'
/// own grad. Several micro-batches and bfloat16 parameters: each micro-batch's gradient is added to a float32 sum as
/// soon as backward has made it, and freed, since sums in bfloat16 lose what is small beside them.
class Gradients {
 public:
  Gradients(const std::vector<Parameter>& parameters, bool accumulates);
  ~Gradients();
  Gradients(const Gradients&) = delete;
  Gradients& operator=(const Gradients&) = delete;

  /// One tensor per parameter, undefined where backward has reached none.
  std::vector<at::Tensor> tensors() const;
  /// Ready for the next step. Frees the parameters' own; keeps the sums' memory.
  void clear();

 private:
  std::vector<Parameter> parameters_;
  bool sums_in_float32_;
  std::vector<at::Tensor> sums_;
  std::vector<char> reached_;
};

}  // namespace llmtk::train
