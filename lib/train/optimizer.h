#pragma once
// Optimizers over a list of parameters; the arithmetic is in kernels/optimizer.h.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/tensors.h"
#include "train/config.h"
#include "train/parameters.h"

namespace llmtk::train {

/// Updates its parameters from their gradients. bfloat16 parameters have exact float32 masters (kernels::split_master).
class Optimizer {
 public:
  /// `parameters` are bfloat16 or float32, each in its storage until the optimizer's end.
  explicit Optimizer(std::vector<Parameter> parameters);
  virtual ~Optimizer() = default;

  /// One update. `gradients` has one tensor per parameter, float32 or the parameter's dtype; parameters whose gradient
  /// is undefined stay as they are. The gradients are multiplied by `gradient_scale` first (clipping).
  void step(double learning_rate, double gradient_scale, const std::vector<at::Tensor>& gradients);

  const std::vector<Parameter>& parameters() const { return parameters_; }
  int64_t updates() const { return updates_; }

  /// Everything that the next step depends on besides the weights, by name; shares storage with the optimizer.
  io::NamedTensors state() const;
  /// Throws Error(file) that names `where` and the tensor when one is missing, extra, or of another shape or dtype.
  void load_state(const io::NamedTensors& state, const std::string& where);

 protected:
  virtual void update(double learning_rate, double gradient_scale, const std::vector<at::Tensor>& gradients) = 0;
  /// One tensor like each parameter, float32, zero.
  std::vector<at::Tensor> make_slots() const;

  std::vector<Parameter> parameters_;
  std::vector<at::Tensor> extra_;  ///< the masters' low bits; undefined for float32 parameters
  std::vector<std::pair<std::string, std::vector<at::Tensor>>> slots_;
  int64_t updates_ = 0;

  friend std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig&, const torch::nn::Module&,
                                                   std::optional<c10::ScalarType>,
                                                   const std::map<std::string, double>&);
};

/// Parameters that learn at another rate than the run's: for each name its own. Absent ones follow the run.
using LearningRates = std::map<std::string, double>;

/// The optimizer that `config` asks for over the trainable parameters of `module`, whose parameters become `dtype`
/// here: with bfloat16, float32 parameters are split into weights and masters' low bits, so no bit of the start is
/// lost. Without a dtype each stays what it is (an adapter's float32 over a bfloat16 base); trainable bfloat16 ones
/// have masters then, too.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config, const torch::nn::Module& module,
                                          std::optional<c10::ScalarType> dtype,
                                          const LearningRates& learning_rates = {});

/// Bytes that training takes per parameter, by kind; for estimates before a run.
struct MemoryPerParameter {
  int64_t weights, masters, moments, gradients;
  int64_t total() const { return weights + masters + moments + gradients; }
  int64_t saved() const { return weights + masters + moments; }  ///< in a checkpoint
};
MemoryPerParameter memory_per_parameter(const OptimizerConfig& config, c10::ScalarType dtype, bool accumulates);

}  // namespace llmtk::train
