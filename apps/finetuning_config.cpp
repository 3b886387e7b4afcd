#include "finetuning_config.h"

#include "core/error.h"

namespace llmtk {

void EvaluationConfig::validate(config::Problems& problems) const {
  const EvaluationConfig defaults;
  const auto idle = [&](const char* key, bool set) {
    if (set && !predict_with_generate)
      problems.add(key,
                   {.what = "has no effect with evaluation.predict_with_generate false", .hint = "leave it out"});
  };
  idle("generation_max_length", generation_max_length != defaults.generation_max_length);
  idle("generation_num_beams", generation_num_beams != defaults.generation_num_beams);
}

void FinetuneSections::validate(config::Problems& problems) const {
  const bool evaluates = !data.validation.empty() || data.validation_fraction > 0;
  validate_training(trainer, samples, tokenizer.given() || !model.name_or_path.empty(), evaluates, problems);
  if (evaluation.predict_with_generate && !evaluates)
    problems.add("evaluation.predict_with_generate",
                 {.what = "there is no data to evaluate on", .hint = "set data.validation_fraction or data.validation"});
  if (evaluation.predict_with_generate && data.packing)
    problems.add("evaluation.predict_with_generate",
                 {.what = "does not work with data.packing, which joins rows", .hint = "leave one of the two out"});
}

void complete(FinetuneSections& config) { complete(config.tokenizer, config.model); }

}  // namespace llmtk
