#include "kernels/plan.h"

#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <immintrin.h>
#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <string_view>

#include "core/error.h"

namespace llmtk::kernels {
namespace {

thread_local Recording* t_recording = nullptr;

/// Operations that move no numbers: views, and memory without content. What is not here computes.
constexpr std::string_view kNoWork[] = {
    "aten::alias",      "aten::as_strided", "aten::chunk",       "aten::contiguous",     "aten::detach",
    "aten::empty",      "aten::empty_like", "aten::expand",      "aten::expand_as",      "aten::flatten",
    "aten::narrow",     "aten::new_empty",  "aten::permute",     "aten::reshape",        "aten::resize_",
    "aten::select",     "aten::slice",      "aten::split",       "aten::squeeze",        "aten::t",
    "aten::to",         "aten::transpose",  "aten::unbind",      "aten::unflatten",      "aten::unsafe_split",
    "aten::unsqueeze",  "aten::view",       "aten::view_as",     "aten::_reshape_alias", "aten::empty_strided",
    "aten::is_nonzero", "aten::size",       "aten::result_type",
};

bool computes(std::string_view operation) { return std::ranges::find(kNoWork, operation) == std::end(kNoWork); }

std::unique_ptr<at::ObserverContext> observe(const at::RecordFunction& function) {
  if (Recording* recording = Recording::current(); recording && computes(function.name()))
    recording->refuse(function.name());
  return nullptr;
}

/// Threads that all arrive before any goes on. They spin: the wait is a few hundred nanoseconds.
class Barrier {
 public:
  void wait(int threads) {
    const int phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == threads - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; phase_.load(std::memory_order_acquire) == phase; ++spins)
      if (spins < kPatience)
        _mm_pause();
      else
        ::sched_yield();  // the one that is waited for may be waiting for this processor
  }

 private:
  static constexpr int kPatience = 4096;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> phase_{0};
};

/// The part of a step that belongs to one of several threads.
void run_part(const PlanStep& step, int thread, int threads) {
  const int64_t sharing = std::clamp<int64_t>(step.n / step.grain, 1, threads);
  if (thread >= sharing) return;
  const int64_t begin = step.n * thread / sharing, end = step.n * (thread + 1) / sharing;
  if (begin < end) step.f(begin, end);
}

}  // namespace

void Plan::run() const {
  if (at::get_num_threads() == 1 || at::in_parallel_region()) {
    for (const PlanStep& step : steps_) step.f(0, step.n);
    return;
  }
  Barrier barrier;
#pragma omp parallel
  {
    const int threads = omp_get_num_threads(), thread = omp_get_thread_num();
    for (const PlanStep& step : steps_) {
      run_part(step, thread, threads);
      barrier.wait(threads);
    }
  }
}

Recording::Recording() {
  LLMTK_CHECK(!t_recording, "a recording is under way");
  t_recording = this;
  callback_ = at::addThreadLocalCallback(at::RecordFunctionCallback(observe).scopes({at::RecordScope::FUNCTION}));
}

Recording::~Recording() {
  at::removeCallback(callback_);
  t_recording = nullptr;
}

Recording* Recording::current() { return t_recording; }

void Recording::add(PlanStep step, std::vector<at::Tensor> kept) {
  plan_.steps_.push_back(std::move(step));
  for (at::Tensor& tensor : kept)
    if (tensor.defined()) plan_.kept_.push_back(std::move(tensor));
}

void Recording::refuse(const char* operation) {
  if (refused_by_.empty()) refused_by_ = operation;
}

std::optional<Plan> Recording::finish() {
  if (!refused_by_.empty()) return std::nullopt;
  return std::move(plan_);
}

}  // namespace llmtk::kernels
