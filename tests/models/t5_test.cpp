// T5 against transformers: logits, attention, loss, every gradient, 20 steps of AdamW; and the ways to the same
// numbers.

#include <ATen/ATen.h>

#include <cstdlib>

#include "core/device.h"
#include "core/error.h"
#include "io/tensors.h"
#include "kernels/cross_entropy.h"
#include "models/parity.h"
#include "models/registry.h"
#include "nn/seq2seq_model.h"
#include "test.h"

namespace llmtk {
namespace {

using at::Tensor;
using test::error_of;

struct Case {
  explicit Case(const std::string& name, std::optional<c10::ScalarType> dtype = std::nullopt)
      : name(name), folder(reference_folder() / name), model(models::load<nn::Seq2SeqModel>(folder, {.dtype = dtype})) {
    for (const auto& [key, tensor] : io::load_tensors(folder / "reference.safetensors")) reference[key] = tensor;
    ids = reference.at("input_ids");
    decoder_ids = reference.at("decoder_input_ids");
  }
  Tensor logits(const nn::EncoderContext& encoder = {}, nn::DecoderContext decoder = {}) const {
    decoder.encoder_hidden = model->encode(ids, encoder);
    decoder.encoder_attention_mask = encoder.attention_mask;
    return model->logits(model->decode(decoder_ids, decoder));
  }
  double difference_from(const Tensor& got, const std::string& key) const {
    INFO(key);
    return difference(got, reference.at(key));
  }

  std::string name;
  fs::path folder;
  std::shared_ptr<nn::Seq2SeqModel> model;
  std::map<std::string, Tensor> reference;
  Tensor ids, decoder_ids;
};

template <class Body>
void for_each_case(Body body) {
  for (const char* name : {"t5", "t5_v1_1", "t5_tied_unscaled", "t5_shapes"}) {
    INFO(name);
    Case one(name);
    body(one);
  }
}

/// The mean over the labels that are not -100.
Tensor loss_of(Case& c) {
  const Tensor hidden = c.model->decode(c.decoder_ids, {.encoder_hidden = c.model->encode(c.ids)});
  const Tensor targets = c.reference.at("labels").flatten();
  const double counted = targets.ne(-100).sum().item<double>();
  return kernels::linear_cross_entropy(hidden.flatten(0, 1), c.model->lm_head().effective_weight(), targets,
                                       {.scale = 1 / counted});
}

#define LLMTK_NEEDS_REFERENCE                                           \
  if (!fs::exists(reference_folder() / "t5" / "reference.safetensors")) \
  LLMTK_SKIP("no reference models: they are made by t5_reference.py, with the Python peers")

TEST_CASE("logits, hidden states and attention are transformers'") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    CHECK(c.difference_from(c.logits(), "logits") < kTolerance);

    std::vector<Tensor> attentions, hidden, decoder_attentions, cross_attentions, decoder_hidden;
    const Tensor logits = c.logits(
        {.attentions = &attentions, .hidden_states = &hidden},
        {.attentions = &decoder_attentions, .cross_attentions = &cross_attentions, .hidden_states = &decoder_hidden});
    CHECK(c.difference_from(logits, "logits") < kTolerance);
    REQUIRE(attentions.size() == static_cast<size_t>(c.model->num_layers()));
    REQUIRE(hidden.size() == attentions.size() + 1);
    REQUIRE(decoder_attentions.size() == (c.name == "t5_shapes" ? 2 : 3));
    REQUIRE(cross_attentions.size() == decoder_attentions.size());
    REQUIRE(decoder_hidden.size() == decoder_attentions.size() + 1);
    CHECK(c.difference_from(attentions.front(), "encoder_attention_first") < kTolerance);
    CHECK(c.difference_from(attentions.back(), "encoder_attention_last") < kTolerance);
    CHECK(c.difference_from(decoder_attentions.front(), "decoder_attention_first") < kTolerance);
    CHECK(c.difference_from(decoder_attentions.back(), "decoder_attention_last") < kTolerance);
    CHECK(c.difference_from(cross_attentions.back(), "cross_attention_last") < kTolerance);
    CHECK(c.difference_from(hidden.front(), "encoder_hidden_first") < kTolerance);
    CHECK(c.difference_from(hidden.back(), "encoder_hidden_last") < kTolerance);
    CHECK(c.difference_from(decoder_hidden.front(), "decoder_hidden_first") < kTolerance);
    CHECK(c.difference_from(decoder_hidden.back(), "decoder_hidden_last") < kTolerance);
  });
}

TEST_CASE("loss, every gradient and 20 AdamW steps are transformers'") {
  LLMTK_NEEDS_REFERENCE;
  for_each_case([](Case& c) {
    Tensor loss = loss_of(c);
    CHECK(c.difference_from(loss, "loss") < kTolerance);
    loss.backward();
    size_t gradients = 0;
    for (const auto& [key, tensor] : c.reference) gradients += key.starts_with("grad.");
    CHECK(c.model->parameters().size() == gradients);
    for (const auto& parameter : c.model->named_parameters()) {
      INFO(parameter.key());
      REQUIRE(parameter.value().grad().defined());
      CHECK(c.difference_from(parameter.value().grad(), "grad." + parameter.key()) < kTolerance);
    }

    train_20_steps(*c.model, [&] { return loss_of(c); });
    for (const auto& parameter : c.model->named_parameters()) {
      INFO(parameter.key());
      CHECK(c.difference_from(parameter.value().detach(), "after." + parameter.key()) < kTolerance);
    }
  });
}

TEST_CASE("padding on either side changes nothing, in the encoder and in the decoder") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    const Tensor mask = c.reference.at("mask"), decoder_mask = c.reference.at("decoder_mask");
    const Tensor padding = decoder_mask.eq(0).unsqueeze(2);
    const auto padded = [&](std::vector<Tensor>* maps) {
      return c.logits({.attention_mask = mask, .attentions = maps},
                      {.attention_mask = decoder_mask, .attentions = maps, .cross_attentions = maps});
    };
    std::vector<Tensor> maps;
    for (const Tensor& logits : {padded(nullptr), padded(&maps)}) {
      CHECK(logits.isfinite().all().item<bool>());
      CHECK(c.difference_from(logits.masked_fill(padding, 0), "padded_logits") < kTolerance);
    }
  });
}

TEST_CASE("decoding with a cache is the full forward") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    const Tensor mask = c.reference.at("mask"), decoder_mask = c.reference.at("decoder_mask");
    const int64_t B = c.ids.size(0), T = c.decoder_ids.size(1);
    const auto cache = c.model->make_cache(B, T);
    nn::DecoderContext context{.encoder_hidden = c.model->encode(c.ids, {.attention_mask = mask}),
                               .encoder_attention_mask = mask,
                               .cache = cache.get()};
    std::vector<Tensor> pieces;
    int64_t at = 0;
    for (const int64_t n : {int64_t{1}, int64_t{12}, int64_t{1}, int64_t{1}, T - 15}) {
      context.attention_mask = decoder_mask.narrow(1, 0, at + n);
      pieces.push_back(c.model->logits(c.model->decode(c.decoder_ids.narrow(1, at, n), context)));
      at += n;
      context.encoder_hidden.reset();  // the cache holds what is needed of it, padding included
      context.encoder_attention_mask.reset();
    }
    CHECK(cache->length() == T);
    const Tensor padding = decoder_mask.eq(0).unsqueeze(2);
    CHECK(c.difference_from(at::cat(pieces, 1).masked_fill(padding, 0), "padded_logits") < kTolerance);
    CHECK_THROWS_AS(c.model->decode(c.decoder_ids.narrow(1, 0, 1), {.cache = cache.get()}), Error);
  });
}

TEST_CASE("a cache's rows may be moved, doubled and dropped") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  Case c("t5_v1_1");
  const Tensor mask = c.reference.at("mask");
  const auto cache = c.model->make_cache(3, 8);
  const Tensor start = c.decoder_ids.narrow(1, 0, 2);
  c.model->decode(start, {.encoder_hidden = c.model->encode(c.ids, {.attention_mask = mask}),
                          .encoder_attention_mask = mask,
                          .cache = cache.get()});
  // Beams of the first and third row; then they change places among themselves, then one source is dropped.
  Tensor source = at::arange(3), tokens = start;
  for (const std::vector<int64_t>& order : {std::vector<int64_t>{0, 0, 2, 2}, {1, 0, 2, 2}, {3, 2}}) {
    const Tensor rows = at::tensor(order, at::kLong);
    cache->reorder(rows);
    source = source.index_select(0, rows);
    const Tensor next = c.decoder_ids.flatten().narrow(0, tokens.size(1), rows.size(0)).unsqueeze(1);
    tokens = at::cat({tokens.index_select(0, rows), next}, 1);
    const Tensor got = c.model->decode(next, {.cache = cache.get()});
    const Tensor real = mask.index_select(0, source);
    const Tensor encoded = c.model->encode(c.ids.index_select(0, source), {.attention_mask = real});
    const Tensor whole = c.model->decode(tokens, {.encoder_hidden = encoded, .encoder_attention_mask = real});
    CHECK(difference(got, whole.narrow(1, tokens.size(1) - 1, 1)) < kTolerance);
  }
}

TEST_CASE("checkpointing gives the same gradients, with dropout too") {
  LLMTK_NEEDS_REFERENCE;
  const fs::path folder = reference_folder() / "t5_v1_1";
  io::Json config = io::read_json(folder / "config.json");
  config["dropout_rate"] = 0.2;
  const auto model = models::make<nn::Seq2SeqModel>(config, "config.json", {});
  models::load_weights(*model, io::WeightFiles(folder / "model.safetensors"), "weights");
  model->train();
  const Tensor ids = at::arange(40, at::kLong).view({2, 20}) + 5;
  const auto gradients = [&](bool checkpointing) {
    zero_grad(*model);
    model->set_gradient_checkpointing(checkpointing);
    at::manual_seed(7);
    const Tensor hidden = model->decode(ids.narrow(1, 0, 9), {.encoder_hidden = model->encode(ids)});
    model->logits(hidden).square().sum().backward();
    std::vector<Tensor> all;
    for (const Tensor& parameter : model->parameters()) all.push_back(parameter.grad().clone());
    return all;
  };
  const auto plain = gradients(false), again = gradients(true);
  // The first pass keeps no gradient, so that its few rows are multiplied by another kernel than in the second.
  for (size_t i = 0; i < plain.size(); ++i) CHECK(difference(again[i], plain[i]) < 5e-6);
  model->eval();
  CHECK_FALSE(at::allclose(gradients(false)[0], plain[0]));  // without dropout
}

TEST_CASE("bfloat16 and float16 are close") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    for (const auto& [dtype, tolerance] : {std::pair(at::kBFloat16, 8e-2), std::pair(at::kHalf, 8e-3)}) {
      const Case narrow(c.name, dtype);
      const Tensor logits = narrow.logits();
      CHECK(logits.scalar_type() == dtype);
      CHECK(c.difference_from(logits, "logits") < tolerance);
    }
  });
}

TEST_CASE("weights that are stored in half precision are transformers' in float32 too") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    check_half_precision<nn::Seq2SeqModel>(c.folder, c.reference, "logits", [&](auto model) {
      c.model = model;
      return c.logits();
    });
  });
}

TEST_CASE("float16 keeps sums that it cannot hold") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  const Case wide("t5"), narrow("t5", at::kHalf);
  for (const Case* c : {&wide, &narrow})
    for (auto& parameter : c->model->named_parameters())
      if (parameter.key().ends_with("wo.weight")) parameter.value().mul_(20000);
  CHECK(difference(narrow.logits(), wide.logits()) < 2e-2);
}

TEST_CASE("what is saved is what was loaded, the head of its own included") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    const fs::path folder = reference_folder() / "saved" / c.name;
    models::save(*c.model, folder, {.max_shard_bytes = 40000});
    const io::Json config = io::read_json(folder / "config.json");
    CHECK(config["tie_word_embeddings"] == (c.name != "t5_v1_1"));
    CHECK(config["scale_decoder_outputs"] == (c.name == "t5" || c.name == "t5_shapes"));
    Case saved(c.name);
    saved.model = models::load<nn::Seq2SeqModel>(folder.string());
    CHECK(at::equal(saved.logits(), c.logits()));
  });
}

TEST_CASE("files as they are on the hub, and configs of transformers 4, load") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  Case t5("t5"), v1_1("t5_v1_1");
  t5.model = models::load<nn::Seq2SeqModel>((reference_folder() / "old").string());
  CHECK(t5.difference_from(t5.logits(), "logits") < kTolerance);
  const io::Json old = io::read_json(reference_folder() / "v1_1_config_v4.json");
  v1_1.model = models::make<nn::Seq2SeqModel>(old, "config.json", {});
  models::load_weights(*v1_1.model, io::WeightFiles(v1_1.folder / "model.safetensors"), "weights");
  CHECK(v1_1.difference_from(v1_1.logits(), "logits") < kTolerance);
}

TEST_CASE("a config that cannot be computed is refused by key") {
  const auto refusal = [](const io::Json& changes) {
    io::Json config = models::preset("t5-small");
    config.update(changes);
    return error_of([&] { models::make_model(config, "m/config.json", {at::kFloat, c10::kMeta}); });
  };
  const auto says = [](const std::string& message, const std::string& part) {
    INFO(message);
    return message.find(part) != std::string::npos;
  };
  CHECK(refusal(io::Json::object()) == "");
  CHECK(says(refusal({{"d_kv", nullptr}}), "m/config.json: key 'd_kv' is missing"));
  CHECK(says(refusal({{"feed_forward_proj", "gated-mish"}}), "key 'feed_forward_proj'"));
  CHECK(says(refusal({{"relative_attention_num_buckets", 2}}), "key 'relative_attention_num_buckets'"));
  CHECK(says(refusal({{"relative_attention_max_distance", 16}}), "key 'relative_attention_max_distance'"));
  io::Json silent = models::preset("t5-small");
  silent.erase("decoder_start_token_id");
  const auto model = models::make<nn::Seq2SeqModel>(silent, "m", {at::kFloat, c10::kMeta});
  CHECK(says(error_of([&] { model->decoder_start_token_id(); }), "'decoder_start_token_id' is missing"));
}

TEST_CASE("an encoder-decoder is not taken for a decoder") {
  const std::string message = error_of([] { models::make(models::preset("t5-small"), "m", {at::kFloat, c10::kMeta}); });
  CHECK(message.find("t5, an encoder-decoder, expected a decoder") != std::string::npos);
}

TEST_CASE("weights start as published") {
  io::Json config = models::preset("t5-v1_1-small");
  config["num_layers"] = config["num_decoder_layers"] = 1;
  config["vocab_size"] = 400;
  const auto model = models::create<nn::Seq2SeqModel>(config, {}, 3);
  const std::map<std::string, double> deviations = {{"shared.weight", 1},
                                                    {".q.weight", 1 / std::sqrt(512.0 * 64)},
                                                    {".k.weight", 1 / std::sqrt(512.0)},
                                                    {".v.weight", 0.0441942},
                                                    {".o.weight", 1 / std::sqrt(6.0 * 64)},
                                                    {"wi_0.weight", 0.0441942},
                                                    {"wi_1.weight", 0.0441942},
                                                    {"wo.weight", 1 / std::sqrt(1024.0)},
                                                    {"lm_head.weight", 0.0441942},
                                                    {"relative_attention_bias.weight", 0.0441942}};
  for (const auto& parameter : model->named_parameters()) {
    INFO(parameter.key());
    const Tensor value = parameter.value().detach();
    if (value.dim() == 1) {
      CHECK(at::equal(value, at::ones_like(value)));
      continue;
    }
    const auto expected =
        std::ranges::find_if(deviations, [&](const auto& one) { return parameter.key().ends_with(one.first); });
    REQUIRE(expected != deviations.end());
    CHECK(value.std().item<double>() == Approx(expected->second).epsilon(value.numel() < 1000 ? 0.2 : 0.05));
  }
}

}  // namespace
}  // namespace llmtk
