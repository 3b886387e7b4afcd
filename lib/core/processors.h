#pragma once
// How many processors there are to use.

namespace llmtk {

/// Processors that this process may run on, 1 or more: its affinity counts, and the cgroup's quota where one is set.
int usable_processors();

}  // namespace llmtk
