// LoRA and its kin against peft: logits with an adapter that peft saved, the gradient of everything that is trained, 20
// steps of AdamW, merged logits; and what is saved here goes back to peft (saved_check.py).

#include <ATen/ATen.h>

#include "io/tensors.h"
#include "models/parity.h"
#include "models/registry.h"
#include "nn/encoder_model.h"
#include "nn/seq2seq_model.h"
#include "peft/adapter.h"
#include "peft/adapter_folder.h"
#include "test.h"

namespace llmtk {
namespace {

using at::Tensor;

bool have_reference() { return fs::exists(reference_folder() / "t5_dora" / "reference.safetensors"); }

#define LLMTK_NEEDS_REFERENCE \
  if (!have_reference()) LLMTK_SKIP("no reference adapters: they are made by reference.py, with the Python peers")

struct Case {
  explicit Case(const fs::path& folder, at::ScalarType dtype = at::kFloat)
      : folder(folder),
        name(folder.filename().string()),
        model(models::load_model((folder / "base").string(), {.dtype = dtype})) {
    for (const auto& [key, tensor] : io::load_tensors(folder / "reference.safetensors")) reference[key] = tensor;
  }
  Tensor hidden() const {
    const Tensor ids = reference.at("input_ids");
    if (auto* causal = dynamic_cast<nn::CausalModel*>(model.get())) return causal->forward(ids);
    if (auto* encoder = dynamic_cast<nn::EncoderModel*>(model.get())) return encoder->forward(ids);
    auto& seq2seq = dynamic_cast<nn::Seq2SeqModel&>(*model);
    return seq2seq.decode(reference.at("decoder_input_ids"), {.encoder_hidden = seq2seq.encode(ids)});
  }
  Tensor logits() const {
    if (model->head() == nn::Head::sequence_classification)
      return model->class_logits({.input_ids = reference.at("input_ids")});
    if (auto* causal = dynamic_cast<nn::CausalModel*>(model.get())) return causal->logits(hidden());
    if (auto* encoder = dynamic_cast<nn::EncoderModel*>(model.get())) return encoder->logits(hidden());
    return dynamic_cast<nn::Seq2SeqModel&>(*model).logits(hidden());
  }
  /// The mean over all labels, where there is a vocabulary fused with the head.
  Tensor loss() const {
    const Tensor labels = reference.at("labels").flatten();
    const double scale = 1.0 / static_cast<double>(labels.numel());
    if (auto* causal = dynamic_cast<nn::CausalModel*>(model.get()))
      return causal->cross_entropy(hidden().flatten(0, 1), labels, scale);
    if (auto* seq2seq = dynamic_cast<nn::Seq2SeqModel*>(model.get()))
      return seq2seq->cross_entropy(hidden().flatten(0, 1), labels, scale);
    const Tensor scores = logits();
    return at::cross_entropy_loss(scores.view({-1, scores.size(-1)}), labels);
  }

  fs::path folder;
  std::string name;
  std::shared_ptr<nn::Model> model;
  std::map<std::string, Tensor> reference;
};

template <class Body>
void for_each_case(Body&& body) {
  llmtk::for_each_case<Case>(reference_folder(), 23, body);
}

/// Everything that the adapter trains, by its key in adapter_model.safetensors.
std::map<std::string, Tensor> trained(const peft::Adapter& adapter) {
  std::map<std::string, Tensor> tensors;
  auto parameters = adapter.model().named_parameters();
  for (const auto& target : adapter.targets()) {
    const std::string at = peft::kKeyPrefix + target.path + (target.is_embedding() ? ".lora_embedding_" : ".lora_");
    const std::string end = target.is_embedding() ? "" : ".weight";
    tensors[at + "A" + end] = target.lora->A;
    tensors[at + "B" + end] = target.lora->B;
    if (target.lora->is_dora())
      tensors[peft::kKeyPrefix + target.path + ".lora_magnitude_vector"] = target.lora->magnitude;
    const std::string bias = target.path + ".bias";
    if (std::ranges::find(adapter.own_parameters(), bias) != adapter.own_parameters().end())
      tensors[peft::kKeyPrefix + target.path + ".base_layer.bias"] = parameters[bias];
  }
  for (const std::string& own : adapter.own_parameters()) {
    const bool has_branch =
        std::ranges::any_of(adapter.targets(), [&](const auto& target) { return own == target.path + ".bias"; });
    if (!has_branch) tensors[peft::kKeyPrefix + own] = parameters[own];
  }
  return tensors;
}

/// The adapter of a folder, ready to be trained on.
peft::Adapter open_for_training(Case& c) {
  const fs::path folder = c.folder / "adapter";
  auto config = peft::lora_config_from(io::read_json(folder / peft::kConfigFile), folder.string());
  auto adapter = peft::apply(*c.model, config, 1);
  peft::load_adapter_weights(adapter, folder);
  return adapter;
}

/// As the reference's: a key's bias has no gradient but rounding where nothing rotates.
bool is_rounding(const Case& c, const std::string& key) { return c.name == "bert_bias" && key.ends_with("key.bias"); }

/// Gradients are the same when each layer is computed again for them. The models have no dropout.
void check_checkpointing(Case& c, const std::map<std::string, Tensor>& tensors) {
  std::map<std::string, Tensor> plain;
  for (const auto& [key, tensor] : tensors) plain[key] = tensor.grad().clone();
  zero_grad(*c.model);
  c.model->train();
  c.model->set_gradient_checkpointing(true);
  c.loss().backward();
  for (const auto& [key, tensor] : tensors) {
    INFO(key);
    if (!is_rounding(c, key)) CHECK(difference(tensor.grad(), plain.at(key)) < 1e-5);
  }
  c.model->set_gradient_checkpointing(false);
  c.model->eval();
}

TEST_CASE("logits, loss, the gradient of every tensor and 20 AdamW steps are peft's") {
  LLMTK_NEEDS_REFERENCE;
  for_each_case([](Case& c) {
    const auto adapter = open_for_training(c);
    {
      const at::NoGradGuard no_grad;
      CHECK(difference(c.logits(), c.reference.at("logits")) < kTolerance);
    }
    Tensor loss = c.loss();
    CHECK(difference(loss, c.reference.at("loss")) < kTolerance);
    loss.backward();
    const auto tensors = trained(adapter);
    size_t gradients = 0, learning = 0;
    for (const auto& [key, tensor] : c.reference) gradients += key.starts_with("grad.");
    for (const Tensor& parameter : c.model->parameters()) learning += parameter.requires_grad();
    CHECK(tensors.size() == gradients);
    CHECK(learning == gradients);
    for (const auto& [key, tensor] : tensors) {
      INFO(key);
      REQUIRE(tensor.grad().defined());
      if (!is_rounding(c, key)) CHECK(difference(tensor.grad(), c.reference.at("grad." + key)) < kTolerance);
    }
    check_checkpointing(c, tensors);
    train_20_steps(*c.model, [&] { return c.loss(); }, /*eps=*/1e-3);  // as the reference's
    for (const auto& [key, tensor] : tensors) {
      INFO(key);
      if (!is_rounding(c, key)) CHECK(difference(tensor.detach(), c.reference.at("after." + key)) < kTolerance);
    }
  });
}

TEST_CASE("a loaded adapter and the merged model give peft's logits") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    peft::load_adapter(*c.model, c.folder / "adapter");
    CHECK(difference(c.logits(), c.reference.at("logits")) < kTolerance);
    peft::merge_adapters(*c.model);
    // peft merges into a table that the head shares: its merged model differs from its adapter. Here it does not.
    CHECK(difference(c.logits(), c.reference.at("logits")) < kTolerance);
    const bool shares = c.name == "gpt2_table" || c.name == "llama_tied_branch";
    CHECK((difference(c.reference.at("merged_logits"), c.reference.at("logits")) > kTolerance) == shares);
    CHECK(models::model_types().size() > 0);
    for (const auto& item : c.model->named_parameters()) CHECK(item.key().find(".lora.") == std::string::npos);
  });
}

TEST_CASE("with a base in bfloat16 logits and gradients are as close to float32's as peft's; the adapter is float32") {
  LLMTK_NEEDS_REFERENCE;
  for_each_case([](Case& wide) {
    Case c(wide.folder, at::kBFloat16);
    const auto adapter = open_for_training(c);
    {
      const at::NoGradGuard no_grad;
      const Tensor narrow = c.logits();
      CHECK(narrow.scalar_type() == at::kBFloat16);
      CHECK(difference(narrow, c.reference.at("logits")) < 2 * c.reference.at("bfloat16.logits").item<double>());
    }
    c.loss().backward();
    double off = 0, all = 0;
    for (const auto& [key, tensor] : trained(adapter)) {
      INFO(key);
      REQUIRE(tensor.grad().defined());
      if (key.find(".lora_") != std::string::npos) CHECK(tensor.scalar_type() == at::kFloat);
      const Tensor& expected = c.reference.at("grad." + key);
      off += (tensor.grad() - expected).square().sum().item<double>();
      all += expected.square().sum().item<double>();
    }
    CHECK(std::sqrt(off / all) < 2 * c.reference.at("bfloat16.grads").item<double>());
  });
}

TEST_CASE("two adapters weighted are peft's combination, in any order of loading and after merging") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  Case c(reference_folder() / "llama");
  const Tensor expected = io::load_tensors(c.folder / "combined.safetensors").front().second;
  auto first = peft::load_adapter(*c.model, c.folder / "adapter", "first", 0.7);
  auto second = peft::load_adapter(*c.model, c.folder / "second", "second", 0.4);
  CHECK(difference(c.logits(), expected) < kTolerance);
  second.set_weight(0);
  first.set_weight(1);
  CHECK(difference(c.logits(), c.reference.at("logits")) < kTolerance);
  first.set_weight(0.7);
  second.set_weight(0.4);
  peft::merge_adapters(*c.model);
  CHECK(difference(c.logits(), expected) < kTolerance);
}

TEST_CASE("adapters and merged models are saved for peft and transformers") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    const auto adapter = open_for_training(c);
    fs::remove_all(c.folder / "saved");
    peft::save_adapter(adapter, c.folder / "saved", (c.folder / "base").string());
    c.model = models::load_model((c.folder / "base").string());
    peft::load_adapter(*c.model, c.folder / "saved");
    CHECK(difference(c.logits(), c.reference.at("logits")) < kTolerance);
  });
}

TEST_CASE("a converted PiSSA adapter is opened, and training goes on from it") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  Case c(reference_folder() / "llama_pissa");
  peft::load_adapter(*c.model, c.folder / "converted");
  CHECK(difference(c.logits(), c.reference.at("logits")) < kTolerance);

  Case again(c.folder);
  const auto adapter = open_for_training(again);
  test::TemporaryFolder folder;
  peft::save_adapter(adapter, folder / "checkpoint", "");
  Case resumed(c.folder);
  auto other = peft::apply(*resumed.model, adapter.config(), 1);
  peft::load_adapter_weights(other, folder / "checkpoint");
  CHECK(resumed.logits().equal(again.logits()));
}

}  // namespace
}  // namespace llmtk
