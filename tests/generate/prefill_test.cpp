// Long prompts, which are read piece by piece, and caches that grow.

#include <ATen/ops/log_softmax.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/tensor.h>

#include <cmath>

#include "generate/generate.h"
#include "nn/causal_model.h"
#include "small_models.h"
#include "test.h"

using namespace llmtk;
using Ids = std::vector<text::TokenId>;

namespace {

constexpr int64_t kLong = 3 * generate::kPrefillTokens - 100;

Ids long_prompt(int64_t length, int64_t step) {
  Ids ids(static_cast<size_t>(length));
  for (size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<text::TokenId>((i * i * step + 7 * i) % test::kVocabulary);
  return ids;
}

/// The most likely token behind all of `ids`, and its log-probability, in one pass without a cache.
std::pair<text::TokenId, float> next_token(nn::CausalModel& model, const Ids& ids) {
  const c10::NoGradGuard no_grad;
  const auto input = at::tensor(std::vector<int64_t>(ids.begin(), ids.end()), at::kLong).unsqueeze(0);
  const auto last = at::log_softmax(model.logits(model.forward(input).select(1, -1)), -1)[0];
  return {static_cast<text::TokenId>(last.argmax().item<int64_t>()), last.max().item<float>()};
}

}  // namespace

TEST_CASE("a long prompt gives piece by piece what it gives at once, whatever the positions are made from") {
  const auto n = kLong + 8;
  const std::vector<io::Json> configs = {
      test::with(test::kGpt2, {{"n_positions", n}}),
      test::with(test::kLlama, {{"max_position_embeddings", n}}),
      test::with(test::kLlama, {{"model_type", "mistral"}, {"max_position_embeddings", n}, {"sliding_window", 300}}),
      // The frequencies are set by the length of the whole text.
      test::with(test::kLlama,
                 {{"max_position_embeddings", 400}, {"rope_scaling", {{"rope_type", "dynamic"}, {"factor", 4.0}}}}),
  };
  for (const auto& config : configs) {
    const auto model = test::random_model(config);
    const auto tokenizer = test::words();
    const std::vector<Ids> prompts = {long_prompt(kLong, 3), long_prompt(kLong - 700, 5)};
    // With dynamic frequencies a row's neighbours matter, in transformers too: each alone.
    const int64_t batch_size = config.contains("rope_scaling") ? 1 : 2;
    int64_t pauses = 0;
    const auto completions =
        generate::generate(*model, tokenizer, prompts, {.max_new_tokens = 1},
                           {.batch_size = batch_size, .logprobs = true, .on_prefill = [&] { ++pauses; }});
    CHECK(pauses == (batch_size == 1 ? 2 + 1 : 2));
    for (size_t i = 0; i < prompts.size(); ++i) {
      CAPTURE(config.dump(), i);
      const auto [id, logprob] = next_token(*model, prompts[i]);
      CHECK(completions[i].ids == Ids{id});
      CHECK(std::abs(completions[i].logprobs[0] - logprob) < 5e-5);
    }
  }
}

TEST_CASE("what is thrown between the pieces of a prompt ends the call") {
  const auto model = test::random_model(test::with(test::kGpt2, {{"n_positions", kLong + 8}}));
  const auto tokenizer = test::words();
  struct Enough {};
  int64_t tokens = 0;
  const auto call = [&] {
    generate::generate(*model, tokenizer, std::vector<Ids>{long_prompt(kLong, 3)}, {.max_new_tokens = 1},
                       {.on_prefill = [] { throw Enough(); }, .on_text = [&](size_t, std::string_view) { ++tokens; }});
  };
  CHECK_THROWS_AS(call(), Enough);
  CHECK(tokens == 0);
}

TEST_CASE("a prefix says how much of a prompt was not read again") {
  const auto model = test::random_model(test::with(test::kLlama, {{"max_position_embeddings", 4000}}));
  const auto tokenizer = test::words();
  generate::Prefix prefix;
  const auto ask = [&](const Ids& prompt) {
    const std::vector<Ids> prompts = {prompt};
    const generate::GenerationConfig config{.max_new_tokens = 6};
    const auto ids = generate::generate(*model, tokenizer, prompts, config, {.prefix = &prefix})[0].ids;
    CHECK(ids == generate::generate(*model, tokenizer, prompts, config)[0].ids);
    return ids;
  };
  Ids said = long_prompt(900, 3);
  const Ids answer = ask(said);
  CHECK(prefix.reused == 0);
  said.insert(said.end(), answer.begin(), answer.end());
  said.insert(said.end(), {1, 2, 3});
  ask(said);                              // grows beyond the first room
  CHECK(prefix.reused == 905);            // the answer's last token was chosen but not read
  const Ids more = long_prompt(1500, 3);  // begins like the first
  ask(more);
  CHECK(prefix.reused == 900);
  ask(more);
  CHECK(prefix.reused == 1499);
  ask({5, 6});
  CHECK(prefix.reused == 0);
}

TEST_CASE("a cache takes the memory that its tokens need") {
  const c10::NoGradGuard no_grad;
  constexpr int64_t kRoom = nn::KVCache::kFirstRoom;
  nn::KVCache small(1, 1, 2, 100, 4, {}), large(2, 1, 2, 100000, 4, {});
  CHECK(small.room() == 100);
  CHECK(large.room() == kRoom);
  at::Tensor all = at::rand({1, 2, 5 * kRoom, 4});
  int64_t held = 0;
  for (const int64_t more : {kRoom - 1, int64_t{1}, int64_t{1}, 3 * kRoom, int64_t{5}}) {
    const at::Tensor k = all.narrow(2, held, more);
    for (int64_t layer = 0; layer < 2; ++layer) {
      const auto [keys, values] = large.append(layer, k + layer, -k);
      CHECK(keys.equal(all.narrow(2, 0, held + more) + layer));
      CHECK(values.equal(-all.narrow(2, 0, held + more)));
    }
    large.advance(more);
    held += more;
    CHECK(large.room() >= held);
    CHECK(large.room() <= std::max(2 * held, kRoom));
  }
}
