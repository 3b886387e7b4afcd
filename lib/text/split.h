#pragma once
// Pre-tokenizers: where a text is cut into the words that the model then encodes one by one.
//
// The patterns that byte-level models share are written out as state machines; their pieces are exactly those of the
// regular expressions named beside them. Any other pattern goes through PCRE2.

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/regex.h"
#include "text/unicode.h"

namespace llmtk::text {

/// The known patterns. Bytes that are not UTF-8 count as characters that are neither letters, numbers nor spaces.
enum class Pattern {
  none,         ///< the whole text is one word
  gpt2,         ///< 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  gpt2_digits,  ///< every numeric character by itself, gpt2 between them (SmolLM2)
  llama3,       ///< (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
                ///< ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|...
  qwen2,        ///< llama3 with \p{N} for \p{N}{1,3}
  bert,         ///< [^\s\p{P}]+|\p{P}, ASCII's signs among \p{P}; white space is in no word
};

/// The end of the word that begins at `p` (p < end); all of the text up to `end` is there to be looked at.
template <bool kDigits>
const char* next_gpt2(const char* p, const char* end, const CharTable& table);
template <int kMaxDigits>
const char* next_llama3(const char* p, const char* end, const CharTable& table);
/// No white space stands at `p`.
const char* next_bert(const char* p, const char* end, const CharTable& table);

/// The pattern that Hugging Face's `Split` spells as `regex`, where it is a known one.
std::optional<Pattern> known_split_pattern(std::string_view regex);

/// Pieces of a text, one behind the other in one string.
class Pieces {
 public:
  /// `at_front`: nothing of the text stood before it (of the first piece alone).
  void add(std::string_view piece, bool at_front) {
    if (ends_.empty()) at_front_ = at_front;
    bytes_ += piece;
    ends_.push_back(bytes_.size());
  }
  void clear() {
    bytes_.clear();
    ends_.clear();
  }
  size_t size() const { return ends_.size(); }
  std::string_view operator[](size_t i) const {
    const size_t begin = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(bytes_).substr(begin, ends_[i] - begin);
  }
  bool at_front(size_t i) const { return i == 0 && at_front_; }
  const char* readable_end() const { return bytes_.data() + bytes_.size(); }

 private:
  std::string bytes_;
  std::vector<size_t> ends_;
  bool at_front_ = false;
};

/// A step that no state machine covers.
class SplitStage {
 public:
  virtual ~SplitStage() = default;
  /// Adds the pieces of `text`, which is not empty. `at_front`: nothing stands before it.
  virtual void apply(std::string_view text, bool at_front, Pieces& pieces) const = 0;
};

/// What becomes of the parts that match: Hugging Face's SplitDelimiterBehavior.
enum class SplitBehavior { isolated, removed, merged_with_previous, merged_with_next, contiguous };
std::optional<SplitBehavior> parse_split_behavior(std::string_view name);

/// `Split` by a regular expression.
std::unique_ptr<SplitStage> make_regex_split(Regex regex, SplitBehavior behavior, bool invert);
/// `Split` by a fixed string.
std::unique_ptr<SplitStage> make_string_split(std::string text, SplitBehavior behavior, bool invert);
/// By every character of a class (bits of CharClass): `Digits`, `Punctuation`, `WhitespaceSplit`.
std::unique_ptr<SplitStage> make_class_split(uint8_t bits, SplitBehavior behavior);
/// `Whitespace`: \w+|[^\w\s]+
std::unique_ptr<SplitStage> make_words_and_signs();
/// One of the known patterns as a step among others.
std::unique_ptr<SplitStage> make_pattern_split(Pattern pattern);
/// A space before every piece that begins with none: ByteLevel's add_prefix_space.
std::unique_ptr<SplitStage> make_prefix_space();
/// `Metaspace`: blanks become `replacement`, one is put in front (before every text, before the first, or never), and
/// where `split` a word begins at each.
enum class PrependScheme { always, first, never };
std::optional<PrependScheme> parse_prepend_scheme(std::string_view name);
std::unique_ptr<SplitStage> make_metaspace(std::string replacement, PrependScheme scheme, bool split);

/// Steps one after another, the last of which may be a known pattern. Immutable.
class PreTokenizer {
 public:
  PreTokenizer() = default;
  PreTokenizer(std::vector<std::unique_ptr<SplitStage>> stages, Pattern last)
      : stages_(std::move(stages)), last_(last) {}

  /// Calls word(piece, readable_end) for every word in order. `at_start`: nothing stands before `text`.
  template <class Word>
  void for_each_word(std::string_view text, bool at_start, Word&& word) const {
    if (stages_.empty()) {
      run_pattern(text, text.data() + text.size(), word);
      return;
    }
    const Pieces pieces = run_stages(text, at_start);
    for (size_t i = 0; i < pieces.size(); ++i) run_pattern(pieces[i], pieces.readable_end(), word);
  }

  /// Whether a text may be cut between a newline and an ASCII character that is no space without changing its words.
  bool may_cut_after_newline() const { return stages_.empty() && last_ != Pattern::none; }

 private:
  template <class Word>
  void run_pattern(std::string_view text, const char* readable_end, Word&& word) const;
  Pieces run_stages(std::string_view text, bool at_start) const;

  std::vector<std::unique_ptr<SplitStage>> stages_;
  Pattern last_ = Pattern::none;
};

// ---------------------------------------------------------------------------------------------------------------------

namespace detail {

struct ClassAt {
  uint8_t bits;
  uint32_t size;
};

inline ClassAt class_at(const char* p, const char* end, const CharTable& table) {
  const uint8_t ascii = table.ascii(static_cast<unsigned char>(*p));
  if (ascii != CharTable::kMultibyte) [[likely]]
    return {ascii, 1};
  const Utf8Char c = decode_utf8(p, end);
  return {table.of(c.code), c.size};
}

/// The end of the run of characters from `p` on for which `(class & mask) == wanted`.
template <uint8_t kMask, uint8_t kWanted>
inline const char* run_end(const char* p, const char* end, const CharTable& table) {
  while (p < end) {
    const ClassAt c = class_at(p, end, table);
    if ((c.bits & kMask) != kWanted) break;
    p += c.size;
  }
  return p;
}

/// `\s+(?!\S)|\s+` from `p` on, where white space stands there up to `run`.
inline const char* space_end(const char* p, const char* run, const char* end) {
  if (run == end) return run;
  const char* last = run - 1;
  while (last > p && (static_cast<unsigned char>(*last) & 0xC0) == 0x80) --last;
  return last == p ? run : last;
}

/// The length of 's|'t|'re|'ve|'m|'ll|'d at `p`, where an apostrophe stands; 0 for none.
template <bool kAnyCase>
inline size_t contraction(const char* p, const char* end) {
  const auto at = [&](ptrdiff_t i) {
    const auto c = static_cast<unsigned char>(p[i]);
    return kAnyCase && c >= 'A' && c <= 'Z' ? static_cast<unsigned char>(c | 0x20) : c;
  };
  const ptrdiff_t left = end - p;
  if (left < 2) return 0;
  const unsigned char a = at(1);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if (left < 3) return 0;
  const unsigned char b = at(2);
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
  if (kAnyCase && a == 0xC5 && b == 0xBF) return 3;  // U+017F, the long s, is an s in another case
  return 0;
}

}  // namespace detail

template <bool kDigits>
inline const char* next_gpt2(const char* p, const char* end, const CharTable& table) {
  using namespace detail;
  constexpr uint8_t kStop = kDigits ? kNumeric : 0;
  constexpr uint8_t kKinds = kLetter | kNumber | kSpace | kStop;
  const ClassAt first = class_at(p, end, table);
  if (kDigits && (first.bits & kNumeric)) return p + first.size;
  const char* q = p;
  ClassAt kind = first;
  if (*p == ' ' && p + 1 < end) {
    const ClassAt second = class_at(p + 1, end, table);
    if (!(second.bits & (kSpace | kStop))) kind = second, ++q;
  } else if (*p == '\'') {
    if (const size_t n = contraction<false>(p, end)) return p + n;
  }
  q += kind.size;
  if (kind.bits & kLetter) return run_end<kLetter, kLetter>(q, end, table);
  if (kind.bits & kNumber) return run_end<kNumber, kNumber>(q, end, table);
  if (!(kind.bits & kSpace)) return run_end<kKinds, 0>(q, end, table);
  q = run_end<kSpace, kSpace>(q, end, table);
  // A digit is split off before the pattern looks, so it ends the text for the look-ahead.
  if (kDigits && q < end && (class_at(q, end, table).bits & kNumeric)) return q;
  return space_end(p, q, end);
}

template <int kMaxDigits>
inline const char* next_llama3(const char* p, const char* end, const CharTable& table) {
  using namespace detail;
  if (*p == '\'') {
    if (const size_t n = contraction<true>(p, end)) return p + n;
  }
  const ClassAt first = class_at(p, end, table);
  const char* q = p + first.size;
  if (first.bits & kLetter) return run_end<kLetter, kLetter>(q, end, table);
  if (first.bits & kNumber) {
    for (int i = 1; i < kMaxDigits && q < end; ++i) {
      const ClassAt c = class_at(q, end, table);
      if (!(c.bits & kNumber)) break;
      q += c.size;
    }
    return q;
  }
  const bool newline = *p == '\n' || *p == '\r';
  ClassAt second{kSpace, 0};
  if (q < end) second = class_at(q, end, table);
  if (!newline && (second.bits & kLetter)) return run_end<kLetter, kLetter>(q + second.size, end, table);
  const auto newlines_end = [end](const char* s) {
    while (s < end && (*s == '\n' || *s == '\r')) ++s;
    return s;
  };
  constexpr uint8_t kKinds = kLetter | kNumber | kSpace;
  if (!(first.bits & kSpace)) return newlines_end(run_end<kKinds, 0>(q, end, table));
  if (*p == ' ' && !(second.bits & kKinds)) return newlines_end(run_end<kKinds, 0>(q + second.size, end, table));
  const char* const run = run_end<kSpace, kSpace>(q, end, table);
  for (const char* s = run; s > p; --s)
    if (s[-1] == '\n' || s[-1] == '\r') return s;
  return space_end(p, run, end);
}

inline const char* next_bert(const char* p, const char* end, const CharTable& table) {
  using namespace detail;
  const ClassAt first = class_at(p, end, table);
  const char* const q = p + first.size;
  return first.bits & kPunctuation ? q : run_end<kSpace | kPunctuation, 0>(q, end, table);
}

template <class Word>
inline void PreTokenizer::run_pattern(std::string_view text, const char* readable_end, Word&& word) const {
  const CharTable& table = CharTable::get();
  const char* p = text.data();
  const char* const end = p + text.size();
  const auto walk = [&](auto next) {
    while (p < end) {
      const char* const q = next(p, end, table);
      word(std::string_view(p, static_cast<size_t>(q - p)), readable_end);
      p = q;
    }
  };
  switch (last_) {
    case Pattern::none:
      if (!text.empty()) word(text, readable_end);
      break;
    case Pattern::gpt2:
      walk([](const auto&... a) { return next_gpt2<false>(a...); });
      break;
    case Pattern::gpt2_digits:
      walk([](const auto&... a) { return next_gpt2<true>(a...); });
      break;
    case Pattern::llama3:
      walk([](const auto&... a) { return next_llama3<3>(a...); });
      break;
    case Pattern::qwen2:
      walk([](const auto&... a) { return next_llama3<1>(a...); });
      break;
    case Pattern::bert:
      for (; (p = detail::run_end<kSpace, kSpace>(p, end, table)) < end;) {
        const char* const q = next_bert(p, end, table);
        word(std::string_view(p, static_cast<size_t>(q - p)), readable_end);
        p = q;
      }
      break;
  }
}

}  // namespace llmtk::text
