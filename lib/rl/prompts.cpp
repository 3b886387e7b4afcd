#include "rl/prompts.h"

#include <algorithm>
#include <optional>
#include <span>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "data/files.h"
#include "data/permutation.h"
#include "data/reader.h"
#include "text/chat_template.h"

namespace llmtk::rl {
namespace {

using Json = nlohmann::ordered_json;

class PromptReader {
 public:
  PromptReader(const PromptDataConfig& config, const text::Tokenizer& tokenizer, std::string tokenizer_path,
               int64_t max_length)
      : config_(config), tokenizer_(tokenizer), tokenizer_path_(std::move(tokenizer_path)), max_length_(max_length) {
    for (const auto& [name, value] : config.chat_template_kwargs.items()) variables_[name] = value;
  }

  Prompts run() {
    for (const auto& source : config_.train) read(source);
    if (!template_ && (!config_.chat_template.empty() || !variables_.empty()))
      throw Error(Exit::usage, {.what = "data.chat_template has no effect on prompts that are no messages",
                                .where = config_.train[0].path,
                                .hint = "leave it out"});
    if (out_.dropped > 0)
      log::warn(detail::concat(out_.dropped, " prompts are longer than ", max_length_, " tokens and left out"));
    if (out_.all.empty())
      throw Error(Exit::data, {.what = "no prompts", .where = config_.train[0].path, .expected = R"({"prompt": "..."})"});
    out_.identity = checksum_.hex();
    return std::move(out_);
  }

 private:
  void read(const PromptSourceConfig& source) {
    const auto files = data::find_text_files({source.path});
    data::ReadOptions options;
    options.document = data::DocumentUnit::line;
    data::BlockReader reader(files, options);
    int64_t taken = 0;
    for (data::Block block; reader.next(block);) {
      const auto& file = files[block.begin.file];
      data::ParsedRows parsed = data::parse_rows(block, file, options);
      for (auto& row : parsed.rows) {
        if (source.max_samples > 0 && taken == source.max_samples) return;
        ++taken;
        add(std::move(row.json), file.path.string() + ":" + std::to_string(row.line));
      }
      if (parsed.error) std::rethrow_exception(parsed.error);
    }
  }

  void add(Json row, const std::string& where) {
    Prompt prompt{.row = std::move(row), .where = where};
    const auto found = prompt.row.find(prompt.row.contains("prompt") ? "prompt" : "text");
    const bool spoken = found == prompt.row.end() ? prompt.row.contains("messages") : found->is_array();
    if (spoken) {
      prompt.text = rendered(found == prompt.row.end() ? prompt.row["messages"] : *found, where);
      tokenizer_.encode(prompt.text, prompt.ids);  // special tokens stand in it
    } else {
      if (found == prompt.row.end() || !found->is_string())
        throw Error(Exit::data, {.what = "a row without a prompt",
                                 .where = where,
                                 .expected = R"({"prompt": a text or a list of messages})"});
      prompt.text = found->get<std::string>();
      if (!prompt.text.empty()) tokenizer_.encode(prompt.text, prompt.ids, /*add_special_tokens=*/true);
    }
    if (prompt.ids.empty()) throw Error(Exit::data, {.what = "an empty prompt", .where = where});
    if (static_cast<int64_t>(prompt.ids.size()) > max_length_) {
      if (config_.truncation == "error")
        throw Error(Exit::data, {.what = "the prompt is too long",
                                 .where = where,
                                 .got = std::to_string(prompt.ids.size()) + " tokens",
                                 .expected = "at most " + std::to_string(max_length_),
                                 .hint = "shorten it, lower what responses may have, or set data.truncation to drop"});
      ++out_.dropped;
      return;
    }
    checksum_.update(std::as_bytes(std::span(prompt.ids)));
    const std::string keys = prompt.row.dump(-1, ' ', false, Json::error_handler_t::replace);
    checksum_.update(std::as_bytes(std::span(keys)));
    out_.all.push_back(std::move(prompt));
  }

  std::string rendered(const Json& messages, const std::string& where) {
    text::check_messages(messages, where);
    if (messages.back().value("role", "") == "assistant")
      throw Error(Exit::data, {.what = "the prompt ends with an answer",
                               .where = where,
                               .expected = "the last message is not the assistant's",
                               .hint = "take the answer out: the policy writes it"});
    if (!template_) template_ = text::open_chat_template(tokenizer_path_, config_.chat_template, &tokenizer_);
    text::ChatInput input;
    input.messages = messages;
    input.add_generation_prompt = true;
    input.variables = variables_;
    return template_->render(input, where).text;
  }

  const PromptDataConfig& config_;
  const text::Tokenizer& tokenizer_;
  std::string tokenizer_path_;
  int64_t max_length_;
  std::map<std::string, Json> variables_;
  std::optional<text::ChatTemplate> template_;
  Checksum checksum_;
  Prompts out_;
};

}  // namespace

const Prompt& Prompts::of_episode(int64_t episode, bool shuffle, uint64_t seed) const {
  const auto number = static_cast<uint64_t>(episode), size = static_cast<uint64_t>(all.size());
  if (!shuffle) return all[number % size];
  return all[data::Permutation(size, data::mix(seed ^ data::mix(number / size)))(number % size)];
}

Prompts open_prompts(const PromptDataConfig& config, const text::Tokenizer& tokenizer, const std::string& tokenizer_path,
                     int64_t max_length) {
  const int64_t most = config.max_length > 0 ? std::min(config.max_length, max_length) : max_length;
  return PromptReader(config, tokenizer, tokenizer_path, most).run();
}

}  // namespace llmtk::rl
