// Encoders against transformers: hidden states, what each head says, every gradient, 20 steps of AdamW, padding.

#include <ATen/ATen.h>

#include <cstdlib>

#include "core/device.h"
#include "core/error.h"
#include "io/tensors.h"
#include "models/parity.h"
#include "models/registry.h"
#include "test.h"

namespace llmtk {
namespace {

using at::Tensor;
using nn::Head;

bool have_reference() { return fs::exists(reference_folder() / "bert" / "reference.safetensors"); }

struct Case {
  explicit Case(const fs::path& folder)
      : name(folder.filename().string()), model(models::load<nn::EncoderModel>(folder.string())) {
    for (const auto& [key, tensor] : io::load_tensors(folder / "reference.safetensors")) reference[key] = tensor;
    ids = reference.at("input_ids");
    types = reference.at("token_type_ids");
  }
  /// The logits, or the pooler's output where the model has no head.
  Tensor answers(const Tensor& hidden, const Tensor& mask = {}) const {
    return model->head() == Head::none ? model->pooled(hidden, mask) : model->logits(hidden, mask);
  }
  bool answers_by_token() const {
    return model->head() == Head::masked_lm || model->head() == Head::token_classification;
  }

  std::string name;
  std::shared_ptr<nn::EncoderModel> model;
  std::map<std::string, Tensor> reference;
  Tensor ids, types;
};

template <class Body>
void for_each_case(Body&& body) {
  llmtk::for_each_case<Case>(reference_folder(), 10, body);
}

/// As loss_of in encoder_reference.py.
Tensor loss_of(const Case& c, const Tensor& ids, const Tensor& types) {
  const Tensor hidden = c.model->forward(ids, {.token_type_ids = types});
  const Tensor target = c.reference.at("target"), answers = c.answers(hidden);
  if (c.model->head() == Head::none)
    return (hidden - target).square().mean() + (answers - target.select(1, 0)).square().mean();
  if (target.is_floating_point()) return at::mse_loss(answers.squeeze(), target);
  return at::cross_entropy_loss(answers.flatten(0, -2), target.flatten());
}

/// A key's bias adds the same number to all scores of a query, so its gradient is rounding alone.
bool is_key_bias(const std::string& name) { return name.ends_with("attention.self.key.bias"); }

#define LLMTK_NEEDS_REFERENCE                                                        \
  if (!have_reference())                                                             \
  LLMTK_SKIP(                                                                        \
      "no reference models: they are made by encoder_reference.py, with the Python " \
      "peers")

TEST_CASE("hidden states, attention and answers are transformers'") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    const Tensor expected = c.reference.at("answers");
    CHECK(difference(c.answers(c.model->forward(c.ids, {.token_type_ids = c.types})), expected) < kTolerance);

    std::vector<Tensor> attentions, hidden;
    const Tensor last =
        c.model->forward(c.ids, {.token_type_ids = c.types, .attentions = &attentions, .hidden_states = &hidden});
    CHECK(difference(c.answers(last), expected) < kTolerance);
    REQUIRE(attentions.size() == static_cast<size_t>(c.model->num_layers()));
    REQUIRE(hidden.size() == attentions.size() + 1);
    CHECK(difference(attentions.back(), c.reference.at("attention_last")) < kTolerance);
    CHECK(difference(hidden.front(), c.reference.at("hidden_first")) < kTolerance);
    CHECK(difference(hidden.back(), c.reference.at("hidden_last")) < kTolerance);
    // An id of padding within the text.
    CHECK(difference(c.answers(c.model->forward(c.reference.at("holes"))), c.reference.at("holes_answers")) <
          kTolerance);
  });
}

TEST_CASE("loss, every gradient and 20 AdamW steps are transformers'") {
  LLMTK_NEEDS_REFERENCE;
  for_each_case([](Case& c) {
    const Tensor loss = loss_of(c, c.ids, c.types);
    CHECK(difference(loss, c.reference.at("loss")) < kTolerance);
    loss.backward();
    size_t gradients = 0;
    for (const auto& [key, tensor] : c.reference) gradients += key.starts_with("grad.");
    CHECK(c.model->parameters().size() == gradients);
    for (const auto& parameter : c.model->named_parameters()) {
      const std::string& name = parameter.key();
      INFO(name);
      REQUIRE(parameter.value().grad().defined());
      double scale = 0;
      if (is_key_bias(name)) {
        std::string query = name;
        query.replace(query.rfind("key"), 3, "query");
        scale = c.reference.at("grad." + query).abs().max().item<double>();
      }
      CHECK(difference(parameter.value().grad(), c.reference.at("grad." + name), scale) < kTolerance);
    }

    zero_grad(*c.model);
    loss_of(c, c.reference.at("holes"), {}).backward();
    for (const auto& parameter : c.model->named_parameters()) {
      const auto expected = c.reference.find("holes_grad." + parameter.key());
      INFO(parameter.key());
      if (expected != c.reference.end()) CHECK(difference(parameter.value().grad(), expected->second) < kTolerance);
    }

    train_20_steps(*c.model, [&] { return loss_of(c, c.ids, c.types); });
    for (const auto& parameter : c.model->named_parameters()) {
      // AdamW makes steps of full size of a gradient that is rounding alone.
      if (is_key_bias(parameter.key())) continue;
      INFO(parameter.key());
      CHECK(difference(parameter.value().detach(), c.reference.at("after." + parameter.key())) < kTolerance);
    }
  });
}

/// Each row's first `length` tokens moved to the right end, padding before them.
Tensor moved_right(const Tensor& rows, const Tensor& mask) {
  std::vector<Tensor> moved;
  for (int64_t row = 0; row < rows.size(0); ++row) {
    const int64_t length = mask[row].sum().item<int64_t>();
    moved.push_back(rows[row].roll({rows.size(1) - length}, {0}));
  }
  return at::stack(moved);
}

TEST_CASE("padding on either side changes nothing") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    const Tensor mask = c.reference.at("padded_mask");
    const Tensor real = c.answers_by_token() ? mask.to(at::kBool).unsqueeze(2) : at::ones({1}, at::kBool);
    const Tensor right = c.answers(c.model->forward(c.ids, {.attention_mask = mask, .token_type_ids = c.types}), mask);
    CHECK(right.isfinite().all().item<bool>());
    CHECK(difference(right * real, c.reference.at("padded_answers") * real) < kTolerance);

    const Tensor left_mask = mask.flip(1);
    for (const bool explicitly : {false, true}) {
      std::vector<Tensor> attentions;
      const Tensor left =
          c.answers(c.model->forward(moved_right(c.ids, mask), {.attention_mask = left_mask,
                                                                .token_type_ids = moved_right(c.types, mask),
                                                                .attentions = explicitly ? &attentions : nullptr}),
                    left_mask);
      for (int64_t row = 0; row < c.ids.size(0); ++row) {
        const int64_t length = mask[row].sum().item<int64_t>();
        const Tensor expected = c.reference.at("alone." + std::to_string(row))[0];
        CHECK(difference(c.answers_by_token() ? left[row].slice(0, -length) : left[row], expected) < kTolerance);
      }
    }

    // A row of nothing but padding disturbs no other, and is finite.
    Tensor empty = mask.clone();
    empty[1].zero_();
    const Tensor beside =
        c.answers(c.model->forward(c.ids, {.attention_mask = empty, .token_type_ids = c.types}), empty);
    CHECK(beside.isfinite().all().item<bool>());
    CHECK(difference((beside * real)[2], (right * real)[2]) < kTolerance);
  });
}

TEST_CASE("checkpointing gives the same gradients, with dropout too") {
  LLMTK_NEEDS_REFERENCE;
  for (const char* name : {"bert_masked_lm", "roberta_sequence"}) {
    const auto model = models::load<nn::EncoderModel>(
        (reference_folder() / name).string(),
        {.overrides = {{"hidden_dropout_prob", 0.2}, {"attention_probs_dropout_prob", 0.2}}});
    model->train();
    const Tensor ids = at::arange(48, at::kLong).view({2, 24}) + 5;
    const auto gradients = [&](bool checkpointing) {
      zero_grad(*model);
      model->set_gradient_checkpointing(checkpointing);
      at::manual_seed(7);
      model->logits(model->forward(ids)).square().sum().backward();
      std::vector<Tensor> all;
      for (const Tensor& parameter : model->parameters()) all.push_back(parameter.grad().clone());
      return all;
    };
    const auto plain = gradients(false), again = gradients(true), evaluated = [&] {
      model->eval();
      return gradients(false);
    }();
    CHECK(difference(evaluated[0], plain[0]) > 1e-2);  // dropout did something
    for (size_t i = 0; i < plain.size(); ++i) CHECK(difference(again[i], plain[i]) < 1e-6);
  }
}

TEST_CASE("bfloat16 is close") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    const auto model = models::load<nn::EncoderModel>((reference_folder() / c.name).string(), {.dtype = at::kBFloat16});
    const Tensor hidden = model->forward(c.ids, {.attention_mask = c.reference.at("padded_mask")});
    CHECK(hidden.scalar_type() == at::kBFloat16);
    const Tensor last = model->forward(c.ids, {.token_type_ids = c.types});
    CHECK(difference(last, c.reference.at("hidden_last")) < 5e-2);
  });
}

TEST_CASE("weights that are stored in half precision are transformers' in float32 too") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    check_half_precision<nn::EncoderModel>(reference_folder() / c.name, c.reference, "answers", [&](auto model) {
      c.model = model;
      return c.answers(model->forward(c.ids, {.token_type_ids = c.types}));
    });
  });
}

TEST_CASE("a config of transformers 4 means the same") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    const fs::path folder = reference_folder() / c.name;
    auto model = models::make<nn::EncoderModel>(io::read_json(folder / "config_v4.json"), "config.json", {});
    models::load_weights(*model, io::WeightFiles(folder / "model.safetensors"), "weights");
    model->eval();
    CHECK(model->head() == c.model->head());
    CHECK(model->label_names() == c.model->label_names());
    const Tensor expected = c.answers(c.model->forward(c.ids, {.token_type_ids = c.types}));
    c.model = model;
    CHECK(at::equal(c.answers(model->forward(c.ids, {.token_type_ids = c.types})), expected));
  });
}

TEST_CASE("what is saved is what was loaded") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    const fs::path folder = reference_folder() / "saved" / c.name;
    models::save(*c.model, folder);
    const auto again = models::load<nn::EncoderModel>(folder.string());
    CHECK(at::equal(again->forward(c.ids), c.model->forward(c.ids)));
    CHECK(at::equal(again->logits(again->forward(c.ids)), c.model->logits(c.model->forward(c.ids))));
  });
}

}  // namespace
}  // namespace llmtk
