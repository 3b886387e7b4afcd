#pragma once
// From tensors to what the kernels' halves take. For the NAME.cpp files only.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "kernels/backend.h"
#include "kernels/plan.h"
#include "kernels/types.h"

#ifdef LLMTK_WITH_CUDA
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace llmtk::kernels {

inline Type type_of(const at::Tensor& x) { return x.scalar_type() == at::kFloat ? Type::float32 : Type::bfloat16; }

/// use_fused, for tensors that are defined, or undefined and left out.
template <class... Tensors>
bool all_fused(const at::Tensor& first, const Tensors&... others) {
  [[maybe_unused]] const auto agrees = [&](const at::Tensor& t) {
    return !t.defined() || (t.scalar_type() == first.scalar_type() && t.device() == first.device());
  };
  return use_fused(first) && (agrees(others) && ...);
}

template <class... Tensors>
bool wants_gradient(const Tensors&... tensors) {
  return at::GradMode::is_enabled() && ((tensors.defined() && tensors.requires_grad()) || ...);
}

/// An argument of an autograd::Function that may be missing: it knows those as optionals, not as undefined tensors, and
/// a missing one takes no place when needs_input_grad counts.
inline std::optional<at::Tensor> optional(const at::Tensor& x) {
  return x.defined() ? std::optional<at::Tensor>(x) : std::nullopt;
}

/// Elements worth waking a thread for: how many steps of `cost` elements make a piece of work.
inline int64_t grain_of(int64_t cost) {
  constexpr int64_t kGrain = 16384;
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(cost, 1));
}

/// f(begin, end) over [0, n) on all threads; `cost` is the number of elements that one step handles.
template <class F>
void parallel_rows(int64_t n, int64_t cost, const F& f) {
  if (Recording* recording = Recording::current()) recording->refuse("a kernel that is not recorded");
  at::parallel_for(0, n, grain_of(cost), f);
}

/// The same of a kernel that can be recorded (plan.h): f holds by value all that it needs, and `kept` the tensors whose
/// memory it points to.
template <class F>
void parallel_step(int64_t n, int64_t cost, const F& f, std::vector<at::Tensor> kept) {
  at::parallel_for(0, n, grain_of(cost), f);
  if (Recording* recording = Recording::current())
    recording->add({.n = n, .grain = grain_of(cost), .f = f}, std::move(kept));
}

inline const void* data(const at::Tensor& x) { return x.defined() ? x.const_data_ptr() : nullptr; }
inline void* mutable_data(const at::Tensor& x) { return x.defined() ? x.mutable_data_ptr() : nullptr; }

#ifdef LLMTK_WITH_CUDA
/// For the length of a scope: the tensor's device is current; stream() is its stream.
class OnDevice {
 public:
  explicit OnDevice(const at::Tensor& x) : guard_(x.device()) {}
  void* stream() const { return c10::cuda::getCurrentCUDAStream().stream(); }

 private:
  c10::cuda::CUDAGuard guard_;
};
#endif

}  // namespace llmtk::kernels
