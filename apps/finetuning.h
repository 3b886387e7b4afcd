#pragma once
// The run that all methods of fine-tuning share: config -> model -> the method's change of it -> data -> run -> save.

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "finetuning_config.h"
#include "finetuning_method.h"
#include "teaching.h"
#include "training.h"

namespace llmtk {

/// What a Finetuning needs of its own config type.
struct FinetuneConfigAsText {
  nlohmann::ordered_json json;
  std::string yaml;
  train::AddDefaults add_defaults;
};

std::unique_ptr<TrainingCommand> make_finetuning(FinetuneSections sections, FinetuneConfigAsText text,
                                                 config::Places places, std::unique_ptr<Method> method,
                                                 std::unique_ptr<Teaching> teaching);
/// The same of a config that says its method (method_of). teaching: null for what the config's objective says.
template <class Config>
std::unique_ptr<TrainingCommand> make_finetuning(const Config& config, config::Places places,
                                                 std::unique_ptr<Teaching> teaching = nullptr) {
  return make_finetuning(config, {config::to_json(config), config::dump(config), config::add_defaults<Config>},
                         std::move(places), method_of(config), std::move(teaching));
}

}  // namespace llmtk
