#include "eval/scorer.h"

#include <algorithm>

#include "core/error.h"
#include "core/log.h"
#include "generate/config.h"
#include "generate/decoder.h"
#include "models/registry.h"

namespace llmtk {

using generate::Scored;

Scorer::Scorer(const EvalOptions& options, bool truncate)
    : open_(open_model(options.model)),
      causal_(std::dynamic_pointer_cast<nn::CausalModel>(open_.model)),
      seq2seq_(std::dynamic_pointer_cast<nn::Seq2SeqModel>(open_.model)),
      batch_size_(options.batch_size),
      add_special_tokens_(options.add_special_tokens),
      truncate_(truncate) {
  if (!causal_ && !seq2seq_) models::refuse_kind(*open_.model, "a decoder or an encoder-decoder", options.model.model);
  const auto config = generate::load_config(open_.folder, open_.tokenizer.get());
  bos_ = config.bos_token_id;
  if (seq2seq_) decoder_start_ = generate::start_token(*seq2seq_, config);
  generate::GenerationConfig{.bos_token_id = bos_, .decoder_start_token_id = decoder_start_}.check_ids(
      open_.model->vocab_size());
}

std::vector<text::TokenId> Scorer::tokens(const std::string& text, const std::string& where) const {
  auto ids = encode_text(*open_.tokenizer, text, add_special_tokens_, where);
  check_ids(ids, where);
  return ids;
}

Scored Scorer::continuation(const std::string& prompt, const std::string& continuation, const std::string& where) {
  Scored row;
  if (seq2seq_) {
    row = {.context = tokens(prompt, where), .targets = tokens(continuation, where)};
  } else {
    row = generate::after_prompt(tokens(prompt, where), tokens(prompt + continuation, where));
  }
  if (row.targets.empty()) throw Error(Exit::data, {.what = "nothing to score", .where = where});
  if (row.context.empty()) {
    if (bos_ < 0)
      throw Error(Exit::data,
                  {.what = "the prompt is empty, and the model has no token to begin with", .where = where});
    row.context = {bos_};
  }
  return fitted(std::move(row), where);
}

Scored Scorer::whole(const std::string& text, const std::string& where) {
  if (!causal_)
    throw Error(Exit::usage, {.what = "an encoder-decoder scores completions, not whole texts",
                              .where = where,
                              .expected = R"({"prompt": "...", "completion": "..."})"});
  const auto ids = tokens(text, where);
  if (ids.size() < 2)
    throw Error(Exit::data, {.what = "nothing to score",
                             .where = where,
                             .got = std::to_string(ids.size()) + " tokens",
                             .expected = "at least 2: the first has nothing before it"});
  return fitted({.context = {ids[0]}, .targets = {ids.begin() + 1, ids.end()}}, where);
}

/// `row`, once it is no longer than the model can see. The last target is not read.
Scored Scorer::fitted(Scored row, const std::string& where) {
  const size_t most = static_cast<size_t>(open_.model->max_positions()) + 1;
  const size_t length = row.context.size() + row.targets.size();
  if (length <= most) return row;
  const auto prefix = add_special_tokens_ ? open_.tokenizer->prefix() : std::vector<text::TokenId>{};
  const size_t stay = std::ranges::mismatch(row.context, prefix).in2 == prefix.end() ? prefix.size() : 0;
  const size_t extra = length - most;
  const bool fits = extra + std::max(stay, size_t{1}) <= row.context.size();
  if (!truncate_ || !fits)
    throw Error(Exit::data, {.what = "the row is longer than the model can see",
                             .where = where,
                             .got = std::to_string(length) + " tokens",
                             .expected = "at most " + std::to_string(most),
                             .hint = fits ? "--truncate drops the beginning of such prompts"
                                          : "`llmtk eval perplexity` scores long texts in windows"});
  const auto from = row.context.begin() + static_cast<ptrdiff_t>(stay);
  row.context.erase(from, from + static_cast<ptrdiff_t>(extra));
  ++truncated_;
  return row;
}

void Scorer::check_ids(const std::vector<text::TokenId>& ids, const std::string& where) const {
  for (const auto id : ids)
    if (id < 0 || id >= open_.model->vocab_size())
      throw Error(Exit::data, {.what = "the tokenizer gives an id that the model does not know",
                               .where = where,
                               .got = std::to_string(id),
                               .expected = "less than vocab_size " + std::to_string(open_.model->vocab_size()),
                               .hint = "this tokenizer does not belong to this model"});
}

void Scorer::say_truncated() const {
  if (truncated_ > 0) log::warn(std::to_string(truncated_) + " prompts are too long: their beginning was dropped");
}

std::vector<std::vector<float>> Scorer::score(std::span<const Scored> rows) const {
  return causal_ ? generate::score(*causal_, rows, batch_size_)
                 : generate::score(*seq2seq_, rows, batch_size_, decoder_start_);
}

}  // namespace llmtk
