#pragma once
// What becomes of a text before it is split into words: the steps that Hugging Face calls normalizers.

#include <string>
#include <string_view>
#include <vector>

namespace llmtk::text {

struct NormalizerStep {
  enum class Kind {
    nfc,      ///< Unicode's normalization form C
    prepend,  ///< `content` before a text that is not empty
    replace,  ///< `content` for every `pattern`
  };
  Kind kind = Kind::nfc;
  std::string pattern, content;
};

/// Steps one after another. Immutable.
class Normalizer {
 public:
  Normalizer() = default;
  explicit Normalizer(std::vector<NormalizerStep> steps) : steps_(std::move(steps)) {}

  bool empty() const { return steps_.empty(); }
  /// The text itself where no step changes it, else a view of `buffer`.
  std::string_view apply(std::string_view text, std::string& buffer) const;

 private:
  std::vector<NormalizerStep> steps_;
};

/// `text` with `content` for every `pattern`, which is not empty.
std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content);

}  // namespace llmtk::text
