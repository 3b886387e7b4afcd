#include "pretrain_config.h"

#include <filesystem>

namespace llmtk {

void PretrainConfig::validate(config::Problems& problems) const {
  if (!samples.prompts.empty() && tokenizer.name_or_path.empty() && !tokenizer.train && model.name_or_path.empty())
    problems.add("samples.prompts", {.what = "prompts need a tokenizer", .hint = "set tokenizer.name_or_path or tokenizer.train"});
  if (trainer.sample_steps > 0 && samples.prompts.empty())
    problems.add("trainer.sample_steps",
                 {.what = "samples are asked for, but there is no prompt", .hint = "set samples.prompts"});
  const bool evaluates = !data.validation.empty() || data.validation_fraction > 0;
  if (trainer.eval_steps > 0 && !evaluates)
    problems.add("trainer.eval_steps", {.what = "evaluations are asked for, but there is no data for them",
                                        .hint = "set data.validation_fraction or data.validation"});
  if (trainer.early_stopping_patience > 0 && !evaluates)
    problems.add("trainer.early_stopping_patience", {.what = "early stopping needs evaluations",
                                                     .hint = "set data.validation_fraction or data.validation"});
}

void complete(PretrainConfig& config) {
  if (config.tokenizer.name_or_path.empty() && !config.tokenizer.train && std::filesystem::is_directory(config.model.name_or_path))
    config.tokenizer.name_or_path = config.model.name_or_path;
}

generate::GenerationConfig generation_config(const SamplesConfig& samples, uint64_t seed) {
  generate::GenerationConfig config;
  config.max_new_tokens = samples.max_new_tokens;
  config.do_sample = samples.do_sample;
  config.temperature = samples.temperature;
  config.top_k = samples.top_k;
  config.top_p = samples.top_p;
  config.seed = seed;
  return config;
}

}  // namespace llmtk
