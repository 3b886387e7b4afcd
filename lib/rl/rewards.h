#pragma once
// What responses are worth: rules, programs, reward models, and their weighted sum.

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "nn/model.h"
#include "rl/response_config.h"
#include "rl/prompts.h"

namespace llmtk::rl {

/// A response to a prompt, which outlives it.
struct Response {
  const Prompt* prompt = nullptr;
  std::vector<text::TokenId> ids;  ///< the end of text included
  std::string text;                ///< without special tokens
  bool ended = false;              ///< by a stop token
};

class RewardSource {
 public:
  virtual ~RewardSource() = default;
  virtual std::vector<double> rate(std::span<const Response> responses) = 0;
};

/// exact_match, regex, length, characters; command. Throws Error(usage) for a pattern that is none.
std::unique_ptr<RewardSource> make_rule(const RewardSourceConfig& config);
/// A head with one label, at each text's last token; as many texts at a time as `batch_size`.
std::unique_ptr<RewardSource> make_model_reward(std::shared_ptr<nn::Model> model, int64_t batch_size);

/// Runs `command` by /bin/sh with `input` on its standard input; returns what it writes. Throws Error(runtime) where it
/// cannot be run, ends with another status than 0 (its last words on standard error are told), or takes longer than
/// `timeout` seconds, when it is killed with all that it started.
std::string run_filter(const std::string& command, const std::string& input, double timeout);

struct Ratings {
  struct Part {
    std::string name;
    std::vector<double> values;  ///< without its weight
  };
  std::vector<double> totals;  ///< of each response
  std::vector<Part> parts;
};

/// The weighted sum.
class Rewards {
 public:
  /// name: of its figures; a second one of the same name becomes name_2.
  void add(const std::string& name, double weight, std::unique_ptr<RewardSource> source);
  /// Throws what sources throw; Error(diverged) for a number that is not finite, naming source and prompt.
  Ratings rate(std::span<const Response> responses) const;
  bool empty() const { return parts_.empty(); }

 private:
  struct Part {
    std::string type, name;
    double weight;
    std::unique_ptr<RewardSource> source;
  };
  std::vector<Part> parts_;
};

}  // namespace llmtk::rl
