#pragma once
// How much memory there is.

#include <cstdint>

namespace llmtk {

/// Bytes that this process can still take before the kernel ends it: what /proc/meminfo calls available, with free swap,
/// or less where a limit of control groups (containers, batch systems) leaves less. UINT64_MAX where nothing says.
uint64_t available_memory_bytes();

}  // namespace llmtk
