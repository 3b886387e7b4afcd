#pragma once
// How fine-tuned models are judged: classes, entities, quantities, written answers.

#include <memory>
#include <string>
#include <vector>

#include "generate/config.h"
#include "nn/model.h"
#include "text/tokenizer.h"
#include "train/losses.h"
#include "train/trainer.h"

namespace llmtk {

/// Of a classifier of texts: what metrics::make_classification_metrics says.
std::unique_ptr<train::Evaluator> make_text_class_evaluator(std::shared_ptr<nn::Model> model,
                                                            train::ProblemType problem,
                                                            std::vector<std::string> names);
/// Of a classifier of tokens, over the words' first tokens.
std::unique_ptr<train::Evaluator> make_token_class_evaluator(std::shared_ptr<nn::Model> model,
                                                             std::vector<std::string> names);
/// Of a model that writes: beside the loss, ROUGE-L and exact match of what it writes for each row against the row's
/// last answer. Both outlive it.
std::unique_ptr<train::Evaluator> make_writing_evaluator(nn::Model& model, const text::Tokenizer& tokenizer,
                                                         train::LossFunction loss, generate::GenerationConfig config);

}  // namespace llmtk
