#pragma once
// The schemas of fine-tuning rows, as people's files have them.

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "text/chat_template.h"

namespace llmtk::data {

/// The keys of each are docs/finetuning-data.md's.
enum class Format {
  text,                 ///< {"text"}
  alpaca,               ///< {"instruction", "input", "output"}, with "system" and "history" where there are any
  sharegpt,             ///< {"conversations": [{"from", "value"}, ...]}, with "system" and "tools"
  messages,             ///< {"messages": [{"role", "content"}, ...]}, with "tools", "documents", "chat_template_kwargs"
  prompt_completion,    ///< {"prompt", "completion"}: texts, or lists of messages
  input_output,         ///< {"input", "output"}; also {"source", "target"}
  classification,       ///< {"text", "label"}, with "text_pair" for pairs
  tagging,              ///< {"tokens", "tags"}
  preference,           ///< {"prompt", "chosen", "rejected"}: texts, or lists of messages; the prompt may stand in both
  unpaired_preference,  ///< {"prompt", "completion", "label"}: an answer, and whether it is wanted
};
/// As the config spells it; throws Error(usage).
Format parse_format(const std::string& name);
std::string to_string(Format format);

/// A row's fields by the format's keys.
class Fields {
 public:
  using Json = nlohmann::ordered_json;
  /// columns: the row's own names of some keys. Refers to all three.
  Fields(const Json& row, const std::map<std::string, std::string>& columns, const std::string& where)
      : row_(row), columns_(columns), where_(where) {}

  /// Null where the row has no such key, or null there.
  const Json* find(const std::string& key) const;
  bool has(const std::string& key) const { return find(key) != nullptr; }
  /// Throws Error(data) where it is missing or, for the second, no text.
  const Json& need(const std::string& key) const;
  const std::string& text(const std::string& key) const;
  /// Empty where it is missing.
  std::string text_or_empty(const std::string& key) const;
  const std::string& where() const { return where_; }
  /// As the row has it.
  std::string name_of(const std::string& key) const;
  [[noreturn]] void fail(const std::string& what, const std::string& got = {}, const std::string& expected = {},
                         const std::string& hint = {}) const;

 private:
  const Json& row_;
  const std::map<std::string, std::string>& columns_;
  const std::string& where_;
};

/// The keys that a format knows, the needed ones first.
std::vector<std::string> keys_of(Format format);
/// What the keys of a row say. Throws Error(data) for a row of none of `possible`.
Format detect_format(const Fields& row, const std::vector<Format>& possible);

/// Turns of a chat, and which answers are trained on.
struct Dialogue {
  text::ChatInput chat;
  size_t trained_from = 0;  ///< messages before are context
  /// Alpaca's last instruction and its input, which stand in one message of the chat; where there is an input.
  std::optional<std::pair<std::string, std::string>> instruction_and_input;
};

/// A text and what follows it.
struct Continuation {
  std::string prompt, completion;
};

/// The rows of each format. need_answer: the last message has to be an answer, none may be empty. Throw Error(data)
/// naming the row: what is missing, an unknown role, an empty answer, a chat that begins with an answer.
Dialogue read_alpaca(const Fields& row);
Dialogue read_sharegpt(const Fields& row, bool need_answer);
Dialogue read_messages(const Fields& row, bool need_answer);
/// Whether the prompt is a list of messages.
bool is_conversational(const Fields& row);
Dialogue read_prompt_of_messages(const Fields& row);
/// Of two texts.
Continuation read_prompt_completion(const Fields& row);
Continuation read_input_output(const Fields& row);
/// An answer to a prompt: turns of a chat (trained from where the answer begins), or texts.
struct Answer {
  std::optional<Dialogue> dialogue;
  Continuation texts;  ///< where there is no dialogue
};
struct Preference {
  Answer chosen, rejected;
  std::optional<double> margin;  ///< how much better the chosen one is
};
/// Without "prompt" it is what both answers begin with, as TRL's extract_prompt finds it: whole messages, or a text up
/// to where they part (a space before that belongs to the answers). Throws Error(data) for answers that are equal.
Preference read_preference(const Fields& row);
struct RatedAnswer {
  Answer answer;
  bool wanted = false;
};
RatedAnswer read_unpaired_preference(const Fields& row);
/// Of an alpaca row: instruction and input, each on lines of their own, and the output.
Continuation read_alpaca_pair(const Fields& row);

}  // namespace llmtk::data
