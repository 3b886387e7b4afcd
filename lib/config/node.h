#pragma once
// A YAML document as a small tree that remembers where everything stood. Files are untrusted: size, depth and the
// number of nodes after aliases are bounded.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.h"

namespace llmtk::config {

struct Place {
  int line = 0, column = 0;  ///< from 1; the column counts characters
  std::string argument;      ///< the override it came from, else empty

  /// "file:12:3", or "argument 'key=value'".
  std::string text(const std::string& file) const;
};

struct Node {
  enum class Kind { null, scalar, list, map, broken };
  struct Entry;

  Kind kind = Kind::null;
  Place place;
  std::string text;     ///< scalar: its value; broken: what is wrong with the YAML of an override
  bool quoted = false;  ///< scalar in quotes, or a block of text
  std::string raw;      ///< an override's value as it was typed
  std::vector<Node> items;
  std::vector<Entry> entries;
  size_t size = 1;  ///< nodes in this tree, long texts counted as several
};

struct Node::Entry {
  std::string key;
  Place place;
  Node value;
};

struct Problem {
  Place place;
  Error::Parts parts;
};

/// Parses one YAML document; an empty one is a null node. Throws Error(usage) at the first fault of the syntax.
/// Duplicate keys do not stop the parse: they are appended to `problems`.
Node parse_yaml(std::string_view text, const std::string& name, std::vector<Problem>& problems);

}  // namespace llmtk::config
