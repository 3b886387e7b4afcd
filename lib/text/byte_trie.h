#pragma once
// Strings to find at the front of a text, all of them in one walk.

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "text/vocabulary.h"

namespace llmtk::text {

/// A trie over bytes whose nodes stand level by level: the children of a node are neighbours, sorted by their byte.
/// Made in time linear in the strings' bytes once they are sorted; three arrays of its size are all it takes.
class ByteTrie {
 public:
  ByteTrie() = default;
  /// Strings (none twice, none empty) and what each stands for. The strings are not kept.
  explicit ByteTrie(std::vector<std::pair<std::string_view, TokenId>> strings);

  /// Calls found(length, id) for every string that `text` begins with, the shortest first.
  template <class Found>
  void for_each_prefix(std::string_view text, Found&& found) const {
    if (text.empty()) return;
    uint32_t node = roots_[static_cast<unsigned char>(text[0])];
    for (size_t length = 1; node != kNone; ++length) {
      if (ids_[node] >= 0) found(length, ids_[node]);
      if (length == text.size()) return;
      node = child(node, text[length]);
    }
  }

 private:
  static constexpr uint32_t kNone = 0xFFFFFFFF;

  uint32_t child(uint32_t node, char byte) const {
    uint32_t low = children_[node], high = children_[node + 1];
    constexpr uint32_t kScan = 8;
    while (high - low > kScan) {
      const uint32_t middle = low + (high - low) / 2;
      if (bytes_[middle] <= static_cast<unsigned char>(byte))
        low = middle;
      else
        high = middle;
    }
    for (; low < high; ++low)
      if (bytes_[low] == static_cast<unsigned char>(byte)) return low;
    return kNone;
  }

  std::array<uint32_t, 256> roots_ = no_roots();
  std::vector<unsigned char> bytes_;  // by node: what leads to it
  std::vector<TokenId> ids_;          // -1 where no string ends
  std::vector<uint32_t> children_;    // of node n: the nodes from children_[n] to children_[n + 1]

  static constexpr std::array<uint32_t, 256> no_roots() {
    std::array<uint32_t, 256> roots{};
    roots.fill(kNone);
    return roots;
  }
};

}  // namespace llmtk::text
