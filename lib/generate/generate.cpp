#include "generate/generate.h"

#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <chrono>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "generate/logits.h"
#include "generate/text_stream.h"
#include "nn/kv_cache.h"

namespace llmtk::generate {
namespace {

using text::TokenId;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// One continuation in the making.
struct Row {
  Row(const text::Tokenizer& tokenizer, const GenerationConfig& config) : text(tokenizer, config.stop_strings) {}

  size_t index = 0;              // in the whole work: what its random stream is made from
  std::vector<TokenId> context;  // prompt and continuation, no padding
  int64_t prompt_tokens = 0;
  int64_t limit = 0;  // new tokens allowed
  Completion completion;
  TextStream text;
  bool done = false;

  int64_t new_tokens() const { return static_cast<int64_t>(context.size()) - prompt_tokens; }
};

/// Rows that run together, from prefill to the last token.
class Batch {
 public:
  Batch(nn::CausalModel& model, const GenerationConfig& config, const GenerateOptions& options, size_t first_row,
        std::span<Row> rows)
      : model_(model),
        config_(config),
        options_(options),
        first_row_(first_row),
        rows_(rows),
        chooser_(config),
        device_(model.device()) {}

  /// The prompts, left-padded to one length, through the model (a prompt with several sequences once); every row's
  /// first token.
  void prefill() {
    std::vector<int64_t> prompt_of_row;  // rows of one prompt stand together
    std::vector<const Row*> prompts;
    int64_t T = 0, longest = 0;
    for (const Row& row : rows_) {
      if (prompts.empty() || prompts.back()->completion.prompt != row.completion.prompt) prompts.push_back(&row);
      prompt_of_row.push_back(static_cast<int64_t>(prompts.size()) - 1);
      T = std::max(T, row.prompt_tokens);
      longest = std::max(longest, row.limit);
    }
    const int64_t P = prompts.size();
    // Pads hold token 0 at position 0 (transformers: cumsum(mask) - 1, and 0 for the pads); the mask hides them.
    auto ids = at::zeros({P, T}, at::kLong), positions = at::zeros({P, T}, at::kLong);
    auto mask = at::ones({P, T + longest}, at::kBool);
    bool padded = false;
    for (int64_t p = 0; p < P; ++p) {
      const int64_t pad = T - prompts[p]->prompt_tokens;
      for (int64_t t = 0; t < prompts[p]->prompt_tokens; ++t) {
        ids.data_ptr<int64_t>()[p * T + pad + t] = prompts[p]->context[t];
        positions.data_ptr<int64_t>()[p * T + pad + t] = t;
      }
      mask[p].slice(0, 0, pad).fill_(false);
      padded = padded || pad > 0;
    }
    past_ = T;
    if (padded) mask_ = mask.to(device_);  // without padding no mask is needed, and attention is faster without one
    cache_ = model_.make_cache(P, T + longest);
    auto logits = forward(ids, padded ? positions : at::Tensor());  // [P, V]
    alive_.resize(rows_.size());
    std::iota(alive_.begin(), alive_.end(), size_t{0});
    if (P < static_cast<int64_t>(rows_.size())) {
      const auto index = at::tensor(prompt_of_row, at::kLong).to(device_);
      logits = logits.index_select(0, index);
      select_rows(index);
    }
    take(logits);
  }

  /// One token for every row that is not done; false when none is left.
  bool step() {
    drop_finished();
    if (alive_.empty()) return false;
    const int64_t B = alive_.size();
    auto ids = at::empty({B, 1}, at::kLong), positions = at::empty({B, 1}, at::kLong);
    for (int64_t b = 0; b < B; ++b) {
      const Row& row = rows_[alive_[b]];
      ids.data_ptr<int64_t>()[b] = row.context.back();
      positions.data_ptr<int64_t>()[b] = static_cast<int64_t>(row.context.size()) - 1;
    }
    ++past_;
    take(forward(ids, mask_.defined() ? positions : at::Tensor()));
    return true;
  }

 private:
  /// Logits of the last position, float32: [B, V].
  at::Tensor forward(const at::Tensor& ids, const at::Tensor& positions) {
    nn::ForwardContext context;
    context.cache = cache_.get();
    if (positions.defined()) context.position_ids = positions.to(device_);
    if (mask_.defined()) context.attention_mask = mask_.slice(1, 0, past_);
    const auto hidden = model_.forward(ids.to(device_), context);  // [B, T, H]
    return model_.logits(hidden.select(1, hidden.size(1) - 1)).to(at::kFloat);
  }

  /// Chooses the next token of every running row from logits [B, V].
  void take(at::Tensor logits) {
    at::Tensor log_sums;  // of the model's own distribution, before anything changes it
    if (options_.logprobs) log_sums = at::logsumexp(logits, -1).cpu();
    std::vector<TokenId> chosen(alive_.size());
    std::vector<float> scores(alive_.size());
    if (chooser_.plain_greedy()) {
      // On the device: one id per row comes back instead of V logits.
      const auto [best, ids] = logits.max(-1);
      const auto best_cpu = best.cpu(), ids_cpu = ids.cpu();
      for (size_t b = 0; b < alive_.size(); ++b) {
        chosen[b] = static_cast<TokenId>(ids_cpu.data_ptr<int64_t>()[b]);
        scores[b] = best_cpu.data_ptr<float>()[b];
        if (!std::isfinite(scores[b])) logits_not_finite(scores[b]);
      }
    } else {
      logits = logits.cpu().contiguous();
      const auto V = static_cast<size_t>(logits.size(1));
      for (size_t b = 0; b < alive_.size(); ++b) {
        const Row& row = rows_[alive_[b]];
        const auto scores_of_row = std::span(logits.data_ptr<float>() + b * V, V);
        if (options_.logprobs) raw_.assign(scores_of_row.begin(), scores_of_row.end());
        chooser_.process(scores_of_row, row.context, row.new_tokens());
        chosen[b] = chooser_.choose(row.index, row.new_tokens());
        scores[b] = options_.logprobs ? raw_[chosen[b]] : 0.0f;
      }
    }
    for (size_t b = 0; b < alive_.size(); ++b) {
      Row& row = rows_[alive_[b]];
      if (options_.logprobs) row.completion.logprobs.push_back(scores[b] - log_sums.data_ptr<float>()[b]);
      accept(alive_[b], row, chosen[b]);
    }
  }

  void accept(size_t index, Row& row, TokenId id) {
    row.context.push_back(id);
    row.completion.ids.push_back(id);
    std::string piece = row.text.push(id);
    const bool eos = std::ranges::find(config_.eos_token_ids, id) != config_.eos_token_ids.end();
    if (eos || row.text.stopped_by() || row.new_tokens() >= row.limit) {
      row.done = true;
      piece += row.text.finish();
      // finish() may complete a stop string; an eos that also spells one is an eos.
      row.completion.finish_reason = eos                     ? FinishReason::eos
                                     : row.text.stopped_by() ? FinishReason::stop_string
                                                             : FinishReason::length;
      if (row.text.stopped_by()) row.completion.stop_string = *row.text.stopped_by();
      row.completion.text = row.text.text();
    }
    if (options_.on_text && !piece.empty()) options_.on_text(first_row_ + index, piece);
  }

  /// Finished rows leave the batch and its cache, so that they cost nothing more.
  void drop_finished() {
    std::vector<size_t> running;
    std::vector<int64_t> kept;
    for (size_t b = 0; b < alive_.size(); ++b) {
      if (rows_[alive_[b]].done) continue;
      running.push_back(alive_[b]);
      kept.push_back(static_cast<int64_t>(b));
    }
    if (running.size() == alive_.size()) return;
    alive_ = std::move(running);
    if (alive_.empty()) return;
    select_rows(at::tensor(kept, at::kLong).to(device_));
  }

  void select_rows(const at::Tensor& index) {
    cache_->reorder(index);
    if (mask_.defined()) mask_ = mask_.index_select(0, index);
  }

  nn::CausalModel& model_;
  const GenerationConfig& config_;
  const GenerateOptions& options_;
  const size_t first_row_;
  std::span<Row> rows_;
  Chooser chooser_;
  c10::Device device_;
  std::unique_ptr<nn::KVCache> cache_;
  at::Tensor mask_;            // [B, T + longest], or undefined when no row is padded
  int64_t past_ = 0;           // columns of the mask in use: padded prompt and new tokens
  std::vector<size_t> alive_;  // rows still running, in the batch's order
  std::vector<float> raw_;
};

/// How many tokens may follow `prompt`; throws Error(data) naming `where` when there is no room for any.
int64_t room_for(const nn::CausalModel& model, const std::vector<TokenId>& prompt, const GenerationConfig& config,
                 const std::string& where) {
  const auto tokens = static_cast<int64_t>(prompt.size());
  if (tokens >= model.max_positions())
    throw Error(Exit::data, {.what = "the prompt is longer than the model can see",
                             .where = where,
                             .got = std::to_string(tokens) + " tokens",
                             .expected = "at most " + std::to_string(model.max_positions() - 1) +
                                         ", which leaves room for one new token",
                             .hint = "shorten it; the limit is max_position_embeddings (n_positions) in config.json"});
  const int64_t limit = config.new_tokens_limit(tokens);
  if (limit < 1)
    throw Error(Exit::data, {.what = "max_length leaves no room for new tokens",
                             .where = where,
                             .got = std::to_string(tokens) + " tokens in the prompt, max_length " +
                                    std::to_string(*config.max_length),
                             .hint = "raise --max-length, or give --max-new-tokens, which does not count the prompt"});
  for (const TokenId id : prompt)
    if (id < 0 || id >= model.vocab_size())
      throw Error(Exit::data, {.what = "the tokenizer gives an id that the model does not know",
                               .where = where,
                               .got = std::to_string(id),
                               .expected = "less than vocab_size " + std::to_string(model.vocab_size()),
                               .hint = "this tokenizer does not belong to this model"});
  return std::min(limit, model.max_positions() - tokens);
}

std::vector<Row> make_rows(const nn::CausalModel& model, const text::Tokenizer& tokenizer,
                           std::span<const std::vector<TokenId>> prompts, const GenerationConfig& config,
                           const GenerateOptions& options = {}) {
  LLMTK_CHECK(options.places.empty() || options.places.size() == prompts.size(), options.places.size(), " places of ",
              prompts.size(), " prompts");
  std::vector<Row> rows;
  for (size_t p = 0; p < prompts.size(); ++p) {
    const size_t index = options.first_prompt + p;
    const std::string where = options.places.empty() ? "prompt " + std::to_string(index + 1) : options.places[p];
    std::vector<TokenId> prompt = prompts[p];
    if (prompt.empty()) {
      if (config.bos_token_id < 0)
        throw Error(Exit::data, {.what = "the prompt is empty and the model has no token to begin with",
                                 .where = where,
                                 .hint = "write at least one token; or set bos_token_id in generation_config.json"});
      prompt = {config.bos_token_id};
    }
    const int64_t limit = room_for(model, prompt, config, where);
    for (int64_t s = 0; s < config.num_return_sequences; ++s) {
      rows.emplace_back(tokenizer, config);
      Row& row = rows.back();
      row.index = index * config.num_return_sequences + s;
      row.context = prompt;
      row.prompt_tokens = static_cast<int64_t>(prompt.size());
      row.limit = limit;
      row.completion.prompt = index;
      row.completion.sequence = s;
    }
  }
  return rows;
}

std::vector<std::vector<TokenId>> encoded(const text::Tokenizer& tokenizer, const std::vector<std::string>& prompts) {
  std::vector<std::vector<TokenId>> ids(prompts.size());
  for (size_t i = 0; i < prompts.size(); ++i) tokenizer.encode(prompts[i], ids[i], /*add_special_tokens=*/true);
  return ids;
}

}  // namespace

const char* to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::eos:
      return "eos";
    case FinishReason::stop_string:
      return "stop_string";
    case FinishReason::length:
      break;
  }
  return "length";
}

std::vector<Completion> generate(nn::CausalModel& model, const text::Tokenizer& tokenizer,
                                 std::span<const std::vector<TokenId>> prompts, const GenerationConfig& config,
                                 const GenerateOptions& options) {
  config.validate();
  if (options.batch_size < 1)
    throw Error(
        Exit::usage,
        {.what = "--batch-size is out of range", .got = std::to_string(options.batch_size), .expected = "at least 1"});
  const c10::NoGradGuard no_gradients;
  auto rows = make_rows(model, tokenizer, prompts, config, options);
  Timings timings;
  const auto called = Clock::now();
  std::vector<Completion> completions;
  for (size_t begin = 0; begin < rows.size(); begin += options.batch_size) {
    const auto of_batch = std::span(rows).subspan(begin, std::min<size_t>(options.batch_size, rows.size() - begin));
    Batch batch(model, config, options, begin, of_batch);
    const auto complete = [&] {  // in order: a row that is done waits for those before it
      for (size_t i = completions.size() - begin; i < of_batch.size() && of_batch[i].done; ++i) {
        if (options.on_completion) options.on_completion(of_batch[i].completion);
        completions.push_back(std::move(of_batch[i].completion));
      }
    };
    auto start = Clock::now();
    batch.prefill();
    timings.prefill += seconds_since(start);
    if (begin == 0) timings.first_token = seconds_since(called);
    start = Clock::now();
    do complete();
    while (batch.step());
    timings.decode += seconds_since(start);
    for (const Row& row : of_batch) {
      timings.prompt_tokens += row.prompt_tokens;
      timings.prefill_new_tokens += 1;
      timings.decode_new_tokens += row.new_tokens() - 1;
    }
  }
  if (options.timings) *options.timings = timings;
  return completions;
}

void check_prompts(const nn::CausalModel& model, const text::Tokenizer& tokenizer,
                   const std::vector<std::string>& prompts, const GenerationConfig& config) {
  config.validate();
  make_rows(model, tokenizer, encoded(tokenizer, prompts), config);
}

std::vector<std::string> sample_texts(nn::CausalModel& model, const text::Tokenizer& tokenizer,
                                      const std::vector<std::string>& prompts, const GenerationConfig& config,
                                      const GenerateOptions& options) {
  struct EvalMode {
    explicit EvalMode(nn::CausalModel& model) : model(model), was_training(model.is_training()) { model.eval(); }
    ~EvalMode() { model.train(was_training); }
    nn::CausalModel& model;
    bool was_training;
  } eval_mode(model);
  std::vector<std::string> texts;
  for (const auto& completion : generate(model, tokenizer, encoded(tokenizer, prompts), config, options))
    texts.push_back(prompts[completion.prompt - options.first_prompt] + completion.text);
  return texts;
}

}  // namespace llmtk::generate
