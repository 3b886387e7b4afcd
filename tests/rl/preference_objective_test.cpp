// Preferences of a small model: what is left out of a batch, and answers split as their texts stand.

#include "rl/preference_objective.h"

#include <ATen/ATen.h>

#include "models/registry.h"
#include "rl/answers.h"
#include "test.h"

using namespace llmtk;

namespace {

std::shared_ptr<nn::CausalModel> small_model() {
  const io::Json config = {
      {"model_type", "llama"},  {"vocab_size", 19},         {"hidden_size", 16},        {"intermediate_size", 24},
      {"num_hidden_layers", 2}, {"num_attention_heads", 2}, {"num_key_value_heads", 1}, {"max_position_embeddings", 16},
      {"rms_norm_eps", 1e-5}};
  auto model = models::as<nn::CausalModel>(models::make_model(config, "the test", {}), "the test");
  model->initialize(3);
  return model;
}

/// Two pairs: [1 2 | 3 4] with answers of two tokens and one, [5 | 6 7] and a shorter rejected answer.
data::Batch two_pairs() {
  constexpr int32_t x = data::kIgnore;
  return {.rows = 2,
          .length = 7,
          .input_ids = {1, 2, 3, 4, 1, 2, 8, /**/ 5, 6, 7, 5, 9, 0, 0},
          .labels = {x, 3, 4, x, x, 8, x, /**/ 6, 7, x, 9, x, x, x},
          .values = {-6, -3, -5, -2},
          .position_ids = {0, 1, 2, 3, 0, 1, 2, /**/ 0, 1, 2, 0, 1, 0, 1},
          .lengths = {7, 5},
          .targets = 2};
}

data::Batch first_pair() {
  data::Batch batch = two_pairs();
  batch.rows = batch.targets = 1;
  for (auto* values : {&batch.input_ids, &batch.labels, &batch.position_ids}) values->resize(7);
  batch.values.resize(2);
  batch.lengths = {};
  return batch;
}

}  // namespace

TEST_CASE("texts are split where they begin, the first of each row before the second ones") {
  const auto answers = rl::split_answers(two_pairs(), at::kCPU);
  CHECK(answers.input_ids.equal(at::tensor({1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 8, 0, 5, 9, 0, 0}, at::kLong).view({4, 4})));
  CHECK(answers.lengths.equal(at::tensor({4, 3, 3, 2}, at::kLong)));
  CHECK(answers.answer_lengths().equal(at::tensor({2.0f, 2.0f, 1.0f, 1.0f})));
  CHECK(answers.all_targets().equal(
      at::tensor({2, 3, 4, -100, 6, 7, -100, -100, 2, 8, -100, -100, 9, -100, -100, -100}, at::kLong).view({4, 4})));
}

TEST_CASE("log-probabilities of answers are those of the logits, whatever stands beside them") {
  const auto model = small_model();
  const auto answers = rl::split_answers(two_pairs(), at::kCPU);
  const auto found = rl::answer_log_probs(*model, answers, answers.targets, /*entropy=*/true);
  const at::Tensor alone = at::tensor({1, 2, 8}, at::kLong).view({1, 3});
  const at::Tensor log_p = model->logits(model->forward(alone)).log_softmax(-1)[0][1];
  CHECK(found.tokens[2][1].item<double>() == Approx(log_p[8].item<double>()));
  CHECK(found.entropies[2][1].item<double>() == Approx(-(log_p.exp() * log_p).sum().item<double>()));
  CHECK(found.sums()[2].item<double>() == Approx(log_p[8].item<double>()));
}

TEST_CASE("a row without labels, which fills a rank's last batch, counts nowhere") {
  const auto model = small_model();
  for (const std::string loss_type : {"sigmoid", "ipo", "orpo"}) {
    rl::DpoConfig config;
    config.loss_type = loss_type;
    const rl::PreferenceObjective objective(model, config);
    data::Batch filled = two_pairs(), alone = first_pair();
    std::fill(filled.labels.begin() + 7, filled.labels.end(), data::kIgnore);
    if (loss_type == "orpo") filled.values = alone.values = {};
    train::MetricSums sums, expected;
    const double got = objective.loss(filled, 0.5, sums).item<double>();
    INFO(loss_type);
    CHECK(got == Approx(objective.loss(alone, 0.5, expected).item<double>()).epsilon(1e-5));
    CHECK(got != 0);
    CHECK(sums.all().size() == expected.all().size());
    for (const auto& [name, sum] : expected.all()) {
      INFO(name);
      CHECK(sums.all().at(name).first == Approx(sum.first).epsilon(1e-4));
      CHECK(sums.all().at(name).second == sum.second);
    }
  }
}

TEST_CASE("the reference is read once for each row, without a gradient, and the model stays in training") {
  const auto model = small_model();
  model->train();
  class TwoPairs : public data::RowSource {
   public:
    uint64_t rows() const override { return 2; }
    uint64_t tokens() const override { return 12; }
    std::string place(uint64_t, size_t) const override { return "the test"; }
    std::string identity() const override { return "two"; }
    void read(uint64_t row, data::Example& out) const override {
      const data::Batch batch = two_pairs();
      const auto part = [&](const std::vector<int32_t>& all) {
        const auto begin = all.begin() + static_cast<int64_t>(row) * 7;
        return std::vector<int32_t>(begin, begin + batch.lengths[row]);
      };
      out = {
          .input_ids = part(batch.input_ids), .labels = part(batch.labels), .position_ids = part(batch.position_ids)};
    }
  };
  const auto values = rl::PreferenceObjective(model, {}).reference(std::make_shared<TwoPairs>(), /*batch_size=*/1);
  REQUIRE(values.size() == 4);
  const auto answers = rl::split_answers(two_pairs(), at::kCPU);
  const at::Tensor sums = rl::answer_log_probs(*model, answers, answers.targets).sums();
  for (const auto& [place, text] : {std::pair(0, 0), std::pair(1, 2), std::pair(2, 1), std::pair(3, 3)})
    CHECK(values[static_cast<size_t>(place)] == Approx(sums[text].item<double>()).epsilon(1e-5));
  CHECK(model->is_training());
}
