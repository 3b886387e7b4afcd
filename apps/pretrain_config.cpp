#include "pretrain_config.h"

namespace llmtk {

void PretrainConfig::validate(config::Problems& problems) const {
  validate_training(trainer, samples, tokenizer.given() || !model.name_or_path.empty(),
                    !data.validation.empty() || data.validation_fraction > 0, problems);
}

void complete(PretrainConfig& config) { complete(config.tokenizer, config.model); }

}  // namespace llmtk
