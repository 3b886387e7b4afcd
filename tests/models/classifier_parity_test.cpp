// Classifiers of texts over decoders and T5 against transformers: logits of rows of unequal lengths, loss, every
// gradient, the scores of all tokens; a language model opened for the task; and what is saved goes back
// (classifier_saved_check.py).

#include <ATen/ATen.h>

#include "core/error.h"
#include "io/tensors.h"
#include "models/parity.h"
#include "models/registry.h"
#include "nn/sequence_classifier.h"
#include "test.h"

namespace llmtk {
namespace {

using at::Tensor;

struct Case {
  explicit Case(const fs::path& folder)
      : folder(folder), name(folder.filename().string()), model(models::load_model(folder.string())) {
    for (const auto& [key, tensor] : io::load_tensors(folder / "reference.safetensors")) reference[key] = tensor;
  }
  nn::Texts texts() const {
    return {.input_ids = reference.at("input_ids"), .attention_mask = reference.at("attention_mask")};
  }
  Tensor loss() const {
    const Tensor logits = model->class_logits(texts()), targets = reference.at("targets");
    if (!targets.is_floating_point()) return at::cross_entropy_loss(logits, targets);
    return model->config().value("problem_type", io::Json()) == "multi_label_classification"
               ? at::binary_cross_entropy_with_logits(logits, targets)
               : at::mse_loss(logits, targets);
  }

  fs::path folder;
  std::string name;
  std::shared_ptr<nn::Model> model;
  std::map<std::string, Tensor> reference;
};

template <class Body>
void for_each_case(Body&& body) {
  llmtk::for_each_case<Case>(reference_folder(), 12, body);
}

#define LLMTK_NEEDS_REFERENCE                                           \
  if (!fs::exists(reference_folder() / "t5" / "reference.safetensors")) \
  LLMTK_SKIP("no reference models: they are made by classifier_reference.py, with the Python peers")

TEST_CASE("a text's logits and the scores of its tokens are transformers', wherever padding stands") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    const nn::Texts texts = c.texts();
    CHECK(c.model->head() == nn::Head::sequence_classification);
    CHECK(difference(c.model->class_logits(texts), c.reference.at("logits")) < kTolerance);
    for (int64_t row = 0; row < 3; ++row) {  // alone, without padding
      const int64_t length = texts.attention_mask[row].sum().item<int64_t>();
      const Tensor alone = c.model->class_logits({.input_ids = texts.input_ids.narrow(0, row, 1).narrow(1, 0, length)});
      CHECK(difference(alone, c.reference.at("logits").narrow(0, row, 1)) < kTolerance);
    }
    auto* decoder = dynamic_cast<nn::DecoderClassifier*>(c.model.get());
    if (!decoder) return;
    const Tensor real = texts.attention_mask.unsqueeze(2);
    CHECK(difference(decoder->scores(decoder->forward(texts.input_ids)) * real, c.reference.at("scores") * real) <
          kTolerance);
    // Padding on the left moves nothing.
    Tensor ids = texts.input_ids.clone(), mask = texts.attention_mask.clone();
    for (int64_t row = 0; row < 3; ++row) {
      const int64_t padding = ids.size(1) - mask[row].sum().item<int64_t>();
      ids[row] = ids[row].roll(padding);
      mask[row] = mask[row].roll(padding);
    }
    const Tensor hidden = decoder->forward(ids, {.attention_mask = mask});
    CHECK(difference(decoder->logits(hidden, ids, mask), c.reference.at("logits")) < kTolerance);
  });
}

TEST_CASE("loss and every gradient are transformers', with and without activation checkpointing") {
  LLMTK_NEEDS_REFERENCE;
  for_each_case([](Case& c) {
    c.model->train();
    for (const bool checkpointing : {false, true}) {
      c.model->set_gradient_checkpointing(checkpointing);
      zero_grad(*c.model);
      Tensor loss = c.loss();
      CHECK(difference(loss.detach(), c.reference.at("loss")) < kTolerance);
      loss.backward();
      size_t expected = 0;
      for (const auto& [key, tensor] : c.reference) expected += key.starts_with("grad.");
      CHECK(c.model->parameters().size() == expected);
      for (const auto& parameter : c.model->named_parameters()) {
        const std::string& name = parameter.key();
        INFO(name);
        const Tensor& wanted = c.reference.at("grad." + name);
        // A key's bias moves all scores of a query alike: its gradient is rounding where nothing rotates.
        const bool rounding = name.ends_with("k_proj.bias") && c.name == "opt";
        const Tensor scale = rounding ? c.reference.at("grad." + name.substr(0, name.size() - 4) + "weight") : wanted;
        CHECK((parameter.value().grad() - wanted).abs().max().item<double>() <
              kTolerance * scale.abs().max().item<double>());
      }
    }
  });
}

TEST_CASE("a language model opened for the task keeps its layers and gets a new head") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    const models::LoadOptions options{.head = nn::Head::sequence_classification,
                                      .seed = 3,
                                      .overrides = {{"num_labels", c.model->num_labels()}, {"id2label", nullptr}}};
    const auto opened = models::load_model((c.folder / "base").string(), options);
    const auto expected = c.model->named_parameters();
    size_t drawn = 0;
    for (auto& parameter : opened->named_parameters()) {
      INFO(parameter.key());
      REQUIRE(expected.contains(parameter.key()));
      const bool of_head = parameter.key().starts_with("score.") || parameter.key().starts_with("classification_head.");
      CHECK(parameter.value().equal(expected[parameter.key()]) != of_head);
      if (!of_head) continue;
      ++drawn;
      if (parameter.value().dim() > 1) CHECK(parameter.value().std().item<double>() > 0.01);
      parameter.value().copy_(expected[parameter.key()]);
    }
    CHECK(drawn == (c.name == "t5" ? 4 : 1));
    CHECK(expected.size() == opened->named_parameters().size());
    CHECK(difference(opened->class_logits(c.texts()), c.reference.at("logits")) < kTolerance);
  });
}

TEST_CASE("what is saved is what was loaded; bfloat16 is close") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  for_each_case([](Case& c) {
    const fs::path folder = reference_folder() / "saved" / c.name;
    models::save(*c.model, folder);
    CHECK(models::load_model(folder.string())->class_logits(c.texts()).equal(c.model->class_logits(c.texts())));
    CHECK(models::load_model(folder.string())->label_names() == c.model->label_names());
    const auto rounded = models::load_model(folder.string(), {.dtype = at::kBFloat16});
    CHECK(difference(rounded->class_logits(c.texts()), c.reference.at("logits")) < 5e-2);
  });
}

TEST_CASE("without a token for padding the mask alone says where a text ends; a text of T5 needs its end") {
  LLMTK_NEEDS_REFERENCE;
  const at::NoGradGuard no_grad;
  const Case llama(reference_folder() / "llama"), t5(reference_folder() / "t5");
  const auto open =
      models::load<nn::DecoderClassifier>(llama.folder.string(), {.overrides = {{"pad_token_id", nullptr}}});
  const nn::Texts texts = llama.texts();
  CHECK(open->last_tokens(texts.input_ids, texts.attention_mask).equal(at::tensor({11, 8, 3}, at::kLong)));
  CHECK(open->last_tokens(texts.input_ids).equal(at::tensor({11, 11, 11}, at::kLong)));
  const auto own = models::load<nn::DecoderClassifier>(llama.folder.string());
  CHECK(own->last_tokens(texts.input_ids).equal(at::tensor({10, 8, 3}, at::kLong)));
  CHECK_THROWS_AS(t5.model->class_logits({.input_ids = t5.texts().input_ids.slice(1, 0, 3)}), Error);
}

}  // namespace
}  // namespace llmtk
