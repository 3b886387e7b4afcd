#include "generate/text_stream.h"

#include <algorithm>
#include <string_view>

#include "core/error.h"

namespace llmtk::generate {

TextStream::TextStream(const text::Tokenizer& tokenizer, const std::vector<std::string>& stop_strings, Begins begins)
    : tokenizer_(tokenizer), stop_strings_(stop_strings), decoder_(tokenizer, /*skip_special_tokens=*/true, begins) {
  for (const auto& stop : stop_strings) longest_stop_ = std::max(longest_stop_, stop.size());
}

std::string TextStream::push(text::TokenId id) {
  LLMTK_CHECK(!stopped_by_);
  const size_t before = matched_.size();
  append(decoder_.push(id), /*in_text=*/true);
  if (!stop_strings_.empty() && tokenizer_.is_special(id)) append(tokenizer_.id_to_token(id), /*in_text=*/false);
  if (find_stop(before)) return emit_up_to(text_.size());
  return emit_up_to(certain_end());
}

std::string TextStream::finish() {
  if (!stopped_by_) {
    const size_t before = matched_.size();
    append(decoder_.finish(), /*in_text=*/true);
    find_stop(before);
  }
  return emit_up_to(text_.size());
}

void TextStream::append(std::string_view piece, bool in_text) {
  if (piece.empty()) return;
  if (!stop_strings_.empty()) {
    segments_.push_back({matched_.size(), text_.size(), in_text});
    matched_ += piece;
  }
  if (in_text) text_ += piece;
}

/// Looks for the first stop string that ends behind `new_from`, and cuts the text before it.
bool TextStream::find_stop(size_t new_from) {
  size_t first = std::string::npos;
  for (const auto& stop : stop_strings_) {
    const size_t from = new_from >= stop.size() ? new_from - stop.size() + 1 : 0;
    const size_t at = matched_.find(stop, from);
    if (at >= first) continue;
    first = at;
    stopped_by_ = &stop;
  }
  if (!stopped_by_) return false;
  text_.resize(std::max(emitted_, to_text(first)));
  return true;
}

/// The end of the text that no stop string can reach any more.
size_t TextStream::certain_end() const {
  if (matched_.empty()) return text_.size();
  for (size_t held = std::min(longest_stop_ - 1, matched_.size()); held > 0; --held) {
    const auto tail = std::string_view(matched_).substr(matched_.size() - held);
    for (const auto& stop : stop_strings_)
      if (stop.size() > held && std::string_view(stop).starts_with(tail)) return to_text(matched_.size() - held);
  }
  return text_.size();
}

size_t TextStream::to_text(size_t matched_offset) const {
  const auto after = std::upper_bound(segments_.begin(), segments_.end(), matched_offset,
                                      [](size_t offset, const Segment& s) { return offset < s.matched_begin; });
  LLMTK_CHECK(after != segments_.begin());
  const Segment& segment = *std::prev(after);
  return segment.text_begin + (segment.in_text ? matched_offset - segment.matched_begin : 0);
}

std::string TextStream::emit_up_to(size_t end) {
  if (end <= emitted_) return {};
  std::string piece = text_.substr(emitted_, end - emitted_);
  emitted_ = end;
  return piece;
}

}  // namespace llmtk::generate
