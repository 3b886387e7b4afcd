#include "inspect/layers.h"

#include <charconv>

#include "core/error.h"

namespace llmtk {

std::vector<int64_t> choose(const std::string& flag, const std::string& value, int64_t size, const std::string& also) {
  std::vector<int64_t> chosen;
  if (value == "all") {
    for (int64_t i = 0; i < size; ++i) chosen.push_back(i);
    return chosen;
  }
  int64_t number = 0;
  const auto [rest, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || rest != value.data() + value.size() || number < -size || number >= size)
    throw Error(Exit::usage,
                {.what = flag + " is out of range",
                 .got = "'" + value + "'",
                 .expected = "0 to " + std::to_string(size - 1) + ", negative ones from the end, or all" + also});
  return {number < 0 ? number + size : number};
}

}  // namespace llmtk
