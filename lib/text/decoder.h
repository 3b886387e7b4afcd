#pragma once
// How tokens become text again: the steps that Hugging Face calls decoders.

#include <string>
#include <string_view>
#include <vector>

namespace llmtk::text {

struct DecoderStep {
  enum class Kind {
    byte_level,     ///< tokens spell bytes (byte_level.h)
    replace,        ///< `content` for every `pattern`
    byte_fallback,  ///< <0xE4> is a byte; bytes in a row that are no UTF-8 become one U+FFFD each
    fuse,           ///< all tokens become one
    strip,          ///< up to `start` times the character `content` off the front, up to `stop` times off the end
    metaspace,      ///< a blank for every `pattern`; those of the first token vanish where `drop_first`
    wordpiece,      ///< a blank before every token but the first and those that begin with `pattern`, which vanishes
  };
  Kind kind = Kind::fuse;
  std::string pattern = {}, content = {};
  size_t start = 0, stop = 0;
  bool drop_first = false;
  bool cleanup = false;  ///< wordpiece: takes the blank out that punctuation and contractions stand behind
};

/// Steps one after another, each on the list of tokens that the one before leaves. Without any, tokens are joined by
/// blanks. Immutable.
class Decoder {
 public:
  Decoder() = default;
  explicit Decoder(std::vector<DecoderStep> steps) : steps_(std::move(steps)) {}

  /// The text of the tokens; bytes that are no UTF-8 may be in it only where byte_level is the one step.
  std::string decode(std::vector<std::string> tokens) const;
  /// What a token stands for, as the first of a text or inside it: raw bytes.
  std::string bytes_of(std::string token, bool first) const;

  bool joins_with_blanks() const { return steps_.empty(); }
  /// Whether byte_level or fuse is the one step: then a text is its tokens' bytes in a row.
  bool is_concatenation() const;

 private:
  std::vector<DecoderStep> steps_;
};

}  // namespace llmtk::text
