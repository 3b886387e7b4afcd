#include "text/byte_trie.h"

#include <algorithm>

#include "core/error.h"

namespace llmtk::text {

ByteTrie::ByteTrie(std::vector<std::pair<std::string_view, TokenId>> strings) {
  std::ranges::sort(strings);
  /// The strings that share the bytes up to a node.
  struct Range {
    size_t begin, end;
  };
  std::vector<Range> level = {{0, strings.size()}}, next;
  bool at_root = true;
  for (size_t depth = 0; !level.empty(); ++depth) {
    next.clear();
    for (Range range : level) {
      if (!at_root) children_.push_back(static_cast<uint32_t>(bytes_.size()));
      // Those that end here come first.
      while (range.begin < range.end && strings[range.begin].first.size() == depth) ++range.begin;
      while (range.begin < range.end) {
        const char byte = strings[range.begin].first[depth];
        size_t end = range.begin + 1;
        while (end < range.end && strings[end].first[depth] == byte) ++end;
        if (at_root) roots_[static_cast<unsigned char>(byte)] = static_cast<uint32_t>(bytes_.size());
        bytes_.push_back(static_cast<unsigned char>(byte));
        const auto& [string, id] = strings[range.begin];
        ids_.push_back(string.size() == depth + 1 ? id : -1);
        next.push_back({range.begin, end});
        range.begin = end;
      }
    }
    LLMTK_CHECK(bytes_.size() < kNone, "a trie of ", bytes_.size(), " nodes");
    at_root = false;
    level.swap(next);
  }
  children_.push_back(static_cast<uint32_t>(bytes_.size()));
}

}  // namespace llmtk::text
