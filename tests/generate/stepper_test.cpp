// Steps of decoders, recorded and repeated, with rows of different lengths, against whole passes.

#include "generate/stepper.h"

#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include "core/device.h"
#include "generate/generate.h"
#include "small_models.h"
#include "test.h"

using namespace llmtk;
using Ids = std::vector<text::TokenId>;

namespace {

const io::Json kGemma = test::with(test::kLlama, {{"model_type", "gemma2"},
                                                  {"head_dim", 8},
                                                  {"hidden_activation", "gelu_pytorch_tanh"},
                                                  {"query_pre_attn_scalar", 8},
                                                  {"sliding_window", 4},
                                                  {"attn_logit_softcapping", 50.0},
                                                  {"final_logit_softcapping", 30.0},
                                                  {"tie_word_embeddings", true}});
const io::Json kNeoX = {{"model_type", "gpt_neox"},
                        {"vocab_size", test::kVocabulary},
                        {"hidden_size", 32},
                        {"num_hidden_layers", 2},
                        {"num_attention_heads", 4},
                        {"intermediate_size", 48},
                        {"max_position_embeddings", 48},
                        {"layer_norm_eps", 1e-5},
                        {"hidden_act", "gelu"},
                        {"rotary_pct", 0.5}};

const std::vector<io::Json> kRepeatable = {
    test::kGpt2,
    test::kLlama,
    test::with(test::kLlama, {{"model_type", "mistral"}, {"sliding_window", 5}}),
    test::with(test::kLlama, {{"model_type", "qwen3"}, {"head_dim", 8}}),
    kGemma,
    kNeoX,
    test::with(kNeoX, {{"use_parallel_residual", false}}),
};
const std::vector<io::Json> kOthers = {
    test::with(test::kLlama,
               {{"max_position_embeddings", 48}, {"rope_scaling", {{"rope_type", "dynamic"}, {"factor", 3.0}}}}),
};

/// The logits behind the last of `ids`, in one pass without a cache.
at::Tensor whole(nn::CausalModel& model, const Ids& ids) {
  const auto input = at::tensor(std::vector<int64_t>(ids.begin(), ids.end()), at::kLong).unsqueeze(0);
  return model.logits(model.forward(input).select(1, -1))[0].to(at::kFloat);
}

double difference(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).abs().max() / b.abs().max()).item<double>();
}

/// A cache that holds `texts`, read one by one.
std::unique_ptr<nn::KVCache> filled(nn::CausalModel& model, const std::vector<Ids>& texts, nn::CacheType type) {
  std::vector<int64_t> lengths;
  size_t longest = 0;
  for (const Ids& text : texts) longest = std::max(longest, text.size());
  auto cache = model.make_cache(static_cast<int64_t>(texts.size()), 40, type);
  at::Tensor ids = at::zeros({static_cast<int64_t>(texts.size()), static_cast<int64_t>(longest)}, at::kLong);
  for (size_t b = 0; b < texts.size(); ++b) {
    for (size_t t = 0; t < texts[b].size(); ++t) ids[b][t] = texts[b][t];
    lengths.push_back(static_cast<int64_t>(texts[b].size()));
  }
  nn::ForwardContext context;
  context.cache = cache.get();
  model.forward(ids.to(model.device()), context);
  cache->truncate(lengths);
  return cache;
}

}  // namespace

namespace {

/// On a GPU beside whole passes on the CPU.
void steps_agree(const io::Json& config, std::vector<Ids> texts, bool repeatable, c10::Device device) {
  const at::NoGradGuard no_grad;
  CAPTURE(config.dump());
  const auto model = test::random_model(config), other = test::random_model(config);
  model->to(device);
  const auto cache = filled(*model, texts, nn::CacheType::plain);
  generate::Stepper stepper(*model);
  stepper.begin(*cache);
  for (const int64_t tokens : {1, 1, 1, 3, 1, 3, 3, 1, 1}) {
    Ids ids;
    for (Ids& text : texts)
      for (int64_t t = 0; t < tokens; ++t) {
        text.push_back(static_cast<text::TokenId>((text.back() * 7 + 3) % test::kVocabulary));
        ids.push_back(text.back());
      }
    const at::Tensor logits = stepper.step(ids, tokens).cpu();
    for (size_t b = 0; b < texts.size(); ++b)
      CHECK(difference(logits[static_cast<int64_t>(b)][tokens - 1], whole(*other, texts[b])) <
            (device.is_cpu() ? 5e-5 : 2e-3));
  }
  INFO(stepper.refused_by());
  CHECK(stepper.refused_by().empty() == repeatable);
}

const std::vector<Ids> kTexts = {{5, 6, 7}, {11}, {20, 21, 22, 23, 24, 25, 26, 27, 28}};

}  // namespace

TEST_CASE("steps with rows of different lengths are what each text gives as a whole") {
  for (const io::Json& config : kRepeatable) steps_agree(config, kTexts, true, at::kCPU);
  for (const io::Json& config : kOthers)
    steps_agree(config, {{5, 6, 7}}, false, at::kCPU);  // there a row's neighbours matter
}

TEST_CASE("steps on a GPU, captured in graphs", "[gpu]") {
  if (!resolve_device("auto").is_cuda()) LLMTK_SKIP("no GPU");
  for (const io::Json& config : kRepeatable) steps_agree(config, kTexts, true, at::kCUDA);
}

TEST_CASE("a row's steps are the same alone and among others, a token at a time and several at once, to the last bit") {
  const at::NoGradGuard no_grad;
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const nn::CacheType type : {nn::CacheType::plain, nn::CacheType::int8}) {
      const auto model = test::random_model(test::kLlama);
      model->to(dtype);
      const std::vector<Ids> texts = {{5, 6, 7}, {11, 12, 13, 14, 15, 16}};
      const Ids next = {30, 31, 32, 33, 40, 41, 42, 43};
      const auto both = filled(*model, texts, type), one_by_one = filled(*model, texts, type);
      generate::Stepper together(*model), apart(*model);
      together.begin(*both);
      apart.begin(*one_by_one);
      const at::Tensor expected = together.step(next, 4);  // [2, 4, V]
      for (int64_t t = 0; t < 4; ++t) {
        const at::Tensor logits = apart.step({next[t], next[4 + t]});
        CHECK(logits.equal(expected.select(1, t)));
      }
      const auto alone = filled(*model, texts, type);
      alone->reorder(at::tensor({1L}, at::kLong));
      generate::Stepper single(*model);
      single.begin(*alone);
      CHECK(single.step({40, 41, 42, 43}, 4)[0].equal(expected[1]));
      both->truncate({4, 6});  // as if of what was proposed little was taken
      const at::Tensor again = together.step({31, 32, 40, 41}, 2);
      CHECK(again[0][0].equal(expected[0][1]));
      CHECK(again[1][1].equal(expected[1][1]));
    }
}

TEST_CASE("a cache of 8 bits is a quarter of the memory and close") {
  const at::NoGradGuard no_grad;
  const auto model = test::random_model(test::kLlama);
  const Ids text = {5, 6, 7, 8, 9, 10, 11, 12};
  const auto cache = filled(*model, {text}, nn::CacheType::int8);
  CHECK(cache->blocks(0).keys.scalar_type() == at::kChar);
  generate::Stepper stepper(*model);
  stepper.begin(*cache);
  Ids more = text;
  more.push_back(50);
  const double error = difference(stepper.step({50})[0], whole(*model, more));
  CHECK(error > 0);
  CHECK(error < 0.05);
}

TEST_CASE("what all prompts begin with is read once and changes nothing") {
  const auto model = test::random_model(test::with(test::kLlama, {{"max_position_embeddings", 200}}));
  const auto tokenizer = test::words();
  Ids common(100);
  for (size_t i = 0; i < common.size(); ++i) common[i] = static_cast<text::TokenId>((i * i + 5) % test::kVocabulary);
  std::vector<Ids> prompts(4, common);
  prompts[0].push_back(3);
  prompts[2].insert(prompts[2].end(), {7, 8, 9});
  prompts[3].insert(prompts[3].end(), {7, 8, 10, 11});
  const generate::GenerationConfig config{.max_new_tokens = 10};
  generate::Timings timings;
  const auto together = generate::generate(*model, tokenizer, prompts, config, {.batch_size = 4, .timings = &timings});
  for (size_t i = 0; i < prompts.size(); ++i)
    CHECK(together[i].ids == generate::generate(*model, tokenizer, std::span(&prompts[i], 1), config)[0].ids);
}
