#pragma once
// The run that all methods of fine-tuning share: config -> model -> the method's change of it -> data -> run -> save.

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "finetuning_config.h"
#include "nn/model.h"
#include "train/optimizer.h"
#include "training.h"

namespace llmtk {

/// How a model is changed so that it learns: not at all (full fine-tuning), by LoRA, ...
class Method {
 public:
  virtual ~Method() = default;
  /// Changes the model and says what of it is trained (requires_grad). Called first with the model on the meta device,
  /// then with the model itself. Throws Error(usage) for settings that do not fit the model.
  virtual void apply(nn::Model& model, uint64_t seed) = 0;
  /// Whether every parameter is trained in the run's dtype, from a start in float32. False: the base is loaded in
  /// trainer.dtype and stays as it is.
  virtual bool is_full() const { return false; }
  /// Writes what was learnt, of the model that apply() saw last. `base`: the folder whose weights were the start; may be
  /// empty. Throws Error(file).
  virtual void save(const std::filesystem::path& folder, const std::filesystem::path& base) const = 0;
  /// Reads what save() wrote, strictly.
  virtual void load(const std::filesystem::path& folder) = 0;
  /// Of parameters that learn at a rate of their own.
  virtual train::LearningRates learning_rates(double learning_rate) const = 0;
};

/// What a Finetuning needs of its own config type.
struct FinetuneConfigAsText {
  nlohmann::ordered_json json;
  std::string yaml;
  train::AddDefaults add_defaults;
};
template <class Config>
FinetuneConfigAsText as_text(Config& config) {
  return {config::to_json(config), config::dump(config), config::add_defaults<Config>};
}

std::unique_ptr<TrainingCommand> make_finetuning(FinetuneSections sections, FinetuneConfigAsText text,
                                                 config::Places places, std::unique_ptr<Method> method);

}  // namespace llmtk
