#pragma once
// The schemes by name, and which module gets which: compressed-tensors' presets and its rules of matching.

#include <optional>
#include <regex>
#include <string>
#include <vector>

#include "kernels/integer.h"

namespace llmtk::quant {

/// One way of keeping a matrix.
struct Scheme {
  std::string name;               ///< "W4A16"
  kernels::IntegerFormat format;  ///< of the schemes of integers
  bool nf4 = false;               ///< bitsandbytes' NF4 instead
};

struct SchemeName {
  const char* name;
  const char* help;
};
/// What users may ask for, with what it is.
const std::vector<SchemeName>& scheme_names();
/// group_size: 0: the scheme's own (128 columns for 4 bits, whole rows for 8). Throws Error(usage) for a name that is
/// unknown, and for a group size that the scheme has no use for.
Scheme scheme_named(const std::string& name, int64_t group_size = 0);

/// A name of a module as a config spells it: "model.layers.0.mlp.up_proj", "re:.*mlp\\..*" (for the beginning of a
/// path), or a class, "Linear" or "Embedding".
class Pattern {
 public:
  /// Throws Error(usage) for a regular expression that cannot be read.
  explicit Pattern(const std::string& text);
  bool names(const std::string& path) const;  ///< by name or regular expression
  bool is_class(bool is_table) const { return text_ == (is_table ? "Embedding" : "Linear"); }
  const std::string& text() const { return text_; }
  bool is_regex() const { return regex_.has_value(); }

 private:
  std::string text_;
  std::optional<std::regex> regex_;
};

/// A scheme for the modules that its targets mean.
struct SchemeGroup {
  Scheme scheme;
  std::vector<Pattern> targets;
};

/// The group of a module, as compressed_tensors.utils.match_targets chooses: an exact name before regular expressions
/// (in the order of the alphabet), those before classes; null where none means it, or `ignore` does.
const SchemeGroup* group_of(const std::vector<SchemeGroup>& groups, const std::vector<Pattern>& ignore,
                            const std::string& path, bool is_table);

}  // namespace llmtk::quant
