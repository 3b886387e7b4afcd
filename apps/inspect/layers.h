#pragma once
// Choosing layers and heads on the command line.

#include <cstdint>
#include <string>
#include <vector>

namespace llmtk {

/// "all" or a number; negative ones count from the end, as in Python. Returns the chosen ones. Throws Error(usage)
/// naming the flag; `also` says what else it may be.
std::vector<int64_t> choose(const std::string& flag, const std::string& value, int64_t size,
                            const std::string& also = {});

}  // namespace llmtk
