// What of prompt methods, (IA)^3 and bottleneck adapters needs no other library: configs, places, folders, what is
// refused.

#include <ATen/ATen.h>

#include "config/config.h"
#include "generate/small_models.h"
#include "method_support.h"
#include "nn/activation.h"
#include "peft/adapter_folder.h"
#include "peft/bottleneck.h"
#include "peft/bottleneck_sites.h"
#include "peft/ia3.h"
#include "peft/prefix.h"
#include "peft/prompt.h"
#include "peft/prompt_files.h"

namespace llmtk {
namespace {

using at::Tensor;
using test::error_of;
using test::says;

const io::Json kBertClassifier = {{"model_type", "bert"},    {"architectures", {"BertForSequenceClassification"}},
                                  {"vocab_size", 90},        {"hidden_size", 32},
                                  {"num_hidden_layers", 2},  {"num_attention_heads", 4},
                                  {"intermediate_size", 48}, {"max_position_embeddings", 48},
                                  {"type_vocab_size", 2},    {"hidden_dropout_prob", 0.0},
                                  {"hidden_act", "gelu"},    {"attention_probs_dropout_prob", 0.0}};
const io::Json kT5Plain = [] {
  io::Json config = test::kT5;
  config["dropout_rate"] = 0.0;
  return config;
}();
const io::Json kGpt2Plain = [] {
  io::Json config = test::kGpt2;
  config.update({{"resid_pdrop", 0.0}, {"embd_pdrop", 0.0}, {"attn_pdrop", 0.0}});
  return config;
}();
const io::Json kNeox = {{"model_type", "gpt_neox"},     {"vocab_size", 90},         {"hidden_size", 32},
                        {"num_hidden_layers", 2},       {"num_attention_heads", 4}, {"intermediate_size", 48},
                        {"max_position_embeddings", 48}};
const io::Json kOpt = {
    {"model_type", "opt"},    {"vocab_size", 90},         {"hidden_size", 32}, {"ffn_dim", 48},
    {"num_hidden_layers", 2}, {"num_attention_heads", 4}, {"dropout", 0.0},    {"max_position_embeddings", 48}};

test::Inputs some_inputs() {
  const Tensor ids = at::arange(14, at::kLong).view({2, 7}) * 5 + 4;
  Tensor mask = at::ones({2, 7}, at::kLong);
  mask[1].narrow(0, 5, 2).fill_(0);
  return {ids, mask, at::arange(8, at::kLong).view({2, 4}) * 9 + 2};
}

template <class Config>
std::string config_error(const std::string& yaml) {
  return error_of([&] { config::parse<Config>(yaml, "c.yaml"); });
}

TEST_CASE("settings without effect are refused") {
  CHECK(says(config_error<peft::PrefixTuningConfig>("encoder_hidden_size: 8"), "encoder_hidden_size"));
  CHECK(config_error<peft::PrefixTuningConfig>("{prefix_projection: true, encoder_hidden_size: 8}") == "");
  CHECK(says(config_error<peft::PromptTuningConfig>("prompt_tuning_init_text: Hello"), "no influence"));
  CHECK(says(config_error<peft::PromptTuningConfig>("prompt_tuning_init: TEXT"), "is missing"));
  CHECK(says(config_error<peft::Ia3Config>("{target_modules: [a], feedforward_modules: [b]}"), "'b'"));
  CHECK(says(config_error<peft::Ia3Config>("target_modules: []"), "no modules"));
  CHECK(says(config_error<peft::BottleneckConfig>("{reduction_factor: 4, bottleneck_size: 8}"), "given twice"));
  CHECK(says(config_error<peft::BottleneckConfig>("type: parallel"), "houlsby"));
}

TEST_CASE("(IA)^3 says where it finds no layers") {
  const auto gpt2 = test::random_model(test::kGpt2);
  CHECK(says(error_of([&] { peft::apply(*gpt2, peft::Ia3Config{.target_modules = {"q_proj"}}, 1); }), "q_proj"));
  const io::Json gpt = {{"model_type", "openai-gpt"},
                        {"vocab_size", 90},
                        {"n_positions", 48},
                        {"n_embd", 32},
                        {"n_layer", 2},
                        {"n_head", 4}};
  CHECK(says(error_of([&] { peft::apply(*test::random_model(gpt), peft::Ia3Config(), 1); }), "openai-gpt"));
}

/// Random values, so that adapters do something.
void randomize_trained(nn::Model& model) {
  const at::NoGradGuard no_grad;
  at::manual_seed(11);
  for (auto& [name, tensor] : test::trained(model)) tensor.copy_(at::randn_like(tensor) * 0.3);
}

TEST_CASE("a bottleneck adapter is its formula, in every layer of its type") {
  const at::NoGradGuard no_grad;
  const auto model = test::random_model(test::kLlama);
  peft::apply(*model, peft::BottleneckConfig{.bottleneck_size = 6, .non_linearity = "gelu", .scaling = 2}, 1);
  randomize_trained(*model);
  CHECK(test::trained(*model).size() == 2 * 2 * 4);
  const auto site = peft::bottleneck_sites(*model, true).at(0);
  CHECK(site.path == "model.layers.0.self_attn.o_proj");
  const Tensor x = at::randn({2, 3, 32}), y = site.layer->base(x);
  const auto parameter = [&](const std::string& name) {
    return model->named_parameters()[site.path + ".adapter." + name];
  };
  const Tensor inner = at::gelu(at::linear(y, parameter("adapter_down.0.weight"), parameter("adapter_down.0.bias")));
  CHECK(inner.size(2) == 6);
  const Tensor change = at::linear(inner, parameter("adapter_up.weight"), parameter("adapter_up.bias"));
  CHECK(difference(site.layer->forward(x), y + 2 * change) < 1e-6);
}

TEST_CASE("adapters stand where AdapterHub has them") {
  struct Expected {
    io::Json config;
    size_t houlsby, pfeiffer;
    const char *first, *last;
  };
  const Expected expected[] = {
      {kBertClassifier, 4, 2, "bert.encoder.layer.0.attention.output", "bert.encoder.layer.1.output"},
      {test::kGpt2, 4, 2, "transformer.h.0.attention_adapters.adapters", "transformer.h.1.output_adapters.adapters"},
      {test::kLlama, 4, 2, "model.layers.0.attention_adapters", "model.layers.1.output_adapters"},
      {test::kT5, 8, 4, "encoder.block.0.layer.0", "decoder.block.1.layer.2"},
      {kNeox, 4, 2, "gpt_neox.layers.0.attention_adapters", "gpt_neox.layers.1.output_adapters"},
      {kOpt, 4, 2, "model.decoder.layers.0.attention_adapters", "model.decoder.layers.1.output_adapters"},
  };
  for (const Expected& one : expected) {
    const auto model = test::new_model(one.config);
    INFO(one.config["model_type"]);
    const auto sites = peft::bottleneck_sites(*model, true);
    CHECK(sites.size() == one.houlsby);
    CHECK(peft::bottleneck_sites(*model, false).size() == one.pfeiffer);
    CHECK(std::string(one.first).starts_with(sites.front().hub_path));
    CHECK(std::string(one.last).starts_with(sites.back().hub_path));
    CHECK(sites.back().number == (one.houlsby == 8 ? 3 : 1));
  }
}

TEST_CASE("saved adapters are read again; gradients are the same under checkpointing, in bfloat16 nearly") {
  for (const io::Json& config : {kBertClassifier, kGpt2Plain, test::kLlama, kT5Plain, kNeox, kOpt})
    for (const char* type : {"houlsby", "pfeiffer"}) {
      INFO(config["model_type"] << ", " << type);
      const auto fresh = [&](c10::ScalarType dtype) { return test::new_model(config, dtype); };
      const auto model = fresh(at::kFloat);
      const peft::BottleneckConfig settings{.type = type, .reduction_factor = 5, .leave_out = {0}};
      peft::apply(*model, settings, 1);
      CHECK(test::trained(*model).begin()->first.find(".0.adapter") == std::string::npos);
      randomize_trained(*model);
      const test::Inputs in = some_inputs();
      const auto gradients = [&](bool checkpointing) {
        model->train();
        model->set_gradient_checkpointing(checkpointing);
        zero_grad(*model);
        test::logits(*model, in).square().sum().backward();
        std::vector<Tensor> found;
        for (const auto& [name, tensor] : test::trained(*model)) found.push_back(tensor.grad());
        model->eval();
        return found;
      };
      const auto plain = gradients(false), checkpointed = gradients(true);
      for (size_t i = 0; i < plain.size(); ++i) {
        CHECK(plain[i].abs().max().item<double>() > 0);
        CHECK(difference(checkpointed[i], plain[i]) < 1e-5);
      }

      const test::TemporaryFolder folder;
      peft::save_bottleneck(*model, settings, folder.path());
      CHECK(peft::is_adapterhub_folder(folder.path()));
      const at::NoGradGuard no_grad;
      const Tensor expected = test::logits(*model, in);
      const auto again = fresh(at::kFloat), narrow = fresh(at::kBFloat16);
      CHECK(difference(test::logits(*again, in), expected) > 1e-3);
      peft::load_bottleneck(*again, folder.path());
      CHECK(at::equal(test::logits(*again, in), expected));
      CHECK(test::trained(*again).empty());
      peft::load_bottleneck(*narrow, folder.path());
      CHECK(difference(test::logits(*narrow, in), expected) < 5e-2);
    }
}

/// The settings that a folder of AdapterHub's holds, as far as the check sets them.
peft::BottleneckConfig hub_settings(const fs::path& folder) {
  const io::Json json = io::read_json(folder / peft::kConfigFile).at("config");
  return {.type = json.at("mh_adapter") ? "houlsby" : "pfeiffer",
          .reduction_factor = json.at("reduction_factor").get<double>(),
          .non_linearity = json.at("non_linearity").get<std::string>(),
          .scaling = json.at("scaling").get<double>(),
          .leave_out = json.at("leave_out").get<std::vector<int64_t>>()};
}

TEST_CASE("AdapterHub's folders give its logits, and go back to it") {
  const char* hub = std::getenv("LLMTK_ADAPTERHUB");
  if (!hub) LLMTK_SKIP("LLMTK_ADAPTERHUB names no folder: adapterhub_check.py makes one");
  const at::NoGradGuard no_grad;
  size_t cases = 0;
  for (const auto& entry : fs::directory_iterator(hub)) {
    const fs::path folder = entry.path();
    INFO(folder.filename());
    std::map<std::string, Tensor> reference;
    for (const auto& [key, tensor] : io::load_tensors(folder / "reference.safetensors")) reference[key] = tensor;
    const auto model = models::load_model((folder / "base").string());
    model->eval();
    const test::Inputs in{.ids = reference.at("input_ids"), .decoder_ids = reference["decoder_input_ids"]};
    CHECK(difference(test::logits(*model, in), reference.at("logits")) > 1e-3);
    peft::load_bottleneck(*model, folder / "adapter");
    CHECK(difference(test::logits(*model, in), reference.at("logits")) < kTolerance);
    peft::save_bottleneck(*model, hub_settings(folder / "adapter"), folder / "saved");
    ++cases;
  }
  CHECK(cases == 12);
}

TEST_CASE("folders for other models, tasks and methods are refused by name") {
  const test::TemporaryFolder prefix, hub;
  const auto llama = test::random_model(test::kLlama);
  peft::apply(*llama, peft::PTuningV2Config{.num_virtual_tokens = 3}, 1);
  peft::save_virtual_tokens(*llama, prefix.path(), "base");
  const auto refusal = [&](const io::Json& config) {
    const auto model = test::new_model(config);
    return error_of([&] { peft::load_virtual_tokens(*model, prefix.path()); });
  };
  CHECK(refusal(test::kLlama) == "");
  CHECK(says(refusal(test::kGpt2), "key 'token_dim'"));
  CHECK(says(refusal(kBertClassifier), "key 'task_type'"));

  const auto change = [](const fs::path& folder, const char* section, const char* key, const io::Json& value) {
    io::Json config = io::read_json(folder / peft::kConfigFile);
    (*section ? config[section] : config)[key] = value;
    io::write_json(folder / peft::kConfigFile, config);
  };
  change(prefix.path(), "", "peft_type", "P_TUNING");
  CHECK(says(refusal(test::kLlama), "key 'peft_type'"));
  change(prefix.path(), "", "peft_type", "PREFIX_TUNING");
  change(prefix.path(), "", "num_virtual_tokens", int64_t{1} << 30);
  CHECK(says(refusal(test::kLlama), "key 'num_virtual_tokens'"));
  change(prefix.path(), "", "num_virtual_tokens", 3);
  change(prefix.path(), "", "new_setting", 3);
  CHECK(says(refusal(test::kLlama), "key 'new_setting'"));

  const auto gpt2 = test::random_model(test::kGpt2);
  peft::apply(*gpt2, peft::BottleneckConfig(), 1);
  peft::save_bottleneck(*gpt2, {}, hub.path());
  change(hub.path(), "config", "original_ln_before", true);
  CHECK(says(error_of([&] { peft::load_bottleneck(*test::random_model(test::kGpt2), hub.path()); }),
             "key 'original_ln_before'"));
  CHECK(says(
      error_of([&] { peft::apply(*test::random_model(test::kGpt2), peft::BottleneckConfig{.leave_out = {2}}, 1); }),
      "leave_out"));
}

}  // namespace
}  // namespace llmtk
