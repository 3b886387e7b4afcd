#include "metrics/written.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/utf8.h"

namespace llmtk::metrics {
namespace {

/// Of Python's lower(): a letter or digit of ASCII, else 0.
char ascii_lower(int32_t c) {
  if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) return static_cast<char>(c);
  if (c >= 'A' && c <= 'Z') return static_cast<char>(c - 'A' + 'a');
  if (c == 0x212A) return 'k';  // the Kelvin sign
  if (c == 0x0130) return 'i';  // I with a dot; the dot separates words
  return 0;
}

/// Characters that are words: of scripts without blanks between words.
bool is_word(int32_t c) {
  constexpr std::pair<int32_t, int32_t> kRanges[] = {
      {0x3040, 0x30FF},    // kana
      {0x3400, 0x4DBF},    // CJK, extension A
      {0x4E00, 0x9FFF},    // CJK
      {0xAC00, 0xD7A3},    // Hangul
      {0xF900, 0xFAFF},    // CJK, compatibility
      {0x20000, 0x323AF},  // CJK, extensions B to H
  };
  return std::ranges::any_of(kRanges, [c](const auto& range) { return c >= range.first && c <= range.second; });
}

std::string_view without_blanks(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) + 1 - begin);
}

size_t common_subsequence(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  std::vector<size_t> best(b.size() + 1);  // of the words of `a` so far and the first j of `b`
  for (const std::string& word : a) {
    size_t diagonal = 0;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = best[j];
      best[j] = word == b[j - 1] ? diagonal + 1 : std::max(above, best[j - 1]);
      diagonal = above;
    }
  }
  return best.back();
}

}  // namespace

std::vector<std::string> rouge_words(std::string_view text) {
  std::vector<std::string> words;
  bool inside = false;
  for (size_t i = 0; i < text.size();) {
    const size_t begin = i;
    const int32_t c = next_code_point(text, i);
    const char letter = ascii_lower(c);
    if (letter && !inside) words.emplace_back();
    if (letter) words.back() += letter;
    inside = letter && c != 0x0130;
    if (is_word(c)) words.emplace_back(text.substr(begin, i - begin));
  }
  return words;
}

RougeScore rouge_l(std::string_view reference, std::string_view prediction) {
  const auto expected = rouge_words(reference), answered = rouge_words(prediction);
  if (expected.empty() || answered.empty()) return {};
  const auto common = static_cast<double>(common_subsequence(expected, answered));
  RougeScore score{common / static_cast<double>(answered.size()), common / static_cast<double>(expected.size())};
  if (common > 0) score.f1 = 2 * score.precision * score.recall / (score.precision + score.recall);
  return score;
}

bool exact_match(std::string_view reference, std::string_view prediction) {
  return without_blanks(reference) == without_blanks(prediction);
}

double perplexity(double negative_log_likelihood, double tokens) {
  return tokens > 0 ? std::exp(negative_log_likelihood / tokens) : std::numeric_limits<double>::quiet_NaN();
}

void WrittenMetrics::add(std::string_view reference, std::string_view prediction) {
  const RougeScore score = rouge_l(reference, prediction);
  sum_.precision += score.precision;
  sum_.recall += score.recall;
  sum_.f1 += score.f1;
  same_ += exact_match(reference, prediction);
  ++rows_;
}

nlohmann::ordered_json WrittenMetrics::summary() const {
  const auto mean = [&](double sum) { return rows_ > 0 ? sum / static_cast<double>(rows_) : 0.0; };
  return {{"rouge_l", mean(sum_.f1)},
          {"rouge_l_precision", mean(sum_.precision)},
          {"rouge_l_recall", mean(sum_.recall)},
          {"exact_match", mean(static_cast<double>(same_))},
          {"rows", rows_}};
}

}  // namespace llmtk::metrics
