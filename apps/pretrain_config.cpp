#include "pretrain_config.h"

#include <filesystem>

#include "core/device.h"
#include "core/error.h"
#include "generate/config.h"
#include "io/model_folder.h"
#include "text/tokenizer.h"

namespace llmtk {

void SamplesConfig::validate(config::Problems& problems) const {
  const SamplesConfig defaults;
  const auto idle = [&](const char* key, bool set) {
    if (set && !do_sample)
      problems.add(key, {.what = "has no effect with samples.do_sample false", .hint = "leave it out"});
  };
  idle("temperature", temperature != defaults.temperature);
  idle("top_k", top_k != defaults.top_k);
  idle("top_p", top_p != defaults.top_p);
}

void PretrainConfig::validate(config::Problems& problems) const {
  try {
    resolve_device(trainer.device);
  } catch (const Error& error) {
    problems.add("trainer.device", error.parts());
  }
  if (!samples.prompts.empty() && tokenizer.name_or_path.empty() && !tokenizer.train && model.name_or_path.empty())
    problems.add("samples.prompts",
                 {.what = "prompts need a tokenizer", .hint = "set tokenizer.name_or_path or tokenizer.train"});
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
  const std::string& model = config.model.name_or_path;
  if (!config.tokenizer.name_or_path.empty() || config.tokenizer.train || model.empty() ||
      std::filesystem::is_regular_file(model))
    return;
  if (const auto folder = io::find_model(model); text::holds_tokenizer(folder))
    config.tokenizer.name_or_path = folder.string();
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
