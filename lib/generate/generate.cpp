#include "generate/generate.h"

#include <c10/core/GradMode.h>

#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "generate/batch.h"
#include "generate/tasks.h"
#include "nn/causal_model.h"
#include "nn/seq2seq_model.h"

namespace llmtk::generate {
namespace {

using text::TokenId;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::vector<std::vector<TokenId>> encoded(const text::Tokenizer& tokenizer, const std::vector<std::string>& prompts) {
  std::vector<std::vector<TokenId>> ids(prompts.size());
  for (size_t i = 0; i < prompts.size(); ++i) tokenizer.encode(prompts[i], ids[i], /*add_special_tokens=*/true);
  return ids;
}

std::vector<Slot> make_slots(const std::vector<Task>& tasks, int64_t sequences) {
  std::vector<Slot> slots;
  for (const Task& task : tasks)
    for (int64_t s = 0; s < sequences; ++s) {
      Slot& slot = slots.emplace_back(Slot{.task = &task, .row = slots.size()});
      slot.completion.prompt = task.index;
      slot.completion.sequence = s;
    }
  return slots;
}

/// Slots that run together: so many rows, or the beams of so many prompts.
size_t slots_per_batch(const GenerationConfig& config, int64_t batch_size) {
  if (config.num_beams == 1) return static_cast<size_t>(batch_size);
  return static_cast<size_t>(std::max<int64_t>(1, batch_size / config.num_beams) * config.num_return_sequences);
}

/// Tokens of the prompts that a batch reads: each once, whatever the number of its sequences.
int64_t prompt_tokens(std::span<const Slot> slots) {
  int64_t tokens = 0;
  const Task* last = nullptr;  // slots of one prompt stand together
  for (const Slot& slot : slots)
    if (std::exchange(last, slot.task) != slot.task) tokens += static_cast<int64_t>(slot.task->prompt.size());
  return tokens;
}

/// Tells completions in order: one that is done waits for those before it.
class InOrder {
 public:
  InOrder(std::span<Slot> slots, const GenerateOptions& options, Timings& timings)
      : slots_(slots), options_(options), timings_(timings) {}

  void tell(std::vector<Completion>& completions) {
    for (; next_ < slots_.size() && slots_[next_].done; ++next_) {
      Completion& completion = slots_[next_].completion;
      timings_.prefill_new_tokens += 1;
      timings_.decode_new_tokens += static_cast<int64_t>(completion.ids.size()) - 1;
      if (options_.on_completion) options_.on_completion(completion);
      completions.push_back(std::move(completion));
    }
  }

 private:
  std::span<Slot> slots_;
  const GenerateOptions& options_;
  Timings& timings_;
  size_t next_ = 0;
};

void check_speculation(nn::Model& model, const GenerationConfig& config, const Speculation& speculation) {
  const auto refuse = [](const char* what, std::string got = {}, const char* expected = "") {
    throw Error(Exit::usage, {.what = what, .got = std::move(got), .expected = expected});
  };
  const auto* decoder = dynamic_cast<nn::CausalModel*>(&model);
  if (!decoder) refuse("tokens can be proposed to a decoder alone", model.kind(), nn::CausalModel::kKind);
  if (config.num_beams > 1)
    refuse("tokens cannot be proposed to beams", std::to_string(config.num_beams) + " beams", "1");
  if (decoder->depends_on_length())
    refuse(
        "what this model writes would be another text with proposed tokens: its positions depend on the text's length");
  if (speculation.tokens < 1) refuse("no tokens to propose", std::to_string(speculation.tokens), "at least 1");
  if (speculation.ngram < 1) refuse("no tokens to look up", std::to_string(speculation.ngram), "at least 1");
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

std::vector<Completion> generate(nn::Model& model, const text::Tokenizer& tokenizer,
                                 std::span<const std::vector<TokenId>> prompts, const GenerationConfig& config,
                                 const GenerateOptions& options) {
  config.validate();
  config.check_ids(model.vocab_size());
  if (options.batch_size < 1)
    throw Error(
        Exit::usage,
        {.what = "--batch-size is out of range", .got = std::to_string(options.batch_size), .expected = "at least 1"});
  if (options.speculation) check_speculation(model, config, *options.speculation);
  const c10::NoGradGuard no_gradients;
  const auto decoder = make_decoder(model, config, options);
  const auto tasks = make_tasks(model, prompts, config, options);
  auto slots = make_slots(tasks, config.num_return_sequences);
  Timings timings;
  const Work work{*decoder, tokenizer, config, options, timings};
  InOrder in_order(slots, options, timings);
  std::vector<Completion> completions;
  const auto called = Clock::now();
  const size_t together = slots_per_batch(config, options.batch_size);
  for (size_t begin = 0; begin < slots.size(); begin += together) {
    const auto of_batch = std::span(slots).subspan(begin, std::min(together, slots.size() - begin));
    const auto batch = config.num_beams > 1 ? make_beam_batch(work, of_batch) : make_row_batch(work, of_batch);
    auto start = Clock::now();
    batch->start();
    timings.prefill += seconds_since(start);
    timings.prompt_tokens += prompt_tokens(of_batch);
    if (begin == 0) timings.first_token = seconds_since(called);
    start = Clock::now();
    do in_order.tell(completions);
    while (batch->step());
    timings.decode += seconds_since(start);
  }
  if (options.timings) *options.timings = timings;
  return completions;
}

void check_prompts(const nn::Model& model, const text::Tokenizer& tokenizer, const std::vector<std::string>& prompts,
                   const GenerationConfig& config) {
  config.validate();
  config.check_ids(model.vocab_size());
  make_tasks(model, encoded(tokenizer, prompts), config, {});
}

std::vector<std::string> sample_texts(nn::Model& model, const text::Tokenizer& tokenizer,
                                      const std::vector<std::string>& prompts, const GenerationConfig& config,
                                      const GenerateOptions& options) {
  struct EvalMode {
    explicit EvalMode(nn::Model& model) : model(model), was_training(model.is_training()) { model.eval(); }
    ~EvalMode() { model.train(was_training); }
    nn::Model& model;
    bool was_training;
  } eval_mode(model);
  const bool with_prompt = dynamic_cast<nn::Seq2SeqModel*>(&model) == nullptr;
  std::vector<std::string> texts;
  for (const auto& completion : generate(model, tokenizer, encoded(tokenizer, prompts), config, options))
    texts.push_back((with_prompt ? prompts[completion.prompt - options.first_prompt] : "") + completion.text);
  return texts;
}

}  // namespace llmtk::generate
