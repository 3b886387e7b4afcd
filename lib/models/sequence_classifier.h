#pragma once
// Classifiers of texts over any family of decoders or encoder-decoders (nn/sequence_classifier.h): their part of
// config.json, their names in files.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "io/json.h"
#include "nn/linear.h"
#include "nn/model.h"

namespace llmtk::models {

/// What transformers calls a family's classifier of texts, and its config class says of one.
struct ClassifierNames {
  const char* class_name;        ///< "LlamaForSequenceClassification"
  int64_t pad_token_id = -1;     ///< where config.json has none
  const char* base_prefix = "";  ///< of the layers' tensors, where they have another name than in the language model
};

/// Whether config.json's `architectures` names that class.
bool is_classifier(const io::Json& config, const ClassifierNames& names);
/// Whether a tensor belongs to a head of this or another task: the language model's, a classifier's.
bool is_decoder_head_tensor(const std::string& name);

using MakeModel = std::shared_ptr<nn::Model> (*)(const io::Json& config, const std::string& where,
                                                 const nn::Build& build);
/// make_body: of the family. Throws Error(file) naming `where` and the key.
std::shared_ptr<nn::Model> make_classifier(const ClassifierNames& names, MakeModel make_body, const io::Json& config,
                                           const std::string& where, const nn::Build& build);

/// The size of id2label; num_labels must agree where it is there too. Without either 2. Throws Error(file).
int64_t read_num_labels(io::ObjectReader& config, const io::Json& json);

}  // namespace llmtk::models
