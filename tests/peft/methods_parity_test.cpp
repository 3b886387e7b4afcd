// Prefix tuning, prompt tuning and (IA)^3 against peft: logits with a folder that peft saved, the gradient of
// everything that is trained, with and without activation checkpointing, 20 steps of AdamW, texts; and what is saved
// here goes back to peft (methods_saved_check.py).

#include "generate/generate.h"
#include "generate/small_models.h"
#include "method_support.h"
#include "peft/adapter_folder.h"
#include "peft/ia3.h"
#include "peft/methods.h"
#include "peft/modules.h"
#include "peft/prefix.h"
#include "peft/prompt.h"
#include "peft/prompt_files.h"

namespace llmtk {
namespace {

using at::Tensor;

struct Case {
  explicit Case(const fs::path& folder)
      : folder(folder), name(folder.filename().string()), model(models::load_model((folder / "base").string())) {
    for (const auto& [key, tensor] : io::load_tensors(folder / "reference.safetensors")) reference[key] = tensor;
    method = io::read_json(folder / "case.json").at("method").get<std::string>();
    in = {reference.at("input_ids"), reference.at("attention_mask")};
    if (reference.contains("decoder_input_ids")) in.decoder_ids = reference.at("decoder_input_ids");
    model->eval();
  }
  bool is_ia3() const { return method == "ia3"; }

  /// The adapter that peft saved.
  void load(const fs::path& adapter) {
    REQUIRE(peft::is_method_folder(adapter));
    peft::load_method(*model, adapter);
  }

  /// A new adapter with the values that the reference began with.
  void begin_training() {
    if (is_ia3())
      peft::apply(*model, peft::Ia3Config(), 1);
    else if (method == "prompt")
      peft::apply(*model, peft::PromptTuningConfig{.num_virtual_tokens = 5}, 1);
    else if (method == "projection")
      peft::apply(
          *model,
          peft::PrefixTuningConfig{.num_virtual_tokens = 5, .prefix_projection = true, .encoder_hidden_size = 24}, 1);
    else
      peft::apply(*model, peft::PTuningV2Config{.num_virtual_tokens = 5}, 1);
    for (auto& [key, tensor] : test::trained(*model)) {
      INFO(key);
      REQUIRE(reference.contains("before." + key));
      peft::assign(tensor, reference.at("before." + key), key, name);
    }
  }
  void save(const fs::path& to) const {
    is_ia3() ? peft::save_ia3(*model, to, "") : peft::save_virtual_tokens(*model, to, "");
  }
  Tensor loss() const { return test::mean_loss(test::logits(*model, in), reference.at("targets"), in.mask); }

  /// Logits of padding mean nothing.
  double logits_difference(const std::string& key) const {
    const at::NoGradGuard no_grad;
    Tensor got = test::logits(*model, in), expected = reference.at(key);
    if (got.dim() == 3 && got.size(1) == in.mask.size(1)) {
      got = got.masked_fill(in.mask.eq(0).unsqueeze(2), 0);
      expected = expected.masked_fill(in.mask.eq(0).unsqueeze(2), 0);
    }
    return difference(got, expected);
  }

  fs::path folder;
  std::string name, method;
  std::shared_ptr<nn::Model> model;
  std::map<std::string, Tensor> reference;
  test::Inputs in;
};

template <class Body>
void for_each_case(Body&& body) {
  llmtk::for_each_case<Case>(reference_folder(), 43, body);
}

#define LLMTK_NEEDS_REFERENCE                        \
  if (!fs::exists(reference_folder() / "t5.prefix")) \
  LLMTK_SKIP("no reference adapters: they are made by methods_reference.py, with the Python peers")

TEST_CASE("a folder that peft saved gives peft's logits") {
  LLMTK_NEEDS_REFERENCE;
  for_each_case([](Case& c) {
    CHECK(c.logits_difference("logits") > 1e-3);  // without it
    c.load(c.folder / "adapter");
    CHECK(c.logits_difference("logits") < kTolerance);
    CHECK(test::trained(*c.model).empty());
  });
}

/// Gradients of everything trained, the layers in training mode: the models have no dropout.
std::map<std::string, Tensor> gradients(Case& c, bool checkpointing) {
  c.model->train();
  c.model->set_gradient_checkpointing(checkpointing);
  zero_grad(*c.model);
  const Tensor loss = c.loss();
  CHECK(difference(loss.detach(), c.reference.at("loss")) < kTolerance);
  loss.backward();
  std::map<std::string, Tensor> found;
  for (const auto& [key, tensor] : test::trained(*c.model)) found[key] = tensor.grad();
  return found;
}

/// Of softmax nothing but rounding is left where all keys move alike: a BERT key's scale has a gradient, its bias none.
TEST_CASE("loss and the gradient of every tensor are peft's, with and without activation checkpointing") {
  LLMTK_NEEDS_REFERENCE;
  for_each_case([](Case& c) {
    c.begin_training();
    const auto plain = gradients(c, false), checkpointed = gradients(c, true);
    size_t expected = 0;
    for (const auto& [key, tensor] : c.reference) expected += key.starts_with("grad.");
    CHECK(plain.size() == expected);
    for (const auto& [key, gradient] : plain) {
      INFO(key);
      CHECK(difference(gradient, c.reference.at("grad." + key)) < kTolerance);
      CHECK(difference(checkpointed.at(key), gradient) < 1e-5);
    }
  });
}

/// As the reference's.
void take_20_steps(Case& c) {
  std::vector<kernels::AdamWTensor> state;
  std::vector<Tensor> parameters;
  for (const auto& [key, tensor] : test::trained(*c.model)) {
    parameters.push_back(tensor);
    state.push_back({.param = tensor.detach(),
                     .exp_avg = at::zeros_like(tensor),
                     .exp_avg_sq = at::zeros_like(tensor),
                     .weight_decay = 0.1});
  }
  for (int64_t step = 1; step <= 20; ++step) {
    zero_grad(*c.model);
    c.loss().backward();
    for (size_t i = 0; i < state.size(); ++i) state[i].grad = parameters[i].grad().contiguous();
    kernels::adamw_step(state, {.lr = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-6, .step = step});
  }
}

TEST_CASE("20 steps of AdamW end where peft's end; what is saved then is for peft to open") {
  LLMTK_NEEDS_REFERENCE;
  for_each_case([](Case& c) {
    c.begin_training();
    take_20_steps(c);
    for (const auto& [key, tensor] : test::trained(*c.model)) {
      INFO(key);
      CHECK(difference(tensor.detach(), c.reference.at("before." + key)) > 1e-3);
      CHECK(difference(tensor.detach(), c.reference.at("after." + key)) < 1e-3);  // 20 steps of rounding
    }
    c.save(c.folder / "saved");
    const at::NoGradGuard no_grad;
    const Tensor logits = test::logits(*c.model, c.in);
    io::save_tensors(c.folder / "saved_logits.safetensors", {{"logits", logits}});
    Case again(c.folder);
    again.load(c.folder / "saved");
    CHECK(difference(test::logits(*again.model, c.in), logits) < kTolerance);
  });
}

std::vector<text::TokenId> ids_of(const Tensor& row) {
  return {row.data_ptr<int64_t>(), row.data_ptr<int64_t>() + row.numel()};
}

/// Both prompts in one batch, the shorter padded.
TEST_CASE("texts through the cache are those of peft's generate, greedy and by beams") {
  LLMTK_NEEDS_REFERENCE;
  const auto tokenizer = test::words();
  for_each_case([&](Case& c) {
    if (!c.reference.contains("prompt.0")) return;
    c.load(c.folder / "adapter");
    const std::vector prompts = {ids_of(c.reference.at("prompt.0")), ids_of(c.reference.at("prompt.1"))};
    for (const int64_t beams : {1, 3}) {
      generate::GenerationConfig config;
      config.max_new_tokens = config.min_new_tokens = 7;
      config.num_beams = beams;
      if (c.in.decoder_ids.defined()) config.eos_token_ids = {1};
      const auto texts = generate::generate(*c.model, tokenizer, prompts, config);
      REQUIRE(texts.size() == 2);
      for (size_t i = 0; i < 2; ++i) {
        INFO(i << " with beams: " << beams);
        const Tensor expected = c.reference.at("text." + std::to_string(i) + "." + std::to_string(beams));
        const std::vector<text::TokenId> whole = ids_of(expected);
        CHECK(texts[i].ids == std::vector<text::TokenId>(whole.end() - 7, whole.end()));
      }
    }
  });
}

TEST_CASE("in bfloat16 the answers are float32's but for rounding") {
  LLMTK_NEEDS_REFERENCE;
  for_each_case([](Case& c) {
    const at::NoGradGuard no_grad;
    c.model = models::load_model((c.folder / "base").string(), {.dtype = at::kBFloat16});
    c.model->eval();
    c.load(c.folder / "adapter");
    const Tensor narrow = test::logits(*c.model, c.in);
    CHECK(narrow.scalar_type() == at::kBFloat16);
    CHECK(c.logits_difference("logits") < 5e-2);
    CHECK(c.logits_difference("logits") > kTolerance);
  });
}

TEST_CASE("(IA)^3 that is multiplied in answers as before") {
  LLMTK_NEEDS_REFERENCE;
  for_each_case([](Case& c) {
    if (!c.is_ia3()) return;
    c.load(c.folder / "adapter");
    peft::merge_ia3(*c.model);
    for (const auto& parameter : c.model->named_parameters()) CHECK(parameter.key().find("ia3") == std::string::npos);
    CHECK(c.logits_difference("logits") < kTolerance);
  });
}

}  // namespace
}  // namespace llmtk
