#include "rl/rewards.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <set>

#include "core/error.h"
#include "core/utf8.h"
#include "rl/reward_objective.h"
#include "text/regex.h"

namespace llmtk::rl {
namespace {

using Json = nlohmann::ordered_json;

std::string_view without_blanks(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  return begin == std::string_view::npos ? "" : text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

text::Regex reward_pattern(const std::string& pattern) {
  try {
    return text::Regex(pattern, "pattern", "rewards");
  } catch (const Error& error) {
    throw Error(Exit::usage, error.parts());
  }
}

/// A rule looks at one response at a time.
class Rule : public RewardSource {
 public:
  std::vector<double> rate(std::span<const Response> responses) override {
    std::vector<double> scores;
    for (const Response& response : responses) scores.push_back(score(response));
    return scores;
  }

 protected:
  virtual double score(const Response& response) = 0;
};

class ExactMatch final : public Rule {
 public:
  explicit ExactMatch(const RewardSourceConfig& config) : column_(config.column) {
    if (!config.pattern.empty()) pattern_.emplace(reward_pattern(config.pattern));
  }

 private:
  double score(const Response& response) override {
    const Json& row = response.prompt->row;
    const auto wanted = row.find(column_);
    if (wanted == row.end() || !(wanted->is_string() || wanted->is_number()))
      throw Error(Exit::data, {.what = "exact_match: the row has no answer to compare with",
                               .where = response.prompt->where,
                               .expected = "a text or a number under '" + column_ + "'",
                               .hint = "name its key in rewards: column"});
    const std::string answer = wanted->is_string() ? wanted->get<std::string>() : wanted->dump();
    std::string_view given = response.text;
    if (pattern_) {
      const auto found = pattern_->matches(given);
      if (found.empty()) return 0;
      given = given.substr(found.back().first, found.back().second - found.back().first);
    }
    return without_blanks(given) == without_blanks(answer) ? 1 : 0;
  }

  std::string column_;
  std::optional<text::Regex> pattern_;
};

class RegexRule final : public Rule {
 public:
  explicit RegexRule(const RewardSourceConfig& config) : pattern_(reward_pattern(config.pattern)) {}

 private:
  double score(const Response& response) override { return pattern_.matches(response.text).empty() ? 0 : 1; }
  text::Regex pattern_;
};

class LengthRule final : public Rule {
 public:
  explicit LengthRule(const RewardSourceConfig& config) : target_(static_cast<double>(config.target_length)) {}

 private:
  double score(const Response& response) override {
    const auto length = static_cast<double>(count_code_points(response.text));
    return std::max(0.0, 1 - std::abs(length - target_) / target_);
  }
  double target_;
};

class CharactersRule final : public Rule {
 public:
  explicit CharactersRule(const RewardSourceConfig& config) {
    for (size_t at = 0; at < config.characters.size();) wanted_.insert(next_code_point(config.characters, at));
  }

 private:
  double score(const Response& response) override {
    double all = 0, of_set = 0;
    for (size_t at = 0; at < response.text.size(); ++all) of_set += wanted_.contains(next_code_point(response.text, at));
    return all > 0 ? of_set / all : 0;
  }
  std::set<int32_t> wanted_;
};

class CommandReward final : public RewardSource {
 public:
  explicit CommandReward(const RewardSourceConfig& config) : command_(config.command), timeout_(config.timeout) {}

  std::vector<double> rate(std::span<const Response> responses) override {
    std::string input;
    for (const Response& response : responses) {
      Json row = response.prompt->row.is_object() ? response.prompt->row : Json::object();
      row["prompt"] = response.prompt->text;
      row["response"] = response.text;
      input += row.dump(-1, ' ', false, Json::error_handler_t::replace) + '\n';
    }
    return numbers(run_filter(command_, input, timeout_), responses.size());
  }

 private:
  std::vector<double> numbers(const std::string& output, size_t count) const {
    std::vector<double> scores;
    for (size_t begin = 0; begin < output.size();) {
      const size_t end = std::min(output.find('\n', begin), output.size());
      const std::string_view line = without_blanks(std::string_view(output).substr(begin, end - begin));
      begin = end + 1;
      if (line.empty()) continue;
      double score = 0;
      const auto [rest, error] = std::from_chars(line.data(), line.data() + line.size(), score);
      if (error != std::errc() || rest != line.data() + line.size()) refuse(in_quotes(line), scores.size() + 1);
      scores.push_back(score);
    }
    if (scores.size() != count) refuse(std::to_string(scores.size()) + " numbers for " + std::to_string(count) + " responses", 0);
    return scores;
  }
  [[noreturn]] void refuse(const std::string& got, size_t line) const {
    throw Error(Exit::runtime, {.what = "the reward command does not answer with a number a line",
                                .where = command_ + (line > 0 ? ", line " + std::to_string(line) + " of its output" : ""),
                                .got = got,
                                .expected = "one number for each line that it reads"});
  }
  std::string command_;
  double timeout_;
};

class ModelReward final : public RewardSource {
 public:
  ModelReward(std::shared_ptr<nn::Model> model, int64_t batch_size)
      : model_(std::move(model)), batch_size_(static_cast<size_t>(batch_size)) {}

  std::vector<double> rate(std::span<const Response> responses) override {
    const c10::NoGradGuard no_gradients;
    std::vector<double> scores;
    for (size_t begin = 0; begin < responses.size(); begin += batch_size_) {
      const auto part = responses.subspan(begin, std::min(batch_size_, responses.size() - begin));
      const at::Tensor rewards = text_rewards(*model_, texts(part)).to(at::kDouble).cpu();
      scores.insert(scores.end(), rewards.const_data_ptr<double>(), rewards.const_data_ptr<double>() + rewards.numel());
    }
    return scores;
  }

 private:
  Answers texts(std::span<const Response> responses) const {
    const auto B = static_cast<int64_t>(responses.size());
    Answers texts{.lengths = at::empty({B}, at::kLong), .rows = B};
    int64_t longest = 1;
    for (const Response& r : responses)
      longest = std::max(longest, static_cast<int64_t>(r.prompt->ids.size() + r.ids.size()));
    texts.input_ids = at::zeros({B, longest}, at::kLong);
    for (int64_t b = 0; b < B; ++b) {
      const Response& response = responses[static_cast<size_t>(b)];
      int64_t* ids = texts.input_ids.mutable_data_ptr<int64_t>() + b * longest;
      ids = std::ranges::copy(response.prompt->ids, ids).out;
      std::ranges::copy(response.ids, ids);
      texts.lengths.mutable_data_ptr<int64_t>()[b] = static_cast<int64_t>(response.prompt->ids.size() + response.ids.size());
    }
    texts.input_ids = texts.input_ids.to(model_->device());
    texts.lengths = texts.lengths.to(model_->device());
    return texts;
  }

  std::shared_ptr<nn::Model> model_;
  size_t batch_size_;
};

}  // namespace

std::unique_ptr<RewardSource> make_rule(const RewardSourceConfig& config) {
  if (config.type == "exact_match") return std::make_unique<ExactMatch>(config);
  if (config.type == "regex") return std::make_unique<RegexRule>(config);
  if (config.type == "length") return std::make_unique<LengthRule>(config);
  if (config.type == "characters") return std::make_unique<CharactersRule>(config);
  LLMTK_CHECK(config.type == "command", config.type, " is no rule");
  return std::make_unique<CommandReward>(config);
}

std::unique_ptr<RewardSource> make_model_reward(std::shared_ptr<nn::Model> model, int64_t batch_size) {
  return std::make_unique<ModelReward>(std::move(model), batch_size);
}

void Rewards::add(const std::string& name, double weight, std::unique_ptr<RewardSource> source) {
  const auto same = std::ranges::count_if(parts_, [&](const Part& part) { return part.type == name; });
  parts_.push_back({name, same == 0 ? name : name + "_" + std::to_string(same + 1), weight, std::move(source)});
}

Ratings Rewards::rate(std::span<const Response> responses) const {
  Ratings ratings{.totals = std::vector<double>(responses.size())};
  for (const Part& part : parts_) {
    std::vector<double> scores = part.source->rate(responses);
    LLMTK_CHECK(scores.size() == responses.size());
    for (size_t i = 0; i < scores.size(); ++i) {
      if (!std::isfinite(scores[i]))
        throw Error(Exit::diverged, {.what = "a reward is not a finite number",
                                     .where = "rewards: " + part.name + ", for the prompt of " + responses[i].prompt->where,
                                     .got = detail::concat(scores[i])});
      ratings.totals[i] += part.weight * scores[i];
    }
    ratings.parts.push_back({part.name, std::move(scores)});
  }
  for (size_t i = 0; i < responses.size(); ++i)
    if (!std::isfinite(static_cast<float>(ratings.totals[i])))
      throw Error(Exit::diverged, {.what = "the sum of a response's rewards is too large",
                                   .where = "rewards, for the prompt of " + responses[i].prompt->where,
                                   .got = detail::concat(ratings.totals[i]),
                                   .expected = "a number that float32 can hold"});
  return ratings;
}

}  // namespace llmtk::rl
