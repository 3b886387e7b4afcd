// Proposed tokens change nothing but the speed.

#include "generate/speculation.h"

#include "core/error.h"
#include "generate/generate.h"
#include "nn/causal_model.h"
#include "small_models.h"
#include "test.h"

using namespace llmtk;
using generate::GenerationConfig;
using generate::look_up;
using Ids = std::vector<text::TokenId>;

TEST_CASE("what followed the last tokens before is looked up, the longest and latest match first") {
  const Ids text = {1, 2, 3, 9, 8, 2, 3, 7, 6, 5, 2, 3};
  CHECK(look_up(text, 2, 3) == Ids{7, 6, 5});
  CHECK(look_up(text, 2, 1) == Ids{7});
  CHECK(look_up(Ids{1, 2, 3, 4, 1, 2, 3}, 3, 10) == Ids{4, 1, 2, 3});
  CHECK(look_up(Ids{4, 4, 4}, 3, 5) == Ids{4});
  CHECK(look_up(Ids{1, 2, 3}, 3, 5).empty());
  CHECK(look_up(Ids{1}, 3, 5).empty());
  CHECK(look_up(text, 2, 0).empty());
}

namespace {

const std::vector<Ids> kRepeating = {
    {5, 6, 7, 5, 6}, {11}, {20, 21, 22, 23, 20, 21, 22, 23, 20}, {40, 41, 40, 41}, {3, 3, 3, 3, 3, 3, 3}};

struct Written {
  std::vector<Ids> ids;
  std::vector<std::vector<float>> logprobs;
  generate::Timings timings;
};

Written write(nn::Model& model, const GenerationConfig& config, int64_t batch_size,
              std::optional<generate::Speculation> speculation) {
  const auto tokenizer = test::words();
  Written written;
  for (const auto& completion : generate::generate(
           model, tokenizer, kRepeating, config,
           {.batch_size = batch_size, .logprobs = true, .speculation = speculation, .timings = &written.timings})) {
    written.ids.push_back(completion.ids);
    written.logprobs.push_back(completion.logprobs);
  }
  return written;
}

}  // namespace

TEST_CASE("a text is the same with proposed tokens, greedy or drawn, alone or among others") {
  for (const io::Json& shape : {test::kGpt2, test::kLlama}) {
    const auto model = test::random_model(shape);
    const auto draft = test::random_model(test::with(test::kLlama, {{"hidden_size", 16}}));
    const GenerationConfig greedy{.max_new_tokens = 20},
        drawn{.max_new_tokens = 20, .do_sample = true, .top_k = 5, .seed = 3},
        penalized{.max_new_tokens = 20, .repetition_penalty = 1.3};
    for (const GenerationConfig& config : {greedy, drawn, penalized})
      for (const int64_t batch_size : {1, 3, 8}) {
        const Written plain = write(*model, config, batch_size, std::nullopt);
        CHECK(plain.timings.proposed == 0);
        for (const generate::Speculation& speculation :
             {generate::Speculation{}, {.tokens = 1}, {.draft = draft.get()}, {.draft = model.get(), .tokens = 3}}) {
          CAPTURE(shape["model_type"], config.do_sample, batch_size, speculation.tokens, speculation.draft != nullptr);
          const Written same = write(*model, config, batch_size, speculation);
          CHECK(same.ids == plain.ids);
          CHECK(same.logprobs == plain.logprobs);
          CHECK(same.timings.proposed > 0);
          CHECK(same.timings.accepted <= same.timings.proposed);
          // The model itself proposes what it then takes.
          if (speculation.draft == model.get() && !config.do_sample && config.repetition_penalty == 1)
            CHECK(same.timings.accepted == same.timings.proposed);
        }
      }
  }
}

TEST_CASE("an end within proposed tokens is the end") {
  const auto model = test::random_model(test::kLlama);
  const Written plain = write(*model, {.max_new_tokens = 20}, 1, std::nullopt);
  GenerationConfig config{.max_new_tokens = 20};
  config.eos_token_ids = {plain.ids[0][7]};
  const Written ended = write(*model, config, 1, std::nullopt),
                same = write(*model, config, 1, generate::Speculation{.draft = model.get()});
  CHECK(ended.ids[0].size() <= 8);
  CHECK(same.ids == ended.ids);
}

TEST_CASE("what cannot be proposed to says so") {
  const auto refused = [](const std::shared_ptr<nn::Model>& model, const GenerationConfig& config,
                          generate::Speculation speculation) {
    try {
      write(*model, config, 8, speculation);
    } catch (const Error& error) {
      return error.exit() == Exit::usage;
    }
    return false;
  };
  const auto llama = test::random_model(test::kLlama);
  CHECK(refused(test::random_model<nn::Seq2SeqModel>(test::kT5), {}, {}));
  CHECK(refused(llama, {.num_beams = 2}, {}));
  CHECK(refused(llama, {}, {.tokens = 0}));
  CHECK(refused(llama, {}, {.ngram = 0}));
  CHECK(refused(
      test::random_model(test::with(test::kLlama, {{"rope_scaling", {{"rope_type", "dynamic"}, {"factor", 3.0}}}})), {},
      {}));
}
