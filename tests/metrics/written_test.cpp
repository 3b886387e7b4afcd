#include "metrics/written.h"

#include <cmath>

#include "test.h"

using namespace llmtk::metrics;

TEST_CASE("words of ROUGE: English ones in lower case, each Chinese character by itself") {
  CHECK(rouge_words("It's 3.5 GPUs, 床前明月光！naïve") ==
        std::vector<std::string>{"it", "s", "3", "5", "gpus", "床", "前", "明", "月", "光", "na", "ve"});
  CHECK(rouge_words(" \n。").empty());
}

TEST_CASE("ROUGE-L is the F1 of the longest common subsequence") {
  // Lin 2004, section 3.1: 3/4 and 2/4.
  CHECK(rouge_l("police killed the gunman", "police kill the gunman").f1 == Approx(0.75));
  CHECK(rouge_l("police killed the gunman", "the gunman kill police").f1 == Approx(0.5));
  const auto score = rouge_l("明月光", "月光光月");
  CHECK(score.precision == Approx(0.5));
  CHECK(score.recall == Approx(2.0 / 3));
  CHECK(rouge_l("a", "。").f1 == 0);
}

TEST_CASE("means over rows, exact matches, perplexity") {
  WrittenMetrics metrics;
  metrics.add("the answer is 4", " the answer is 4\n");
  metrics.add("a b", "c");
  const auto summary = metrics.summary();
  CHECK(summary["exact_match"] == 0.5);
  CHECK(summary["rouge_l"] == 0.5);
  CHECK(summary["rows"] == 2);
  CHECK(!exact_match("a b", "a  b"));
  CHECK(perplexity(4 * std::log(7.0), 4) == Approx(7));
  CHECK(std::isnan(perplexity(0, 0)));
}
