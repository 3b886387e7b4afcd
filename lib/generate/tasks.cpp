#include "generate/tasks.h"

#include <algorithm>

#include "core/error.h"
#include "generate/decoder.h"

namespace llmtk::generate {
namespace {

using text::TokenId;

std::vector<TokenId> or_bos(const std::vector<TokenId>& prompt, const GenerationConfig& config,
                            const std::string& where) {
  if (!prompt.empty()) return prompt;
  if (config.bos_token_id < 0)
    throw Error(Exit::data, {.what = "the prompt is empty and the model has no token to begin with",
                             .where = where,
                             .hint = "write at least one token; or set bos_token_id in generation_config.json"});
  return {config.bos_token_id};
}

void check_prompt_ids(const std::vector<TokenId>& prompt, int64_t vocab_size, const std::string& where) {
  for (const TokenId id : prompt)
    if (id < 0 || id >= vocab_size)
      throw Error(Exit::data, {.what = "the tokenizer gives an id that the model does not know",
                               .where = where,
                               .got = std::to_string(id),
                               .expected = "less than vocab_size " + std::to_string(vocab_size),
                               .hint = "this tokenizer does not belong to this model"});
}

/// How many tokens may follow a context of `tokens`.
int64_t room_for(int64_t tokens, int64_t max_context, const GenerationConfig& config, const std::string& where) {
  if (tokens >= max_context)
    throw Error(Exit::data,
                {.what = "the prompt is longer than the model can see",
                 .where = where,
                 .got = std::to_string(tokens) + " tokens",
                 .expected = "at most " + std::to_string(max_context - 1) + ", which leaves room for one new token",
                 .hint = "shorten it; the limit is max_position_embeddings (n_positions) in config.json"});
  const int64_t limit = config.new_tokens_limit(tokens);
  if (limit < 1)
    throw Error(Exit::data, {.what = "max_length leaves no room for new tokens",
                             .where = where,
                             .got = std::to_string(tokens) + " tokens before them, max_length " +
                                    std::to_string(*config.max_length),
                             .hint = "raise --max-length, or give --max-new-tokens, which does not count the prompt"});
  return std::min(limit, max_context - tokens);
}

}  // namespace

std::vector<Task> make_tasks(const nn::Model& model, std::span<const std::vector<TokenId>> prompts,
                             const GenerationConfig& config, const GenerateOptions& options) {
  LLMTK_CHECK(options.places.empty() || options.places.size() == prompts.size(), options.places.size(), " places of ",
              prompts.size(), " prompts");
  const auto* seq2seq = dynamic_cast<const nn::Seq2SeqModel*>(&model);
  std::vector<Task> tasks;
  for (size_t p = 0; p < prompts.size(); ++p) {
    Task& task = tasks.emplace_back();
    task.index = options.first_prompt + p;
    const std::string where = options.places.empty() ? "prompt " + std::to_string(task.index + 1) : options.places[p];
    task.prompt = or_bos(prompts[p], config, where);
    check_prompt_ids(task.prompt, model.vocab_size(), where);
    task.context = seq2seq ? std::vector{start_token(*seq2seq, config)} : task.prompt;
    if (seq2seq) task.begins = text::StreamDecoder::Begins::text;
    task.limit = room_for(static_cast<int64_t>(task.context.size()), model.max_positions(), config, where);
  }
  return tasks;
}

}  // namespace llmtk::generate
