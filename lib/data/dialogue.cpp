#include "data/dialogue.h"

#include <algorithm>

#include "core/error.h"
#include "core/utf8.h"

namespace llmtk::data {
namespace {

using ChatJson = text::ChatInput::Json;
using text::TokenId;
using text::jinja::Span;

constexpr const char* kPreamble =
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.";
constexpr const char* kPreambleWithInput =
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request.";

bool is_answer(const ChatJson& message) { return message.at("role") == "assistant"; }

/// OpenAI's "weight": 0 leaves an answer untrained.
bool is_wanted(const ChatJson& message) {
  const auto weight = message.find("weight");
  return weight == message.end() || !weight->is_number() || *weight != 0;
}

std::vector<TokenSpan> spans_of_mask(const std::vector<int>& mask) {
  std::vector<TokenSpan> spans;
  for (uint32_t t = 0; t < mask.size(); ++t) {
    if (!mask[t]) continue;
    if (spans.empty() || spans.back().end != t) spans.push_back({t, t});
    spans.back().end = t + 1;
  }
  return spans;
}

[[noreturn]] void cannot_tell(const std::string& where, const std::string& why) {
  throw Error(Exit::data, {.what = "which part of the text is the answer cannot be told: " + why,
                           .where = where,
                           .hint = "mark the answers in the template by {% generation %} and {% endgeneration %} "
                                   "(data.chat_template), cut the conversation into several of one answer each, or "
                                   "train on all of it (data.train_on: all)"});
}

size_t common_prefix(std::string_view a, std::string_view b) {
  return static_cast<size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
}

}  // namespace

DialogueEncoder::DialogueEncoder(const text::Tokenizer& tokenizer, const text::ChatTemplate* chat_template,
                                 TrainOn train_on, std::map<std::string, ChatJson> variables)
    : tokenizer_(tokenizer), template_(chat_template), train_on_(train_on), variables_(std::move(variables)) {}

EncodedRow DialogueEncoder::dialogue(const Dialogue& dialogue, const std::string& where) const {
  return template_ ? rendered(dialogue, where) : alpaca(dialogue, where);
}

EncodedRow DialogueEncoder::continuation(const Continuation& pair, const std::string& where) const {
  EncodedRow row{.ids = tokenizer_.prefix()};
  const std::string text = pair.prompt + pair.completion;
  append(row, text, {{pair.prompt.size(), text.size()}}, where);
  append_end(row);
  if (train_on_ == TrainOn::all) row.trained = {{0, static_cast<uint32_t>(row.ids.size())}};
  return row;
}

EncodedRow DialogueEncoder::document(const std::string& text, const std::string&) const {
  EncodedRow row{.ids = tokenizer_.prefix()};
  tokenizer_.encode(text, row.ids);
  if (const TokenId end = tokenizer_.special_tokens().eos; end >= 0 && (row.ids.empty() || row.ids.back() != end))
    row.ids.push_back(end);
  row.trained = {{0, static_cast<uint32_t>(row.ids.size())}};
  return row;
}

// --- with a chat template ---

EncodedRow DialogueEncoder::rendered(const Dialogue& dialogue, const std::string& where) const {
  text::ChatInput input = dialogue.chat;
  for (const auto& [name, value] : variables_) input.variables[name] = value;
  const auto rendered = template_->render(input, where);
  EncodedRow row;
  tokenizer_.encode(rendered.text, row.ids);
  if (train_on_ == TrainOn::all) {
    row.trained = {{0, static_cast<uint32_t>(row.ids.size())}};
    return row;
  }
  if (train_on_ == TrainOn::generation || !rendered.generations.empty()) {
    const auto& messages = input.messages;
    Spans marked = rendered.generations;
    const auto untrained = [&](size_t i) { return i < dialogue.trained_from || !is_wanted(messages[i]); };
    std::vector<bool> wanted;
    for (size_t i = 0; i < messages.size(); ++i)
      if (is_answer(messages[i])) wanted.push_back(!untrained(i));
    if (!marked.empty() && std::ranges::find(wanted, false) != wanted.end()) {
      if (wanted.size() != marked.size())
        cannot_tell(where, "the template marks " + std::to_string(marked.size()) + " parts of " +
                               std::to_string(wanted.size()) + " answers");
      for (size_t i = marked.size(); i-- > 0;)
        if (!wanted[i]) marked.erase(marked.begin() + static_cast<std::ptrdiff_t>(i));
    }
    row.trained = tokens_of(rendered.text, row.ids, marked, where);
    return row;
  }
  row.trained = tokens_of(rendered.text, row.ids, answers(input, dialogue, rendered.text, where), where);
  for (TokenSpan& span : row.trained) drop_blanks(span, row.ids);
  return row;
}

DialogueEncoder::Spans DialogueEncoder::answers(const text::ChatInput& input, const Dialogue& dialogue,
                                                const std::string& text, const std::string& where) const {
  Spans spans;
  for (size_t i = dialogue.trained_from; i < input.messages.size(); ++i)
    if (is_answer(input.messages[i]) && is_wanted(input.messages[i])) spans.push_back(answer(input, i, text, where));
  return spans;
}

Span DialogueEncoder::answer(const text::ChatInput& input, size_t message, const std::string& text,
                             const std::string& where) const {
  const std::string name = "answer " + std::to_string(message + 1);
  const auto render = [&](size_t messages, bool add_generation_prompt) {
    text::ChatInput part = input;
    part.messages = ChatJson(input.messages.begin(), input.messages.begin() + static_cast<std::ptrdiff_t>(messages));
    part.add_generation_prompt = add_generation_prompt;
    return template_->render(part, where).text;
  };
  // Templates may ask for thoughts that the answer at hand lacks; it begins where the two part.
  const std::string asked = render(message, true);
  size_t begin = common_prefix(asked, text);
  if (begin < asked.size()) {
    const std::string before = render(message, false);
    if (!text.starts_with(before) || begin < before.size())
      cannot_tell(where, "the template writes what stands before " + name + " otherwise without it");
  }
  size_t end = text.size();
  if (message + 1 < input.messages.size()) {
    const std::string until = render(message + 1, false);
    if (!text.starts_with(until))
      cannot_tell(where, "the template writes " + name + " otherwise where more messages follow");
    end = until.size();
  }
  if (end <= begin) cannot_tell(where, "the template leaves out " + name);
  return {begin, end};
}

/// What a template puts behind the token that ends an answer (a line feed) is never asked of the model.
void DialogueEncoder::drop_blanks(TokenSpan& span, const std::vector<TokenId>& ids) const {
  uint32_t end = span.end;
  const auto is_blank_token = [&](TokenId id) {
    return !tokenizer_.is_special(id) && tokenizer_.token_bytes(id).find_first_not_of(" \t\r\n") == std::string::npos;
  };
  while (end > span.begin && is_blank_token(ids[end - 1])) --end;
  if (end > span.begin && tokenizer_.is_special(ids[end - 1])) span.end = end;
}

// --- without ---

EncodedRow DialogueEncoder::alpaca(const Dialogue& dialogue, const std::string& where) const {
  const auto fail = [&](const std::string& what, const std::string& got = {}) {
    throw Error(Exit::data,
                {.what = what,
                 .where = where,
                 .got = got,
                 .hint = "the model has no chat template, and Alpaca's form has only questions and answers in "
                         "turn: give a template by data.chat_template"});
  };
  if (!dialogue.chat.tools.is_null() || !dialogue.chat.documents.is_null()) fail("tools and documents need a template");
  const auto& messages = dialogue.chat.messages;
  const auto content = [&](size_t i) {
    const auto found = messages[i].find("content");
    if (found == messages[i].end() || !found->is_string()) fail("message " + std::to_string(i + 1) + " is no text");
    return found->get<std::string>();
  };
  std::string preamble = dialogue.instruction_and_input && messages.size() == 2 ? kPreambleWithInput : kPreamble;
  size_t i = 0;
  if (messages[0]["role"] == "system") preamble = content(i++);
  EncodedRow row{.ids = tokenizer_.prefix()};
  for (bool first = true; i < messages.size(); i += 2, first = false) {
    if (messages[i]["role"] != "user") fail("a turn that is no question", messages[i]["role"].dump());
    std::string instruction = content(i), input;
    const bool last = i + 2 >= messages.size();
    if (last && dialogue.instruction_and_input) std::tie(instruction, input) = *dialogue.instruction_and_input;
    std::string text = (first ? preamble : "") + "\n\n### Instruction:\n" + instruction;
    if (!input.empty()) text += "\n\n### Input:\n" + input;
    text += "\n\n### Response:\n";
    const bool answered = i + 1 < messages.size();
    if (answered && !is_answer(messages[i + 1])) fail("a question without an answer", messages[i + 1]["role"].dump());
    const std::string answer = answered ? content(i + 1) : "";
    Spans spans;
    const bool wanted = answered && i + 1 >= dialogue.trained_from && is_wanted(messages[i + 1]);
    if (wanted) spans.push_back({text.size(), text.size() + answer.size()});
    append(row, text + answer, spans, where);
    if (answered) row.ids.push_back(tokenizer_.special_tokens().eos);
    if (wanted) row.trained.back().end = static_cast<uint32_t>(row.ids.size());
  }
  if (train_on_ == TrainOn::all) row.trained = {{0, static_cast<uint32_t>(row.ids.size())}};
  return row;
}

void DialogueEncoder::append_end(EncodedRow& row) const {
  row.ids.push_back(tokenizer_.special_tokens().eos);
  row.trained.back().end = static_cast<uint32_t>(row.ids.size());
}

void DialogueEncoder::append(EncodedRow& row, const std::string& text, const Spans& spans,
                             const std::string& where) const {
  std::vector<TokenId> ids;
  tokenizer_.encode(text, ids);
  const auto before = static_cast<uint32_t>(row.ids.size());
  for (const auto& [begin, end] : tokens_of(text, ids, spans, where))
    row.trained.push_back({begin + before, end + before});
  row.ids.insert(row.ids.end(), ids.begin(), ids.end());
}

// --- bytes to tokens ---

std::vector<TokenSpan> DialogueEncoder::tokens_of(const std::string& text, const std::vector<TokenId>& ids,
                                                  const Spans& spans, const std::string& where) const {
  std::vector<Span> tokens;
  try {
    tokens = text::token_spans(tokenizer_, text, ids, where);
    return spans_of_mask(text::mask_of_spans(tokens, spans));
  } catch (const Error&) {
    // A normalizer changed the text. Then what stands before a place is tokenized by itself.
  }
  std::vector<TokenId> start;
  const auto tokens_before = [&](size_t bytes) {
    start.clear();
    tokenizer_.encode(std::string_view(text).substr(0, bytes), start);
    if (start.size() > ids.size() || !std::equal(start.begin(), start.end(), ids.begin()))
      cannot_tell(where, "the tokenizer joins what stands at byte " + std::to_string(bytes));
    return static_cast<uint32_t>(start.size());
  };
  std::vector<TokenSpan> found;
  for (const auto& [begin, end] : spans)
    if (const TokenSpan span{tokens_before(begin), tokens_before(end)}; span.begin < span.end) found.push_back(span);
  return found;
}

}  // namespace llmtk::data
