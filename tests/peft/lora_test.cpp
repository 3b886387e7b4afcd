// The branch itself: its start, its dropout, its dtype; LoRA+.

#include "peft/lora.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "kernels/backend.h"
#include "kernels/dropout.h"
#include "kernels/lora.h"
#include "models/parity.h"
#include "peft/adapter.h"
#include "test.h"

namespace llmtk {
namespace {

using at::Tensor;
using peft::LoraConfig;

std::shared_ptr<nn::CausalModel> small_gpt2(nn::Build build = {}) {
  return models::create({{"model_type", "gpt2"},
                         {"vocab_size", 29},
                         {"n_positions", 16},
                         {"n_embd", 24},
                         {"n_layer", 2},
                         {"n_head", 2},
                         {"n_inner", nullptr},
                         {"activation_function", "gelu_new"},
                         {"resid_pdrop", 0.0},
                         {"embd_pdrop", 0.0},
                         {"attn_pdrop", 0.0},
                         {"layer_norm_epsilon", 1e-5},
                         {"initializer_range", 0.2},
                         {"tie_word_embeddings", true}},
                        build, 3);
}

Tensor some_ids() { return at::arange(24).view({2, 12}) % 29; }

Tensor logits_of(nn::CausalModel& model) { return model.logits(model.forward(some_ids())); }

TEST_CASE("a fresh adapter changes nothing, whatever its kind, and depends on the seed alone") {
  const at::NoGradGuard no_grad;
  const Tensor base = logits_of(*small_gpt2());
  for (const char* init : {"true", "gaussian", "pissa", "pissa_niter_8"})
    for (const bool dora : {false, true}) {
      CAPTURE(init, dora);
      LoraConfig config;
      config.init_lora_weights = init;
      config.use_dora = dora;
      config.r = 5;
      const auto model = small_gpt2(), again = small_gpt2(), other = small_gpt2();
      const auto adapter = peft::apply(*model, config, 1);
      CHECK(difference(logits_of(*model), base) < kTolerance);
      const auto same = peft::apply(*again, config, 1), another = peft::apply(*other, config, 2);
      CHECK(same.targets()[0].lora->A.equal(adapter.targets()[0].lora->A));
      if (std::string_view(init) != "pissa") CHECK(!another.targets()[0].lora->A.equal(adapter.targets()[0].lora->A));
    }
  LoraConfig both;
  both.init_lora_weights = "false";
  const auto model = small_gpt2();
  peft::apply(*model, both, 1);
  CHECK(difference(logits_of(*model), base) > 1e-3);
}

TEST_CASE("the iterated SVD takes as much out of a matrix as the exact one") {
  const at::NoGradGuard no_grad;
  const auto taken = [](const char* init) {  // the norm of B A in each layer
    LoraConfig config;
    config.init_lora_weights = init;
    config.r = 3;
    const auto model = small_gpt2();
    const auto adapter = peft::apply(*model, config, 1);
    std::vector<Tensor> norms;
    for (const auto& target : adapter.targets()) norms.push_back(target.lora->update().norm());
    return at::stack(norms);
  };
  const Tensor exact = taken("pissa");
  CHECK(difference(taken("pissa_niter_16"), exact) < 5e-3);
  CHECK(difference(taken("pissa_niter_0"), exact) > 2e-2);
}

/// y, and the gradients of x, weight, bias, A and B for a gradient of ones times 1, 2, 3, ...
std::vector<Tensor> outcome(const std::vector<Tensor>& inputs,
                            const std::function<Tensor(const std::vector<Tensor>&)>& f) {
  std::vector<Tensor> leaves;
  for (const Tensor& input : inputs) leaves.push_back(input.detach().clone().requires_grad_(true));
  const Tensor y = f(leaves);
  (y.to(at::kFloat) * at::arange(1, y.numel() + 1).view(y.sizes()) / static_cast<double>(y.numel())).sum().backward();
  std::vector<Tensor> found{y.detach()};
  for (const Tensor& leaf : leaves) found.push_back(leaf.grad());
  return found;
}

TEST_CASE("the product with a branch is what its formula says, dropout included, in float32 and bfloat16") {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const double p : {0.0, 0.4}) {
      CAPTURE(dtype, p);
      at::manual_seed(5);
      const int64_t rows = 1100, in = 300, out = 17, rank = 3;  // several pieces
      const std::vector<Tensor> inputs = {at::randn({2, rows / 2, in}).to(dtype), at::randn({out, in}).to(dtype),
                                          at::randn({out}).to(dtype), at::randn({rank, in}), at::randn({out, rank})};
      at::manual_seed(9);
      const auto got = outcome(inputs, [&](const std::vector<Tensor>& t) {
        return kernels::lora_linear(t[0], t[1], t[2], t[3], t[4], 1.5, p);
      });
      at::manual_seed(9);
      const uint64_t seed = kernels::draw_dropout_seed();
      const Tensor factors = p > 0 ? kernels::dropout_factors(rows, in, p, seed).view({2, rows / 2, in}) : Tensor();
      const auto expected = outcome(inputs, [&](const std::vector<Tensor>& t) {
        const Tensor x = t[0].to(at::kDouble), seen = p > 0 ? x * factors : x;
        const auto wide = [&](size_t i) { return t[i].to(at::kDouble); };
        return at::linear(x, wide(1), wide(2)) + 1.5 * seen.matmul(wide(3).t()).matmul(wide(4).t());
      });
      for (size_t i = 0; i < got.size(); ++i) {
        CAPTURE(i);
        CHECK(got[i].scalar_type() == (i == 0 ? dtype : inputs[i - 1].scalar_type()));
        CHECK(difference(got[i].to(at::kFloat), expected[i].to(at::kFloat)) < (dtype == at::kFloat ? 2e-6 : 1e-2));
      }
    }
}

TEST_CASE("dropout drops its share, of every row and column, and each seed another") {
  const Tensor factors = kernels::dropout_factors(1000, 777, 0.1, 42);
  CHECK(((factors == 0) | ((factors - 1 / 0.9).abs() < 1e-6)).all().item<bool>());
  const Tensor kept = (factors > 0).to(at::kFloat);
  CHECK(std::abs(kept.mean().item<double>() - 0.9) < 1e-3);
  CHECK((kept.mean(0) - 0.9).abs().max().item<double>() < 0.05);
  CHECK((kept.mean(1) - 0.9).abs().max().item<double>() < 0.06);
  const Tensor x = kept - 0.9;  // neighbours in either direction have nothing to do with each other
  CHECK(std::abs((x.slice(1, 1) * x.slice(1, 0, -1)).mean().item<double>()) < 1e-3);
  CHECK(std::abs((x.slice(0, 1) * x.slice(0, 0, -1)).mean().item<double>()) < 1e-3);
  CHECK(!kernels::dropout_factors(1000, 777, 0.1, 43).equal(factors));
}

TEST_CASE("dropout and its gradient are the reference's, whatever the layout") {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const Tensor x = at::randn({3, 5, 70}).to(dtype).requires_grad_(true);
    at::manual_seed(8);
    const uint64_t seed = kernels::draw_dropout_seed();
    at::manual_seed(8);
    const Tensor y = kernels::dropout(x, 0.3), expected = kernels::reference::dropout(x, 0.3, seed);
    CHECK(y.equal(expected));
    y.sum().backward();
    CHECK(x.grad().equal(kernels::reference::dropout(at::ones_like(x), 0.3, seed)));
    const Tensor view = x.detach().transpose(0, 2);
    at::manual_seed(8);
    CHECK(kernels::dropout(view, 0.3).equal(kernels::reference::dropout(view.contiguous(), 0.3, seed)));
  }
}

TEST_CASE("dropout is for training alone, and a checkpointed layer draws the same mask again") {
  LoraConfig config;
  config.lora_dropout = 0.5;
  config.init_lora_weights = "false";
  for (const bool dora : {false, true}) {
    CAPTURE(dora);
    config.use_dora = dora;
    std::vector<std::vector<Tensor>> gradients;
    for (const bool checkpointing : {false, true}) {
      const auto model = small_gpt2();
      const auto adapter = peft::apply(*model, config, 1);
      model->eval();
      CHECK(logits_of(*model).equal(logits_of(*model)));
      model->train();
      CHECK(!logits_of(*model).equal(logits_of(*model)));
      model->set_gradient_checkpointing(checkpointing);
      at::manual_seed(11);
      logits_of(*model).square().sum().backward();
      gradients.emplace_back();
      for (const auto& target : adapter.targets()) {
        gradients.back().push_back(target.lora->A.grad());
        gradients.back().push_back(target.lora->B.grad());
      }
    }
    for (size_t i = 0; i < gradients[0].size(); ++i) CHECK(difference(gradients[1][i], gradients[0][i]) < 1e-6);
  }
}

TEST_CASE("DoRA with dropout is what peft's formula says") {
  const nn::Build build;
  nn::Linear layer(6, 4, {}, build);
  at::manual_seed(2);
  const at::NoGradGuard no_grad;
  layer.weight.normal_();
  layer.bias.normal_();
  auto lora = std::make_shared<peft::Lora>(
      peft::Lora::Options{.in = 6, .out = 4, .rank = 2, .scaling = 0.5, .dropout = 0.5, .dora = true});
  for (const Tensor& t : {lora->A, lora->B, lora->magnitude}) Tensor(t).normal_();
  auto branch = std::make_shared<peft::LoraLinear>();
  branch->add("default", lora);
  layer.set_branch("lora", branch);
  layer.train();
  const Tensor x = at::randn({3, 6});
  at::manual_seed(4);
  const Tensor got = layer.forward(x);
  at::manual_seed(4);
  const Tensor seen = kernels::dropout(x, 0.5);
  const Tensor update = 0.5 * lora->B.mm(lora->A);
  const Tensor m = lora->magnitude / at::linalg_vector_norm(layer.weight + update, 2, {1});
  const Tensor expected =
      at::linear(x, layer.weight, layer.bias) + (m - 1) * seen.mm(layer.weight.t()) + m * seen.mm(update.t());
  CHECK(difference(got, expected) < 2e-6);
}

TEST_CASE("a bfloat16 base keeps float32 adapters, and what they add is rounded once") {
  const auto model = small_gpt2({.dtype = at::kBFloat16}), wide = small_gpt2();
  LoraConfig config;
  config.init_lora_weights = "false";
  config.use_dora = true;
  config.target_modules = {"c_attn", "lm_head"};
  const auto adapter = peft::apply(*model, config, 1);
  peft::apply(*wide, config, 1);
  CHECK(adapter.targets()[0].lora->A.scalar_type() == at::kFloat);
  const Tensor logits = logits_of(*model);
  CHECK(logits.scalar_type() == at::kBFloat16);
  CHECK(difference(logits.to(at::kFloat), logits_of(*wide).detach()) < 3e-2);
  model->cross_entropy(model->forward(some_ids()).flatten(0, 1), some_ids().flatten(), 1.0).backward();
  wide->cross_entropy(wide->forward(some_ids()).flatten(0, 1), some_ids().flatten(), 1.0).backward();
  const auto expected = wide->named_parameters();
  for (const auto& parameter : model->named_parameters())
    if (parameter.value().requires_grad())
      CHECK(difference(parameter.value().grad(), expected[parameter.key()].grad()) < 6e-2);
}

/// A matrix that is kept some other way.
struct Kept : nn::WeightStorage {
  explicit Kept(Tensor weight) : weight(std::move(weight)) {}
  Tensor linear(const Tensor& x, const Tensor& bias) const override { return at::linear(x, weight, bias); }
  Tensor dequantize(c10::ScalarType dtype) const override { return weight.to(dtype); }
  int64_t bytes() const override { return static_cast<int64_t>(weight.nbytes()); }
  Tensor weight;  // [out, in]
};

TEST_CASE("a branch above a quantized matrix gives the same numbers, and cannot be merged") {
  for (const bool dora : {false, true}) {
    CAPTURE(dora);
    LoraConfig config;
    config.init_lora_weights = "false";
    config.use_dora = dora;
    config.target_modules = "all-linear";
    std::vector<Tensor> logits, gradients;
    for (const bool stored : {false, true}) {
      const auto model = small_gpt2();
      if (stored)
        for (const auto& module : model->modules())
          if (auto* layer = dynamic_cast<nn::Linear*>(module.get()); layer && !layer->is_tied())
            layer->set_storage(std::make_shared<Kept>(layer->base_weight().detach()));
      const auto adapter = peft::apply(*model, config, 1);
      logits.push_back(logits_of(*model).detach());
      logits_of(*model).square().mean().backward();
      gradients.push_back(adapter.targets()[0].lora->A.grad());
      if (stored) CHECK(test::says(test::error_of([&] { peft::merge_adapters(*model); }), "quantized"));
    }
    CHECK(difference(logits[1], logits[0]) < kTolerance);
    CHECK(difference(gradients[1], gradients[0]) < kTolerance);
  }
  LoraConfig pissa;
  pissa.init_lora_weights = "pissa";
  const auto model = small_gpt2();
  for (const auto& module : model->modules())
    if (auto* layer = dynamic_cast<nn::Linear*>(module.get()); layer && !layer->is_tied())
      layer->set_storage(std::make_shared<Kept>(layer->base_weight().detach()));
  CHECK(test::says(test::error_of([&] { peft::apply(*model, pissa, 1); }), "quantized"));
}

TEST_CASE("LoRA+ gives B, magnitudes and biases another learning rate") {
  LoraConfig config;
  config.target_modules = {"c_attn", "wte"};
  config.bias = "lora_only";
  const auto plain = small_gpt2();
  CHECK(peft::apply(*plain, config, 1).loraplus_learning_rates(1e-3).empty());
  config.loraplus_lr_ratio = 16;
  const auto model = small_gpt2();
  const auto rates = peft::apply(*model, config, 1).loraplus_learning_rates(1e-3);
  const auto parameters = model->named_parameters();
  for (const auto& [name, rate] : rates) {
    REQUIRE(parameters.contains(name));
    CHECK(parameters[name].requires_grad());
  }
  CHECK(rates.at("transformer.h.0.attn.c_attn.lora.default.B") == 16e-3);
  CHECK(rates.at("transformer.h.0.attn.c_attn.bias") == 16e-3);
  CHECK(rates.at("transformer.wte.lora.default.A") == 1e-6);
  CHECK(!rates.contains("transformer.h.0.attn.c_attn.lora.default.A"));
}

TEST_CASE("weights count deltas alone") {
  LoraConfig config;
  config.modules_to_save = {"ln_f"};
  const auto model = small_gpt2();
  auto adapter = peft::apply(*model, config, 1);
  CHECK(test::says(test::error_of([&] { adapter.set_weight(0.5); }), "cannot be weighted"));
}

}  // namespace
}  // namespace llmtk
