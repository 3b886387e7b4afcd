#include "generate/beams.h"

#include <ATen/ops/log_softmax.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "core/error.h"
#include "generate/generate.h"
#include "nn/kv_cache.h"
#include "small_models.h"
#include "test.h"

using namespace llmtk;
using generate::Beams;
using generate::Completion;
using generate::Continuation;
using generate::EarlyStopping;
using generate::FinishReason;
using generate::GenerationConfig;
using test::kGpt2;
using test::kLlama;
using test::kT5;
using test::kVocabulary;
using test::random_model;
using test::words;
using Prompts = std::vector<std::vector<text::TokenId>>;

namespace {

const Prompts kBeamPrompts = {{5, 6, 7}, {11}, {20, 21, 22, 23, 24, 25, 26, 27, 28}, {11, 12, 13, 14}};

/// The sum of the log-probabilities of `ids` after `prompt`, each computed from the whole text.
double total_logprob(nn::CausalModel& model, std::vector<text::TokenId> prompt, const std::vector<text::TokenId>& ids) {
  const c10::NoGradGuard no_gradients;
  double total = 0;
  for (const auto id : ids) {
    const auto input = at::tensor(std::vector<int64_t>(prompt.begin(), prompt.end()), at::kLong).unsqueeze(0);
    total += at::log_softmax(model.logits(model.forward(input)).select(1, -1), -1)[0][id].item<double>();
    prompt.push_back(id);
  }
  return total;
}

void check_same(const std::vector<Completion>& a, const std::vector<Completion>& b) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    CHECK(a[i].ids == b[i].ids);
    CHECK(a[i].prompt == b[i].prompt);
    CHECK(a[i].sequence == b[i].sequence);
    CHECK(a[i].score.value() == Approx(b[i].score.value()).margin(1e-4));
  }
}

/// Beams over a prompt of one token, with an eos of 9.
struct Search {
  explicit Search(GenerationConfig config) : config(std::move(config)) {}
  GenerationConfig config;
  generate::Task task{.prompt = {1}, .context = {1}, .limit = 4};
  test::FakeTokenizer tokenizer = words();
  Beams beams{task, config, tokenizer};

  Completion best(size_t rank = 0) const {
    Completion completion;
    beams.fill(completion, rank);
    return completion;
  }
};

}  // namespace

TEST_CASE("beams in padded batches are what each prompt alone gives") {
  const auto tokenizer = words();
  for (const auto& json : {kGpt2, kLlama, kT5}) {
    const auto model = random_model<nn::Model>(json);
    const GenerationConfig config{
        .max_new_tokens = 12, .num_beams = 3, .eos_token_ids = {30}, .num_return_sequences = 2};
    std::vector<Completion> alone;
    for (size_t p = 0; p < kBeamPrompts.size(); ++p)
      for (auto& completion :
           generate::generate(*model, tokenizer, std::span(kBeamPrompts).subspan(p, 1), config, {.first_prompt = p}))
        alone.push_back(std::move(completion));
    for (const int64_t batch_size : {1, 6, 64}) {
      CAPTURE(json["model_type"], batch_size);
      check_same(generate::generate(*model, tokenizer, kBeamPrompts, config, {.batch_size = batch_size}), alone);
    }
  }
}

TEST_CASE("a beam's score is the log-probability of its text, and no worse than the greedy one's") {
  const auto tokenizer = words();
  const auto model = random_model(kGpt2);
  for (const double length_penalty : {0.0, 1.0, 2.0}) {
    const auto greedy = generate::generate(*model, tokenizer, kBeamPrompts, {.max_new_tokens = 8});
    const auto beams =
        generate::generate(*model, tokenizer, kBeamPrompts,
                           {.max_new_tokens = 8, .num_beams = 5, .length_penalty = length_penalty}, {.logprobs = true});
    for (size_t p = 0; p < kBeamPrompts.size(); ++p) {
      const double total = total_logprob(*model, kBeamPrompts[p], beams[p].ids);
      CHECK(*beams[p].score == Approx(total / std::pow(8, length_penalty)).margin(1e-4));
      CHECK(total >= total_logprob(*model, kBeamPrompts[p], greedy[p].ids) - 1e-4);
      double sum = 0;
      for (const float logprob : beams[p].logprobs) sum += logprob;
      CHECK(sum == Approx(total).margin(1e-4));
    }
  }
}

TEST_CASE("a beam that ended frees its place, and the best of all is given") {
  Search search({.num_beams = 2, .eos_token_ids = {9}});
  search.beams.advance({{0, 9, -1.0f, 0}, {0, 5, -1.5f, 0}, {0, 6, -2.0f, 0}, {0, 7, -3.0f, 0}});
  CHECK_FALSE(search.beams.done());
  CHECK(search.beams.context(0) == std::vector<text::TokenId>{1, 5});
  CHECK(search.beams.context(1) == std::vector<text::TokenId>{1, 6});
  // -1.6 / 2 is better than -1 / 1, though less probable.
  search.beams.advance({{0, 9, -1.6f, 0}, {1, 5, -2.5f, 0}, {1, 6, -2.6f, 0}, {0, 7, -4.0f, 0}});
  CHECK(search.best().ids == std::vector<text::TokenId>{5, 9});
  CHECK(*search.best().score == Approx(-0.8));
  CHECK(search.best().finish_reason == FinishReason::eos);
  CHECK(search.best(1).ids == std::vector<text::TokenId>{9});
  CHECK(search.beams.done());  // -2.5 / 2 is worse than both
}

TEST_CASE("early_stopping decides when beams end") {
  const std::vector<Continuation> first = {{0, 9, -1.0f, 0}, {0, 5, -1.1f, 0}, {0, 6, -1.2f, 0}, {0, 7, -3.0f, 0}};
  const std::vector<Continuation> second = {{0, 9, -1.3f, 0}, {1, 5, -1.9f, 0}, {1, 6, -1.95f, 0}, {0, 7, -4.0f, 0}};
  const auto done = [&](EarlyStopping early_stopping) {
    Search search({.num_beams = 2, .early_stopping = early_stopping, .eos_token_ids = {9}});
    search.beams.advance(first);
    search.beams.advance(second);
    return search.beams.done();
  };
  CHECK(done(EarlyStopping::yes));
  // -1.9 / 2 is better than -1 / 1.
  CHECK_FALSE(done(EarlyStopping::no));
  CHECK_FALSE(done(EarlyStopping::never));
  Search search({.num_beams = 2, .early_stopping = EarlyStopping::never, .eos_token_ids = {9}});
  search.beams.advance(first);
  search.beams.advance({{0, 9, -1.3f, 0}, {1, 5, -3.9f, 0}, {1, 6, -3.95f, 0}, {0, 7, -4.0f, 0}});
  CHECK_FALSE(search.beams.done());  // with 4 tokens it would be -3.9 / 4
}

TEST_CASE("a stop string ends a beam, which is then one of the finished") {
  const auto tokenizer = words();
  const auto model = random_model(kLlama);
  GenerationConfig config{.max_new_tokens = 10, .num_beams = 3};
  const auto free = generate::generate(*model, tokenizer, kBeamPrompts, config);
  config.stop_strings = {tokenizer.token_bytes(free[0].ids[4])};
  const auto stopped = generate::generate(*model, tokenizer, kBeamPrompts, config);
  CHECK(stopped[0].finish_reason == FinishReason::stop_string);
  CHECK(stopped[0].stop_string == config.stop_strings[0]);
  CHECK(stopped[0].text.find(config.stop_strings[0]) == std::string::npos);
}

TEST_CASE("beams that are drawn depend on the seed alone, and follow the distribution (chi-square)") {
  const auto tokenizer = words();
  const auto model = random_model(kGpt2);
  GenerationConfig config{.max_new_tokens = 6, .do_sample = true, .temperature = 4, .seed = 1, .num_beams = 3};
  const auto first = generate::generate(*model, tokenizer, kBeamPrompts, config, {.batch_size = 12});
  check_same(generate::generate(*model, tokenizer, kBeamPrompts, config, {.batch_size = 1}), first);
  config.seed = 2;
  CHECK(generate::generate(*model, tokenizer, kBeamPrompts, config)[2].ids != first[2].ids);

  // One token, two beams: an ordered draw of two from the four that top-k keeps; the better one is given.
  const Prompts prompts(4000, kBeamPrompts[0]);
  config = {.max_new_tokens = 1, .do_sample = true, .temperature = 8, .top_k = 4, .seed = 3, .num_beams = 2};
  std::map<text::TokenId, int> counts;
  for (const auto& completion : generate::generate(*model, tokenizer, prompts, config, {.batch_size = 500}))
    ++counts[completion.ids.at(0)];
  const c10::NoGradGuard no_gradients;
  const auto input = at::tensor(std::vector<int64_t>{5, 6, 7}, at::kLong).unsqueeze(0);
  const auto [values, ids] = (model->logits(model->forward(input)).select(1, -1)[0] / 8).topk(4);
  const auto p = values.softmax(-1);
  const auto at = [&](int64_t i) { return p[i].item<double>(); };
  double chi_square = 0;
  for (int64_t i = 0; i < 3; ++i) {  // the last one is given never: one of the others is better
    double given = 0;                // drawn first or second, and the other one is a worse one
    for (int64_t j = i + 1; j < 4; ++j) given += at(i) * at(j) / (1 - at(i)) + at(j) * at(i) / (1 - at(j));
    const double expected = given * static_cast<double>(prompts.size());
    const int count = counts[static_cast<text::TokenId>(ids[i].item<int64_t>())];
    chi_square += (count - expected) * (count - expected) / expected;
  }
  CHECK(chi_square < 13.8);  // 2 degrees of freedom: exceeded once in a thousand
}

TEST_CASE("an encoder-decoder writes from its prompt, in batches as alone") {
  const auto tokenizer = words();
  const auto model = random_model<nn::Model>(kT5);
  const GenerationConfig config{.max_new_tokens = 10};
  const auto together = generate::generate(*model, tokenizer, kBeamPrompts, config);
  for (size_t p = 0; p < kBeamPrompts.size(); ++p)
    CHECK(generate::generate(*model, tokenizer, std::span(kBeamPrompts).subspan(p, 1), config)[0].ids ==
          together[p].ids);
  CHECK(together[0].ids != together[2].ids);
  // max_length counts what the decoder sees: its start token and the new ones.
  CHECK(generate::generate(*model, tokenizer, kBeamPrompts, {.max_length = 5})[2].ids.size() == 4);
}

TEST_CASE("rows of a cache change places, in place or not, as index_select has it") {
  const c10::NoGradGuard no_gradients;
  const std::vector<std::vector<int64_t>> orders = {{0, 1, 2, 3}, {0, 0, 2, 2},       {3, 1, 2, 0},
                                                    {1, 2, 3, 3}, {0, 2, 1, 1},       {1, 3},
                                                    {2, 0, 1},    {0, 0, 1, 1, 2, 3}, {3, 3, 3, 3, 3}};
  for (const auto& order : orders) {
    nn::KVCache cache(2, 4, 2, 8, 3, {});
    const auto held = at::rand({4, 2, 5, 3}), more = at::rand({static_cast<int64_t>(order.size()), 2, 1, 3});
    for (int64_t layer = 0; layer < 2; ++layer) cache.append(layer, held + layer, held - layer);
    cache.advance(5);
    const auto rows = at::tensor(order, at::kLong);
    cache.reorder(rows);
    CHECK(cache.batch() == static_cast<int64_t>(order.size()));
    for (int64_t layer = 0; layer < 2; ++layer) {
      const auto [keys, values] = cache.append(layer, more, more);
      CHECK(keys.narrow(2, 0, 5).equal((held + layer).index_select(0, rows)));
      CHECK(values.narrow(2, 0, 5).equal((held - layer).index_select(0, rows)));
    }
  }
}
