// Rules, programs and their sum.

#include <cmath>

#include "core/error.h"
#include "rl/rewards.h"
#include "test.h"

using namespace llmtk;

namespace {

class FixedReward final : public rl::RewardSource {
 public:
  explicit FixedReward(double value) : value_(value) {}
  std::vector<double> rate(std::span<const rl::Response> responses) override { return std::vector<double>(responses.size(), value_); }

 private:
  double value_;
};

double rated(const rl::RewardSourceConfig& config, const std::string& text, const nlohmann::ordered_json& row = {}) {
  const rl::Prompt prompt{.text = "p", .row = row, .where = "rows.jsonl:3"};
  const rl::Response response{.prompt = &prompt, .text = text};
  return rl::make_rule(config)->rate({&response, 1})[0];
}

/// Message and exit code.
template <class Body>
std::pair<std::string, Exit> failure_of(Body&& body) {
  Exit exit = Exit::ok;
  std::string message = test::error_of(body, &exit);
  return {message, exit};
}
using test::says;

}  // namespace

TEST_CASE("rules give numbers that a reader can check") {
  CHECK(rated({.type = "characters", .characters = "aé月"}, "aéb月 ") == Approx(3.0 / 5));
  CHECK(rated({.type = "characters", .characters = "a"}, "") == 0);
  CHECK(rated({.type = "length", .target_length = 4}, "月明星稀") == 1);
  CHECK(rated({.type = "length", .target_length = 4}, "abc") == Approx(0.75));
  CHECK(rated({.type = "length", .target_length = 4}, "abcdefghij") == 0);
  CHECK(rated({.type = "regex", .pattern = "\\bfox\\b"}, "a fox.") == 1);
  CHECK(rated({.type = "regex", .pattern = "\\bfox\\b"}, "foxes") == 0);
  CHECK(rated({.type = "exact_match"}, " 42\n", {{"answer", 42}}) == 1);
  CHECK(rated({.type = "exact_match"}, "so 42", {{"answer", "42"}}) == 0);
  CHECK(rated({.type = "exact_match", .column = "sum", .pattern = "\\d+"}, "1 + 41 = 42.", {{"sum", "42"}}) == 1);
  CHECK(rated({.type = "exact_match", .column = "sum", .pattern = "\\d+"}, "none", {{"sum", "42"}}) == 0);
  const auto [missing, missing_exit] = failure_of([] { rated({.type = "exact_match"}, "1", {{"prompt", "p"}}); });
  CHECK(missing_exit == Exit::data);
  CHECK(says(missing, "rows.jsonl:3"));
  CHECK(failure_of([] { rl::make_rule({.type = "regex", .pattern = "("}); }).second == Exit::usage);
}

TEST_CASE("a program reads the rows as JSON lines and answers with numbers") {
  const rl::RewardSourceConfig length{.type = "command", .command = "while read -r line; do echo ${#line}; done"};
  CHECK(rated(length, "ab", {{"k", 1}}) == std::string(R"({"k":1,"prompt":"p","response":"ab"})").size());
  CHECK(rl::run_filter("cat", std::string(1 << 20, 'x'), 10).size() == 1 << 20);
  CHECK(rl::run_filter("echo 1", std::string(1 << 20, 'x'), 10) == "1\n");  // it need not read
}

TEST_CASE("a program that dies, hangs or talks nonsense is an error that says so") {
  const auto of = [](const std::string& command, double timeout = 10) {
    return failure_of([&] { rated({.type = "command", .command = command, .timeout = timeout}, "x"); });
  };
  const auto [died, died_exit] = of("echo first >&2; echo 'no such model' >&2; exit 3");
  CHECK(died_exit == Exit::runtime);
  CHECK(says(died, "exit code 3"));
  CHECK(says(died, "no such model"));
  CHECK(says(of("kill -9 $$").first, "signal 9"));
  CHECK(says(of("/no/such/program").first, "exit code 127"));
  CHECK(says(of("sleep 60 & sleep 60", 0.2).first, "0.2 s"));
  CHECK(says(of("exec >&-; exec 2>&-; sleep 60", 0.2).first, "0.2 s"));
  CHECK(says(of("echo good").first, "'good'"));
  CHECK(says(of("echo 1 2").first, "'1 2'"));
  CHECK(says(of("echo 1; echo 2").first, "2 numbers for 1"));
  CHECK(says(of("true").first, "0 numbers for 1"));
}

TEST_CASE("rewards are summed with their weights, and no NaN passes") {
  const rl::Prompt prompt{.where = "rows.jsonl:7"};
  const std::vector<rl::Response> responses(2, {.prompt = &prompt});
  rl::Rewards rewards;
  rewards.add("first", 2, std::make_unique<FixedReward>(3));
  rewards.add("second", -0.5, std::make_unique<FixedReward>(4));
  rewards.add("first", 1, std::make_unique<FixedReward>(0.5));
  const rl::Ratings ratings = rewards.rate(responses);
  CHECK(ratings.totals == std::vector<double>{4.5, 4.5});
  CHECK(ratings.parts.size() == 3);
  CHECK(ratings.parts[1].values == std::vector<double>{4, 4});
  CHECK(ratings.parts[2].name == "first_2");
  rewards.add("third", 0, std::make_unique<FixedReward>(std::nan("")));
  const auto [message, exit] = failure_of([&] { rewards.rate(responses); });
  CHECK(exit == Exit::diverged);
  CHECK(says(message, "third"));
  CHECK(says(message, "rows.jsonl:7"));
}
