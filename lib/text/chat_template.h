#pragma once
// Conversations to text, with the Jinja template that comes with a model.

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/jinja.h"
#include "text/tokenizer.h"

namespace llmtk::text {

/// What a template is given: the arguments of transformers' apply_chat_template.
struct ChatInput {
  using Json = nlohmann::ordered_json;

  Json messages = Json::array();  ///< [{"role": ..., "content": ...}, ...]
  Json tools, documents;          ///< lists; null: none
  bool add_generation_prompt = false;
  /// Leaves the last message open at its end, so that the model goes on with it.
  bool continue_final_message = false;
  std::string template_name;  ///< of several; empty: tool_use where there are tools, else default
  /// More variables, by name; they win over the special tokens.
  std::map<std::string, Json> variables;
};

/// A conversation from a file: a list of messages, or an object with "messages" and perhaps "tools", "documents" and
/// "chat_template_kwargs"; other keys are left alone. Throws Error(data) naming `where`.
ChatInput parse_chat(std::string_view json, const std::string& where);
/// Throws Error(data) naming `where` unless it is a list of messages: objects, one at least.
void check_messages(const ChatInput::Json& messages, const std::string& where);

/// The texts of special tokens by their names in templates ("bos_token", "eos_token", ...).
using SpecialTokenTexts = std::map<std::string, std::string>;

/// A template as a model's files have it; `where` names it in errors.
struct TemplateSource {
  std::string name, text, where;
};
/// The templates of a model folder: chat_template.jinja with additional_chat_templates/*.jinja, else
/// chat_template.json, else what tokenizer_config.json says. Throws Error(file).
std::vector<TemplateSource> find_template_sources(const std::filesystem::path& folder);

/// A model's templates, most often one. One object serves all threads.
class ChatTemplate {
 public:
  /// Throws Error(file) with line and column.
  ChatTemplate(const std::vector<TemplateSource>& sources, SpecialTokenTexts special_tokens);
  /// A template by itself.
  ChatTemplate(std::string_view source, std::string where, SpecialTokenTexts special_tokens);

  /// Throws Error(data) naming `where` (the conversation's file and line) for messages that cannot be rendered or that
  /// the template refuses, Error(file) naming the template for what goes wrong in it.
  jinja::Rendered render(const ChatInput& input, const std::string& where) const;

  /// Name of each template; one alone is "default".
  std::vector<std::string> names() const;
  const SpecialTokenTexts& special_tokens() const { return special_tokens_; }

 private:
  struct Named {
    jinja::Template parsed;
    bool names_content;  // whether its source speaks of "content", as continuing a message wants
  };
  const Named& choose(const ChatInput& input, const std::string& where) const;

  std::map<std::string, Named> named_;
  SpecialTokenTexts special_tokens_;
};

/// The templates of a model folder; nullopt where there is none. `tokenizer`: where to look for special tokens that the
/// folder's files do not name; may be null. Throws Error(file).
std::optional<ChatTemplate> find_chat_template(const std::filesystem::path& folder, const Tokenizer* tokenizer);
/// Whether such a model has one (a GGUF file, too).
bool holds_chat_template(const std::filesystem::path& model);
/// For a model (a folder, a file in one, or a name in the local Hugging Face cache): the template in `template_file`,
/// else the model's own. Throws Error(file) where there is none.
ChatTemplate open_chat_template(const std::filesystem::path& model, const std::string& template_file,
                                const Tokenizer* tokenizer);

/// What the command line says as name=value, the values in JSON. Throws Error(usage).
std::map<std::string, ChatInput::Json> parse_template_variables(const std::vector<std::string>& settings);

/// The bytes of `text` that each of its ids stands for. Rendered text holds its special tokens already, so the ids are
/// made without adding any. Throws Error(data) naming `where` where the tokens do not spell the text, because a
/// normalizer changed it.
std::vector<jinja::Span> token_spans(const Tokenizer& tokenizer, std::string_view text, const std::vector<TokenId>& ids,
                                     const std::string& where);
/// 1 for every token that holds a part of a span, else 0.
std::vector<int> mask_of_spans(const std::vector<jinja::Span>& tokens, const std::vector<jinja::Span>& spans);

}  // namespace llmtk::text
