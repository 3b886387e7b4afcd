#include "pretrain_config.h"

#include <filesystem>

#include "io/model_folder.h"
#include "text/tokenizer.h"

namespace llmtk {

void PretrainConfig::validate(config::Problems& problems) const {
  validate_training(trainer, samples,
                    !tokenizer.name_or_path.empty() || tokenizer.train || !model.name_or_path.empty(),
                    !data.validation.empty() || data.validation_fraction > 0, problems);
}

void complete(PretrainConfig& config) {
  const std::string& model = config.model.name_or_path;
  if (!config.tokenizer.name_or_path.empty() || config.tokenizer.train || model.empty() ||
      std::filesystem::is_regular_file(model))
    return;
  if (const auto folder = io::find_model(model); text::holds_tokenizer(folder))
    config.tokenizer.name_or_path = folder.string();
}

}  // namespace llmtk
