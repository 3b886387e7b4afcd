#pragma once
// Named entities that a tag for each word spells.

#include <cstddef>
#include <string>
#include <vector>

namespace llmtk::metrics {

/// Words [begin, end) of a text.
struct Entity {
  std::string type;
  size_t begin, end;
  bool operator==(const Entity&) const = default;
};

/// Whether a tag is of the form B-PER, or is B alone: then tags spell entities.
bool is_chunk_tag(const std::string& tag);

/// The entities that tags spell, as seqeval finds them (its default mode, that of the CoNLL scorer): B and S begin one,
/// E and S end it, and so does another type; I and E that nothing begins do begin one. That is right for IOB1, IOB2,
/// IOE and IOBES, and under other letters for BMES (M is I) and BILOU (L is E, U is S).
std::vector<Entity> entities(const std::vector<std::string>& tags);

}  // namespace llmtk::metrics
