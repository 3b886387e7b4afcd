// Encoders: which head a folder is opened with, files as they are on the hub, what is refused.

#include <ATen/ATen.h>

#include <map>

#include "core/error.h"
#include "io/tensors.h"
#include "models/registry.h"
#include "stderr_of.h"
#include "test.h"

namespace llmtk::models {
namespace {

using at::Tensor;
using nn::EncoderModel;
using nn::Head;

io::Json small(const std::string& model_type, const std::string& architecture) {
  io::Json config = {{"model_type", model_type},      {"vocab_size", 31},         {"hidden_size", 24},
                     {"num_hidden_layers", 2},        {"num_attention_heads", 3}, {"intermediate_size", 40},
                     {"max_position_embeddings", 18}, {"type_vocab_size", 2}};
  if (!architecture.empty()) config["architectures"] = {architecture};
  return config;
}

using test::error_of;
using test::says;

/// A folder with a model of random weights, whose tensors `change` may rename, add to or take from.
struct Folder {
  Folder(const std::string& model_type, const std::string& architecture)
      : model(create<EncoderModel>(small(model_type, architecture), {}, 1)) {
    model->eval();
    save(*model, folder.path());
  }
  template <class Change>
  Folder& with(Change change) {
    io::NamedTensors tensors;
    for (const auto& parameter : model->named_parameters())
      tensors.emplace_back(parameter.key(), parameter.value().detach());
    change(tensors);
    io::save_weights(folder.path(), tensors);
    return *this;
  }
  std::shared_ptr<EncoderModel> load(const LoadOptions& options = {}) const {
    return models::load<EncoderModel>(folder.path().string(), options);
  }
  std::string error(const LoadOptions& options = {}) const {
    return error_of([&] { load(options); });
  }

  test::TemporaryFolder folder;
  std::shared_ptr<EncoderModel> model;
};

const Tensor& ids() {
  static const Tensor made = at::arange(20, at::kLong).view({2, 10}) + 5;
  return made;
}

bool same(EncoderModel& a, EncoderModel& b) {
  const at::NoGradGuard no_grad;
  return at::equal(a.logits(a.forward(ids())), b.logits(b.forward(ids())));
}

void rename(io::NamedTensors& tensors, const std::string& from, const std::string& to) {
  size_t renamed = 0;
  for (auto& [name, tensor] : tensors)
    if (const size_t at = name.find(from); at != std::string::npos) name.replace(at, from.size(), to), ++renamed;
  REQUIRE(renamed > 0);
}

TEST_CASE("the head is the one that architectures names") {
  const at::NoGradGuard no_grad;
  struct Expected {
    const char *model_type, *architecture;
    Head head;
    std::vector<int64_t> shape;
  };
  const Expected cases[] = {
      {"bert", "", Head::none, {2, 10, 24}},
      {"bert", "BertModel", Head::none, {2, 10, 24}},
      {"bert", "BertForMaskedLM", Head::masked_lm, {2, 10, 31}},
      {"bert", "BertForPreTraining", Head::masked_lm, {2, 10, 31}},
      {"bert", "BertForSequenceClassification", Head::sequence_classification, {2, 3}},
      {"bert", "BertForTokenClassification", Head::token_classification, {2, 10, 3}},
      {"roberta", "RobertaForMaskedLM", Head::masked_lm, {2, 10, 31}},
      {"roberta", "RobertaForSequenceClassification", Head::sequence_classification, {2, 3}},
      {"xlm-roberta", "XLMRobertaForTokenClassification", Head::token_classification, {2, 10, 3}}};
  for (const Expected& expected : cases) {
    INFO(expected.model_type << " " << expected.architecture);
    io::Json config = small(expected.model_type, expected.architecture);
    config["id2label"] = {{"0", "a"}, {"1", "b"}, {"2", "c"}};
    const auto model = create<EncoderModel>(config, {}, 1);
    CHECK(model->head() == expected.head);
    CHECK(model->logits(model->forward(ids())).sizes() == expected.shape);
    const bool labels = expected.shape.back() == 3;
    CHECK(model->num_labels() == (labels ? 3 : 0));
    CHECK(model->config()["id2label"] == config["id2label"]);
  }
}

TEST_CASE("the published encoders have their published numbers of parameters") {
  // Counted as transformers counts the same configs with the masked LM's head (num_parameters()).
  const std::map<std::string, int64_t> counts = {
      {"bert-base-uncased", 109514298}, {"bert-base-cased", 108340804},   {"bert-large-uncased", 335174458},
      {"bert-large-cased", 333610308},  {"bert-base-chinese", 102290312}, {"bert-base-multilingual-cased", 177974523},
      {"roberta-base", 124697433},      {"roberta-large", 355412057},     {"xlm-roberta-base", 278295186},
      {"xlm-roberta-large", 560142482},
  };
  for (const auto& [name, count] : counts) {
    INFO(name);
    CHECK(make_model(preset(name), name, {at::kFloat, c10::kMeta})->num_parameters() == count);
  }
}

TEST_CASE("a config of an encoder that cannot be computed is refused by key") {
  const auto with = [](const char* key, const io::Json& value, const std::string& model_type = "bert") {
    io::Json config = small(model_type, model_type == "bert" ? "BertForMaskedLM" : "RobertaForMaskedLM");
    config[key] = value;
    return error_of([&] { make_model(config, "m/config.json", {}); });
  };
  CHECK(with("hidden_size", 24) == "");
  CHECK(says(with("architectures", {"BertForQuestionAnswering"}),
             "m/config.json: key 'architectures' has a value that cannot be used: got [\"BertForQuestionAnswering\"], "
             "expected a list that begins with one of BertModel, BertForMaskedLM"));
  CHECK(says(with("architectures", {"BertForMaskedLM"}, "roberta"), "RobertaModel, RobertaForMaskedLM"));
  CHECK(says(with("architectures", {"BertForPreTraining"}, "roberta"), "key 'architectures'"));
  CHECK(says(with("num_attention_heads", 5), "a divisor of hidden_size, 24"));
  CHECK(says(with("is_decoder", true), "key 'is_decoder'"));
  CHECK(says(with("position_embedding_type", "relative_key"), "key 'position_embedding_type'"));
  CHECK(says(with("tie_word_embeddings", false), "key 'tie_word_embeddings'"));
  CHECK(says(with("pad_token_id", 31), "less than vocab_size, 31"));
  CHECK(says(with("pad_token_id", nullptr, "roberta"), "positions are counted from it"));
  CHECK(with("pad_token_id", nullptr) == "");
  CHECK(says(with("max_position_embeddings", 2, "roberta"), "at least pad_token_id + 2"));
  CHECK(says(with("id2label", io::Json::array({"a"})), "key 'id2label'"));
  io::Json both = {{"0", "a"}, {"1", "b"}};
  io::Json config = small("bert", "BertForSequenceClassification");
  config["id2label"] = both;
  config["num_labels"] = 3;
  CHECK(says(error_of([&] { make_model(config, "c", {}); }), "the size of id2label, 2"));
}

TEST_CASE("encoders' files as they are on the hub load") {
  Folder bert("bert", "BertForMaskedLM");
  // The first BERTs: gamma and beta, the next sentence's head, the pooler, a buffer of positions, the decoder again.
  bert.with([&](io::NamedTensors& tensors) {
    rename(tensors, "LayerNorm.weight", "LayerNorm.gamma");
    rename(tensors, "LayerNorm.bias", "LayerNorm.beta");
    Tensor table, bias;
    for (const auto& [name, tensor] : tensors) {
      if (name == "bert.embeddings.word_embeddings.weight") table = tensor.clone();
      if (name == "cls.predictions.bias") bias = tensor.clone();
    }
    tensors.emplace_back("cls.predictions.decoder.weight", table);
    tensors.emplace_back("cls.predictions.decoder.bias", bias);
    tensors.emplace_back("cls.seq_relationship.weight", at::ones({2, 24}));
    tensors.emplace_back("cls.seq_relationship.bias", at::ones({2}));
    tensors.emplace_back("bert.pooler.dense.weight", at::ones({24, 24}));
    tensors.emplace_back("bert.pooler.dense.bias", at::ones({24}));
    tensors.emplace_back("bert.embeddings.position_ids", at::arange(18).unsqueeze(0));
  });
  CHECK(same(*bert.load(), *bert.model));
  CHECK(says(test::stderr_of([&] { bert.load(); }),
             "BertForMaskedLM has no place for it: bert.pooler.dense.bias, bert.pooler.dense.weight, "
             "cls.seq_relationship.bias, cls.seq_relationship.weight"));

  // Files of the encoder alone, with the prefix; and those of a model with a head, without it.
  Folder bare("bert", "BertModel");
  bare.with([](io::NamedTensors& tensors) {
    for (auto& [name, tensor] : tensors) name = "bert." + name;
  });
  CHECK(same(*bare.load(), *bare.model));
  Folder roberta("roberta", "RobertaForSequenceClassification");
  roberta.with([](io::NamedTensors& tensors) { rename(tensors, "roberta.", ""); });
  CHECK(same(*roberta.load(), *roberta.model));
  roberta.with([](io::NamedTensors& tensors) {
    tensors.emplace_back("roberta.embeddings.position_ids", at::arange(18).unsqueeze(0));
    tensors.emplace_back("lm_head.bias", at::zeros({31}));
  });
  CHECK(same(*roberta.load(), *roberta.model));
}

TEST_CASE("an encoder is loaded strictly too") {
  Folder bert("bert", "BertForMaskedLM");
  const auto after = [&](auto change) { return bert.with(change).error(); };
  CHECK(after([](auto&) {}) == "");
  CHECK(says(after([](auto& t) { t.emplace_back("cls.predictions.other", at::zeros({1})); }),
             "tensors that this model does not have: cls.predictions.other"));
  CHECK(says(after([](auto& t) { t.emplace_back("bert.encoder.layer.2.output.dense.bias", at::zeros({24})); }),
             "does not have: bert.encoder.layer.2.output.dense.bias"));
  CHECK(says(
      after([](auto& t) { std::erase_if(t, [](const auto& named) { return named.first == "cls.predictions.bias"; }); }),
      "tensors are missing: cls.predictions.bias"));
  CHECK(says(after([](auto& t) {
               t.emplace_back("cls.predictions.decoder.weight", at::zeros({31, 24}));
             }),
             "differs from the table it is tied to"));
  CHECK(says(after([](auto& t) { t.emplace_back("embeddings.LayerNorm.gamma", at::zeros({24})); }),
             "two tensors for parameter 'bert.embeddings.LayerNorm.weight'"));
}

TEST_CASE("a task's head that the files lack starts at random, said aloud") {
  Folder base("bert", "BertForMaskedLM");
  const io::Json labels = {{"id2label", {{"0", "a"}, {"1", "b"}, {"2", "c"}}}};
  const auto open = [&](uint64_t seed) {
    return base.load({.head = Head::sequence_classification, .seed = seed, .overrides = labels});
  };
  CHECK(says(test::stderr_of([&] { open(7); }),
             "BertForSequenceClassification needs what these files lack; random weights for "
             "bert.pooler.dense.weight, bert.pooler.dense.bias, classifier.weight, classifier.bias"));
  const auto model = open(7);
  CHECK(model->num_labels() == 3);
  CHECK(model->config()["architectures"] == io::Json::array({"BertForSequenceClassification"}));
  const auto weights = [](EncoderModel& of, const std::string& name = "classifier.weight") {
    return of.named_parameters()[name].detach();
  };
  CHECK(weights(*model).std().item<double>() == Approx(0.02).epsilon(0.3));
  CHECK(at::equal(weights(*model), weights(*open(7))));
  CHECK_FALSE(at::equal(weights(*model), weights(*open(8))));
  const std::string kept = "bert.encoder.layer.1.output.dense.weight";
  CHECK(at::equal(weights(*model, kept), weights(*base.model, kept)));

  // Another task's classifier is not this one's, whatever its shape.
  Folder classified("bert", "BertForSequenceClassification");
  const auto change = [&] { return classified.load({.head = Head::token_classification, .seed = 3}); };
  CHECK(says(test::stderr_of([&] { change(); }), "random weights for classifier.weight, classifier.bias"));
  CHECK_FALSE(at::equal(weights(*change()), weights(*classified.model)));
  // The same head asked for is the files' own, and must be whole.
  CHECK(same(*classified.load({.head = Head::sequence_classification}), *classified.model));
  classified.with([](io::NamedTensors& tensors) {
    std::erase_if(tensors, [](const auto& named) { return named.first == "classifier.bias"; });
  });
  CHECK(says(classified.error({.head = Head::sequence_classification}), "tensors are missing: classifier.bias"));
}

TEST_CASE("a RoBERTa without a head is opened for a task, with a head at random, said aloud") {
  const at::NoGradGuard no_grad;
  struct Task {
    Head head;
    const char* random;
  };
  const Task tasks[] = {
      {Head::masked_lm,
       "RobertaForMaskedLM needs what these files lack; random weights for lm_head.bias, lm_head.dense.weight, "
       "lm_head.dense.bias, lm_head.layer_norm.weight, lm_head.layer_norm.bias:"},
      {Head::sequence_classification,
       "RobertaForSequenceClassification needs what these files lack; random weights for classifier.dense.weight, "
       "classifier.dense.bias, classifier.out_proj.weight, classifier.out_proj.bias:"},
      {Head::token_classification,
       "RobertaForTokenClassification needs what these files lack; random weights for classifier.weight, "
       "classifier.bias:"}};
  const Folder base("roberta", "RobertaModel");
  for (const Task& task : tasks) {
    INFO(task.random);
    const std::string said = test::stderr_of([&] { base.load({.head = task.head}); });
    CHECK(says(said, task.random));
    CHECK(says(said, " has no place for it: pooler.dense.bias, pooler.dense.weight"));
    const auto model = base.load({.head = task.head, .seed = 7});
    CHECK(model->head() == task.head);
    CHECK(at::equal(model->forward(ids()), base.model->forward(ids())));
    CHECK(model->logits(model->forward(ids())).isfinite().all().item<bool>());
    CHECK(same(*model, *base.load({.head = task.head, .seed = 7})));
    CHECK_FALSE(same(*model, *base.load({.head = task.head, .seed = 8})));
  }
  // Without being asked for a head the folder has none; and a masked LM's is left out for another task's.
  CHECK(base.load()->head() == Head::none);
  const Folder masked("roberta", "RobertaForMaskedLM");
  CHECK(says(test::stderr_of([&] { masked.load({.head = Head::token_classification}); }),
             "RobertaForTokenClassification has no place for it: lm_head.bias, lm_head.dense.bias"));
}

TEST_CASE("an encoder alone takes the pooler that is there, and does without") {
  const at::NoGradGuard no_grad;
  Folder bert("bert", "BertForMaskedLM");
  const auto bare = bert.load({.head = Head::none});
  CHECK(at::equal(bare->forward(ids()), bert.model->forward(ids())));
  CHECK_FALSE(bare->pooled(bare->forward(ids())).defined());
  CHECK_FALSE(bare->named_parameters().contains("pooler.dense.weight"));
  Folder classified("bert", "BertForSequenceClassification");
  const auto with_pooler = classified.load({.head = Head::none});
  const Tensor hidden = with_pooler->forward(ids());
  CHECK(at::equal(with_pooler->pooled(hidden), classified.model->pooled(hidden)));
}

TEST_CASE("what is no encoder has no such head") {
  test::TemporaryFolder folder;
  const io::Json config = {{"model_type", "gpt2"}, {"vocab_size", 31}, {"n_positions", 16},
                           {"n_embd", 24},         {"n_layer", 1},     {"n_head", 3}};
  save(*create(config, {}, 1), folder.path());
  CHECK(says(error_of([&] { load_model(folder.path().string(), {.head = Head::none}); }),
             "does not work with models of this kind: got gpt2, expected an encoder"));
  Folder bert("bert", "BertModel");
  CHECK(says(error_of([&] { load<nn::CausalModel>(bert.folder.path().string()); }),
             "got bert, an encoder, expected a decoder"));
}

TEST_CASE("an encoder's random weights are HF's") {
  const auto model = create<EncoderModel>(small("roberta", "RobertaForMaskedLM"), {}, 3);
  for (const auto& parameter : model->named_parameters()) {
    INFO(parameter.key());
    const Tensor value = parameter.value().detach();
    if (value.dim() == 1) {
      CHECK(at::equal(value, at::full_like(value, parameter.key().ends_with("weight") ? 1.0 : 0.0)));
      continue;
    }
    CHECK(value.std().item<double>() == Approx(0.02).epsilon(0.3));
    const bool padded =
        parameter.key().ends_with("word_embeddings.weight") || parameter.key().ends_with("position_embeddings.weight");
    CHECK((value[1].abs().max().item<double>() == 0) == padded);
  }
}

TEST_CASE("an encoder sees so many tokens, padding not counted") {
  const at::NoGradGuard no_grad;
  const auto bert = create<EncoderModel>(small("bert", "BertModel"), {}, 1);
  const auto roberta = create<EncoderModel>(small("roberta", "RobertaModel"), {}, 1);
  bert->eval();
  CHECK(bert->max_positions() == 18);
  CHECK(roberta->max_positions() == 16);
  const auto error = [](EncoderModel& model, int64_t length) {
    return error_of([&] { model.forward(at::full({1, length}, 5, at::kLong)); });
  };
  CHECK(error(*bert, 18) == "");
  CHECK(says(error(*bert, 19), "got 19 tokens, expected at most 18"));
  CHECK(error(*roberta, 16) == "");
  CHECK(says(error(*roberta, 17), "got 17 tokens, expected at most 16"));
  Tensor mask = at::zeros({1, 30}, at::kBool);
  mask.slice(1, 12).fill_(true);
  const Tensor padded = at::full({1, 30}, 5, at::kLong);
  CHECK(at::allclose(bert->forward(padded, {.attention_mask = mask}).slice(1, 12), bert->forward(padded.slice(1, 12)),
                     1e-4, 1e-5));
}

TEST_CASE("every matrix product of an encoder passes through nn::Linear") {
  const auto count = [](const std::string& type, const std::string& architecture) {
    int64_t linears = 0;
    for (const auto& module : create<EncoderModel>(small(type, architecture), {}, 1)->modules())
      linears += std::dynamic_pointer_cast<nn::Linear>(module) != nullptr;
    return linears;
  };
  CHECK(count("bert", "BertModel") == 2 * 6 + 1);
  CHECK(count("bert", "BertForMaskedLM") == 2 * 6 + 2);
  CHECK(count("bert", "BertForSequenceClassification") == 2 * 6 + 2);
  CHECK(count("roberta", "RobertaForMaskedLM") == 2 * 6 + 2);
  CHECK(count("roberta", "RobertaForSequenceClassification") == 2 * 6 + 2);
  CHECK(count("roberta", "RobertaForTokenClassification") == 2 * 6 + 1);
}

}  // namespace
}  // namespace llmtk::models
