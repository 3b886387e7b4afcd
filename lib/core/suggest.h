#pragma once
// "Did you mean ...?"

#include <string>
#include <string_view>
#include <vector>

namespace llmtk {

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
size_t edit_distance(std::string_view a, std::string_view b);

/// The candidate nearest to `word` when it is near enough to be what was meant, else empty. Case, '-' and '_' count
/// little: "lora-alpha" finds "lora_alpha".
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace llmtk
