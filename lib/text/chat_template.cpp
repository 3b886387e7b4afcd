#include "text/chat_template.h"

#include <algorithm>

#include "core/error.h"
#include "core/file.h"
#include "core/utf8.h"
#include "io/gguf.h"
#include "io/json.h"
#include "io/model_folder.h"
#include "text/gguf_read.h"
#include "text/jinja/json.h"
#include "text/jinja/unicode.h"

namespace llmtk::text {
namespace {

using ChatJson = ChatInput::Json;

constexpr const char* kSpecialTokens[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                          "pad_token", "cls_token", "mask_token"};

[[noreturn]] void bad_chat(const std::string& where, const std::string& what, const std::string& expected,
                           const std::string& got = {}) {
  throw Error(Exit::data, {.what = what, .where = where, .got = got, .expected = expected});
}

/// Finds whole numbers that the JSON library would turn into floats.
struct LargeNumbers : nlohmann::json_sax<ChatJson> {
  std::string found;

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(int64_t) override { return true; }
  bool number_unsigned(uint64_t value) override {
    if (value > static_cast<uint64_t>(INT64_MAX)) found = std::to_string(value);
    return found.empty();
  }
  bool number_float(double, const std::string& text) override {
    if (text.find_first_of(".eE") == text.npos) found = text;
    return found.empty();
  }
  bool string(std::string&) override { return true; }
  bool binary(ChatJson::binary_t&) override { return true; }
  bool start_object(size_t) override { return true; }
  bool key(std::string&) override { return true; }
  bool end_object() override { return true; }
  bool start_array(size_t) override { return true; }
  bool end_array() override { return true; }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }
};

}  // namespace

// --- conversations ---

void check_messages(const ChatJson& messages, const std::string& where) {
  const std::string expected = R"([{"role": "user", "content": "..."}, ...])";
  if (!messages.is_array()) bad_chat(where, "the messages are not a list", expected, messages.type_name());
  if (messages.empty()) bad_chat(where, "a conversation without messages", expected);
  for (size_t i = 0; i < messages.size(); ++i)
    if (!messages[i].is_object())
      bad_chat(where, "message " + std::to_string(i + 1) + " is not an object", expected, messages[i].type_name());
}

ChatInput parse_chat(std::string_view json, const std::string& where) {
  ChatJson row;
  try {
    row = io::parse_json<ChatJson>(json, where);
  } catch (const Error& e) {
    throw Error(Exit::data, e.parts());
  }
  LargeNumbers large;
  ChatJson::sax_parse(json, &large);
  if (!large.found.empty())
    bad_chat(where, "a whole number of more than 64 bits", "at most " + std::to_string(INT64_MAX), large.found);
  ChatInput input;
  if (!row.is_object()) {
    input.messages = std::move(row);
  } else {
    if (!row.contains("messages"))
      bad_chat(where, "a conversation without messages", R"({"messages": [{"role": ..., "content": ...}, ...]})");
    input.messages = row["messages"];
    for (const auto& [key, member] : {std::pair{"tools", &input.tools}, {"documents", &input.documents}}) {
      if (!row.contains(key) || row[key].is_null()) continue;
      if (!row[key].is_array()) bad_chat(where, std::string("'") + key + "' is not a list", "a list of objects");
      *member = row[key];
    }
    if (row.contains("chat_template_kwargs") && !row["chat_template_kwargs"].is_null()) {
      if (!row["chat_template_kwargs"].is_object())
        bad_chat(where, "'chat_template_kwargs' is not an object", R"({"name": value})");
      for (const auto& [name, value] : row["chat_template_kwargs"].items()) input.variables[name] = value;
    }
  }
  check_messages(input.messages, where);
  return input;
}

// --- rendering ---

ChatTemplate::ChatTemplate(const std::vector<TemplateSource>& sources, SpecialTokenTexts special_tokens)
    : special_tokens_(std::move(special_tokens)) {
  for (const TemplateSource& source : sources)
    named_.insert_or_assign(source.name, Named{jinja::Template(source.text, source.where),
                                               source.text.find("content") != std::string::npos});
}

ChatTemplate::ChatTemplate(std::string_view source, std::string where, SpecialTokenTexts special_tokens)
    : ChatTemplate({{"default", std::string(source), std::move(where)}}, std::move(special_tokens)) {}

std::vector<std::string> ChatTemplate::names() const {
  std::vector<std::string> names;
  for (const auto& [name, parsed] : named_) names.push_back(name);
  return names;
}

const ChatTemplate::Named& ChatTemplate::choose(const ChatInput& input, const std::string& where) const {
  std::string name = input.template_name;
  if (name.empty()) name = !input.tools.is_null() && named_.contains("tool_use") ? "tool_use" : "default";
  if (const auto found = named_.find(name); found != named_.end()) return found->second;
  std::string all;
  for (const std::string& each : names()) all += (all.empty() ? "" : ", ") + each;
  throw Error(Exit::usage, {.what = "the model has no chat template of this name",
                            .where = where,
                            .got = "'" + name + "'",
                            .expected = all});
}

namespace {

constexpr std::string_view kContinueTag = "CONTINUE_FINAL_MESSAGE_TAG ";

[[noreturn]] void cannot_continue(const std::string& where, const std::string& why) {
  throw Error(Exit::data, {.what = "the last message cannot be continued: " + why, .where = where});
}

/// Marks the end of the last message, as transformers does. Returns its text.
std::string mark_final_message(ChatJson& messages, const std::string& where) {
  ChatJson& message = messages.back();
  if (!message.contains("content") || message["content"].is_null()) cannot_continue(where, "it has no content");
  ChatJson& content = message["content"];
  ChatJson* text = content.is_string() ? &content : nullptr;
  if (content.is_array())
    for (auto part = content.rbegin(); !text && part != content.rend(); ++part)
      if (part->is_object() && part->contains("text") && (*part)["text"].is_string()) text = &(*part)["text"];
  if (!text) cannot_continue(where, "its content is no text and has no part with one");
  std::string before = text->get<std::string>();
  *text = before + std::string(kContinueTag);
  return before;
}

/// Ends the text where the mark stands.
void cut_at_mark(jinja::Rendered& rendered, const std::string& final_text, const std::string& where) {
  std::string& text = rendered.text;
  const std::string_view tag = jinja::strip(kContinueTag, true, true);
  const size_t at = text.rfind(tag);
  if (at == std::string::npos || text.find(jinja::strip(final_text, true, true)) == std::string::npos)
    cannot_continue(where, "the template leaves a part of it out");
  const bool spaces_kept = std::string_view(text).substr(at).starts_with(kContinueTag);
  text.resize(at);
  if (!spaces_kept) text.resize(jinja::strip(text, false, true).size());
  for (jinja::Span& span : rendered.generations) {
    span.end = std::min(span.end, text.size());
    span.begin = std::min(span.begin, span.end);
  }
}

}  // namespace

jinja::Rendered ChatTemplate::render(const ChatInput& input, const std::string& where) const {
  check_messages(input.messages, where);
  const Named& chosen = choose(input, where);
  ChatJson messages = input.messages;
  std::string final_text;
  if (input.continue_final_message) {
    if (input.add_generation_prompt)
      throw Error(Exit::usage, {.what = "a message cannot be continued behind a generation prompt",
                                .where = where,
                                .hint = "give one of --continue-final-message and --add-generation-prompt"});
    if (!chosen.names_content) cannot_continue(where, "the template does not speak of 'content'");
    final_text = mark_final_message(messages, where);
  }
  jinja::Dict variables;
  for (const auto& [name, token] : special_tokens_) variables.set(name, jinja::Value(token));
  for (const auto& [name, value] : input.variables) variables.set(name, jinja::from_json(value));
  variables.set("messages", jinja::from_json(messages));
  variables.set("tools", jinja::from_json(input.tools));
  variables.set("documents", jinja::from_json(input.documents));
  variables.set("add_generation_prompt", jinja::Value(input.add_generation_prompt));
  jinja::Rendered rendered;
  try {
    rendered = chosen.parsed.render(variables);
  } catch (const Error& e) {
    if (e.exit() != Exit::data) throw;
    Error::Parts parts = e.parts();  // the messages are at fault: their place first
    parts.hint = "raised at " + parts.where;
    parts.where = where;
    throw Error(Exit::data, parts);
  }
  if (input.continue_final_message) cut_at_mark(rendered, final_text, where);
  return rendered;
}

// --- a model's files ---

namespace {

std::optional<ChatJson> read_if_there(const fs::path& file) {
  if (!fs::exists(file)) return std::nullopt;
  ChatJson json = io::read_json(file);
  if (!json.is_object())
    throw Error(Exit::file, {.what = "not a JSON object", .where = file.string(), .got = json.type_name()});
  return json;
}

/// A token as the config files write it: its text, or an object with "content".
std::optional<std::string> token_text(const ChatJson& json) {
  if (json.is_string()) return json.get<std::string>();
  if (json.is_object() && json.contains("content") && json["content"].is_string())
    return json["content"].get<std::string>();
  return std::nullopt;
}

void read_tokens(const ChatJson& config, SpecialTokenTexts& tokens) {
  for (const char* name : kSpecialTokens) {
    if (!config.contains(name)) continue;
    tokens.erase(name);  // null says that there is none
    if (const auto text = token_text(config[name])) tokens[name] = *text;
  }
}

SpecialTokenTexts tokens_of(const Tokenizer& tokenizer) {
  SpecialTokenTexts tokens;
  const SpecialTokens ids = tokenizer.special_tokens();
  for (const auto& [name, id] :
       {std::pair{"bos_token", ids.bos}, {"eos_token", ids.eos}, {"pad_token", ids.pad}, {"unk_token", ids.unk}})
    if (id >= 0) tokens[name] = tokenizer.id_to_token(id);
  return tokens;
}

std::string template_text(const ChatJson& json, const std::string& where) {
  if (!json.is_string())
    throw Error(Exit::file, {.what = "the chat template is not a string", .where = where, .got = json.type_name()});
  return json.get<std::string>();
}

/// "chat_template" of a config: one template, or a list of named ones.
std::vector<TemplateSource> sources_of_config(const ChatJson& config, const std::string& file) {
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return {};
  const std::string where = file + ": chat_template";
  if (!found->is_array()) return {{"default", template_text(*found, where), where}};
  std::vector<TemplateSource> sources;
  for (const auto& one : *found) {
    if (!one.is_object() || !one.contains("name") || !one["name"].is_string() || !one.contains("template"))
      throw Error(Exit::file, {.what = "a chat template without a name",
                               .where = where,
                               .expected = R"([{"name": "default", "template": "..."}, ...])"});
    const std::string name = one["name"].get<std::string>();
    sources.push_back({name, template_text(one["template"], where), where + "[" + name + "]"});
  }
  return sources;
}

}  // namespace

std::vector<TemplateSource> find_template_sources(const fs::path& folder) {
  std::vector<TemplateSource> sources;
  if (const fs::path file = folder / "chat_template.jinja"; fs::exists(file))
    sources.push_back({"default", read_file(file), file.string()});
  for (const fs::path& path : io::named_template_files(folder))
    sources.push_back({path.stem().string(), read_file(path), path.string()});
  for (const char* name : {"chat_template.json", "tokenizer_config.json"}) {
    if (!sources.empty()) break;
    const fs::path file = folder / name;
    if (const auto config = read_if_there(file)) sources = sources_of_config(*config, file.string());
  }
  return sources;
}

namespace {

SpecialTokenTexts read_special_token_texts(const fs::path& folder, const Tokenizer* tokenizer) {
  SpecialTokenTexts tokens = tokenizer ? tokens_of(*tokenizer) : SpecialTokenTexts{};
  const auto config = read_if_there(folder / "tokenizer_config.json");
  if (config) read_tokens(*config, tokens);
  if (!config || !config->contains("added_tokens_decoder"))  // as transformers: older folders say it there
    if (const auto map = read_if_there(folder / "special_tokens_map.json")) read_tokens(*map, tokens);
  return tokens;
}

}  // namespace

std::optional<ChatTemplate> find_chat_template(const fs::path& folder, const Tokenizer* tokenizer) {
  const auto sources = find_template_sources(folder);
  if (sources.empty()) return std::nullopt;
  return ChatTemplate(sources, read_special_token_texts(folder, tokenizer));
}

namespace {

/// What a GGUF file says of special tokens, and its templates.
std::pair<SpecialTokenTexts, std::vector<TemplateSource>> read_gguf(const fs::path& path) {
  const io::GgufFile file(path);
  SpecialTokenTexts tokens;
  for (const auto& [name, text] : gguf_tokenizer_files(file))
    if (name == "tokenizer_config.json") read_tokens(io::parse_json<ChatJson>(text, path.string()), tokens);
  std::vector<TemplateSource> sources;
  for (auto& [name, text] : gguf_chat_templates(file))
    sources.push_back({name, std::move(text), path.string() + ": " + gguf_template_key(name)});
  return {std::move(tokens), std::move(sources)};
}

}  // namespace

bool holds_chat_template(const fs::path& model) {
  const fs::path folder = fs::exists(model) ? model : io::find_model(model.string());
  if (io::is_gguf_path(folder)) return !read_gguf(folder).second.empty();
  return !find_template_sources(fs::is_regular_file(folder) ? folder.parent_path() : folder).empty();
}

ChatTemplate open_chat_template(const fs::path& model, const std::string& template_file, const Tokenizer* tokenizer) {
  fs::path folder = model.empty() || fs::exists(model) ? model : io::find_model(model.string());
  if (io::is_gguf_path(folder)) {
    auto [tokens, sources] = read_gguf(folder);
    if (!template_file.empty()) return {read_file(template_file), template_file, std::move(tokens)};
    if (!sources.empty()) return {sources, std::move(tokens)};
  }
  if (fs::is_regular_file(folder)) folder = folder.parent_path();
  if (!template_file.empty())
    return {read_file(template_file), template_file,
            model.empty() ? SpecialTokenTexts{} : read_special_token_texts(folder, tokenizer)};
  if (!io::is_gguf_path(model))
    if (auto found = find_chat_template(folder, tokenizer)) return std::move(*found);
  throw Error(Exit::file, {.what = "the model has no chat template",
                           .where = io::is_gguf_path(model) ? model.string() : folder.string(),
                           .expected = "chat_template.jinja, or chat_template in tokenizer_config.json",
                           .hint = "give one with --template FILE; a base model was not trained to chat"});
}

std::map<std::string, ChatJson> parse_template_variables(const std::vector<std::string>& settings) {
  std::map<std::string, ChatJson> variables;
  for (const std::string& setting : settings) {
    const size_t equals = setting.find('=');
    const std::string value = equals == std::string::npos ? "" : setting.substr(equals + 1);
    if (equals == std::string::npos || equals == 0 || !ChatJson::accept(value))
      throw Error(Exit::usage, {.what = "--set takes a name and a JSON value",
                                .got = "'" + setting + "'",
                                .expected = "name=value, as in enable_thinking=false",
                                .hint = "a text stands in quotes: 'date_string=\"26 Jul 2024\"'"});
    const std::string name = setting.substr(0, equals);
    variables[name] = io::parse_json<ChatJson>(value, "--set " + name);
  }
  return variables;
}

// --- tokens of rendered text ---

namespace {

size_t spaces_at(std::string_view text, size_t at) {
  return text.size() - at - jinja::strip(text.substr(at), true, false).size();
}

}  // namespace

std::vector<jinja::Span> token_spans(const Tokenizer& tokenizer, std::string_view text, const std::vector<TokenId>& ids,
                                     const std::string& where) {
  std::vector<jinja::Span> spans;
  size_t at = 0;
  for (const TokenId id : ids) {
    const std::string bytes = tokenizer.token_bytes(id);
    std::string_view spelled = bytes;
    const auto here = [&](size_t place) { return text.substr(place).starts_with(spelled); };
    if (!here(at) && here(at + spaces_at(text, at))) at += spaces_at(text, at);  // a special token took them in
    if (!here(at) && spelled.starts_with(' ')) spelled.remove_prefix(1);         // put before a text by the tokenizer
    if (!here(at))
      throw Error(Exit::data, {.what = "the tokenizer changes the text, so what its tokens stand for cannot be told",
                               .where = where,
                               .got = "'" + printable(bytes) + "' at byte " + std::to_string(at)});
    spans.push_back({at, at + spelled.size()});
    at += spelled.size();
  }
  return spans;
}

std::vector<int> mask_of_spans(const std::vector<jinja::Span>& tokens, const std::vector<jinja::Span>& spans) {
  std::vector<int> mask(tokens.size());
  for (const auto& span : spans)
    for (size_t i = 0; i < tokens.size(); ++i)
      if (tokens[i].begin < span.end && span.begin < tokens[i].end) mask[i] = 1;
  return mask;
}

}  // namespace llmtk::text
