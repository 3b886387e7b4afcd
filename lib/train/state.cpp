#include "train/state.h"

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/error.h"

namespace llmtk::train {
namespace {

using Json = nlohmann::ordered_json;

/// One list of names for both directions.
template <class State, class Visit>
void visit(State& s, Visit&& v) {
  v("step", s.step);
  v("tokens", s.tokens);
  v("target_tokens", s.target_tokens);
  v("seconds", s.seconds);
  v("nonfinite_steps", s.nonfinite_steps);
  v("nonfinite_in_row", s.nonfinite_in_row);
  v("window_loss", s.window_loss);
  v("window_targets", s.window_targets);
  v("last_loss", s.last_loss);
  v("last_eval_loss", s.last_eval_loss);
  v("last_eval_step", s.last_eval_step);
  v("last_sample_step", s.last_sample_step);
  v("best_eval_loss", s.best_eval_loss);
  v("best_metric", s.best_metric);
  v("best_step", s.best_step);
  v("evaluations_without_gain", s.evaluations_without_gain);
  v("stopped_early", s.stopped_early);
}

void flatten(const Json& json, const std::string& prefix, std::map<std::string, std::string>& out) {
  for (const auto& [key, value] : json.items()) {
    const std::string path = prefix.empty() ? key : prefix + "." + key;
    if (value.is_structured())  // a list's keys are 0, 1, ...
      flatten(value, path, out);
    else if (!value.is_null())
      out[path] = value.is_string() ? value.get<std::string>() : value.dump();
  }
}

/// Where files go, how often something is said, which machine does the work: nothing of it changes the run.
constexpr std::array<std::string_view, 14> kFree = {"trainer.output_dir",
                                                    "trainer.overwrite_output_dir",
                                                    "trainer.resume_from_checkpoint",
                                                    "trainer.logging_steps",
                                                    "trainer.save_steps",
                                                    "trainer.save_total_limit",
                                                    "trainer.device",
                                                    "trainer.sample_steps",
                                                    "trainer.eval_on_start",
                                                    "ppo.num_samples",
                                                    "grpo.num_samples",
                                                    "data.cache_dir",
                                                    "data.dataloader_prefetch_factor",
                                                    "data.preprocessing_num_workers"};
constexpr std::array<std::string_view, 1> kFreeSections = {"samples."};

/// Another model, other data: the checkpoint does not fit.
constexpr std::array<std::string_view, 14> kRefusedSections = {
    "model.",       "tokenizer.",     "data.", "lora.",       "quantization.", "adapter.", "prefix_tuning.",
    "p_tuning_v2.", "prompt_tuning.", "ia3.",  "parameters.", "masked_lm.",    "dpo.",     "reward."};
constexpr std::array<std::string_view, 15> kRefused = {"ppo.num_ppo_epochs", "ppo.num_mini_batches", "ppo.value_model",
                                                      "ppo.temperature",
                                                      "grpo.num_generations", "grpo.num_iterations",
                                                      "grpo.steps_per_generation", "grpo.temperature", "objective", "optimizer.type", "trainer.dtype", "trainer.seed",
                                                      "trainer.per_device_train_batch_size",
                                                      "trainer.metric_for_best_model", "trainer.greater_is_better"};

/// Data that was moved is the same data: its checksums are compared.
bool names_data(const std::string& key) {
  return key == "tokenizer.name_or_path" || (key.starts_with("data.") && key.ends_with(".path"));
}

bool listed(const std::string& key, const auto& keys, const auto& sections) {
  return std::ranges::find(keys, key) != keys.end() ||
         std::ranges::any_of(sections, [&](std::string_view section) { return key.starts_with(section); });
}

}  // namespace

Json LoopState::to_json() const {
  Json json = Json::object();
  visit(*this, [&](const char* name, const auto& value) {
    if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::optional<double>>)
      json[name] = value ? Json(*value) : Json();
    else
      json[name] = value;
  });
  if (!window_metrics.empty()) json["window_metrics"] = window_metrics.all();
  return json;
}

LoopState LoopState::from_json(const Json& json, const std::string& where) {
  LoopState state;
  visit(state, [&](const char* name, auto& value) {
    using T = std::decay_t<decltype(value)>;
    // Where no metric could be named it was the loss.
    const bool before_metrics = std::string_view(name) == "best_metric" && !json.contains(name);
    try {
      const Json& member = json.at(before_metrics ? "best_eval_loss" : name);
      if constexpr (std::is_same_v<T, std::optional<double>>) {
        if (!member.is_null()) value = member.get<double>();
      } else {
        value = member.get<T>();
      }
    } catch (const Json::exception&) {
      throw Error(Exit::file, {.what = std::string("'") + name + "' is missing or has another type", .where = where});
    }
  });
  try {
    state.window_metrics.all() = json.value("window_metrics", std::map<std::string, std::pair<double, double>>());
  } catch (const Json::exception&) {
    throw Error(Exit::file, {.what = "'window_metrics' is not sums by name", .where = where});
  }
  return state;
}

std::vector<ConfigChange> compare_configs(const Json& before, const Json& after) {
  std::map<std::string, std::string> old_values, new_values;
  flatten(before, "", old_values);
  flatten(after, "", new_values);
  for (const auto& [key, value] : old_values) new_values.try_emplace(key, "");  // keys of either side
  std::vector<ConfigChange> changes;
  for (const auto& [key, value] : new_values) {
    const auto found = old_values.find(key);
    const std::string old_value = found == old_values.end() ? "" : found->second;
    if (old_value == value || listed(key, kFree, kFreeSections) || names_data(key)) continue;
    const bool refused = listed(key, kRefused, kRefusedSections);
    changes.push_back({key, old_value, value, refused ? ConfigChange::Kind::refused : ConfigChange::Kind::warned});
  }
  return changes;
}

}  // namespace llmtk::train
