#pragma once

#include <cstdint>

namespace llmtk::models {

/// Each layer is an object of its own: a hostile number of them would not come to an end.
inline constexpr int64_t kMostLayers = 10'000;

}  // namespace llmtk::models
