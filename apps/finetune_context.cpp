#include "finetune_context.h"

#include "core/error.h"
#include "nn/causal_model.h"
#include "nn/encoder_model.h"
#include "nn/seq2seq_model.h"

namespace llmtk {

using data::Objective;

bool is_classification(Objective objective) {
  return objective == Objective::sequence_classification || objective == Objective::token_classification;
}

nn::Head head_of(Objective objective) {
  switch (objective) {
    case Objective::causal_lm:
      return nn::Head::causal_lm;
    case Objective::seq2seq:
      return nn::Head::seq2seq_lm;
    case Objective::masked_lm:
      return nn::Head::masked_lm;
    case Objective::sequence_classification:
      return nn::Head::sequence_classification;
    case Objective::token_classification:
      return nn::Head::token_classification;
  }
  LLMTK_CHECK(false, "unknown objective");
}

namespace {

/// What `auto` means.
Objective objective_of(const nn::Model& shape, const std::string& where) {
  for (const Objective objective : {Objective::causal_lm, Objective::seq2seq, Objective::masked_lm,
                                    Objective::sequence_classification, Objective::token_classification})
    if (shape.head() == head_of(objective)) return objective;
  throw Error(Exit::usage, {.what = "which objective? The model has no head that would say",
                            .where = where,
                            .hint = "set objective to sequence_classification, token_classification or masked_lm"});
}

/// The kind of model that learns this; null: any classifies texts.
const char* kind_for(Objective objective) {
  switch (objective) {
    case Objective::causal_lm:
      return nn::CausalModel::kKind;
    case Objective::seq2seq:
      return nn::Seq2SeqModel::kKind;
    case Objective::sequence_classification:
      return nullptr;
    default:
      return nn::EncoderModel::kKind;
  }
}

}  // namespace

Objective choose_objective(const std::string& wanted, const nn::Model& shape, const std::string& where) {
  const Objective objective = wanted == "auto" ? objective_of(shape, where) : data::parse_objective(wanted);
  const char* kind = kind_for(objective);
  if (kind && std::string_view(shape.kind()) != kind)
    throw Error(Exit::usage, {.what = "objective " + data::to_string(objective) + " needs another kind of model",
                              .where = where,
                              .got = shape.config().value("model_type", "") + ", " + shape.kind(),
                              .expected = kind});
  return objective;
}

data::FinetuneContext finetune_context(data::Objective objective, const nn::Model& shape, const io::Json& config,
                                       bool classifies, const text::Tokenizer* tokenizer,
                                       const std::string& tokenizer_path) {
  data::FinetuneContext context{.objective = objective, .tokenizer = tokenizer, .tokenizer_path = tokenizer_path};
  context.loader.vocab_size = shape.vocab_size();
  context.max_positions = shape.max_positions();
  context.token_types = config.value("type_vocab_size", int64_t{1}) > 1;
  if (classifies) context.label_names = shape.label_names();
  if (objective == data::Objective::sequence_classification)
    if (const auto found = config.find("problem_type"); found != config.end() && found->is_string())
      context.problem_type = found->get<std::string>();
  return context;
}

}  // namespace llmtk
