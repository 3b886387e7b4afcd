#include "models/registry.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstdlib>
#include <fstream>

#include "core/error.h"
#include "models/config.h"
#include "nn/linear.h"
#include "stderr_of.h"
#include "test.h"

namespace llmtk::models {
namespace {

io::Json small_gpt2() {
  return {{"model_type", "gpt2"}, {"vocab_size", 31}, {"n_positions", 16},
          {"n_embd", 24},         {"n_layer", 2},     {"n_head", 3}};
}

io::Json small_llama() {
  return {
      {"model_type", "llama"},  {"vocab_size", 31},         {"hidden_size", 24},        {"intermediate_size", 40},
      {"num_hidden_layers", 2}, {"num_attention_heads", 3}, {"num_key_value_heads", 1}, {"max_position_embeddings", 16},
      {"rms_norm_eps", 1e-5}};
}

struct WholeConfig {
  ModelConfig model;
  template <class V>
  void fields(V& v) {
    v("model", model, "What is trained");
  }
};

using test::error_of;
using test::says;

TEST_CASE("the published sizes have their published numbers of parameters") {
  // Counted as transformers counts the same configs (num_parameters()).
  const std::map<std::string, int64_t> counts = {
      {"gpt2", 124439808},          {"gpt2-medium", 354823168},   {"gpt2-large", 774030080},
      {"gpt2-xl", 1557611200},      {"openai-gpt", 116534784},    {"smollm2-135m", 134515008},
      {"smollm2-360m", 361821120},  {"smollm2-1.7b", 1711376384}, {"tinyllama-1.1b", 1100048384},
      {"llama-2-7b", 6738415616},   {"llama-3-8b", 8030261248},   {"llama-3.2-1b", 1235814400},
      {"llama-3.2-3b", 3212749824}, {"t5-small", 60506624},       {"t5-base", 222903552},
      {"t5-large", 737668096},      {"t5-v1_1-small", 76961152},  {"t5-v1_1-base", 247577856},
      {"t5-v1_1-large", 783150080},
  };
  for (const std::string& name : preset_names()) {
    INFO(name);
    // On the meta device nothing is allocated.
    const auto model = make_model(preset(name), name, {c10::kBFloat16, c10::kMeta});
    if (counts.contains(name)) CHECK(model->num_parameters() == counts.at(name));
    CHECK(model->training_flops_per_token(1) > 5.0 * 0.6 * static_cast<double>(model->num_parameters()));
  }
  CHECK(says(error_of([] { preset("gpt2-large-v2"); }), "gpt2-medium"));
  CHECK(says(error_of([] { preset("smollm-135m"); }), "did you mean 'smollm2-135m'?"));
}

TEST_CASE("the seed alone decides the weights") {
  const auto weights = [](uint64_t seed, c10::ScalarType dtype, int threads) {
    at::set_num_threads(threads);
    const auto model = create(small_llama(), {dtype, c10::kCPU}, seed);
    std::vector<at::Tensor> all;
    for (const auto& parameter : model->parameters()) all.push_back(parameter.detach().flatten());
    return at::cat(all);
  };
  const at::Tensor one = weights(1, at::kFloat, 1);
  CHECK(at::equal(one, weights(1, at::kFloat, 2)));
  CHECK(at::equal(one.to(at::kBFloat16), weights(1, at::kBFloat16, 2)));
  CHECK_FALSE(at::equal(one, weights(2, at::kFloat, 1)));
}

TEST_CASE("weights start as published") {
  io::Json config = small_gpt2();
  config["n_embd"] = 192;
  config["n_layer"] = 8;
  const auto model = create(config, {}, 3);
  for (const auto& parameter : model->named_parameters()) {
    INFO(parameter.key());
    const at::Tensor value = parameter.value().detach();
    const double expected = parameter.key().ends_with("c_proj.weight") ? 0.02 / 4 : 0.02;  // sqrt(2 * 8) = 4
    if (value.dim() == 1) {
      CHECK(at::equal(value, at::full_like(value, parameter.key().ends_with("weight") ? 1.0 : 0.0)));
    } else {
      CHECK(value.std().item<double>() == Approx(expected).epsilon(0.05));
      CHECK(std::abs(value.mean().item<double>()) < 0.1 * expected);
      CHECK(value.abs().max().item<double>() > 3 * expected);  // a normal's tails
    }
  }
}

TEST_CASE("a config that cannot be computed is refused by key") {
  const auto with = [](io::Json config, const char* key, const io::Json& value) {
    if (value.is_discarded())
      config.erase(key);
    else
      config[key] = value;
    return error_of([&] { make(config, "m/config.json", {}); });
  };
  const io::Json gone(io::Json::value_t::discarded);
  CHECK(says(with(small_gpt2(), "n_layer", gone), "m/config.json: key 'n_layer' is missing"));
  CHECK(says(with(small_gpt2(), "n_head", 5), "a divisor of n_embd, 24"));
  CHECK(says(with(small_gpt2(), "activation_function", "mish"), "key 'activation_function'"));
  CHECK(says(with(small_gpt2(), "add_cross_attention", true), "key 'add_cross_attention'"));
  CHECK(says(with(small_gpt2(), "resid_pdrop", 1.5), "key 'resid_pdrop'"));
  CHECK(says(with(small_gpt2(), "model_type", "mamba"), "expected bert, gemma2, "));
  CHECK(says(with(small_gpt2(), "quantization_config", {{"bits", 4}}), "key 'quantization_config'"));
  CHECK(says(with(small_llama(), "hidden_act", "tanh"), "key 'hidden_act'"));
  CHECK(says(with(small_llama(), "rms_norm_eps", gone), "key 'rms_norm_eps' is missing"));
  CHECK(says(with(small_llama(), "num_key_value_heads", 2), "a divisor of num_attention_heads, 3"));
  CHECK(says(with(small_llama(), "rope_scaling", {{"type", "ntk"}, {"factor", 2}}),
             "default, linear, dynamic, llama3, yarn, longrope or proportional"));
  CHECK(says(with(small_llama(), "rope_scaling", {{"type", "longrope"}, {"short_factor", {1, 2}}}),
             "key 'short_factor' has a value that cannot be used"));
  CHECK(says(with(small_llama(), "rope_scaling", {{"type", "linear"}}), "key 'factor' is missing"));
  CHECK(says(with(small_llama(), "rope_scaling", {{"type", "linear"}, {"factor", 2}, {"extra", 1}}), "key 'extra'"));
  CHECK(says(with(small_llama(), "rope_parameters", {{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}),
             "partial_rotary_factor"));
}

TEST_CASE("what the user typed is refused as usage, where it was typed") {
  const auto refusal = [](io::Json config, const io::TypedKeys& typed, const io::Json& changes) {
    config.update(changes);
    try {
      make(config, "m/config.json", {at::kFloat, c10::kMeta, &typed});
    } catch (const Error& error) {
      return std::to_string(static_cast<int>(error.exit())) + " " + error.what();
    }
    return std::string("none");
  };
  const io::TypedKeys typed = {{"n_layer", "x.yaml:3:5"}, {"n_ctx", "x.yaml:4:5"}, {"nlayer", "x.yaml:5:5"}};
  CHECK(says(refusal(small_gpt2(), typed, {{"n_layer", 0}}), "2 x.yaml:3:5: key 'n_layer' has a value"));
  CHECK(says(refusal(small_gpt2(), typed, {{"n_head", 0}}), "5 m/config.json: key 'n_head'"));
  CHECK(says(refusal(small_gpt2(), {{"", "x.yaml:2:3"}}, {{"n_head", 0}}), "2 m/config.json: key 'n_head'"));
  CHECK(says(refusal(small_gpt2(), {{"nlayer", "x.yaml:5:5"}}, {{"nlayer", 2}}),
             "2 x.yaml:5:5: unknown key 'model.config.nlayer' (did you mean 'n_layer'?)"));
  CHECK(says(refusal(small_gpt2(), typed, {{"n_ctx", 16}}),
             "2 x.yaml:4:5: key 'model.config.n_ctx' has no effect in this program (set n_positions"));
  CHECK(refusal(small_gpt2(), {}, {{"n_ctx", 16}, {"torch_dtype", "float32"}}) == "none");
  CHECK(
      says(refusal(small_gpt2(), {{"torch_dtype", "x.yaml:4:5"}}, {{"torch_dtype", "bfloat16"}}), "set trainer.dtype"));
  CHECK(says(refusal(small_llama(), {{"factor", "x.yaml:9:1"}},  // another key of that name
                     {{"rope_parameters", {{"rope_type", "linear"}, {"factor", 0.5}}}}),
             "5 m/config.json: rope_parameters: key 'factor' has a value that cannot be used"));
  const io::TypedKeys rope = {{"rope_parameters", "x.yaml:6:3"}, {"rope_parameters.factor", "x.yaml:7:5"}};
  CHECK(says(refusal(small_llama(), rope, {{"rope_parameters", {{"rope_type", "linear"}, {"factor", 0.5}}}}),
             "2 x.yaml:7:5: key 'rope_parameters.factor' has a value that cannot be used: got 0.5"));
  CHECK(says(
      refusal(small_llama(), {{"rope_parameters", "x.yaml:6:3"}}, {{"rope_parameters", {{"rope_type", "linear"}}}}),
      "2 x.yaml:6:3: key 'rope_parameters.factor' is missing"));
}

TEST_CASE("a model section knows where its keys were typed, and a preset by its nearest name") {
  config::Places places;
  const auto whole =
      config::parse<WholeConfig>("model:\n  preset: gpt2\n  config:\n    n_layer: 3\n", "x.yaml", {}, &places);
  const ResolvedModel model = resolve_model(whole.model, places);
  CHECK(model.typed_keys == io::TypedKeys{{"", "x.yaml:2:11"}, {"n_layer", "x.yaml:4:5"}});
  CHECK(model.config["n_layer"] == 3);
  CHECK(says(error_of([] { config::parse<WholeConfig>("model: {preset: gpt2-xxl}", "x.yaml"); }),
             "x.yaml:1:17: model.preset: unknown model shape: got 'gpt2-xxl'"));
}

TEST_CASE("a GGUF file is no model to train, and the way out is said") {
  test::TemporaryFolder folder;
  const std::string path = (folder.path() / "m.gguf").string();
  std::ofstream(path) << "GGUF";
  config::Places places;
  const auto whole = config::parse<WholeConfig>("model: {name_or_path: " + path + "}", "x.yaml", {}, &places);
  try {
    resolve_model(whole.model, places);
    FAIL("taken for a model");
  } catch (const Error& error) {
    CHECK(error.exit() == Exit::usage);
    CHECK(says(error.what(), "x.yaml:1:23: a GGUF file is no model to train: got "));
    CHECK(says(error.what(), "llmtk convert " + path + " FOLDER"));
  }
}

TEST_CASE("longrope is saved so that both versions of transformers read the same numbers") {
  io::Json config = small_llama();
  config["max_position_embeddings"] = 64;
  config["rope_parameters"] = {{"rope_type", "longrope"},
                               {"short_factor", {1, 1, 1, 1}},
                               {"long_factor", {2, 2, 2, 2}},
                               {"original_max_position_embeddings", 16}};
  const io::Json saved = make(config, "m/config.json", {at::kFloat, c10::kMeta})->config();
  CHECK(saved["original_max_position_embeddings"] == 16);  // version 4 looks here, and takes the factor from it
  CHECK(saved["rope_scaling"]["attention_factor"].get<double>() == Approx(std::sqrt(1.5)));  // 1 + log(4) / log(16)
  CHECK(saved["rope_scaling"]["factor"] == 4.0);
  // An original length above the model's own: the factor is inferred, here and by whoever reads what is saved.
  config["rope_parameters"]["original_max_position_embeddings"] = 128;
  const io::Json shorter = make(config, "m/config.json", {at::kFloat, c10::kMeta})->config();
  CHECK(shorter["rope_parameters"]["factor"].is_null());
  CHECK(make(shorter, "m/config.json", {at::kFloat, c10::kMeta})->config() == shorter);
}

TEST_CASE("loading is strict, and names what is wrong") {
  test::TemporaryFolder folder;
  const auto model = create(small_gpt2(), {}, 1);
  save(*model, folder.path());
  io::NamedTensors tensors;
  for (const auto& parameter : model->named_parameters())
    tensors.emplace_back(parameter.key(), parameter.value().detach());
  const auto load_with = [&](auto change) {
    io::NamedTensors changed = tensors;
    change(changed);
    io::save_weights(folder.path(), changed);
    return error_of([&] { load(folder.path().string()); });
  };
  CHECK(load_with([](auto&) {}) == "");
  CHECK(says(load_with([](auto& t) { t.erase(t.begin()); }), "tensors are missing: transformer.wte.weight"));
  CHECK(
      says(load_with([](auto& t) { t.emplace_back("score.weight", at::zeros({1})); }), "does not have: score.weight"));
  CHECK(says(load_with([](auto& t) {
               t[1].second = at::zeros({3, 3});
             }),
             "tensor 'transformer.wpe.weight' has another shape"));
  CHECK(says(load_with([](auto& t) { t[1].second = at::zeros({16, 24}, at::kLong); }), "floating-point"));
  CHECK(says(load_with([](auto& t) { t.emplace_back("lm_head.weight", at::ones({31, 24})); }), "tie_word_embeddings"));
  CHECK(load_with([](auto& t) { t.emplace_back("lm_head.weight", t[0].second.clone()); }) == "");
}

TEST_CASE("a buffer is one of a family that is known") {
  CHECK(is_buffer("gpt2", "transformer.h.0.attn.bias"));
  CHECK_FALSE(is_buffer("gpt2", "transformer.h.0.attn.c_attn.bias"));
  CHECK_FALSE(is_buffer("bert", "transformer.h.0.attn.bias"));
  CHECK_FALSE(is_buffer("", "transformer.h.0.attn.bias"));
}

TEST_CASE("the attention of one layer alone is kept where no other is asked for") {
  const at::NoGradGuard no_grad;
  for (const io::Json& config : {small_gpt2(), small_llama()}) {
    const auto model = create(config, {}, 2);
    model->eval();
    const at::Tensor ids = at::arange(7).unsqueeze(0);
    std::vector<at::Tensor> all, last;
    model->forward(ids, {.attentions = &all});
    model->forward(ids, {.attentions = &last, .attention_layer = 1});
    REQUIRE(all.size() == 2);
    REQUIRE(last.size() == 1);
    CHECK(at::allclose(last[0], all[1], 1e-4, 1e-6));
    CHECK_FALSE(at::allclose(last[0], all[0], 1e-4, 1e-6));
  }
}

TEST_CASE("files as they are on the hub load, and what is left out of them is said") {
  test::TemporaryFolder folder;
  const at::NoGradGuard no_grad;
  const at::Tensor ids = at::arange(10, at::kLong).view({1, 10});
  const auto check = [&](const io::Json& config, const std::string& prefix, const io::NamedTensors& buffers,
                         const std::string& said) {
    INFO(config["model_type"]);
    const auto model = create(config, {}, 1);
    model->eval();
    save(*model, folder.path());
    io::NamedTensors tensors = buffers;
    for (const auto& parameter : model->named_parameters()) {
      const bool stripped = parameter.key().starts_with(prefix);
      tensors.emplace_back(stripped ? parameter.key().substr(prefix.size()) : parameter.key(), parameter.value());
    }
    io::save_weights(folder.path(), tensors);
    CHECK(says(test::stderr_of([&] { load(folder.path().string()); }), said));
    CHECK(at::equal(load(folder.path().string())->forward(ids), model->forward(ids)));
  };
  const at::Tensor causal = at::ones({1, 1, 16, 16}), low = at::tensor(-1e4f);
  // GPT-2's first files: no prefix, and the causal mask as buffers, of later ones as bytes.
  check(small_gpt2(), "transformer.", {{"h.0.attn.bias", causal}, {"h.0.attn.masked_bias", low}},
        "left out, as nothing here computes with it: h.0.attn.bias, h.0.attn.masked_bias");
  check(small_gpt2(), "transformer.", {}, "read by their newer names: h.0.attn.c_attn.bias, ");
  check(small_gpt2(), "#",
        {{"transformer.h.0.attn.bias", causal.to(at::kByte)}, {"transformer.h.0.attn.masked_bias", low}},
        "left out, as nothing here computes with it: transformer.h.0.attn.bias, transformer.h.0.attn.masked_bias");
  // The first GPT's: the mask, and the positions.
  io::Json gpt = small_gpt2();
  gpt["model_type"] = "openai-gpt";
  check(gpt, "transformer.", {{"h.0.attn.bias", causal}, {"position_ids", at::arange(16)}},
        "left out, as nothing here computes with it: h.0.attn.bias, position_ids");
  // Old Llamas: the rotary frequencies.
  check(small_llama(), "#", {{"model.layers.0.self_attn.rotary_emb.inv_freq", at::ones({4})}},
        "left out, as nothing here computes with it: model.layers.0.self_attn.rotary_emb.inv_freq");
}

TEST_CASE("the dtype is the config's unless another is asked for") {
  test::TemporaryFolder folder;
  save(*create(small_llama(), {at::kBFloat16, c10::kCPU}, 1), folder.path());
  CHECK(load(folder.path().string())->dtype() == at::kBFloat16);
  CHECK(load(folder.path().string(), {.dtype = at::kFloat})->dtype() == at::kFloat);
  io::Json config = io::read_json(folder / "config.json");
  CHECK(config["dtype"] == "bfloat16");
  config.erase("dtype");
  config["torch_dtype"] = "float16";
  io::write_json(folder / "config.json", config);
  CHECK(load(folder.path().string())->dtype() == at::kHalf);
}

TEST_CASE("a mapped model computes what a copied one does, and copies nothing where the types agree") {
  for (const auto& config : {small_gpt2(), small_llama()}) {
    test::TemporaryFolder folder;
    save(*create(config, {}, 3), folder.path());
    const auto copied = load(folder.path().string()), mapped = load(folder.path().string(), {.map = true});
    const auto ids = at::arange(12).unsqueeze(0);
    const auto logits = [&](nn::CausalModel& model) {
      const at::NoGradGuard no_grad;
      return model.logits(model.forward(ids));
    };
    CHECK(at::equal(logits(*copied), logits(*mapped)));
    const io::WeightFiles weights(folder.path());
    const auto& file = *weights.files()[0];
    for (const auto& parameter : mapped->named_parameters()) {
      // Another map of the same file: the same offset within a page tells that the data was not moved.
      const auto* stored = file.bytes(*file.find(parameter.key())).data();
      CHECK(reinterpret_cast<uintptr_t>(parameter.value().data_ptr()) % 4096 ==
            reinterpret_cast<uintptr_t>(stored) % 4096);
    }
    const auto converted = load(folder.path().string(), {.dtype = at::kBFloat16, .map = true});
    CHECK(converted->dtype() == at::kBFloat16);
    CHECK(at::equal(converted->parameters()[0], copied->parameters()[0].to(at::kBFloat16)));
  }
}

TEST_CASE("a sequence beyond the model's reach is an error") {
  const auto model = create(small_gpt2(), {}, 1);
  const std::string message = error_of([&] { model->forward(at::zeros({1, 17}, at::kLong)); });
  CHECK(says(message, "got 17 tokens, expected at most 16"));
}

TEST_CASE("every matrix product with a weight passes through nn::Linear") {
  // A branch on each Linear must be seen: the number of modules of that type is what the architecture has.
  const auto count = [](const nn::CausalModel& model) {
    int64_t linears = 0;
    for (const auto& module : model.modules()) linears += std::dynamic_pointer_cast<nn::Linear>(module) != nullptr;
    return linears;
  };
  CHECK(count(*create(small_gpt2(), {}, 1)) == 2 * 4 + 1);
  CHECK(count(*create(small_llama(), {}, 1)) == 2 * 7 + 1);
}

TEST_CASE("every family has what docs/adding-a-model.md lists") {
  const char* source = std::getenv("LLMTK_SOURCE");
  if (!source) LLMTK_SKIP("LLMTK_SOURCE is not set");
  const fs::path root = source;
  std::string configs;
  for (const auto& entry : fs::recursive_directory_iterator(root / "configs"))
    if (entry.path().extension() == ".yaml") configs += read_file(entry.path());
  const std::string cmake = read_file(root / "lib/models/CMakeLists.txt");
  std::string reference;
  for (const auto& entry : fs::directory_iterator(root / "tests/models"))
    if (entry.path().string().ends_with("reference.py")) reference += read_file(entry.path());
  for (const std::string& type : model_types()) {
    INFO(type);
    std::string file = type == "xlm-roberta" ? "roberta" : type;  // the same under another name
    std::ranges::replace(file, '-', '_');
    CHECK(fs::exists(root / "lib/models" / (file + ".h")));
    CHECK(fs::exists(root / "lib/models" / (file + ".cpp")));
    CHECK(cmake.find("\n    " + file + ".cpp\n") != std::string::npos);
    CHECK(reference.find("model_type=\"" + type + "\"") != std::string::npos);
    bool configured = configs.find("model_type: " + type) != std::string::npos;
    for (const std::string& name : preset_names())
      if (const io::Json config = preset(name); config["model_type"] == type)
        configured |= configs.find(": " + name) != std::string::npos ||
                      make_model(config, name, {at::kFloat, c10::kMeta})->kind() != nn::CausalModel::kKind;
    CHECK(configured);
  }
}

}  // namespace
}  // namespace llmtk::models
