#include "scorer_folder.h"

#include "adapters.h"
#include "core/error.h"
#include "io/json.h"
#include "io/model_folder.h"
#include "peft/adapter_folder.h"

namespace llmtk {
namespace {

bool classifies(const io::Json& config) {
  for (const auto& name : config.value("architectures", io::Json::array()))
    if (name.is_string() && name.get<std::string>().ends_with("ForSequenceClassification")) return true;
  return false;
}

}  // namespace

ScorerFolder::ScorerFolder(const std::string& path_or_name, bool new_head)
    : folder_(io::find_model(path_or_name)), base_(folder_), new_head_(new_head) {
  if (!peft::is_adapter_folder(folder_)) return;
  adapters_.push_back(folder_.string());
  base_ = io::find_model(io::read_json(folder_ / peft::kConfigFile).value("base_model_name_or_path", ""));
}

models::LoadOptions ScorerFolder::with_head(models::LoadOptions options) const {
  expect_adapters(options, base_, adapters_);
  if (!options.head && new_head_ && !classifies(io::read_model_config(base_))) {
    options.head = nn::Head::sequence_classification;
    options.overrides["id2label"] = {{"0", "LABEL_0"}};
  }
  return options;
}

std::shared_ptr<nn::Model> ScorerFolder::shape() const {
  const models::LoadOptions options = with_head({});
  const std::string where = (base_ / "config.json").string();
  io::Json config = models::language_part(io::read_model_config(base_), where);
  if (options.head) models::choose_head(config, *options.head, where);
  for (const auto& [key, value] : options.overrides.items()) config[key] = value;
  auto model = models::make_model(config, where, {.dtype = at::kFloat, .device = c10::kMeta});
  check_scorer(*model, folder_.string());
  return model;
}

std::shared_ptr<nn::Model> ScorerFolder::load(models::LoadOptions options) const {
  auto model = models::load_model(base_.string(), with_head(std::move(options)));
  add_adapters(*model, adapters_);
  check_scorer(*model, folder_.string());
  model->eval();
  return model;
}

void check_scorer(const nn::Model& model, const std::string& where) {
  if (model.head() == nn::Head::sequence_classification && model.num_labels() == 1) return;
  throw Error(Exit::usage, {.what = "not a reward model",
                            .where = where,
                            .got = model.config().value("architectures", io::Json()).dump() + ", " +
                                   std::to_string(model.num_labels()) + " labels",
                            .expected = "a sequence classifier with one label",
                            .hint = "llmtk rlhf-reward CONFIG trains one"});
}

}  // namespace llmtk
