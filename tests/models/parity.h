#pragma once
// What the comparisons with transformers' models share.

#include <ATen/ATen.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "core/device.h"
#include "kernels/optimizer.h"
#include "models/registry.h"
#include "nn/model.h"
#include "test.h"

namespace llmtk {

inline constexpr double kTolerance = 5e-5;  ///< of the reference's largest absolute value

/// Where the reference script has put its models.
inline std::filesystem::path reference_folder() {
  const char* folder = std::getenv("LLMTK_REFERENCE");
  return folder ? folder : "";
}

/// Largest difference over `scale`, or over the reference's largest absolute value; infinite when one is not finite.
inline double difference(const at::Tensor& got, const at::Tensor& expected, double scale = 0) {
  if (got.sizes() != expected.sizes() || !got.isfinite().all().item<bool>()) return INFINITY;
  if (scale == 0) scale = expected.abs().max().item<double>();
  const double error = (got.to(at::kFloat) - expected).abs().max().item<double>();
  return scale > 0 ? error / scale : error;
}

inline void zero_grad(nn::Model& model) {
  for (at::Tensor parameter : model.parameters()) parameter.mutable_grad().reset();
}

/// The folders float16 and bfloat16 below `folder` hold the model's weights rounded; reference["KEY.DTYPE"] is what transformers
/// gives for them in float32, reference[KEY] for the unrounded ones. answers(model) must agree.
template <class M>
void check_half_precision(const std::filesystem::path& folder, const std::map<std::string, at::Tensor>& reference,
                          const std::string& key, const std::function<at::Tensor(std::shared_ptr<M>)>& answers) {
  for (const c10::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
    const std::string stored = (folder / dtype_name(dtype)).string();
    CHECK(models::load<M>(stored, {.map = true})->dtype() == dtype);
    const at::Tensor& expected = reference.at(key + "." + dtype_name(dtype));
    CHECK(difference(answers(models::load<M>(stored, {.dtype = at::kFloat})), expected) < kTolerance);
    CHECK(difference(reference.at(key), expected) > kTolerance);  // rounding is seen
  }
}

/// Calls body(one) with each case of a folder that a reference script made; a case is made of its own folder. There are
/// at least `least` of them.
template <class Case, class Body>
void for_each_case(const std::filesystem::path& folder, int least, Body&& body) {
  int cases = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (!std::filesystem::exists(entry.path() / "reference.safetensors")) continue;
    Case one(entry.path());
    INFO(one.name);
    body(one);
    ++cases;
  }
  CHECK(cases >= least);
}

/// 20 steps of AdamW with the settings of the reference scripts, of what is trained.
inline void train_20_steps(nn::Model& model, const std::function<at::Tensor()>& loss, double eps = 1e-6) {
  std::vector<kernels::AdamWTensor> state;
  std::vector<at::Tensor> parameters = model.parameters();
  std::erase_if(parameters, [](const at::Tensor& parameter) { return !parameter.requires_grad(); });
  for (const at::Tensor& parameter : parameters)
    state.push_back({.param = parameter.detach(),
                     .exp_avg = at::zeros_like(parameter),
                     .exp_avg_sq = at::zeros_like(parameter),
                     .weight_decay = 0.1});
  for (int64_t step = 1; step <= 20; ++step) {
    zero_grad(model);
    loss().backward();
    for (size_t i = 0; i < state.size(); ++i) state[i].grad = parameters[i].grad().contiguous();
    kernels::adamw_step(state, {.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = eps, .step = step});
  }
}

}  // namespace llmtk
