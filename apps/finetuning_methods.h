#pragma once
// What `llmtk finetune` reads: the sections of all fine-tuning configs, and one for each method that it knows.

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "finetuning_config.h"
#include "finetuning_method.h"
#include "peft/bottleneck.h"
#include "peft/ia3.h"
#include "peft/prefix.h"
#include "peft/prompt.h"

namespace llmtk {

/// Which parameters learn, and how fast.
struct ParametersConfig {
  std::vector<std::string> frozen;
  std::map<std::string, double> learning_rates;

  template <class V>
  void fields(V& v) {
    v("frozen", frozen,
      "Parameters that stay as they are: regular expressions for whole names, as 'bert\\.embeddings\\..*'");
    v("learning_rates", learning_rates,
      "Parameters that learn at a peak rate of their own, by regular expressions for whole names; the first that "
      "matches, in alphabetical order, counts",
      config::above(0));
  }
};

struct FinetuneConfig : FinetuneSections {
  std::optional<ParametersConfig> parameters;
  std::optional<peft::BottleneckConfig> adapter;
  std::optional<peft::PrefixTuningConfig> prefix_tuning;
  std::optional<peft::PTuningV2Config> p_tuning_v2;
  std::optional<peft::PromptTuningConfig> prompt_tuning;
  std::optional<peft::Ia3Config> ia3;

  template <class V>
  void fields(V& v) {
    FinetuneSections::fields(v);
    v("parameters", parameters, "Full fine-tuning: which parameters learn, and how fast");
    v("adapter", adapter, "Adapter tuning: small networks behind attention and feed-forward, the rest frozen");
    v("prefix_tuning", prefix_tuning, "Prefix tuning: learned keys and values before every text");
    v("p_tuning_v2", p_tuning_v2, "P-tuning v2: the same without a network that makes them");
    v("prompt_tuning", prompt_tuning, "Prompt tuning: learned embeddings before every text");
    v("ia3", ia3, "(IA)^3: learned scales of keys, values and feed-forwards");
  }
  void validate(config::Problems& problems) const;
};

/// The method that a config names; without one, full fine-tuning.
std::unique_ptr<Method> method_of(const FinetuneConfig& config);

}  // namespace llmtk
