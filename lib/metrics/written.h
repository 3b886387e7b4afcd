#pragma once
// How right written texts are: ROUGE-L, exact match, perplexity.

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace llmtk::metrics {

struct RougeScore {
  double precision = 0, recall = 0, f1 = 0;
};

/// The words that ROUGE compares: runs of a-z and 0-9 of the text in lower case, as rouge_score's tokenizer without a
/// stemmer; and each Chinese character, kana or Hangul syllable by itself, which rouge_score leaves out. Everything
/// else separates words.
std::vector<std::string> rouge_words(std::string_view text);
/// The longest common subsequence of words (Lin 2004, "ROUGE", section 3.1, beta = 1; rouge_score's rougeL). 0 where
/// one side has no words.
RougeScore rouge_l(std::string_view reference, std::string_view prediction);

/// Whether two texts are the same, blanks and line ends around them aside.
bool exact_match(std::string_view reference, std::string_view prediction);

/// exp of the mean of -log p over `tokens`; NaN for none.
double perplexity(double negative_log_likelihood, double tokens);

/// Means over rows.
class WrittenMetrics {
 public:
  void add(std::string_view reference, std::string_view prediction);
  /// {"rouge_l": F1, "rouge_l_precision", "rouge_l_recall", "exact_match", "rows"}.
  nlohmann::ordered_json summary() const;

 private:
  RougeScore sum_;
  int64_t same_ = 0, rows_ = 0;
};

}  // namespace llmtk::metrics
