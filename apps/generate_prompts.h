#pragma once
// Where `generate` finds its prompts.

#include <optional>
#include <string>
#include <vector>

namespace llmtk {

struct Prompt {
  std::string text;
  std::string where;  ///< what errors call it: file and line
  /// The adapters that count for it, as AdapterSwitch::choose() takes them; nothing: those of the command line.
  std::optional<std::vector<std::string>> adapters = {};
};

/// `texts`; where there are none, the lines of the file at `path` (-: standard input), rows of JSON in a .jsonl file;
/// without either the whole of standard input. Throws Error(file, data).
std::vector<Prompt> read_prompts(const std::vector<std::string>& texts, const std::string& path);

/// Throws Error(usage) for a row that chooses adapters, where `when` says that it cannot.
void refuse_adapters(const std::vector<Prompt>& prompts, const std::string& when);

}  // namespace llmtk
