// Against transformers: logits, loss, every gradient, 20 steps of AdamW; and the ways to the same numbers.

#include "models/parity.h"

#include <ATen/ATen.h>

#include <cstdlib>

#include "core/device.h"
#include "core/error.h"
#include "io/tensors.h"
#include "models/registry.h"
#include "nn/kv_cache.h"
#include "test.h"

namespace llmtk {
namespace {

using at::Tensor;

bool have_reference() { return fs::exists(reference_folder() / "gpt2" / "reference.safetensors"); }

struct Case {
  explicit Case(const fs::path& folder) : name(folder.filename().string()), model(models::load(folder.string())) {
    for (const auto& [key, tensor] : io::load_tensors(folder / "reference.safetensors")) reference[key] = tensor;
    ids = reference.at("input_ids");
  }
  Tensor logits(const nn::ForwardContext& context = {}) const { return model->logits(model->forward(ids, context)); }

  std::string name;
  std::shared_ptr<nn::CausalModel> model;
  std::map<std::string, Tensor> reference;
  Tensor ids;
};

template <class Body>
void for_each_case(Body&& body) {
  llmtk::for_each_case<Case>(reference_folder(), 10, body);
}

/// The mean over targets, as HF's loss with labels = input_ids.
Tensor loss_of(Case& c) {
  const Tensor hidden = c.model->forward(c.ids).slice(1, 0, -1).flatten(0, 1);
  const Tensor targets = c.ids.slice(1, 1).flatten();
  return c.model->cross_entropy(hidden, targets, 1.0 / static_cast<double>(targets.numel()));
}

/// A key's bias adds the same number to all scores of a query, so its gradient is rounding alone, and AdamW makes steps
/// of full size of whatever it is given: these weights agree with nothing, not even with themselves on other threads.
Tensor without_key_bias(const Case& c, const std::string& name, const Tensor& parameter) {
  if (name.ends_with("k_proj.bias")) return at::zeros({1});
  if (name.ends_with("query_key_value.bias")) {  // head by head
    const auto heads = parameter.view({c.model->config()["num_attention_heads"].get<int64_t>(), 3, -1});
    return heads.index_select(1, at::tensor({0, 2}));
  }
  if (!name.ends_with("c_attn.bias")) return parameter;
  const auto parts = parameter.chunk(3);
  return at::cat({parts[0], parts[2]});
}

#define LLMTK_NEEDS_REFERENCE \
  if (!have_reference()) LLMTK_SKIP("no reference models: they are made by reference.py, with the Python peers")

TEST_CASE("logits, hidden states and attention are transformers'") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    CHECK(difference(c.logits(), c.reference.at("logits")) < kTolerance);

    std::vector<Tensor> attentions, hidden;
    const Tensor logits = c.logits({.attentions = &attentions, .hidden_states = &hidden});
    CHECK(difference(logits, c.reference.at("logits")) < kTolerance);
    REQUIRE(attentions.size() == static_cast<size_t>(c.model->num_layers()));
    REQUIRE(hidden.size() == attentions.size() + 1);
    CHECK(difference(attentions.back(), c.reference.at("attention_last")) < kTolerance);
    CHECK(difference(hidden.front(), c.reference.at("hidden_first")) < kTolerance);
    CHECK(difference(hidden.back(), c.reference.at("hidden_last")) < kTolerance);

    const Tensor targets = c.ids.roll(-1, 1).flatten();
    const Tensor expected = at::log_softmax(c.reference.at("logits"), -1).flatten(0, 1).gather(1, targets.unsqueeze(1));
    CHECK(difference(c.model->log_prob(hidden.back().flatten(0, 1), targets), expected.squeeze(1)) < kTolerance);
  });
}

TEST_CASE("loss, every gradient and 20 AdamW steps are transformers'") {
  LLMTK_NEEDS_REFERENCE;
  for_each_case([](Case& c) {
    Tensor loss = loss_of(c);
    CHECK(difference(loss, c.reference.at("loss")) < kTolerance);
    loss.backward();
    size_t gradients = 0;
    for (const auto& [key, tensor] : c.reference) gradients += key.starts_with("grad.");
    CHECK(c.model->parameters().size() == gradients);
    for (const auto& parameter : c.model->named_parameters()) {
      INFO(parameter.key());
      REQUIRE(parameter.value().grad().defined());
      const Tensor expected = c.reference.at("grad." + parameter.key());
      const Tensor got = parameter.value().grad();
      // A key's bias has no gradient but rounding where positions rotate nothing: the bound is then one on the whole
      // parameter's, or on the weight's.
      if (c.name.starts_with("opt") && parameter.key().ends_with("k_proj.bias")) {
        const Tensor weight =
            c.reference.at("grad." + std::string(parameter.key()).replace(parameter.key().size() - 4, 4, "weight"));
        CHECK((got - expected).abs().max().item<double>() < kTolerance * weight.abs().max().item<double>());
      } else {
        CHECK(difference(got, expected) < kTolerance);
      }
    }

    train_20_steps(*c.model, [&] { return loss_of(c); });
    for (const auto& parameter : c.model->named_parameters()) {
      INFO(parameter.key());
      CHECK(difference(without_key_bias(c, parameter.key(), parameter.value().detach()),
                       without_key_bias(c, parameter.key(), c.reference.at("after." + parameter.key()))) < kTolerance);
    }
  });
}

TEST_CASE("padding on the left and packing change nothing") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    const Tensor mask = c.reference.at("padded_mask");
    const Tensor real = mask.to(at::kBool).unsqueeze(2);
    const Tensor expected = c.reference.at("padded_logits").masked_fill(real.logical_not(), 0);
    const Tensor padded = c.logits({.attention_mask = mask});
    CHECK(padded.isfinite().all().item<bool>());
    CHECK(difference(padded.masked_fill(real.logical_not(), 0), expected) < kTolerance);
    if (c.name == "llama_rope_dynamic") return;  // its angles depend on the longest text in the batch
    const Tensor packed = c.logits({.position_ids = c.reference.at("packed_positions")});
    CHECK(difference(packed, c.reference.at("packed_logits")) < kTolerance);
    std::vector<Tensor> attentions;
    CHECK(difference(c.logits({.position_ids = c.reference.at("packed_positions"), .attentions = &attentions}),
                     c.reference.at("packed_logits")) < kTolerance);
  });
}

TEST_CASE("decoding with a cache is the full forward") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    // Angles that depend on the length so far.
    const bool long_longrope = c.name.starts_with("llama_rope_longrope") && !c.name.ends_with("short");
    if (c.name == "llama_rope_dynamic" || long_longrope) return;
    const int64_t B = c.ids.size(0), T = c.ids.size(1);
    const Tensor mask = c.reference.at("padded_mask").to(at::kBool);
    const Tensor real = mask.unsqueeze(2);
    const Tensor expected = c.logits({.attention_mask = mask}).masked_fill(real.logical_not(), 0);
    const auto cache = c.model->make_cache(B, T);
    // A prompt, a piece of several tokens, then one by one.
    std::vector<Tensor> pieces;
    int64_t at = 0;
    for (const int64_t n : {int64_t{13}, int64_t{4}, int64_t{1}, int64_t{1}, T - 19}) {
      const Tensor hidden =
          c.model->forward(c.ids.narrow(1, at, n), {.cache = cache.get(), .attention_mask = mask.narrow(1, 0, at + n)});
      pieces.push_back(c.model->logits(hidden));
      at += n;
    }
    CHECK(cache->length() == T);
    CHECK(difference(at::cat(pieces, 1).masked_fill(real.logical_not(), 0), expected) < kTolerance);
    CHECK_THROWS_AS(c.model->forward(c.ids.narrow(1, 0, 1), {.cache = cache.get()}), Error);

    // Without padding; then the rows swapped, as beams are, and the last tokens taken back.
    const auto plain = c.model->make_cache(B, T);
    c.model->forward(c.ids, {.cache = plain.get()});
    const Tensor rows = at::tensor({2, 0}, at::kLong);
    plain->reorder(rows);
    plain->truncate(T - 3);
    const Tensor again =
        c.model->logits(c.model->forward(c.ids.index_select(0, rows).narrow(1, T - 3, 3), {.cache = plain.get()}));
    CHECK(difference(again, c.reference.at("logits").index_select(0, rows).narrow(1, T - 3, 3)) < kTolerance);
    plain->truncate(T - 1);
    const Tensor last =
        c.model->logits(c.model->forward(c.ids.index_select(0, rows).narrow(1, T - 1, 1), {.cache = plain.get()}));
    CHECK(difference(last, c.reference.at("logits").index_select(0, rows).narrow(1, T - 1, 1)) < kTolerance);
  });
}

TEST_CASE("checkpointing gives the same gradients, with dropout too") {
  LLMTK_NEEDS_REFERENCE;
  for (const char* name :
       {"gpt2", "openai_gpt", "llama_gqa_tied", "qwen3_window_biases", "gemma2", "gpt_neox", "opt_norm_after"}) {
    io::Json config = io::read_json(reference_folder() / name / "config.json");
    for (const char* key :
         {"resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "hidden_dropout", "dropout"})
      if (config.contains(key)) config[key] = 0.2;
    auto model = models::make(config, name, {});
    models::load_weights(*model, io::WeightFiles(reference_folder() / name / "model.safetensors"), name);
    model->train();
    const Tensor ids = at::arange(48, at::kLong).view({2, 24}) + 5;
    const auto gradients = [&](bool checkpointing, bool frozen_table) {
      zero_grad(*model);
      for (auto& parameter : model->named_parameters())
        if (parameter.value().size(0) == model->vocab_size()) parameter.value().set_requires_grad(!frozen_table);
      model->set_gradient_checkpointing(checkpointing);
      at::manual_seed(7);
      model->forward(ids).square().sum().backward();
      std::vector<Tensor> all;
      for (const Tensor& parameter : model->parameters())
        all.push_back(parameter.grad().defined() ? parameter.grad().clone() : Tensor());
      return all;
    };
    for (const bool frozen_table : {false, true}) {
      const auto plain = gradients(false, frozen_table), again = gradients(true, frozen_table);
      for (size_t i = 0; i < plain.size(); ++i) {
        REQUIRE(plain[i].defined() == again[i].defined());
        if (plain[i].defined()) CHECK(difference(again[i], plain[i]) < 1e-6);
      }
    }
  }
}

TEST_CASE("bfloat16 is close") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    auto model = models::load((reference_folder() / c.name).string(), {.dtype = at::kBFloat16});
    const Tensor logits = model->logits(model->forward(c.ids));
    CHECK(logits.scalar_type() == at::kBFloat16);
    CHECK(difference(logits, c.reference.at("logits")) < 5e-2);
  });
}

TEST_CASE("weights that are stored in half precision are transformers' in float32 too") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    check_half_precision<nn::CausalModel>(reference_folder() / c.name, c.reference, "logits",
                                          [&](auto model) { return model->logits(model->forward(c.ids)); });
  });
}

TEST_CASE("what is saved is what was loaded, in one file or in shards") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    const fs::path folder = reference_folder() / "saved" / c.name;
    models::save(*c.model, folder, {.max_shard_bytes = 40000});
    CHECK(fs::exists(folder / io::kWeightsIndex));
    CHECK(at::equal(models::load(folder.string())->forward(c.ids), c.model->forward(c.ids)));
    if (c.name != "gpt2") models::save(*c.model, folder);  // one case stays in shards for transformers to open
    CHECK(fs::exists(folder / io::kWeightsIndex) == (c.name == "gpt2"));
    CHECK(at::equal(models::load(folder.string())->forward(c.ids), c.model->forward(c.ids)));
  });
}

TEST_CASE("a config of transformers 4 means the same") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    const fs::path folder = reference_folder() / c.name;
    auto model = models::make(io::read_json(folder / "config_v4.json"), "config.json", {});
    models::load_weights(*model, io::WeightFiles(folder / "model.safetensors"), "weights");
    model->eval();
    CHECK(at::equal(model->forward(c.ids), c.model->forward(c.ids)));
  });
}

}  // namespace
}  // namespace llmtk
