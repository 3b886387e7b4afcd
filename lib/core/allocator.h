#pragma once
// The allocator of CPU tensors: memory in 2 MiB-aligned blocks under transparent huge pages, kept and used again.
//
// LibTorch's own gives every large tensor back to the system and takes it again, page fault by page fault; training
// spends a tenth to a quarter of its time there.

#include <cstdint>

namespace llmtk {

struct AllocatorStatistics {
  uint64_t in_use = 0;  ///< bytes in live large tensors
  uint64_t cached = 0;  ///< bytes held for later
  uint64_t peak = 0;    ///< most bytes ever held (in use and cached)
  uint64_t maps = 0;    ///< times memory was taken from the system
};

/// Makes it LibTorch's CPU allocator for the rest of the process. Call before the first large tensor, once or more
/// often; thread-safe.
void install_cpu_allocator();

/// Gives memory that is held for later back to the system, that of malloc too.
void release_cached();

AllocatorStatistics allocator_statistics();

}  // namespace llmtk
