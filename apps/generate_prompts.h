#pragma once
// Where `generate` finds its prompts.

#include <string>
#include <vector>

namespace llmtk {

struct Prompt {
  std::string text;
  std::string where;  ///< what errors call it: file and line
};

/// `texts`; where there are none, the lines of the file at `path` (-: standard input), rows of JSON in a .jsonl file;
/// without either the whole of standard input. Throws Error(file, data).
std::vector<Prompt> read_prompts(const std::vector<std::string>& texts, const std::string& path);

}  // namespace llmtk
