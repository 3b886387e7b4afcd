#include "data/schema.h"

#include <algorithm>

#include "core/error.h"
#include "core/utf8.h"

namespace llmtk::data {
namespace {

using RowJson = nlohmann::ordered_json;

struct FormatEntry {
  Format format;
  const char* name;
  std::vector<std::string> needed, optional;
};

const std::vector<FormatEntry>& formats() {
  static const std::vector<FormatEntry> all = {
      {Format::text, "text", {"text"}, {}},
      {Format::alpaca, "alpaca", {"instruction", "output"}, {"input", "system", "history"}},
      {Format::sharegpt, "sharegpt", {"conversations"}, {"system", "tools"}},
      {Format::messages, "messages", {"messages"}, {"tools", "documents", "chat_template_kwargs"}},
      {Format::prompt_completion, "prompt_completion", {"prompt", "completion"}, {"tools", "chat_template_kwargs"}},
      {Format::input_output, "input_output", {"input", "output"}, {"source", "target"}},
      {Format::classification, "classification", {"text", "label"}, {"text_pair"}},
      {Format::tagging, "tagging", {"tokens", "tags"}, {}},
      {Format::preference, "preference", {"chosen", "rejected"}, {"prompt", "margin", "tools", "chat_template_kwargs"}},
      {Format::unpaired_preference,
       "unpaired_preference",
       {"prompt", "completion", "label"},
       {"tools", "chat_template_kwargs"}},
  };
  return all;
}

const FormatEntry& entry_of(Format format) { return *std::ranges::find(formats(), format, &FormatEntry::format); }

std::string joined_names(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "'" : ", '") + name + "'";
  return text;
}

/// ShareGPT's names of the roles.
constexpr std::pair<const char*, const char*> kShareGptRoles[] = {
    {"human", "user"},          {"user", "user"},       {"gpt", "assistant"},   {"chatgpt", "assistant"},
    {"assistant", "assistant"}, {"bot", "assistant"},   {"model", "assistant"}, {"system", "system"},
    {"tool", "tool"},           {"observation", "tool"}};
constexpr const char* kRoles[] = {"system", "developer", "user", "assistant", "tool"};

bool is_empty_content(const RowJson& message) {
  const auto content = message.find("content");
  if (content == message.end() || content->is_null()) return true;
  if (content->is_string())
    return content->get_ref<const std::string&>().find_first_not_of(" \t\r\n") == std::string::npos;
  return content->is_array() && content->empty();
}

bool calls_tools(const RowJson& message) {
  const auto calls = message.find("tool_calls");
  return calls != message.end() && calls->is_array() && !calls->empty();
}

std::string message_name(size_t i) { return "message " + std::to_string(i + 1); }

void check_roles(const Fields& row, const RowJson& messages, bool need_answer) {
  bool asked = false;
  for (size_t i = 0; i < messages.size(); ++i) {
    const RowJson& message = messages[i];
    const auto role = message.find("role");
    if (role == message.end() || !role->is_string() ||
        std::ranges::find(kRoles, role->get<std::string>()) == std::end(kRoles))
      row.fail(message_name(i) + " has a wrong role", role == message.end() ? "none" : role->dump(),
               "system, developer, user, assistant or tool");
    const auto content = message.find("content");
    if (content != message.end() && !content->is_null() && !content->is_string() && !content->is_array())
      row.fail(message_name(i) + ": 'content'", content->type_name(), "a text");
    if (*role != "assistant") {
      asked = asked || *role == "user" || *role == "tool";
      if (is_empty_content(message) && *role == "user") row.fail(message_name(i) + " is empty", "", "a text");
      continue;
    }
    if (!need_answer) continue;
    if (!asked) row.fail(message_name(i) + " is an answer, but nothing was asked before it", "assistant", "user");
    if (is_empty_content(message) && !calls_tools(message)) row.fail(message_name(i) + " is an empty answer");
  }
  if (need_answer && messages.back()["role"] != "assistant")
    row.fail("the conversation does not end with an answer", messages.back()["role"].dump(), "assistant",
             "leave the last turn out, or train on all of the text (data.train_on: all)");
}

/// A list of objects, or a text that holds one (as ShareGPT files have it).
RowJson read_objects(const Fields& row, const std::string& key) {
  const RowJson* value = row.find(key);
  if (!value) return {};
  RowJson list = *value;
  if (list.is_string()) {
    if (list.get_ref<const std::string&>().empty()) return {};
    list = RowJson::parse(list.get<std::string>(), nullptr, /*allow_exceptions=*/false);
  }
  if (!list.is_array()) row.fail("'" + row.name_of(key) + "'", value->type_name(), "a list of objects");
  return list.empty() ? RowJson() : list;
}

RowJson message_of(const std::string& role, const std::string& content) {
  return {{"role", role}, {"content", content}};
}

void read_extras(const Fields& row, Dialogue& out) {
  out.chat.tools = read_objects(row, "tools");
  if (const RowJson* variables = row.find("chat_template_kwargs")) {
    if (!variables->is_object()) row.fail("'chat_template_kwargs'", variables->type_name(), R"({"name": value})");
    for (const auto& [name, value] : variables->items()) out.chat.variables[name] = value;
  }
}

RowJson list_of_messages(const Fields& row, const std::string& key) {
  const RowJson& messages = row.need(key);
  text::check_messages(messages, row.where());
  return messages;
}

std::string with_input(const std::string& instruction, const std::string& input) {
  return input.empty() ? instruction : instruction + "\n" + input;
}

}  // namespace

Format parse_format(const std::string& name) {
  for (const auto& entry : formats())
    if (name == entry.name) return entry.format;
  throw Error(Exit::usage, {.what = "unknown format of rows", .got = "'" + name + "'"});
}

std::string to_string(Format format) { return entry_of(format).name; }

std::vector<std::string> keys_of(Format format) {
  auto keys = entry_of(format).needed;
  const auto& optional = entry_of(format).optional;
  keys.insert(keys.end(), optional.begin(), optional.end());
  return keys;
}

// --- Fields ---

std::string Fields::name_of(const std::string& key) const {
  const auto found = columns_.find(key);
  return found == columns_.end() ? key : found->second;
}

const RowJson* Fields::find(const std::string& key) const {
  const auto found = row_.find(name_of(key));
  return found == row_.end() || found->is_null() ? nullptr : &*found;
}

void Fields::fail(const std::string& what, const std::string& got, const std::string& expected,
                  const std::string& hint) const {
  throw Error(Exit::data, {.what = what,
                           .where = where_,
                           .got = std::string(cut_to_width(one_line(got), 80)),
                           .expected = expected,
                           .hint = hint});
}

const RowJson& Fields::need(const std::string& key) const {
  if (const RowJson* found = find(key)) return *found;
  std::vector<std::string> names;
  for (const auto& [name, value] : row_.items())
    if (!value.is_null()) names.push_back(name);
  fail("the row has no field '" + name_of(key) + "'", names.empty() ? "{}" : joined_names(names), "",
       "columns: {" + key + ": NAME} says which of the row's fields it is");
}

const std::string& Fields::text(const std::string& key) const {
  const RowJson& value = need(key);
  if (!value.is_string()) fail("field '" + name_of(key) + "'", value.type_name(), "a text");
  return value.get_ref<const std::string&>();
}

std::string Fields::text_or_empty(const std::string& key) const { return has(key) ? text(key) : std::string(); }

Format detect_format(const Fields& row, const std::vector<Format>& possible) {
  std::string expected;
  for (const Format format : possible) {
    const auto& needed = entry_of(format).needed;
    const auto has = [&](const std::string& key) { return row.has(key); };
    if (std::ranges::all_of(needed, has)) return format;
    if (format == Format::input_output && row.has("source") && row.has("target")) return format;
    expected += (expected.empty() ? "" : ", or ") + joined_names(needed);
  }
  row.fail("the row's fields are of no format that this objective takes", "", expected,
           "the source's format and columns say what the fields are");
}

// --- the formats ---

Dialogue read_alpaca(const Fields& row) {
  Dialogue out;
  RowJson& messages = out.chat.messages;
  if (const std::string system = row.text_or_empty("system"); !system.empty())
    messages.push_back(message_of("system", system));
  if (const RowJson* history = row.find("history")) {
    const auto is_pair = [](const RowJson& turn) {
      return turn.is_array() && turn.size() == 2 && turn[0].is_string() && turn[1].is_string();
    };
    if (!history->is_array() || !std::ranges::all_of(*history, is_pair))
      row.fail("field 'history'", history->dump(), R"([["question", "answer"], ...])");
    for (const RowJson& turn : *history) {
      messages.push_back(message_of("user", turn[0]));
      messages.push_back(message_of("assistant", turn[1]));
    }
  }
  const std::string &instruction = row.text("instruction"), input = row.text_or_empty("input");
  if (instruction.empty() && input.empty()) row.fail("an empty instruction");
  messages.push_back(message_of("user", with_input(instruction, input)));
  messages.push_back(message_of("assistant", row.text("output")));
  if (!input.empty()) out.instruction_and_input = {instruction, input};
  check_roles(row, messages, true);
  return out;
}

Dialogue read_sharegpt(const Fields& row, bool need_answer) {
  Dialogue out;
  RowJson& messages = out.chat.messages;
  if (const std::string system = row.text_or_empty("system"); !system.empty())
    messages.push_back(message_of("system", system));
  const RowJson& turns = row.need("conversations");
  if (!turns.is_array() || turns.empty())
    row.fail("field 'conversations'", turns.dump(), R"([{"from": "human", "value": "..."}, ...])");
  for (size_t i = 0; i < turns.size(); ++i) {
    const RowJson& turn = turns[i];
    const auto is_text = [&](const char* key) {
      return turn.is_object() && turn.contains(key) && turn[key].is_string();
    };
    if (!is_text("from") || !is_text("value"))
      row.fail(message_name(i), turn.dump(), R"({"from": "human", "value": "..."})");
    const std::string from = turn["from"];
    const auto* role =
        std::ranges::find(kShareGptRoles, from, [](const auto& pair) { return std::string(pair.first); });
    if (role == std::end(kShareGptRoles))
      row.fail(message_name(i) + " has a wrong role", "'" + from + "'", "human, gpt, system, tool or observation",
               from == "function_call" ? "write such chats as messages with tool_calls" : "");
    messages.push_back(message_of(role->second, turn["value"]));
  }
  read_extras(row, out);
  check_roles(row, messages, need_answer);
  return out;
}

Dialogue read_messages(const Fields& row, bool need_answer) {
  Dialogue out;
  out.chat.messages = list_of_messages(row, "messages");
  read_extras(row, out);
  out.chat.documents = read_objects(row, "documents");
  check_roles(row, out.chat.messages, need_answer);
  return out;
}

bool is_conversational(const Fields& row) { return row.need("prompt").is_array(); }

Dialogue read_prompt_of_messages(const Fields& row) {
  Dialogue out;
  out.chat.messages = list_of_messages(row, "prompt");
  out.trained_from = out.chat.messages.size();
  for (const RowJson& message : list_of_messages(row, "completion")) out.chat.messages.push_back(message);
  read_extras(row, out);
  check_roles(row, out.chat.messages, true);
  return out;
}

namespace {

/// The messages of `answer` behind those of the prompt.
Answer answer_of_messages(const Fields& row, const RowJson& prompt, const RowJson& answer) {
  Dialogue dialogue;
  dialogue.chat.messages = prompt;
  dialogue.trained_from = prompt.size();
  dialogue.chat.messages.insert(dialogue.chat.messages.end(), answer.begin(), answer.end());
  read_extras(row, dialogue);
  check_roles(row, dialogue.chat.messages, true);
  return {.dialogue = std::move(dialogue)};
}

Answer answer_of_text(const Fields& row, const std::string& key, const std::string& prompt, const std::string& answer) {
  if (answer.empty()) row.fail("an empty answer in '" + row.name_of(key) + "'");
  return {.texts = {prompt, answer}};
}

[[noreturn]] void fail_equal(const Fields& row) {
  row.fail("'" + row.name_of("chosen") + "' and '" + row.name_of("rejected") + "' are the same: nothing is preferred");
}

Preference preference_of_messages(const Fields& row) {
  RowJson prompt = RowJson::array(), chosen = list_of_messages(row, "chosen"),
          rejected = list_of_messages(row, "rejected");
  if (row.has("prompt") && row.need("prompt").is_array()) {
    prompt = list_of_messages(row, "prompt");
  } else {
    // The prompt stands in both; some files have its text beside them, too.
    if (row.has("prompt") && chosen[0].value("content", RowJson()) != row.text("prompt"))
      row.fail("the prompt is a text, but the answers are messages that do not begin with it", row.text("prompt"),
               "a list of messages");
    size_t same = 0;
    while (same < std::min(chosen.size(), rejected.size()) && chosen[same] == rejected[same]) ++same;
    const auto cut = static_cast<std::ptrdiff_t>(same);
    prompt.insert(prompt.end(), chosen.begin(), chosen.begin() + cut);
    chosen.erase(chosen.begin(), chosen.begin() + cut);
    rejected.erase(rejected.begin(), rejected.begin() + cut);
  }
  if (chosen == rejected) fail_equal(row);
  return {answer_of_messages(row, prompt, chosen), answer_of_messages(row, prompt, rejected), std::nullopt};
}

Preference preference_of_texts(const Fields& row) {
  std::string_view chosen = row.text("chosen"), rejected = row.text("rejected");
  if (chosen == rejected) fail_equal(row);
  std::string prompt;
  if (row.has("prompt")) {
    prompt = row.text("prompt");
  } else {
    auto same = static_cast<size_t>(std::ranges::mismatch(chosen, rejected).in1 - chosen.begin());
    const auto inside = [&](size_t at) {
      return at < chosen.size() && (static_cast<unsigned char>(chosen[at]) & 0xC0) == 0x80;
    };
    while (same > 0 && inside(same)) --same;  // a character stays whole
    if (same > 0 && chosen[same - 1] == ' ') --same;
    prompt = chosen.substr(0, same);
    chosen.remove_prefix(same);
    rejected.remove_prefix(same);
  }
  return {answer_of_text(row, "chosen", prompt, std::string(chosen)),
          answer_of_text(row, "rejected", prompt, std::string(rejected)), std::nullopt};
}

/// A number or a truth value that stands as a text, as in a table.
RowJson plain_value(const RowJson& value) {
  if (!value.is_string()) return value;
  RowJson parsed = RowJson::parse(value.get_ref<const std::string&>(), nullptr, /*allow_exceptions=*/false);
  return parsed.is_number() || parsed.is_boolean() ? parsed : value;
}

}  // namespace

Preference read_preference(const Fields& row) {
  Preference out = row.need("chosen").is_array() ? preference_of_messages(row) : preference_of_texts(row);
  if (row.has("margin")) {
    const RowJson margin = plain_value(row.need("margin"));
    if (!margin.is_number()) row.fail("field '" + row.name_of("margin") + "'", margin.dump(), "a number");
    out.margin = margin.get<double>();
  }
  return out;
}

RatedAnswer read_unpaired_preference(const Fields& row) {
  RatedAnswer out;
  const RowJson label = plain_value(row.need("label"));
  if (!label.is_boolean() && label != 0 && label != 1)
    row.fail("field '" + row.name_of("label") + "'", label.dump(), "true or false: whether the answer is wanted");
  out.wanted = label.is_boolean() ? label.get<bool>() : label == 1;
  if (is_conversational(row))
    out.answer = answer_of_messages(row, list_of_messages(row, "prompt"), list_of_messages(row, "completion"));
  else
    out.answer = answer_of_text(row, "completion", row.text("prompt"), row.text("completion"));
  return out;
}

Continuation read_prompt_completion(const Fields& row) {
  Continuation out{row.text("prompt"), row.text("completion")};
  if (out.completion.empty()) row.fail("an empty answer in '" + row.name_of("completion") + "'");
  return out;
}

Continuation read_input_output(const Fields& row) {
  const bool named = !row.has("input") && !row.has("output") && row.has("source");
  const std::string input = named ? "source" : "input", output = named ? "target" : "output";
  Continuation out{row.text(input), row.text(output)};
  if (out.completion.empty()) row.fail("an empty answer in '" + row.name_of(output) + "'");
  return out;
}

Continuation read_alpaca_pair(const Fields& row) {
  const Dialogue dialogue = read_alpaca(row);
  if (dialogue.chat.messages.size() > 2) row.fail("a system text or a history has no place in one input text");
  return {dialogue.chat.messages[0]["content"], dialogue.chat.messages[1]["content"]};
}

}  // namespace llmtk::data
