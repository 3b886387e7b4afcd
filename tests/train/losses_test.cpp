// The loss that pretraining minimizes, through a whole model.

#include "train/losses.h"

#include <ATen/ATen.h>

#include "models/registry.h"
#include "test.h"

using namespace llmtk;

namespace {

struct Result {
  double loss = 0;
  std::map<std::string, at::Tensor> gradients;
};

Result run(nn::CausalModel& model, const std::vector<data::Batch>& batches) {
  for (auto& parameter : model.parameters()) parameter.mutable_grad().reset();
  Result result;
  for (const auto& batch : batches) {
    const at::Tensor loss = train::causal_lm_loss(model, batch, 0.1);
    loss.backward();
    result.loss += loss.item<double>();
  }
  for (const auto& parameter : model.named_parameters())
    result.gradients[parameter.key()] = parameter.value().grad().clone();
  return result;
}

}  // namespace

TEST_CASE("documents packed into one row train as if each stood alone") {
  constexpr int32_t kEnd = 2, kNone = data::kIgnore;
  const data::Batch packed = {.rows = 1,
                              .length = 9,
                              .input_ids = {5, 6, kEnd, 7, 8, 9, 10, kEnd, 11},
                              .labels = {6, kEnd, kNone, 8, 9, 10, kEnd, kNone, 12},
                              .position_ids = {0, 1, 2, 0, 1, 2, 3, 4, 0},
                              .targets = 7};
  const std::vector<data::Batch> alone = {
      {.rows = 1, .length = 3, .input_ids = {5, 6, kEnd}, .labels = {6, kEnd, kNone}},
      {.rows = 1, .length = 5, .input_ids = {7, 8, 9, 10, kEnd}, .labels = {8, 9, 10, kEnd, kNone}},
      {.rows = 1, .length = 1, .input_ids = {11}, .labels = {12}}};
  const std::map<std::string, io::Json> kConfigs = {{"gpt2",
                                                     {{"model_type", "gpt2"},
                                                      {"vocab_size", 17},
                                                      {"n_positions", 16},
                                                      {"n_embd", 16},
                                                      {"n_layer", 2},
                                                      {"n_head", 2},
                                                      {"resid_pdrop", 0},
                                                      {"embd_pdrop", 0},
                                                      {"attn_pdrop", 0}}},
                                                    {"llama",
                                                     {{"model_type", "llama"},
                                                      {"vocab_size", 17},
                                                      {"hidden_size", 16},
                                                      {"intermediate_size", 24},
                                                      {"num_hidden_layers", 2},
                                                      {"num_attention_heads", 2},
                                                      {"num_key_value_heads", 1},
                                                      {"max_position_embeddings", 16},
                                                      {"rms_norm_eps", 1e-5}}}};
  for (const auto& [name, config] : kConfigs) {
    INFO(name);
    const auto model = models::create(config, {at::kFloat, at::kCPU}, 1);
    for (auto& parameter : model->parameters()) {
      const at::NoGradGuard no_grad;
      if (parameter.dim() > 1) parameter.mul_(10);  // so that attention is far from even
    }
    const Result one = run(*model, {packed}), each = run(*model, alone);
    CHECK(one.loss == Approx(each.loss).epsilon(1e-5));
    for (const auto& [key, gradient] : one.gradients) {
      INFO(key);
      const auto& expected = each.gradients.at(key);
      CHECK((gradient - expected).abs().max().item<double>() <= 5e-5 * expected.abs().max().item<double>() + 1e-9);
    }
    // Without the restarting positions the documents do see each other.
    data::Batch seen = packed;
    seen.position_ids.clear();
    CHECK(std::abs(run(*model, {seen}).loss - each.loss) > 1e-3);
  }
}
