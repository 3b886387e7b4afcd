#pragma once
// Which parameters are trained, and with how much weight decay.

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <string>
#include <utility>
#include <vector>

namespace llmtk::train {

struct Parameter {
  std::string name;   ///< as in the model's files
  at::Tensor tensor;  ///< shares its storage with the module
  double weight_decay = 0;
  double learning_rate_factor = 1;  ///< multiplies the run's learning rate
};

/// The parameters of `module` that want gradients, each once (tied ones under their first name), in the module's order.
/// Decay falls on those with two dimensions or more: matrices and embeddings, as Hugging Face's Trainer has it, and not
/// on biases and norms.
std::vector<Parameter> trainable_parameters(const torch::nn::Module& module, double weight_decay);

/// While it lives, the floating parameters of a module are rounded to a type, as a run will have them; what they were
/// comes back with its end.
class Rounded {
 public:
  Rounded(const torch::nn::Module& module, c10::ScalarType dtype);
  ~Rounded();
  Rounded(const Rounded&) = delete;
  Rounded& operator=(const Rounded&) = delete;

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> before_;  // {parameter, its data}
};

/// The number of elements; with `trainable_only`, of those that want gradients. Tied ones count once.
int64_t count_parameters(const torch::nn::Module& module, bool trainable_only = false);

}  // namespace llmtk::train
