#pragma once
// The text of one continuation, as its tokens come.

#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace llmtk::generate {

/// Puts tokens together into whole characters, and looks for stop strings: across the borders of tokens, and in the
/// spelling of special tokens ("<|im_end|>") although those are not part of the text. What might be the beginning of a
/// stop string is held back until it is known not to be.
///
/// transformers' StopStringCriteria stops at the same token, and leaves the stop string in the text; here the text ends
/// before it, while the ids keep every token that was made.
class TextStream {
 public:
  using Begins = text::StreamDecoder::Begins;
  /// tokenizer and stop_strings must outlive this object.
  TextStream(const text::Tokenizer& tokenizer, const std::vector<std::string>& stop_strings,
             Begins begins = Begins::continuation);

  /// Adds a token. Returns the text that is now certain, perhaps none.
  std::string push(text::TokenId id);
  /// No more tokens come: returns what was held back.
  std::string finish();

  /// The stop string that ended the text, or null.
  const std::string* stopped_by() const { return stopped_by_; }
  /// All text so far; after finish() or a stop string, the whole.
  const std::string& text() const { return text_; }

 private:
  /// Where a token's text begins in matched_ and in text_.
  struct Segment {
    size_t matched_begin, text_begin;
    bool in_text;
  };
  void append(std::string_view piece, bool in_text);
  bool find_stop(size_t new_from);
  size_t certain_end() const;
  size_t to_text(size_t matched_offset) const;
  std::string emit_up_to(size_t end);

  const text::Tokenizer& tokenizer_;
  const std::vector<std::string>& stop_strings_;
  text::StreamDecoder decoder_;
  std::string text_;     // without special tokens
  std::string matched_;  // with them; kept only when there are stop strings
  std::vector<Segment> segments_;
  size_t emitted_ = 0;
  size_t longest_stop_ = 0;
  const std::string* stopped_by_ = nullptr;
};

}  // namespace llmtk::generate
