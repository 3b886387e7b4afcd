#pragma once
// A pass over a model, recorded kernel by kernel and then repeated: what a CUDA graph is to a GPU, for a CPU.
//
// When a model writes token by token, the same kernels run on the same memory each time; only what stands in it
// differs. Asking LibTorch for each of them anew (dispatch, shapes, memory, waking threads) takes as long as the work
// itself in a small model. A plan keeps the kernels with their pointers and runs them in one parallel region, threads
// waiting for each other between kernels without sleeping.
//
//   Recording recording;
//   at::Tensor logits = model.logits(model.forward(ids, context));  // computes, and is recorded
//   std::optional<Plan> plan = recording.finish();
//   ...                                                            // new ids and lengths into the same tensors
//   plan->run();                                                   // logits are the next ones

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace llmtk::kernels {

/// One kernel: f(begin, end) for all of [0, n), in any order, by any thread.
struct PlanStep {
  int64_t n = 0, grain = 1;  ///< pieces smaller than the grain are not worth a thread
  std::function<void(int64_t, int64_t)> f;
};

class Plan {
 public:
  /// Runs every kernel in order, on LibTorch's threads. Not reentrant; allocates nothing.
  void run() const;
  size_t size() const { return steps_.size(); }

 private:
  friend class Recording;
  std::vector<PlanStep> steps_;
  std::vector<at::Tensor> kept_;  // the memory that the steps point to
};

/// While it lives, the kernels that this thread runs are recorded. At most one at a time.
///
/// Only kernels that go through parallel_step() can be. Whatever else computes (an operation of LibTorch's, a kernel
/// without such a form) makes the recording useless: it is refused, and what refused it is remembered. Views and empty
/// tensors are no computation.
class Recording {
 public:
  Recording();
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  /// Nothing where it was refused.
  std::optional<Plan> finish();
  /// The name of the first operation that cannot be repeated; empty: none.
  const std::string& refused_by() const { return refused_by_; }

  /// That of this thread, or null.
  static Recording* current();
  void add(PlanStep step, std::vector<at::Tensor> kept);
  void refuse(const char* operation);

 private:
  Plan plan_;
  std::string refused_by_;
  uint64_t callback_ = 0;  // at::CallbackHandle
};

}  // namespace llmtk::kernels
