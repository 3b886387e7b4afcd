#pragma once
// BERT (Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers, 2018), as HF's BertModel,
// BertForMaskedLM, BertForSequenceClassification and BertForTokenClassification. Sentence encoders such as MiniLM are
// this architecture too.
//
// Shapes: as in bert_encoder.h. Positions count the real tokens of a row, so padding on the left changes nothing (HF
// counts columns: the same where padding is on the right).

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "io/json.h"
#include "models/bert_encoder.h"

namespace llmtk::models {

extern const EncoderNames kBertNames;

std::shared_ptr<nn::Model> make_bert(const io::Json& config, const std::string& where, const nn::Build& build);

/// The parameter that a tensor of a file means, see bert_encoder_parameter_name. nullopt: not a weight.
std::optional<std::string> bert_parameter_name(const std::string& name);

/// config.json by name: bert-base-uncased, bert-large-cased, ...
std::map<std::string, io::Json> bert_presets();

}  // namespace llmtk::models
