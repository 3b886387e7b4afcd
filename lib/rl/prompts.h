#pragma once
// What a policy is asked: rows of prompts, tokenized once.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "config/config.h"
#include "text/tokenizer.h"

namespace llmtk::rl {

struct PromptSourceConfig {
  std::string path;
  int64_t max_samples = 0;

  template <class V>
  void fields(V& v) {
    v("path", path,
      "Rows of {\"prompt\": a text or a list of messages} (.jsonl, .json, .csv, .tsv), or lines of text (.txt); a file, a "
      "folder or a pattern",
      config::required, config::not_empty);
    v("max_samples", max_samples, "Its first so many rows; 0: all", config::at_least(0));
  }
};

struct PromptDataConfig {
  std::vector<PromptSourceConfig> train;
  int64_t max_length = 0;
  std::string truncation = "error";
  std::string chat_template;
  nlohmann::ordered_json chat_template_kwargs = nlohmann::ordered_json::object();
  bool shuffle = true;

  template <class V>
  void fields(V& v) {
    v("train", train, "The prompts", config::required, config::not_empty);
    v("max_length", max_length, "Tokens of a prompt at most; 0: what leaves the model room for the longest response",
      config::at_least(0));
    v("truncation", truncation, "Longer prompts: error stops, drop leaves them out (counted and said)",
      config::one_of({"error", "drop"}));
    v("chat_template", chat_template, "A Jinja file for prompts of messages; default: the model's own");
    v("chat_template_kwargs", chat_template_kwargs, "More variables of the chat template, as {enable_thinking: false}");
    v("shuffle", shuffle, "Draw the prompts of each pass in another order");
  }
};

struct Prompt {
  std::vector<text::TokenId> ids;
  std::string text;            ///< as the model reads it
  nlohmann::ordered_json row;  ///< all of its keys
  std::string where;           ///< file:line
};

struct Prompts {
  std::vector<Prompt> all;
  std::string identity;  ///< a checksum of what the model reads, and the rows' other keys
  uint64_t dropped = 0;

  /// Which one the episode (counted over the whole run) gets.
  const Prompt& of_episode(int64_t episode, bool shuffle, uint64_t seed) const;
};

/// tokenizer_path: whose chat template is used for messages. max_length: tokens at most, config.max_length where that
/// is given and less. Throws Error(data) naming file and line for a row without a prompt, with an empty one or one that
/// is too long, and where no row is left; Error(usage) for a chat template without messages.
Prompts open_prompts(const PromptDataConfig& config, const text::Tokenizer& tokenizer, const std::string& tokenizer_path,
                     int64_t max_length);

}  // namespace llmtk::rl
