#include "generate/generate.h"

#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <torch/nn/module.h>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/utf8.h"
#include "small_models.h"
#include "test.h"

using namespace llmtk;
using generate::Completion;
using generate::FinishReason;
using generate::GenerateOptions;
using generate::GenerationConfig;
using Prompts = std::vector<std::vector<text::TokenId>>;

using test::kGpt2;
using test::kLlama;
using test::kVocabulary;
using test::random_model;
using test::words;

namespace {

const Prompts kPrompts = {{5, 6, 7}, {11}, {20, 21, 22, 23, 24, 25, 26, 27, 28}, {11, 12, 13, 14}, {40, 41}};

/// The whole sequence through the model at every step: no cache, no batch, no padding.
std::vector<text::TokenId> without_cache(nn::CausalModel& model, std::vector<text::TokenId> ids, int64_t new_tokens,
                                         std::vector<float>* logprobs = nullptr) {
  const at::NoGradGuard no_grad;
  const size_t prompt = ids.size();
  for (int64_t i = 0; i < new_tokens; ++i) {
    const auto input = at::tensor(std::vector<int64_t>(ids.begin(), ids.end()), at::kLong).unsqueeze(0);
    const auto last = at::log_softmax(model.logits(model.forward(input)).select(1, -1), -1)[0];
    ids.push_back(static_cast<text::TokenId>(last.argmax().item<int64_t>()));
    if (logprobs) logprobs->push_back(last.max().item<float>());
  }
  return {ids.begin() + prompt, ids.end()};
}

std::vector<std::vector<text::TokenId>> ids_of(const std::vector<Completion>& completions) {
  std::vector<std::vector<text::TokenId>> ids;
  for (const auto& completion : completions) ids.push_back(completion.ids);
  return ids;
}

Exit exit_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.exit();
  }
  return Exit::ok;
}

}  // namespace

TEST_CASE("greedy batches with padding and a cache write what each prompt alone gives without either") {
  for (const auto& json : {kGpt2, kLlama}) {
    const auto model = random_model(json);
    const auto tokenizer = words();
    const GenerationConfig config{.max_new_tokens = 20};
    for (const int64_t batch_size : {1, 2, 3, 8}) {
      const auto completions =
          generate::generate(*model, tokenizer, kPrompts, config, {.batch_size = batch_size, .logprobs = true});
      REQUIRE(completions.size() == kPrompts.size());
      for (size_t i = 0; i < kPrompts.size(); ++i) {
        CAPTURE(json["model_type"], batch_size, i);
        std::vector<float> logprobs;
        CHECK(completions[i].ids == without_cache(*model, kPrompts[i], 20, &logprobs));
        CHECK(completions[i].prompt == i);
        CHECK(completions[i].finish_reason == FinishReason::length);
        REQUIRE(completions[i].logprobs.size() == 20);
        for (size_t t = 0; t < 20; ++t) CHECK(std::abs(completions[i].logprobs[t] - logprobs[t]) < 2e-5);
      }
    }
  }
}

TEST_CASE("what is drawn depends on the seed and the prompt's number, not on how the work is cut") {
  const auto model = random_model(kGpt2);
  const auto tokenizer = words();
  GenerationConfig config{
      .max_new_tokens = 12, .do_sample = true, .temperature = 3.0, .top_k = 0, .seed = 1, .num_return_sequences = 3};
  const auto all = ids_of(generate::generate(*model, tokenizer, kPrompts, config, {.batch_size = 15}));
  REQUIRE(all.size() == 15);
  CHECK(all[0] != all[1]);
  for (const int64_t batch_size : {1, 2, 4})
    CHECK(ids_of(generate::generate(*model, tokenizer, kPrompts, config, {.batch_size = batch_size})) == all);
  const auto rest = generate::generate(*model, tokenizer, std::span(kPrompts).subspan(2), config, {.first_prompt = 2});
  CHECK(ids_of(rest) == std::vector(all.begin() + 6, all.end()));
  CHECK(rest[0].prompt == 2);
  CHECK(rest[4].sequence == 1);
  config.seed = 2;
  CHECK(ids_of(generate::generate(*model, tokenizer, kPrompts, config)) != all);
}

TEST_CASE("an eos or a stop string ends its own row only") {
  const auto model = random_model(kLlama);
  const auto tokenizer = words();
  GenerationConfig config{.max_new_tokens = 16};
  const auto free = generate::generate(*model, tokenizer, kPrompts, config);
  const text::TokenId eos = free[2].ids[5];
  config.eos_token_ids = {eos};
  const auto ended = generate::generate(*model, tokenizer, kPrompts, config);
  for (size_t i = 0; i < kPrompts.size(); ++i) {
    auto expected = free[i].ids;
    const auto found = std::find(expected.begin(), expected.end(), eos);
    const bool has_eos = found != expected.end();
    if (has_eos) expected.erase(found + 1, expected.end());
    CHECK(ended[i].ids == expected);
    CHECK(ended[i].finish_reason == (has_eos ? FinishReason::eos : FinishReason::length));
  }
  CHECK(ended[2].finish_reason == FinishReason::eos);

  config.eos_token_ids.clear();
  config.stop_strings = {tokenizer.token_bytes(free[2].ids[3])};
  const auto stopped = generate::generate(*model, tokenizer, kPrompts, config);
  CHECK(stopped[2].finish_reason == FinishReason::stop_string);
  CHECK(stopped[2].stop_string == config.stop_strings[0]);
  CHECK(stopped[2].text.find(config.stop_strings[0]) == std::string::npos);
  CHECK(free[2].text.starts_with(stopped[2].text));
}

TEST_CASE("streamed pieces are whole characters and make up the text") {
  const auto model = random_model(kGpt2);
  const auto tokenizer = words();
  // High temperature over few tokens: bytes of Chinese characters in every order, and special tokens.
  const GenerationConfig config{.max_new_tokens = 30, .do_sample = true, .temperature = 50, .top_k = 0};
  std::vector<std::string> streamed(kPrompts.size());
  size_t pieces = 0, completed = 0;
  GenerateOptions options{.batch_size = 2};
  options.on_text = [&](size_t row, std::string_view piece) {
    CHECK(find_invalid_utf8(piece) == std::string_view::npos);
    streamed.at(row) += piece;
    ++pieces;
  };
  options.on_completion = [&](const Completion& completion) { CHECK(completion.prompt == completed++); };
  const auto completions = generate::generate(*model, tokenizer, kPrompts, config, options);
  for (size_t i = 0; i < kPrompts.size(); ++i) CHECK(completions[i].text == streamed[i]);
  CHECK(pieces > 3 * kPrompts.size());
  CHECK(completed == kPrompts.size());
}

TEST_CASE("a completion is told as soon as it and those before it are done") {
  const auto model = random_model(kLlama);
  const auto tokenizer = words();
  // Rows of 3, 18 and 20 new tokens: the model's length ends the first two.
  const Prompts prompts = {std::vector<text::TokenId>(45, 7), std::vector<text::TokenId>(30, 8), {9}};
  std::vector<size_t> steps_of_last;  // tokens of the longest row when each completion came
  size_t written = 0;
  GenerateOptions options;
  options.on_text = [&](size_t row, std::string_view) { written += row == 2; };
  options.on_completion = [&](const Completion&) { steps_of_last.push_back(written); };
  generate::generate(*model, tokenizer, prompts, {.max_new_tokens = 20}, options);
  REQUIRE(steps_of_last.size() == 3);
  CHECK(steps_of_last[0] <= 4);
  CHECK(steps_of_last[1] > steps_of_last[0]);
  CHECK(steps_of_last[2] > steps_of_last[1]);

  // The short one second: it waits for the first.
  steps_of_last.clear();
  std::vector<size_t> order;
  options.on_text = nullptr;
  options.on_completion = [&](const Completion& completion) { order.push_back(completion.prompt); };
  generate::generate(*model, tokenizer, Prompts{prompts[2], prompts[0], prompts[1]}, {.max_new_tokens = 20}, options);
  CHECK(order == std::vector<size_t>{0, 1, 2});
}

TEST_CASE("an error names the prompt's own place") {
  const auto model = random_model(kGpt2);
  const auto tokenizer = words();
  const auto place = [&](const GenerateOptions& options) {
    try {
      generate::generate(*model, tokenizer, Prompts{{1}, {}}, {}, options);
    } catch (const Error& error) {
      return error.parts().where;
    }
    return std::string();
  };
  CHECK(place({}) == "prompt 2");
  CHECK(place({.places = {"a.txt:1", "a.txt:7"}}) == "a.txt:7");
}

TEST_CASE("the model's length ends a continuation") {
  const auto model = random_model(kGpt2);
  const auto tokenizer = words();
  const Prompts prompts = {std::vector<text::TokenId>(45, 7), {8, 9}};
  const auto completions = generate::generate(*model, tokenizer, prompts, {.max_new_tokens = 10});
  CHECK(completions[0].ids.size() == 3);
  CHECK(completions[0].finish_reason == FinishReason::length);
  CHECK(completions[1].ids == without_cache(*model, prompts[1], 10));
}

TEST_CASE("an empty prompt starts from bos") {
  const auto model = random_model(kGpt2);
  const auto tokenizer = words();
  CHECK(generate::generate(*model, tokenizer, Prompts{{}}, {.max_new_tokens = 5, .bos_token_id = 9})[0].ids ==
        generate::generate(*model, tokenizer, Prompts{{9}}, {.max_new_tokens = 5})[0].ids);
}

TEST_CASE("what cannot be continued says why") {
  const auto model = random_model(kGpt2);
  const auto tokenizer = words();
  const auto run = [&](const Prompts& prompts, const GenerationConfig& config, int64_t batch_size = 8) {
    return exit_of([&] { generate::generate(*model, tokenizer, prompts, config, {.batch_size = batch_size}); });
  };
  CHECK(run({{1}}, {}) == Exit::ok);
  CHECK(run({{}}, {}) == Exit::data);
  CHECK(run({std::vector<text::TokenId>(48, 7)}, {}) == Exit::data);
  CHECK(run({{1, 2, 3}}, {.max_length = 3}) == Exit::data);
  CHECK(run({{1, kVocabulary}}, {}) == Exit::data);
  CHECK(run({{1}}, {.temperature = -1}) == Exit::usage);
  CHECK(run({{1}}, {}, 0) == Exit::usage);
  const at::NoGradGuard no_grad;
  model->parameters().back().fill_(std::numeric_limits<float>::quiet_NaN());
  CHECK(run({{1}}, {}) == Exit::diverged);
  CHECK(run({{1}}, {.do_sample = true}) == Exit::diverged);
}

TEST_CASE("timings count tokens where they were made") {
  const auto model = random_model(kGpt2);
  const auto tokenizer = words();
  generate::Timings timings;
  generate::generate(*model, tokenizer, kPrompts, {.max_new_tokens = 6}, {.batch_size = 2, .timings = &timings});
  CHECK(timings.prompt_tokens == 19);
  CHECK(timings.prefill_new_tokens == 5);
  CHECK(timings.decode_new_tokens == 25);
  CHECK(timings.first_token > 0);
  CHECK(timings.first_token <= timings.prefill);
  // A prompt is read once for all of its sequences in a batch.
  const auto read = [&](generate::GenerationConfig config, int64_t batch_size) {
    config.max_new_tokens = 2;
    config.num_return_sequences = 3;
    generate::generate(*model, tokenizer, kPrompts, config, {.batch_size = batch_size, .timings = &timings});
    CHECK(timings.prefill_new_tokens == 15);
    return timings.prompt_tokens;
  };
  CHECK(read({.do_sample = true}, 15) == 19);
  CHECK(read({.do_sample = true}, 3) == 19);
  CHECK(read({.do_sample = true}, 1) == 3 * 19);
  CHECK(read({.num_beams = 3}, 6) == 19);
}

TEST_CASE("sample_texts gives prompt and continuation and leaves the model in training") {
  const auto model = random_model(kGpt2);
  const auto tokenizer = words();
  model->train();
  const auto texts = generate::sample_texts(*model, tokenizer, {"w", "ww"}, {.max_new_tokens = 3});
  CHECK(texts[1].starts_with("ww"));
  CHECK(texts[1].size() > 2);
  CHECK(model->is_training());
}

TEST_CASE("a text that begins as the last one did is not read again, and goes on the same way") {
  const auto model = random_model(kLlama);
  const auto tokenizer = words();
  const GenerationConfig config{.max_new_tokens = 4};
  generate::Prefix prefix;
  std::vector<text::TokenId> text = {5, 6, 7};
  for (int turn = 0; turn < 4; ++turn) {
    const auto alone = generate::generate(*model, tokenizer, Prompts{text}, config);
    const auto kept = generate::generate(*model, tokenizer, Prompts{text}, config, {.prefix = &prefix});
    CHECK(ids_of(kept) == ids_of(alone));
    CHECK(prefix.cache->length() == static_cast<int64_t>(prefix.ids.size()));
    text.insert(text.end(), kept[0].ids.begin(), kept[0].ids.end());
    text.push_back(8 + turn);
  }
  const Prompts another = {{5, 6, 9, 9}};
  CHECK(ids_of(generate::generate(*model, tokenizer, another, config, {.prefix = &prefix})) ==
        ids_of(generate::generate(*model, tokenizer, another, config)));
}
