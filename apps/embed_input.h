#pragma once
// The texts that `embed` reads, one after the other: any number of them in constant memory.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tokenize.h"

namespace llmtk {

struct InputText {
  std::string text;
  std::string where;  ///< what errors call it
};

struct EmbedInputOptions {
  std::vector<std::string> texts;  ///< of the command line
  std::vector<std::string> files;  ///< files, folders, patterns; with neither, standard input's lines
  ReadFlags read{.document = "line"};
};

/// A text that is empty, or blank, is a mistake like a broken line: an error, or left out, as --bad-lines says. Blank
/// lines of plain text are no texts.
class TextInput {
 public:
  virtual ~TextInput() = default;
  /// The next text; nullopt at the end. Throws Error(file, data).
  virtual std::optional<InputText> next() = 0;
  /// Warns of what was left out.
  virtual void finish() const = 0;
};
std::unique_ptr<TextInput> open_input(const EmbedInputOptions& options);

}  // namespace llmtk
