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
  };
  Kind kind = Kind::fuse;
  std::string pattern, content;
  size_t start = 0, stop = 0;
  bool drop_first = false;
};

/// Steps one after another, each on the list of tokens that the one before leaves. Without any, tokens are joined by
/// blanks. Immutable.
class Decoder {
 public:
  Decoder() = default;
  explicit Decoder(std::vector<DecoderStep> steps) : steps_(std::move(steps)) {}

  /// The text of the tokens; bytes that are no UTF-8 may be in it only where byte_level is the one step.
  std::string decode(std::vector<std::string> tokens) const;
  /// What a token stands for without regard to its place: raw bytes, a leading blank kept.
  std::string bytes_of(std::string token) const;

  bool joins_with_blanks() const { return steps_.empty(); }
  /// Whether byte_level or fuse is the one step: then a text is its tokens' bytes in a row.
  bool is_concatenation() const;
  /// Whether a blank at the front of a text is dropped.
  bool drops_leading_blank() const;

 private:
  std::vector<DecoderStep> steps_;
};

}  // namespace llmtk::text
