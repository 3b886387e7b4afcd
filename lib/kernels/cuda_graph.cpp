#include "kernels/cuda_graph.h"

#include <atomic>

#include "core/error.h"

#ifdef LLMTK_WITH_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#endif

namespace llmtk::kernels {

#ifdef LLMTK_WITH_CUDA

namespace {

namespace allocator = c10::cuda::CUDACachingAllocator;

/// Of pools that belong to graphs; LibTorch's own begin at 1.
c10::MempoolId_t next_pool() {
  static std::atomic<c10::CaptureId_t> count{c10::CaptureId_t{1} << 40};
  return {0, count++};
}

/// While it lives, memory that is taken on the stream comes from the pool.
class FromPool {
 public:
  FromPool(c10::DeviceIndex device, c10::MempoolId_t pool, cudaStream_t stream) : device_(device), pool_(pool) {
    allocator::beginAllocateToPool(device, pool, [stream](cudaStream_t of) { return of == stream; });
  }
  ~FromPool() { allocator::endAllocateToPool(device_, pool_); }
  FromPool(const FromPool&) = delete;
  FromPool& operator=(const FromPool&) = delete;

 private:
  c10::DeviceIndex device_;
  c10::MempoolId_t pool_;
};

}  // namespace

struct CudaGraph::State {
  c10::DeviceIndex device;
  c10::MempoolId_t pool;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;

  ~State() {
    if (executable) cudaGraphExecDestroy(executable);
    if (graph) cudaGraphDestroy(graph);
    allocator::releasePool(device, pool);
  }
};

CudaGraph::CudaGraph(c10::Device device, const std::function<void()>& f)
    : state_(new State{.device = device.index(), .pool = next_pool()}) {
  const c10::cuda::CUDAGuard on_device(device);
  const c10::cuda::CUDAStream stream = c10::cuda::getStreamFromPool(false, device.index());
  C10_CUDA_CHECK(cudaDeviceSynchronize());
  const c10::cuda::CUDAStreamGuard on_stream(stream);
  const FromPool memory(state_->device, state_->pool, stream.stream());
  C10_CUDA_CHECK(cudaStreamBeginCapture(stream.stream(), cudaStreamCaptureModeThreadLocal));
  try {
    f();
  } catch (...) {
    cudaStreamEndCapture(stream.stream(), &state_->graph);
    cudaGetLastError();
    throw;
  }
  C10_CUDA_CHECK(cudaStreamEndCapture(stream.stream(), &state_->graph));
  C10_CUDA_CHECK(cudaGraphInstantiate(&state_->executable, state_->graph, 0));
}

void CudaGraph::launch() const {
  const c10::cuda::CUDAGuard on_device(c10::Device(c10::kCUDA, state_->device));
  C10_CUDA_CHECK(cudaGraphLaunch(state_->executable, c10::cuda::getCurrentCUDAStream().stream()));
}

#else

struct CudaGraph::State {};

CudaGraph::CudaGraph(c10::Device device, const std::function<void()>&) {
  throw Error(Exit::runtime, {.what = "this program was built without CUDA", .got = device.str()});
}

void CudaGraph::launch() const {}

#endif

CudaGraph::~CudaGraph() = default;
CudaGraph::CudaGraph(CudaGraph&&) noexcept = default;
CudaGraph& CudaGraph::operator=(CudaGraph&&) noexcept = default;

}  // namespace llmtk::kernels
