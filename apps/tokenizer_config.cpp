#include "tokenizer_config.h"

#include <filesystem>

#include "io/model_folder.h"

namespace llmtk {

void complete(TokenizerConfig& tokenizer, const models::ModelConfig& model) {
  const std::string& name = model.name_or_path;
  if (tokenizer.given() || name.empty() || std::filesystem::is_regular_file(name)) return;
  if (const auto folder = io::find_model(name); text::holds_tokenizer(folder)) tokenizer.name_or_path = folder.string();
}

std::unique_ptr<text::Tokenizer> open_tokenizer(const TokenizerConfig& config, const data::FinetuneDataConfig& data,
                                                data::Objective objective) {
  if (config.train) return data::learn_tokenizer(data, objective, *config.train);
  return config.name_or_path.empty() ? nullptr : text::load_tokenizer(config.name_or_path);
}

}  // namespace llmtk
