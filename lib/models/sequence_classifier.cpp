#include "models/sequence_classifier.h"

#include <algorithm>
#include <cmath>

#include "nn/sequence_classifier.h"

namespace llmtk::models {

bool is_classifier(const io::Json& config, const ClassifierNames& names) {
  const auto found = config.find("architectures");
  return found != config.end() && found->is_array() && !found->empty() && found->front() == names.class_name;
}

bool is_decoder_head_tensor(const std::string& name) {
  static constexpr const char* kHeads[] = {"lm_head.", "embed_out.", "score.", "classification_head."};
  return std::ranges::any_of(kHeads, [&](const char* head) { return name.starts_with(head); });
}

int64_t read_num_labels(io::ObjectReader& config, const io::Json& json) {
  const auto labels = json.find("id2label");
  const bool named = labels != json.end() && !labels->is_null();
  if (named && (!labels->is_object() || labels->empty())) config.fail("id2label", "an object: numbers to names");
  const int64_t count = named ? static_cast<int64_t>(labels->size()) : 2;
  const int64_t given = config.integer_or("num_labels", count, 1);
  if (named && given != count) config.fail("num_labels", "the size of id2label, " + std::to_string(count));
  return given;
}

namespace {

int64_t id_or(const io::Json& config, const char* key, int64_t otherwise) {
  const auto found = config.find(key);
  if (found == config.end()) return otherwise;
  return found->is_number_integer() ? found->get<int64_t>() : -1;
}

nn::ClassifierOptions read_options(const ClassifierNames& names, const io::Json& json, const std::string& where,
                                   const nn::Build& build) {
  io::ObjectReader config(json, where, build.typed_keys);
  nn::ClassifierOptions options{.num_labels = read_num_labels(config, json)};
  options.pad_token_id = id_or(json, "pad_token_id", names.pad_token_id);
  options.eos_token_id = id_or(json, "eos_token_id", 1);
  options.dropout = config.probability_or("classifier_dropout", 0);
  options.initializer_range =
      json.contains("d_model")  // T5: T5PreTrainedModel._init_weights
          ? config.number_or("initializer_factor", 1) / std::sqrt(config.number("d_model"))
          : config.number_or(json.contains("init_std") ? "init_std" : "initializer_range", options.initializer_range);
  return options;
}

}  // namespace

std::shared_ptr<nn::Model> make_classifier(const ClassifierNames& names, MakeModel make_body, const io::Json& config,
                                           const std::string& where, const nn::Build& build) {
  nn::ClassifierOptions options = read_options(names, config, where, build);
  io::Json of_body = config;
  for (const char* key : {"num_labels", "classifier_dropout"}) of_body.erase(key);  // of this head
  const bool scales = config.contains("d_model");
  if (scales) of_body["scale_decoder_outputs"] = false;  // for a language model's head alone
  nn::Build without_head = build;
  without_head.lm_head = false;
  const auto body = make_body(of_body, where, without_head);

  options.config = body->config();
  options.config["architectures"] = {names.class_name};
  for (const char* key : {"classifier_dropout", "scale_decoder_outputs"}) {
    options.config.erase(key);
    if (config.contains(key)) options.config[key] = config[key];
  }
  if (!config.contains("id2label") && options.num_labels != 2) options.config["num_labels"] = options.num_labels;
  if (const auto decoder = std::dynamic_pointer_cast<nn::CausalModel>(body))
    return std::make_shared<nn::DecoderClassifier>(decoder, std::move(options), build);
  return std::make_shared<nn::Seq2SeqClassifier>(std::dynamic_pointer_cast<nn::Seq2SeqModel>(body), std::move(options),
                                                 build);
}

}  // namespace llmtk::models
