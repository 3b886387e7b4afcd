#pragma once
// What a process that computes sets up once: threads, memory, the precision of products.

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

namespace llmtk {

/// Sets `threads` compute threads (0: as many as this process may use: affinity and cgroup limits count), installs the
/// allocator, keeps malloc from trimming, and picks the fastest float32 product that is still float32 on this
/// processor. Call at the start of main, before other threads exist.
void setup_runtime(int threads = 0);

/// The rate, in floating-point operations per second, of a large matrix product in this dtype on this device: what
/// "share of the peak" is measured against. Measured once per dtype and device in some 0.3 s, then remembered.
double gemm_peak(c10::ScalarType dtype, c10::Device device = c10::Device(c10::kCPU));

}  // namespace llmtk
