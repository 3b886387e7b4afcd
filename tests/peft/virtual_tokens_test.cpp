// Virtual tokens before texts: in caches, beside padding and packing, and in what is counted.

#include <ATen/ATen.h>

#include "generate/generate.h"
#include "generate/small_models.h"
#include "method_support.h"
#include "nn/kv_cache.h"
#include "peft/prefix.h"
#include "peft/prompt.h"

namespace llmtk {
namespace {

using at::Tensor;
using nn::CausalModel;

constexpr int64_t kVirtual = 4;

io::Json with(io::Json config, const io::Json& changes) {
  config.update(changes);
  return config;
}

const io::Json kWindow = with(test::kLlama, {{"model_type", "mistral"}, {"sliding_window", 5}});

/// The families that treat positions and keys differently, each with a prefix and with embedded tokens.
template <class Body>
void for_each_model(Body body) {
  for (const io::Json& config : {test::kGpt2, test::kLlama, kWindow})
    for (const bool prefix : {true, false}) {
      INFO(config["model_type"] << (prefix ? ", prefix" : ", prompt"));
      const auto model = test::random_model(config);
      if (prefix)
        peft::apply(*model, peft::PTuningV2Config{.num_virtual_tokens = kVirtual}, 3);
      else
        peft::apply(*model, peft::PromptTuningConfig{.num_virtual_tokens = kVirtual}, 3);
      const at::NoGradGuard no_grad;
      body(*model);
    }
}

Tensor ids_from(int64_t first, int64_t rows, int64_t length) {
  return (at::arange(rows * length, at::kLong).view({rows, length}) * 7 + first) % test::kVocabulary;
}

Tensor hidden(CausalModel& model, const Tensor& ids) { return model.forward(ids); }

TEST_CASE("what is read in pieces through a cache is what is read at once") {
  for_each_model([](CausalModel& model) {
    const Tensor ids = ids_from(3, 2, 9), whole = hidden(model, ids);
    const auto cache = model.make_cache(2, 9);
    int64_t begin = 0;
    for (const int64_t length : {3, 1, 5}) {
      const Tensor piece = model.forward(ids.narrow(1, begin, length), {.cache = cache.get()});
      CHECK(difference(piece, whole.narrow(1, begin, length)) < kTolerance);
      begin += length;
      CHECK(cache->length() == begin);
      CHECK(cache->virtual_length() == kVirtual);
    }
  });
}

TEST_CASE("a cache that forgets its text, or whose rows move, keeps the virtual tokens") {
  for_each_model([](CausalModel& model) {
    const auto cache = model.make_cache(2, 8);
    const nn::ForwardContext context{.cache = cache.get()};
    const Tensor first = ids_from(3, 2, 5), second = ids_from(40, 2, 3);
    model.forward(first, context);
    cache->truncate(0);
    CHECK(difference(model.forward(first, context), hidden(model, first)) < kTolerance);
    cache->truncate(2);
    cache->reorder(at::tensor({1, 0}, at::kLong));
    const Tensor text = at::cat({first.narrow(1, 0, 2).flip(0), second}, 1);
    CHECK(difference(model.forward(second, context), hidden(model, text).narrow(1, 2, 3)) < kTolerance);
    cache->reorder(at::tensor({1, 1, 0}, at::kLong));  // more rows than before
    cache->truncate(0);
    const Tensor more = ids_from(11, 3, 4);
    CHECK(difference(model.forward(more, context), hidden(model, more)) < kTolerance);
  });
}

TEST_CASE("padding on either side changes nothing") {
  for_each_model([](CausalModel& model) {
    const Tensor text = ids_from(5, 1, 6), alone = hidden(model, text);
    for (const bool left : {true, false}) {
      INFO((left ? "left" : "right"));
      const Tensor pad = at::zeros({1, 3}, at::kLong), real = at::ones({1, 6}, at::kLong);
      const Tensor padded = left ? at::cat({pad, text}, 1) : at::cat({text, pad}, 1);
      const Tensor mask = left ? at::cat({pad, real}, 1) : at::cat({real, pad}, 1);
      const Tensor rows = at::cat({padded, ids_from(50, 1, 9)}), masks = at::cat({mask, at::ones({1, 9}, at::kLong)});
      const Tensor got = model.forward(rows, {.attention_mask = masks});
      CHECK(difference(got.narrow(0, 0, 1).narrow(1, left ? 3 : 0, 6), alone) < kTolerance);
      CHECK(difference(got.narrow(0, 1, 1), hidden(model, rows.narrow(0, 1, 1))) < kTolerance);
    }
  });
}

TEST_CASE("texts packed into one row see the virtual tokens and not each other") {
  for_each_model([](CausalModel& model) {
    const Tensor a = ids_from(5, 1, 4), b = ids_from(60, 1, 5);
    const Tensor positions = at::cat({at::arange(4, at::kLong), at::arange(5, at::kLong)}).unsqueeze(0);
    const Tensor packed = model.forward(at::cat({a, b}, 1), {.position_ids = positions});
    CHECK(difference(packed, at::cat({hidden(model, a), hidden(model, b)}, 1)) < kTolerance);
  });
}

TEST_CASE("virtual tokens take positions from the text, and leave with their module") {
  for_each_model([](CausalModel& model) {
    CHECK(model.max_positions() == 48 - kVirtual);
    hidden(model, ids_from(0, 1, 44));
    const std::string error = test::error_of([&] { hidden(model, ids_from(0, 1, 45)); });
    CHECK(test::says(error, "45 tokens"));
    CHECK(test::says(error, "at most 44"));

    const Tensor ids = ids_from(8, 1, 5), with_them = hidden(model, ids);
    std::vector<Tensor> attentions, states;
    model.forward(ids, {.attentions = &attentions, .hidden_states = &states});
    for (const Tensor& map : attentions) CHECK(map.size(2) == (model.virtual_tokens()->embeddings().defined() ? 9 : 5));
    for (const Tensor& map : attentions) CHECK(map.size(3) == 9);
    CHECK(states.size() == 3);
    for (const Tensor& state : states) CHECK(state.size(1) == 5);
    CHECK(difference(states.back(), with_them) < kTolerance);

    model.set_virtual_tokens(nullptr);
    CHECK(model.max_positions() == 48);
    const auto base = test::random_model(model.config());
    CHECK(at::equal(hidden(model, ids), hidden(*base, ids)));
    CHECK(difference(hidden(model, ids), with_them) > 1e-3);
  });
  const auto model = test::random_model(test::kGpt2);
  const std::string error =
      test::error_of([&] { peft::apply(*model, peft::PTuningV2Config{.num_virtual_tokens = 48}, 1); });
  CHECK(test::says(error, "48 virtual tokens"));
}

TEST_CASE("a chat goes on behind its virtual tokens") {
  for_each_model([](CausalModel& model) {
    const auto tokenizer = test::words();
    generate::GenerationConfig config;
    config.max_new_tokens = 4;
    generate::Prefix kept;
    std::vector<std::vector<text::TokenId>> turn = {{5, 6, 7, 8}};
    for (int i = 0; i < 3; ++i) {
      const auto fresh = generate::generate(model, tokenizer, turn, config);
      const auto going_on = generate::generate(model, tokenizer, turn, config, {.prefix = &kept});
      CHECK(going_on[0].ids == fresh[0].ids);
      if (i > 0) CHECK(kept.reused > 4);
      turn[0].insert(turn[0].end(), fresh[0].ids.begin(), fresh[0].ids.end());
      turn[0].push_back(20 + i);
    }
  });
}

TEST_CASE("prompts begin as the config says") {
  const auto table_of = [](const peft::PromptTuningConfig& config, const io::Json& model_config,
                           const std::vector<int64_t>& text = {}) {
    const auto model = test::new_model(model_config);
    peft::apply(*model, config, 7, text);
    const at::NoGradGuard no_grad;
    return std::pair(dynamic_cast<peft::PromptTuning&>(*model->virtual_tokens()).table().clone(),
                     model->embed(at::arange(test::kVocabulary, at::kLong)));
  };
  const auto [text, embedded] = table_of({.num_virtual_tokens = 5, .prompt_tuning_init = "TEXT"}, test::kLlama, {9, 4});
  CHECK(at::equal(text, embedded.index_select(0, at::tensor({9, 4, 9, 4, 9}, at::kLong))));
  const auto [cut, of_t5] = table_of({.num_virtual_tokens = 1, .prompt_tuning_init = "TEXT"}, test::kT5, {9, 4, 3});
  CHECK(at::equal(cut, of_t5.index_select(0, at::tensor({9, 4}, at::kLong))));
  const auto [sampled, words] = table_of({.num_virtual_tokens = 6, .prompt_tuning_init = "SAMPLE_VOCAB"}, test::kGpt2);
  for (int64_t i = 0; i < 6; ++i) CHECK((words == sampled[i]).all(1).any().item<bool>());
  const auto [random, unused] = table_of({.num_virtual_tokens = 40}, test::kGpt2);
  CHECK(std::abs(random.std().item<double>() - 1) < 0.1);
  CHECK(test::says(test::error_of([&] { table_of({.prompt_tuning_init = "TEXT"}, test::kGpt2); }), "has no tokens"));
}

}  // namespace
}  // namespace llmtk
