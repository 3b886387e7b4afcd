#include "train/optimizer.h"

#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <map>

#include "core/error.h"
#include "kernels/optimizer.h"

namespace llmtk::train {
namespace {

constexpr const char* kUpdates = "updates";
constexpr const char* kExtra = "master_low_bits";

class AdamW final : public Optimizer {
 public:
  AdamW(const OptimizerConfig& config, std::vector<Parameter> parameters)
      : Optimizer(std::move(parameters)), config_(config) {
    slots_ = {{"exp_avg", make_slots()}, {"exp_avg_sq", make_slots()}};
  }

 private:
  void update(double learning_rate, double gradient_scale, const std::vector<at::Tensor>& gradients) override {
    std::vector<kernels::AdamWTensor> tensors;
    tensors.reserve(parameters_.size());
    for (size_t i = 0; i < parameters_.size(); ++i) {
      if (!gradients[i].defined()) continue;
      tensors.push_back({.param = parameters_[i].tensor,
                         .grad = gradients[i],
                         .exp_avg = slots_[0].second[i],
                         .exp_avg_sq = slots_[1].second[i],
                         .extra = extra_[i],
                         .weight_decay = parameters_[i].weight_decay,
                         .lr_scale = parameters_[i].learning_rate_factor});
    }
    kernels::adamw_step(tensors, {.lr = learning_rate,
                                  .beta1 = config_.adam_beta1,
                                  .beta2 = config_.adam_beta2,
                                  .eps = config_.adam_epsilon,
                                  .step = updates_,
                                  .grad_scale = gradient_scale});
  }

  OptimizerConfig config_;
};

class Sgd final : public Optimizer {
 public:
  Sgd(const OptimizerConfig& config, std::vector<Parameter> parameters)
      : Optimizer(std::move(parameters)), config_(config) {
    if (config.momentum > 0) slots_ = {{"momentum", make_slots()}};
  }

 private:
  void update(double learning_rate, double gradient_scale, const std::vector<at::Tensor>& gradients) override {
    std::vector<kernels::SgdTensor> tensors;
    tensors.reserve(parameters_.size());
    for (size_t i = 0; i < parameters_.size(); ++i) {
      if (!gradients[i].defined()) continue;
      tensors.push_back({.param = parameters_[i].tensor,
                         .grad = gradients[i],
                         .momentum = slots_.empty() ? at::Tensor() : slots_[0].second[i],
                         .extra = extra_[i],
                         .weight_decay = parameters_[i].weight_decay,
                         .lr_scale = parameters_[i].learning_rate_factor});
    }
    kernels::sgd_step(tensors, {.lr = learning_rate, .momentum = config_.momentum, .grad_scale = gradient_scale});
  }

  OptimizerConfig config_;
};

}  // namespace

Optimizer::Optimizer(std::vector<Parameter> parameters)
    : parameters_(std::move(parameters)), extra_(parameters_.size()) {}

std::vector<at::Tensor> Optimizer::make_slots() const {
  std::vector<at::Tensor> slots;
  slots.reserve(parameters_.size());
  for (const auto& parameter : parameters_)
    slots.push_back(
        at::zeros_like(parameter.tensor, parameter.tensor.options().dtype(at::kFloat).requires_grad(false)));
  return slots;
}

void Optimizer::step(double learning_rate, double gradient_scale, const std::vector<at::Tensor>& gradients) {
  LLMTK_CHECK(gradients.size() == parameters_.size());
  const torch::autograd::AutoGradMode no_grad(false);
  ++updates_;
  update(learning_rate, gradient_scale, gradients);
}

io::NamedTensors Optimizer::state() const {
  io::NamedTensors state = {{kUpdates, at::tensor({updates_}, at::kLong)}};
  for (const auto& [slot, tensors] : slots_)
    for (size_t i = 0; i < parameters_.size(); ++i) state.emplace_back(slot + "." + parameters_[i].name, tensors[i]);
  for (size_t i = 0; i < parameters_.size(); ++i)
    if (extra_[i].defined()) state.emplace_back(std::string(kExtra) + "." + parameters_[i].name, extra_[i]);
  return state;
}

void Optimizer::load_state(const io::NamedTensors& saved, const std::string& where) {
  const torch::autograd::AutoGradMode no_grad(false);
  const io::NamedTensors own = state();
  std::map<std::string, at::Tensor> left(saved.begin(), saved.end());
  for (const auto& [name, tensor] : own) {
    const auto found = left.find(name);
    if (found == left.end()) throw Error(Exit::file, {.what = "tensor '" + name + "' is missing", .where = where});
    const at::Tensor from = found->second;
    left.erase(found);
    if (from.sizes() != tensor.sizes() || from.scalar_type() != tensor.scalar_type())
      throw Error(Exit::file, {.what = "tensor '" + name + "' does not fit",
                               .where = where,
                               .got = detail::concat(from.scalar_type(), " ", from.sizes()),
                               .expected = detail::concat(tensor.scalar_type(), " ", tensor.sizes())});
    if (name == kUpdates)
      updates_ = from.item<int64_t>();
    else
      tensor.copy_(from);
  }
  if (!left.empty())
    throw Error(Exit::file,
                {.what = "tensor '" + left.begin()->first + "' belongs to another optimizer or model", .where = where});
}

std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config, const torch::nn::Module& module,
                                          std::optional<c10::ScalarType> dtype, const LearningRates& learning_rates) {
  const torch::autograd::AutoGradMode no_grad(false);
  std::vector<Parameter> parameters = trainable_parameters(module, config.weight_decay);
  if (parameters.empty())
    throw Error(Exit::usage, {.what = "nothing to train: every parameter of the model is frozen"});
  for (Parameter& parameter : parameters)
    if (const auto found = learning_rates.find(parameter.name); found != learning_rates.end())
      parameter.learning_rate_factor = found->second / config.learning_rate;
  std::vector<at::Tensor> extra(parameters.size());
  for (size_t i = 0; i < parameters.size(); ++i) {
    at::Tensor& tensor = parameters[i].tensor;
    if (dtype.value_or(tensor.scalar_type()) != at::kBFloat16) continue;
    // One at a time, so that no second copy of the whole model ever stands in memory. A model read from bfloat16
    // files has masters whose low bits are zero.
    auto [weight, low] = kernels::split_master(tensor.to(at::kFloat).contiguous());
    tensor.set_data(weight);
    extra[i] = low;
  }
  for (at::Tensor parameter : module.parameters())
    if (dtype && parameter.scalar_type() != *dtype) parameter.set_data(parameter.to(*dtype));
  std::unique_ptr<Optimizer> optimizer;
  if (config.type == "adamw") optimizer = std::make_unique<AdamW>(config, std::move(parameters));
  if (config.type == "sgd") optimizer = std::make_unique<Sgd>(config, std::move(parameters));
  LLMTK_CHECK(optimizer, "optimizer.type is ", config.type);
  optimizer->extra_ = std::move(extra);
  return optimizer;
}

MemoryPerParameter memory_per_parameter(const OptimizerConfig& config, c10::ScalarType dtype, bool accumulates) {
  const bool half = dtype == at::kBFloat16;
  return {.weights = half ? 2 : 4,
          .masters = half ? 2 : 0,
          .moments = config.type == "adamw" ? 8
                     : config.momentum > 0  ? 4
                                            : 0,
          .gradients = half && !accumulates ? 2 : 4};
}

}  // namespace llmtk::train
