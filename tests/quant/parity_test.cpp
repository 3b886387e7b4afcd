// Against bitsandbytes, transformers and peft on a CPU: packed weights bit by bit; logits, gradients and 20 steps of
// LoRA on quantized bases.

#include "models/parity.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>

#include "config/config.h"
#include "io/json.h"
#include "io/tensors.h"
#include "peft/adapter.h"
#include "peft/adapter_folder.h"
#include "quant/packed_weight.h"
#include "quant/quantize_linears.h"
#include "test.h"

namespace llmtk {
namespace {

using at::Tensor;
using kernels::QuantizedMatrix;
using kernels::QuantType;
using Tensors = std::map<std::string, Tensor>;

Tensors read(const fs::path& path) {
  Tensors tensors;
  for (const auto& [name, tensor] : io::load_tensors(path)) tensors[name] = tensor;
  return tensors;
}

#define LLMTK_NEEDS_REFERENCE                                               \
  if (!fs::exists(reference_folder() / "llama.int8" / "quantization.json")) \
  LLMTK_SKIP("no reference: it is made by reference.py, with the Python peers")

struct Kind {
  const char* name;
  QuantType type;
  bool doubly;
};
constexpr Kind kKinds[] = {{"nf4", QuantType::nf4, false},
                           {"nf4_double", QuantType::nf4, true},
                           {"fp4", QuantType::fp4, false},
                           {"fp4_double", QuantType::fp4, true},
                           {"int8", QuantType::int8, false}};

struct Case {
  explicit Case(const fs::path& folder)
      : name(folder.filename().string()),
        reference(read(folder / "reference.safetensors")),
        ids(reference.at("input_ids")) {
    model = models::load((folder).string(), {.map = true});
    const auto config =
        config::parse<quant::QuantizationConfig>(io::read_json(folder / "quantization.json").dump(), name);
    quant::quantize_linears(*model, config);
    quant::own_parameters(*model, at::kFloat);
    const fs::path saved = folder / "adapter";
    const auto lora = peft::lora_config_from(io::read_json(saved / peft::kConfigFile), name);
    adapter.emplace(peft::apply(*model, lora, 1));
    peft::load_adapter_weights(*adapter, saved);
  }
  Tensor loss() {
    const Tensor hidden = model->forward(ids).slice(1, 0, -1).flatten(0, 1), targets = ids.slice(1, 1).flatten();
    return model->cross_entropy(hidden, targets, 1.0 / static_cast<double>(targets.numel()));
  }
  /// "model.layers.0.self_attn.q_proj.lora_A" -> the parameter.
  Tensors trained() const {
    Tensors found;
    for (const peft::LoraTarget& target : adapter->targets()) {
      found[target.path + ".lora_A"] = target.lora->A;
      found[target.path + ".lora_B"] = target.lora->B;
    }
    return found;
  }
  /// bfloat16 products differ in their last bit with the order of their sums.
  double tolerance() const { return name.ends_with("bfloat16") ? 2e-2 : kTolerance; }

  std::string name;
  Tensors reference;
  Tensor ids;
  std::shared_ptr<nn::CausalModel> model;
  std::optional<peft::Adapter> adapter;
};

template <class Body>
void for_each_case(Body body) {
  int cases = 0;
  for (const auto& entry : fs::directory_iterator(reference_folder())) {
    if (!fs::exists(entry.path() / "quantization.json")) continue;
    Case one(entry.path());
    INFO(one.name);
    body(one);
    ++cases;
  }
  CHECK(cases == 10);
}

TEST_CASE("weights are packed and unpacked to bitsandbytes' last bit") {
  LLMTK_NEEDS_REFERENCE;
  const Tensors reference = read(reference_folder() / "weights.safetensors");
  int weights = 0;
  for (const auto& [name, weight] : reference) {
    if (std::ranges::count(name, '.') != 1) continue;
    ++weights;
    for (const Kind& kind : kKinds) {
      const std::string key = name + "." + kind.name;
      INFO(key);
      const QuantizedMatrix q = kernels::quantize(weight, kind.type, kind.doubly);
      CHECK(q.codes.equal(reference.at(key + ".codes")));
      CHECK((kind.doubly ? q.scale_codes : q.scales).equal(reference.at(key + ".scales")));
      if (kind.doubly) {
        CHECK(q.scale_scales.equal(reference.at(key + ".scale_scales")));
        CHECK(q.scale_map.equal(reference.at(key + ".scale_map")));
        CHECK(q.scale_offset == reference.at(key + ".offset").item<float>());
      }
      CHECK(kernels::dequantize(q, at::kFloat).equal(reference.at(key + ".float32")));
      if (kind.type != QuantType::int8)
        CHECK(kernels::dequantize(q, at::kBFloat16).equal(reference.at(key + ".bfloat16")));
    }
  }
  CHECK(weights == 16);
}

TEST_CASE("LoRA on a quantized base: logits, loss and gradients are peft's") {
  LLMTK_NEEDS_REFERENCE;
  for_each_case([](Case& c) {
    CHECK(difference(c.model->logits(c.model->forward(c.ids)), c.reference.at("logits")) < c.tolerance());
    const Tensor loss = c.loss();
    CHECK(difference(loss, c.reference.at("loss")) < c.tolerance());
    loss.backward();
    const Tensors trained = c.trained();
    CHECK(trained.size() >= 8);
    for (const auto& [name, parameter] : trained) {
      INFO(name);
      CHECK(difference(parameter.grad(), c.reference.at("grad." + name)) < c.tolerance());
    }
  });
}

TEST_CASE("20 steps of QLoRA are peft's") {
  LLMTK_NEEDS_REFERENCE;
  for_each_case([](Case& c) {
    if (c.name.ends_with("bfloat16")) return;  // rounded gradients, and AdamW's steps are their signs at first
    std::vector<kernels::AdamWTensor> state;
    const Tensors trained = c.trained();
    for (const auto& [name, parameter] : trained)
      state.push_back({.param = parameter.detach(),
                       .exp_avg = at::zeros_like(parameter),
                       .exp_avg_sq = at::zeros_like(parameter),
                       .weight_decay = 0.1});
    std::vector<float> losses;
    for (int64_t step = 1; step <= 20; ++step) {
      zero_grad(*c.model);
      const Tensor loss = c.loss();
      losses.push_back(loss.item<float>());
      loss.backward();
      size_t i = 0;
      for (const auto& [name, parameter] : trained) state[i++].grad = parameter.grad().contiguous();
      kernels::adamw_step(state, {.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-6, .step = step});
    }
    CHECK(difference(at::tensor(losses), c.reference.at("losses")) < kTolerance);
    for (const auto& [name, parameter] : trained) {
      INFO(name);
      CHECK(difference(parameter.detach(), c.reference.at("trained." + name)) < kTolerance);
    }
  });
}

}  // namespace
}  // namespace llmtk
