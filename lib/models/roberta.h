#pragma once
// RoBERTa (Liu et al., RoBERTa: A Robustly Optimized BERT Pretraining Approach, 2019) and XLM-RoBERTa (Conneau et al.
// 2020), which is RoBERTa under another name, as HF's RobertaModel, RobertaForMaskedLM,
// RobertaForSequenceClassification and RobertaForTokenClassification.
//
// Shapes: as in bert_encoder.h. What differs from BERT: positions begin at pad_token_id + 1, and ids of padding have
// position pad_token_id; the heads.

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "io/json.h"
#include "models/bert_encoder.h"

namespace llmtk::models {

extern const EncoderNames kRobertaNames, kXlmRobertaNames;

std::shared_ptr<nn::Model> make_roberta(const io::Json& config, const std::string& where, const nn::Build& build);
std::shared_ptr<nn::Model> make_xlm_roberta(const io::Json& config, const std::string& where, const nn::Build& build);

/// The parameter that a tensor of a file means, see bert_encoder_parameter_name. nullopt: not a weight.
std::optional<std::string> roberta_parameter_name(const std::string& name);

/// config.json by name: roberta-base, roberta-large.
std::map<std::string, io::Json> roberta_presets();
/// xlm-roberta-base, xlm-roberta-large.
std::map<std::string, io::Json> xlm_roberta_presets();

}  // namespace llmtk::models
