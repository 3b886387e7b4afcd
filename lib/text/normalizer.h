#pragma once
// What becomes of a text before it is split into words: the steps that Hugging Face calls normalizers.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/regex.h"
#include "text/unicode.h"

namespace llmtk::text {

/// One step. Immutable.
class NormalizerStep {
 public:
  virtual ~NormalizerStep() = default;
  /// Writes what becomes of `text`, which is not empty, to `out`; false, and `out` left as it may be, where that is the
  /// text itself.
  virtual bool apply(std::string_view text, std::string& out) const = 0;
};

/// Steps one after another. Immutable.
class Normalizer {
 public:
  Normalizer() = default;
  explicit Normalizer(std::vector<std::unique_ptr<NormalizerStep>> steps) : steps_(std::move(steps)) {}

  bool empty() const { return steps_.empty(); }
  /// The text itself where no step changes it, else a view of `buffer`.
  std::string_view apply(std::string_view text, std::string& buffer) const;

 private:
  std::vector<std::unique_ptr<NormalizerStep>> steps_;
};

/// `NFC`, `NFD`, `NFKC`, `NFKD`.
std::unique_ptr<NormalizerStep> make_unicode_form(UnicodeForm form);
/// `Lowercase`: every character by itself.
std::unique_ptr<NormalizerStep> make_lowercase();
/// `StripAccents`: without the combining marks.
std::unique_ptr<NormalizerStep> make_strip_accents();
/// `Nmt`: without the control characters, and blanks for what is white space in effect (zero-width ones too).
std::unique_ptr<NormalizerStep> make_nmt();
/// `Strip`: without the white space at either end.
std::unique_ptr<NormalizerStep> make_strip(bool left, bool right);
/// `Prepend`: `content` before a text that is not empty.
std::unique_ptr<NormalizerStep> make_prepend(std::string content);
/// `Replace`: `content` for every `pattern`, which is not empty.
std::unique_ptr<NormalizerStep> make_replace(std::string pattern, std::string content);
std::unique_ptr<NormalizerStep> make_replace(Regex pattern, std::string content);

/// `text` with `content` for every `pattern`, which is not empty.
std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content);

}  // namespace llmtk::text
