#include "finetune_context.h"

#include "nn/encoder_model.h"

namespace llmtk {

data::FinetuneContext finetune_context(data::Objective objective, const nn::Model& shape, const io::Json& config,
                                       bool classifies, const text::Tokenizer* tokenizer,
                                       const std::string& tokenizer_path) {
  data::FinetuneContext context{.objective = objective, .tokenizer = tokenizer, .tokenizer_path = tokenizer_path};
  context.loader.vocab_size = shape.vocab_size();
  context.max_positions = shape.max_positions();
  context.token_types = config.value("type_vocab_size", int64_t{1}) > 1;
  if (const auto* encoder = dynamic_cast<const nn::EncoderModel*>(&shape); encoder && classifies)
    context.label_names = encoder->label_names();
  if (objective == data::Objective::sequence_classification)
    if (const auto found = config.find("problem_type"); found != config.end() && found->is_string())
      context.problem_type = found->get<std::string>();
  return context;
}

}  // namespace llmtk
