// The decoders beside GPT-2 and Llama: what their configs may say, files as they are on the hub, and the attention with
// windows and soft caps that some of them have. What they compute is parity_test.cpp's.

#include <ATen/ATen.h>

#include "core/error.h"
#include "kernels/backend.h"
#include "models/gguf.h"
#include "models/registry.h"
#include "nn/attention.h"
#include "nn/fused_attention.h"
#include "nn/linear.h"
#include "stderr_of.h"
#include "test.h"

namespace llmtk::models {
namespace {

/// What the families of Llama's shape say alike.
io::Json small(const char* model_type, const io::Json& more) {
  io::Json config = {{"model_type", model_type},     {"vocab_size", 31},       {"hidden_size", 24},
                     {"intermediate_size", 40},      {"num_hidden_layers", 2}, {"num_attention_heads", 3},
                     {"max_position_embeddings", 16}};
  config.update(more);
  return config;
}

io::Json small_mistral() {
  return small("mistral", {{"num_key_value_heads", 1}, {"rms_norm_eps", 1e-5}, {"sliding_window", 4}});
}
io::Json small_qwen2() { return small("qwen2", {{"num_key_value_heads", 1}, {"rms_norm_eps", 1e-6}}); }
io::Json small_qwen3() {
  return small("qwen3", {{"num_key_value_heads", 1}, {"rms_norm_eps", 1e-6}, {"head_dim", 16}});
}
io::Json small_gemma(const char* model_type) {
  return small(model_type, {{"num_key_value_heads", 1},
                            {"rms_norm_eps", 1e-6},
                            {"head_dim", 16},
                            {"query_pre_attn_scalar", 16},
                            {"sliding_window", 4}});
}
io::Json small_neox() { return small("gpt_neox", {{"rotary_pct", 0.25}, {"rotary_emb_base", 10000}}); }
io::Json small_opt() {
  io::Json config = small("opt", {{"ffn_dim", 40}});
  config.erase("intermediate_size");
  return config;
}

using test::error_of;
using test::says;

TEST_CASE("decoders' published sizes have their published numbers of parameters") {
  // Counted as transformers counts the same configs (num_parameters()).
  const std::map<std::string, int64_t> counts = {
      {"mistral-7b-v0.1", 7241732096}, {"mistral-7b-v0.3", 7248023552}, {"mistral-nemo-12b", 12247782400},
      {"qwen2.5-0.5b", 494032768},     {"qwen2.5-1.5b", 1543714304},    {"qwen2.5-3b", 3085938688},
      {"qwen2.5-7b", 7615616512},      {"qwen2.5-14b", 14770033664},    {"qwen3-0.6b", 596049920},
      {"qwen3-1.7b", 1720574976},      {"qwen3-4b", 4022468096},        {"qwen3-8b", 8190735360},
      {"qwen3-14b", 14768307200},      {"gemma-2-2b", 2614341888},      {"gemma-2-9b", 9241705984},
      {"gemma-2-27b", 27227128320},    {"gemma-3-270m", 268098176},     {"gemma-3-1b", 999885952},
      {"pythia-14m", 14067712},        {"pythia-70m", 70426624},        {"pythia-160m", 162322944},
      {"pythia-410m", 405334016},      {"pythia-1b", 1011781632},       {"pythia-1.4b", 1414647808},
      {"pythia-2.8b", 2775208960},     {"pythia-6.9b", 6857302016},     {"pythia-12b", 11846072320},
      {"gpt-neox-20b", 20554567680},   {"opt-125m", 125239296},         {"opt-350m", 331196416},
  };
  for (const auto& [name, count] : counts) {
    INFO(name);
    CHECK(make(preset(name), name, {c10::kBFloat16, c10::kMeta})->num_parameters() == count);
  }
}

TEST_CASE("a decoder's config that cannot be computed is refused by key") {
  const auto with = [](io::Json config, const io::Json& changes) {
    config.update(changes);
    return error_of([&] { make(config, "m/config.json", {at::kFloat, c10::kMeta}); });
  };
  for (const io::Json& config : {small_mistral(), small_qwen2(), small_qwen3(), small_gemma("gemma2"),
                                 small_gemma("gemma3_text"), small_neox(), small_opt()})
    CHECK(with(config, io::Json::object()) == "");
  CHECK(says(with(small_mistral(), {{"sliding_window", 0}}), "m/config.json: key 'sliding_window' has a value"));
  CHECK(says(with(small_mistral(), {{"layer_types", {"full_attention", "full_attention"}}}), "key 'layer_types'"));
  CHECK(with(small_mistral(), {{"layer_types", {"sliding_attention", "sliding_attention"}}}) == "");
  CHECK(says(with(small_qwen2(), {{"layer_types", {"full_attention"}}}), "as many as num_hidden_layers, 2"));
  CHECK(says(with(small_qwen2(), {{"layer_types", {"full_attention", "linear_attention"}}}), "for each layer"));
  CHECK(says(with(small_qwen2(), {{"layer_types", {"full_attention", "sliding_attention"}}}),
             "without use_sliding_window and sliding_window"));
  CHECK(says(with(small_qwen2(), {{"layer_types", 2}}), "a list of strings"));
  CHECK(says(with(small_qwen3(), {{"head_dim", nullptr}}), "key 'head_dim' is missing"));
  CHECK(says(with(small_gemma("gemma2"), {{"query_pre_attn_scalar", 0}}), "a number above 0"));
  CHECK(says(with(small_gemma("gemma2"), {{"sliding_window", nullptr}}), "key 'sliding_window' is missing"));
  CHECK(says(with(small_gemma("gemma2"), {{"attn_logit_softcapping", -1}}), "a number above 0, or null for none"));
  CHECK(says(with(small_gemma("gemma2"), {{"use_bidirectional_attention", true}}), "use_bidirectional_attention"));
  // Version 5 of transformers reads this key of Gemma 3 and does nothing with it.
  CHECK(says(with(small_gemma("gemma3_text"), {{"attn_logit_softcapping", 50}}), "the only value supported"));
  CHECK(says(with(small_gemma("gemma3_text"), {{"rope_parameters", {{"rope_theta", 1e4}}}}), "key 'rope_theta'"));
  CHECK(says(with(small_gemma("gemma3_text"), {{"rope_parameters", {{"sliding_attention", {{"rope_theta", 0}}}}}}),
             "m/config.json: rope_parameters: sliding_attention: key 'rope_theta'"));
  CHECK(says(with(small_neox(), {{"rotary_pct", 0.375}}), "an even number of a head's 8 dimensions"));
  CHECK(says(with(small_neox(), {{"rotary_pct", 1.5}}), "a number above 0 and at most 1"));
  CHECK(says(with(small_neox(), {{"rope_theta", 500}}), "10000.0, the only value supported"));
  CHECK(says(with(small_neox(), {{"num_attention_heads", 5}}), "a divisor of hidden_size, 24"));
  CHECK(says(with(small_opt(), {{"layerdrop", 0.1}}), "key 'layerdrop'"));
}

TEST_CASE("rotary settings are saved in the words of both versions of transformers") {
  const auto saved = [](const io::Json& config) { return make(config, "m", {at::kFloat, c10::kMeta})->config(); };
  io::Json gemma = small_gemma("gemma3_text");
  gemma.update({{"rope_theta", 5e5},
                {"rope_local_base_freq", 300},
                {"rope_scaling", {{"rope_type", "linear"}, {"factor", 8}}},
                {"sliding_window_pattern", 2}});
  const io::Json written = saved(gemma);
  CHECK(written["rope_parameters"]["full_attention"] ==
        io::Json{{"rope_type", "linear"}, {"rope_theta", 5e5}, {"factor", 8.0}});
  CHECK(written["rope_parameters"]["sliding_attention"] == io::Json{{"rope_type", "default"}, {"rope_theta", 300.0}});
  CHECK(written["rope_theta"] == 5e5);
  CHECK(written["rope_local_base_freq"] == 300);
  CHECK(saved(written) == written);

  io::Json neox = small_neox();
  neox["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5e3}, {"partial_rotary_factor", 0.5}};
  CHECK(saved(neox)["rotary_emb_base"] == 5e3);
  CHECK(saved(neox)["rotary_pct"] == 0.5);
  CHECK(saved(saved(neox)) == saved(neox));
}

TEST_CASE("decoders' files as they are on the hub load") {
  test::TemporaryFolder folder;
  const at::NoGradGuard no_grad;
  const at::Tensor ids = at::arange(10, at::kLong).view({1, 10});
  const auto write = [&](const nn::CausalModel& model, const std::string& prefix, const io::NamedTensors& more) {
    save(model, folder.path());
    io::NamedTensors tensors = more;
    for (const auto& parameter : model.named_parameters()) {
      const bool stripped = parameter.key().starts_with(prefix);
      tensors.emplace_back(stripped ? parameter.key().substr(prefix.size()) : parameter.key(), parameter.value());
    }
    io::save_weights(folder.path(), tensors);
  };
  const auto check = [&](const io::Json& config, const std::string& prefix, const io::NamedTensors& more) {
    INFO(config["model_type"]);
    const auto model = create(config, {}, 1);
    model->eval();
    write(*model, prefix, more);
    CHECK(at::equal(load(folder.path().string())->forward(ids), model->forward(ids)));
  };
  const at::Tensor frequencies = at::ones({4});
  for (const io::Json& config : {small_mistral(), small_qwen2(), small_qwen3()})
    check(config, "#", {{"model.layers.0.self_attn.rotary_emb.inv_freq", frequencies}});
  for (const char* type : {"gemma2", "gemma3_text"}) check(small_gemma(type), "model.", {});
  // Pythia's: the causal mask and the frequencies as buffers. Files of the bare model lack the prefix.
  check(small_neox(), "#",
        {{"gpt_neox.layers.0.attention.bias", at::ones({1, 1, 16, 16})},
         {"gpt_neox.layers.0.attention.masked_bias", at::tensor(-1e9f)},
         {"gpt_neox.layers.0.attention.rotary_emb.inv_freq", frequencies}});
  check(small_neox(), "gpt_neox.", {});
  // OPT's first files: without the prefix, with fairseq's version.
  check(small_opt(), "model.", {{"decoder.version", at::ones({1})}});

  // A tied head that is stored again, under its family's name.
  io::Json tied = small_neox();
  tied["tie_word_embeddings"] = true;
  const auto model = create(tied, {}, 1);
  check(tied, "#", {{"embed_out.weight", model->parameters()[0].clone()}});
  write(*model, "#", {{"embed_out.weight", create(tied, {}, 2)->parameters()[0]}});
  CHECK(says(error_of([&] { load(folder.path().string()); }),
             "tensor 'embed_out.weight' differs from the table it is tied to"));
}

TEST_CASE("of a Gemma 3 that reads pictures too the language part is opened, said aloud") {
  test::TemporaryFolder folder, saved;
  const at::NoGradGuard no_grad;
  const at::Tensor ids = at::arange(10, at::kLong).view({1, 10});
  const io::Json text = small_gemma("gemma3_text");
  const auto model = create(text, {}, 1);
  model->eval();
  const io::Json whole = {{"model_type", "gemma3"},     {"architectures", {"Gemma3ForConditionalGeneration"}},
                          {"text_config", text},        {"vision_config", {{"hidden_size", 8}}},
                          {"mm_tokens_per_image", 256}, {"eos_token_id", {1, 106}},
                          {"torch_dtype", "bfloat16"}};
  io::write_json(folder.path() / "config.json", whole);
  // As files have the names, and as version 5 of transformers has them in memory.
  for (const bool in_memory : {false, true}) {
    io::NamedTensors tensors = {{"vision_tower.vision_model.embeddings.patch_embedding.bias", at::ones({8})},
                                {"multi_modal_projector.mm_soft_emb_norm.weight", at::ones({8})}};
    for (auto& [name, tensor] : tensors) name = (in_memory ? "model." : "") + name;
    for (const auto& parameter : model->named_parameters())
      tensors.emplace_back(
          in_memory ? "model.language_model." + parameter.key().substr(6) : "language_model." + parameter.key(),
          parameter.value());
    io::save_weights(folder.path(), tensors);
    const LoadOptions options{.dtype = at::kFloat};
    const std::string said = test::stderr_of([&] { load(folder.path().string(), options); });
    CHECK(says(said, "config.json: the language part is used alone: pictures are not read"));
    CHECK(says(said, "left out, as nothing here computes with it: " + tensors[1].first + ", " + tensors[0].first));
    CHECK_FALSE(says(said, "not known to this program"));
    const auto loaded = load(folder.path().string(), options);
    CHECK(at::equal(loaded->forward(ids), model->forward(ids)));
    save(*loaded, saved.path());
    CHECK(at::equal(load(saved.path().string())->forward(ids), model->forward(ids)));
  }
  const io::Json written = io::read_json(saved.path() / "config.json");
  CHECK(written["model_type"] == "gemma3_text");
  CHECK(written["architectures"] == io::Json::array({"Gemma3ForCausalLM"}));
  CHECK(written["eos_token_id"] == io::Json::array({1, 106}));
  CHECK(load(folder.path().string())->dtype() == at::kBFloat16);

  // What published configs leave out: counted as transformers counts a Gemma3Config's language part.
  const auto count = [&](const io::Json& text_config) {
    io::Json config = whole;
    config["text_config"] = text_config;
    return make(config, "m", {at::kFloat, c10::kMeta})->num_parameters();
  };
  CHECK(count(io::Json::object()) == 2628658432);
  CHECK(count({{"hidden_size", 2560},
               {"intermediate_size", 10240},
               {"num_hidden_layers", 34},
               {"rope_scaling", {{"factor", 8.0}, {"rope_type", "linear"}}},
               {"sliding_window", 1024}}) == 3880263168);
  io::Json broken = whole;
  broken.erase("text_config");
  CHECK(says(error_of([&] { make(broken, "m/config.json", {}); }), "m/config.json: key 'text_config'"));
}

TEST_CASE("a GGUF file's rotary scaling is none where it says so, and linear where it names a factor alone") {
  test::TemporaryFolder folder;
  const at::NoGradGuard no_grad;
  const at::Tensor ids = at::arange(10, at::kLong).view({1, 10});
  io::Json config = small("llama", {{"rms_norm_eps", 1e-6}});
  const auto plain = create(config, {}, 1);
  config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 8}};
  const auto scaled = create(config, {}, 1);
  const auto with = [&](const io::GgufMetadata& metadata) {
    const fs::path path = folder.path() / "m.gguf";
    save_gguf(*plain, path, io::GgufType::f32, "m", metadata);
    return load(path.string())->forward(ids);
  };
  const std::pair<std::string, io::GgufValue> factor{"llama.rope.scaling.factor", 8.0f};
  const std::string type = "llama.rope.scaling.type";
  CHECK_FALSE(at::equal(plain->forward(ids), scaled->forward(ids)));
  CHECK(at::equal(with({}), plain->forward(ids)));
  CHECK(at::equal(with({factor, {type, std::string("none")}}), plain->forward(ids)));
  CHECK(at::equal(with({factor, {type, std::string("linear")}}), scaled->forward(ids)));
  CHECK(at::equal(with({factor}), scaled->forward(ids)));
}

TEST_CASE("Gemma's norms start at a distance of 0 from 1") {
  for (const auto& parameter : create(small_gemma("gemma3_text"), {}, 3)->named_parameters()) {
    INFO(parameter.key());
    CHECK((parameter.value().abs().max().item<double>() == 0) == parameter.key().ends_with("norm.weight"));
  }
}

TEST_CASE("every matrix product of a decoder with a weight passes through nn::Linear") {
  const auto count = [](const io::Json& config) {
    int64_t linears = 0;
    for (const auto& module : make(config, "m", {at::kFloat, c10::kMeta})->modules())
      linears += std::dynamic_pointer_cast<nn::Linear>(module) != nullptr;
    return linears;
  };
  for (const io::Json& config : {small_mistral(), small_qwen2(), small_qwen3(), small_gemma("gemma2")})
    CHECK(count(config) == 2 * 7 + 1);
  CHECK(count(small_neox()) == 2 * 4 + 1);
  io::Json opt = small_opt();
  CHECK(count(opt) == 2 * 6 + 1);
  opt["word_embed_proj_dim"] = 8;
  CHECK(count(opt) == 2 * 6 + 3);
}

TEST_CASE("a window that holds all tokens needs no mask, and one new token none at all") {
  const at::Tensor ids = at::zeros({1, 6}, at::kLong);
  const nn::LayerContext whole = nn::make_layer_context(ids, {}, 64);
  CHECK_FALSE(nn::within_window(whole, 0).mask.defined());
  CHECK_FALSE(nn::within_window(whole, 6).mask.defined());
  CHECK(nn::within_window(whole, 5).mask.sizes() == at::IntArrayRef{1, 1, 6, 6});
  CHECK(nn::within_window(whole, 5).mask.sum().item<int64_t>() == 6 * 7 / 2 - 1);

  nn::KVCache cache(1, 1, 1, 16, 4, {});
  cache.advance(9);
  const nn::LayerContext one = nn::make_layer_context(ids.narrow(1, 0, 1), {.cache = &cache}, 64);
  CHECK_FALSE(nn::within_window(one, 4).mask.defined());
  CHECK(nn::within_window(one, 4).first_key == 6);  // 6, 7, 8 and the token itself, 9
}

TEST_CASE("soft-capped attention in pieces is the formula, in its gradients too") {
  const int64_t B = 1, H = 4, K = 2, T = 1600, D = 4;  // scores enough for two pieces
  at::manual_seed(9);
  const at::Tensor q = at::randn({B, H, T, D}), k = at::randn({B, K, T, D}), v = at::randn({B, K, T, D});
  const nn::AttentionOptions options{.scale = 1.5, .softcap = 2};
  const at::Tensor factors = at::randn({B, T, H * D});
  for (const int64_t window : {int64_t{0}, int64_t{100}}) {
    nn::LayerContext context = nn::within_window(nn::make_layer_context(at::zeros({B, T}, at::kLong), {}, T), window);
    std::vector<at::Tensor> attentions;
    std::vector<at::Tensor> results[2];
    for (const bool explicitly : {false, true}) {
      context.attentions = explicitly ? &attentions : nullptr;
      const std::vector<at::Tensor> leaves = {q.clone().set_requires_grad(true), k.clone().set_requires_grad(true),
                                              v.clone().set_requires_grad(true)};
      const at::Tensor y = nn::causal_attention(leaves[0], leaves[1], leaves[2], context, 0, options);
      (y * factors).sum().backward();
      results[explicitly] = {y.detach(), leaves[0].grad(), leaves[1].grad(), leaves[2].grad()};
    }
    for (size_t i = 0; i < 4; ++i) CHECK(at::allclose(results[0][i], results[1][i], 1e-4, 1e-5));
    // The textbook's formula for one query: key-value head 1 serves heads 2 and 3.
    const int64_t t = 1500, first = window > 0 ? t + 1 - window : 0;
    const at::Tensor keys = k[0][1].slice(0, first, t + 1), values = v[0][1].slice(0, first, t + 1);
    const at::Tensor scores = 2 * at::tanh(at::mv(keys, q[0][3][t]) * 1.5 / 2);
    const at::Tensor expected = at::mv(values.t(), at::softmax(scores, 0));
    CHECK(at::allclose(results[0][0][0][t].narrow(0, 3 * D, D), expected, 1e-4, 1e-5));
  }
}

TEST_CASE("attention in bfloat16 has float32's gradients, with every kind of mask") {
  const int64_t B = 2, H = 4, K = 2, T = 40, D = 16;
  at::manual_seed(5);
  const auto random = [](at::IntArrayRef sizes) { return at::randn(sizes).to(at::kBFloat16); };
  const std::vector<at::Tensor> qkv = {random({B, H, T, D}), random({B, K, T, D}), random({B, K, T, D})};
  const at::Tensor factors = random({B, H, T, D});
  const at::Tensor padding = at::arange(T).lt(31).view({1, 1, 1, T}), bias = random({1, H, T, T});
  struct Kind {
    at::Tensor mask;
    nn::FusedAttentionOptions options;
  };
  for (const Kind& kind : {Kind{{}, {}}, Kind{{}, {.causal = true}}, Kind{padding, {}}, Kind{bias, {.scale = 1.0}}}) {
    /// The result, and the gradients of q, k, v and the bias, all float32.
    const auto run = [&](c10::ScalarType dtype) {
      std::vector<at::Tensor> leaves;
      for (const at::Tensor& t : qkv) leaves.push_back(t.to(dtype, false, /*copy=*/true).set_requires_grad(true));
      at::Tensor mask = kind.mask;
      if (mask.defined() && mask.is_floating_point()) {
        mask = mask.to(dtype, false, /*copy=*/true).set_requires_grad(true);
        leaves.push_back(mask);
      }
      const at::Tensor y = nn::fused_attention(leaves[0], leaves[1], leaves[2], mask, kind.options);
      CHECK(y.scalar_type() == dtype);
      (y * factors.to(dtype)).sum().backward();
      std::vector<at::Tensor> all = {y.detach().to(at::kFloat)};
      for (const at::Tensor& leaf : leaves) all.push_back(leaf.grad().to(at::kFloat));
      return all;
    };
    const auto narrow = run(at::kBFloat16), wide = run(at::kFloat);
    REQUIRE(narrow.size() == wide.size());
    for (size_t i = 0; i < wide.size(); ++i) {
      INFO(i);
      const double error = (narrow[i] - wide[i]).abs().max().item<double>() / wide[i].abs().max().item<double>();
      CHECK(error < 2e-2);
      // Where the processor does not multiply bfloat16 only what comes out is rounded.
      if (!kernels::fast_bfloat16_products()) CHECK(error < 4e-3);
    }
  }
}

}  // namespace
}  // namespace llmtk::models
