#pragma once
// A pass on a CUDA device, captured once and then launched as a whole: what Plan is to a CPU.

#include <c10/core/Device.h>

#include <functional>
#include <memory>

namespace llmtk::kernels {

class CudaGraph {
 public:
  /// Captures what f launches on `device`; nothing of it runs yet. All memory that f takes stays the graph's own. f
  /// must not wait for the device, and must have run before, so that what is made once exists. Throws c10::Error, or
  /// Error(runtime) without CUDA.
  CudaGraph(c10::Device device, const std::function<void()>& f);
  ~CudaGraph();
  CudaGraph(CudaGraph&&) noexcept;
  CudaGraph& operator=(CudaGraph&&) noexcept;

  /// On the current stream.
  void launch() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace llmtk::kernels
