#include "metrics/entities.h"

#include <string_view>

namespace llmtk::metrics {
namespace {

struct Tag {
  char letter = 'O';
  std::string type = "_";

  bool is(std::string_view letters) const { return letters.find(letter) != letters.npos; }
  bool inside() const { return !is("O."); }
};

Tag parse_tag(const std::string& text) {
  if (text.empty()) return {};
  Tag tag{.letter = text[0]};
  const size_t dash = text.find('-', 1);
  if (std::string type = text.substr(dash == text.npos ? 1 : dash + 1); !type.empty()) tag.type = std::move(type);
  if (dash != 1) return tag;
  switch (tag.letter) {
    case 'M':
      tag.letter = 'I';
      break;
    case 'L':
      tag.letter = 'E';
      break;
    case 'U':
      tag.letter = 'S';
      break;
    default:
      break;
  }
  return tag;
}

bool ends(const Tag& before, const Tag& tag) {
  if (before.is("ES")) return true;
  if (before.is("BI") && tag.is("BSO")) return true;
  return before.inside() && before.type != tag.type;
}

bool begins(const Tag& before, const Tag& tag) {
  if (tag.is("BS")) return true;
  if (before.is("ESO") && tag.is("EI")) return true;
  return tag.inside() && before.type != tag.type;
}

}  // namespace

bool is_chunk_tag(const std::string& tag) {
  constexpr std::string_view kLetters = "BIMESLU";
  return tag == "B" || (tag.size() > 2 && tag[1] == '-' && kLetters.find(tag[0]) != kLetters.npos);
}

std::vector<Entity> entities(const std::vector<std::string>& tags) {
  std::vector<Entity> found;
  Tag before{.type = ""};
  size_t begin = 0;
  for (size_t i = 0; i <= tags.size(); ++i) {
    Tag tag = i < tags.size() ? parse_tag(tags[i]) : Tag{};
    if (ends(before, tag)) found.push_back({before.type, begin, i});
    if (begins(before, tag)) begin = i;
    before = std::move(tag);
  }
  return found;
}

}  // namespace llmtk::metrics
