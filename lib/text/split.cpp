#include "text/split.h"

#include <algorithm>

#include "text/normalizer.h"

namespace llmtk::text {
namespace {

struct Part {
  size_t begin, end;
  bool match;
};

/// Hugging Face's rules for what a split keeps: `parts` cover the text.
void emit_parts(std::string_view text, std::vector<Part> parts, SplitBehavior behavior, bool invert, bool at_front,
                Pieces& pieces) {
  if (invert)
    for (Part& part : parts) part.match = !part.match;
  std::vector<Part> kept;
  switch (behavior) {
    case SplitBehavior::isolated:
      kept = std::move(parts);
      break;
    case SplitBehavior::removed:
      for (const Part& part : parts)
        if (!part.match) kept.push_back(part);
      break;
    case SplitBehavior::contiguous:
      for (const Part& part : parts) {
        if (!kept.empty() && kept.back().match == part.match)
          kept.back().end = part.end;
        else
          kept.push_back(part);
      }
      break;
    case SplitBehavior::merged_with_previous: {
      bool previous_match = false;
      for (const Part& part : parts) {
        if (part.match && !previous_match && !kept.empty())
          kept.back().end = part.end;
        else
          kept.push_back(part);
        previous_match = part.match;
      }
      break;
    }
    case SplitBehavior::merged_with_next: {
      bool next_match = false;
      for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
        if (part->match && !next_match && !kept.empty())
          kept.back().begin = part->begin;
        else
          kept.push_back(*part);
        next_match = part->match;
      }
      std::reverse(kept.begin(), kept.end());
      break;
    }
  }
  for (const Part& part : kept)
    if (part.end > part.begin) pieces.add(text.substr(part.begin, part.end - part.begin), at_front && part.begin == 0);
}

/// Adds the match and the gap before it.
void add_match(std::vector<Part>& parts, size_t begin, size_t end) {
  const size_t last = parts.empty() ? 0 : parts.back().end;
  if (begin > last) parts.push_back({last, begin, false});
  parts.push_back({begin, end, true});
}

void add_rest(std::vector<Part>& parts, size_t size) {
  const size_t last = parts.empty() ? 0 : parts.back().end;
  if (last < size) parts.push_back({last, size, false});
}

class RegexSplit : public SplitStage {
 public:
  RegexSplit(Regex regex, SplitBehavior behavior, bool invert)
      : regex_(std::move(regex)), behavior_(behavior), invert_(invert) {}
  void apply(std::string_view text, bool at_front, Pieces& pieces) const override {
    std::vector<Part> parts;
    for (const auto& [begin, end] : regex_.matches(text)) add_match(parts, begin, end);
    add_rest(parts, text.size());
    emit_parts(text, std::move(parts), behavior_, invert_, at_front, pieces);
  }

 private:
  Regex regex_;
  SplitBehavior behavior_;
  bool invert_;
};

class StringSplit : public SplitStage {
 public:
  StringSplit(std::string text, SplitBehavior behavior, bool invert)
      : text_(std::move(text)), behavior_(behavior), invert_(invert) {}
  void apply(std::string_view text, bool at_front, Pieces& pieces) const override {
    std::vector<Part> parts;
    if (!text_.empty())
      for (size_t at = 0; (at = text.find(text_, at)) != text.npos; at += text_.size())
        add_match(parts, at, at + text_.size());
    add_rest(parts, text.size());
    emit_parts(text, std::move(parts), behavior_, invert_, at_front, pieces);
  }

 private:
  std::string text_;
  SplitBehavior behavior_;
  bool invert_;
};

class ClassSplit : public SplitStage {
 public:
  ClassSplit(uint8_t bits, SplitBehavior behavior) : bits_(bits), behavior_(behavior) {}
  void apply(std::string_view text, bool at_front, Pieces& pieces) const override {
    const CharTable& table = CharTable::get();
    std::vector<Part> parts;
    for (const char *p = text.data(), *end = p + text.size(); p < end;) {
      const auto c = detail::class_at(p, end, table);
      const auto at = static_cast<size_t>(p - text.data());
      if (c.bits & bits_) add_match(parts, at, at + c.size);
      p += c.size;
    }
    add_rest(parts, text.size());
    emit_parts(text, std::move(parts), behavior_, false, at_front, pieces);
  }

 private:
  uint8_t bits_;
  SplitBehavior behavior_;
};

class WordsAndSigns : public SplitStage {
 public:
  void apply(std::string_view text, bool at_front, Pieces& pieces) const override {
    using namespace detail;
    const CharTable& table = CharTable::get();
    const char *const begin = text.data(), *const end = begin + text.size();
    for (const char* p = begin; (p = run_end<kSpace, kSpace>(p, end, table)) < end;) {
      const bool is_word = class_at(p, end, table).bits & kWord;
      const char* const q = is_word ? run_end<kWord, kWord>(p, end, table) : run_end<kWord | kSpace, 0>(p, end, table);
      pieces.add(std::string_view(p, static_cast<size_t>(q - p)), at_front && p == begin);
      p = q;
    }
  }
};

class PatternSplit : public SplitStage {
 public:
  explicit PatternSplit(Pattern pattern) : words_({}, pattern) {}
  void apply(std::string_view text, bool at_front, Pieces& pieces) const override {
    words_.for_each_word(text, at_front, [&](std::string_view word, const char*) {
      pieces.add(word, at_front && word.data() == text.data());
    });
  }

 private:
  PreTokenizer words_;
};

class PrefixSpace : public SplitStage {
 public:
  void apply(std::string_view text, bool at_front, Pieces& pieces) const override {
    if (text.starts_with(' '))
      pieces.add(text, at_front);
    else
      pieces.add(' ' + std::string(text), at_front);
  }
};

class Metaspace : public SplitStage {
 public:
  Metaspace(std::string replacement, PrependScheme scheme, bool split)
      : replacement_(std::move(replacement)), scheme_(scheme), split_(split) {}
  void apply(std::string_view text, bool at_front, Pieces& pieces) const override {
    std::string spelled = replace_all(text, " ", replacement_);
    const bool prepends = scheme_ == PrependScheme::always || (scheme_ == PrependScheme::first && at_front);
    if (prepends && !spelled.starts_with(replacement_)) spelled.insert(0, replacement_);
    if (!split_) {
      pieces.add(spelled, at_front);
      return;
    }
    for (size_t at = 0; at < spelled.size();) {
      // Of several in a row each but the last is a piece of its own.
      const size_t end = std::min(spelled.find(replacement_, at + 1), spelled.size());
      pieces.add(std::string_view(spelled).substr(at, end - at), at_front && at == 0);
      at = end;
    }
  }

 private:
  std::string replacement_;
  PrependScheme scheme_;
  bool split_;
};

}  // namespace

std::optional<Pattern> known_split_pattern(std::string_view regex) {
  constexpr std::string_view kContractions = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|)";
  constexpr std::string_view kLetters = R"([^\r\n\p{L}\p{N}]?\p{L}+|)";
  constexpr std::string_view kRest = R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const std::string head = std::string(kContractions) + std::string(kLetters);
  if (regex == head + R"(\p{N}{1,3})" + std::string(kRest)) return Pattern::llama3;
  if (regex == head + R"(\p{N})" + std::string(kRest)) return Pattern::qwen2;
  if (regex == R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)") return Pattern::gpt2;
  return std::nullopt;
}

std::optional<SplitBehavior> parse_split_behavior(std::string_view name) {
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  return std::nullopt;
}

std::unique_ptr<SplitStage> make_regex_split(Regex regex, SplitBehavior behavior, bool invert) {
  return std::make_unique<RegexSplit>(std::move(regex), behavior, invert);
}
std::unique_ptr<SplitStage> make_string_split(std::string text, SplitBehavior behavior, bool invert) {
  return std::make_unique<StringSplit>(std::move(text), behavior, invert);
}
std::unique_ptr<SplitStage> make_class_split(uint8_t bits, SplitBehavior behavior) {
  return std::make_unique<ClassSplit>(bits, behavior);
}
std::unique_ptr<SplitStage> make_words_and_signs() { return std::make_unique<WordsAndSigns>(); }
std::unique_ptr<SplitStage> make_pattern_split(Pattern pattern) { return std::make_unique<PatternSplit>(pattern); }
std::unique_ptr<SplitStage> make_prefix_space() { return std::make_unique<PrefixSpace>(); }

std::optional<PrependScheme> parse_prepend_scheme(std::string_view name) {
  if (name == "always") return PrependScheme::always;
  if (name == "first") return PrependScheme::first;
  if (name == "never") return PrependScheme::never;
  return std::nullopt;
}

std::unique_ptr<SplitStage> make_metaspace(std::string replacement, PrependScheme scheme, bool split) {
  return std::make_unique<Metaspace>(std::move(replacement), scheme, split);
}

Pieces PreTokenizer::run_stages(std::string_view text, bool at_start) const {
  Pieces pieces, next;
  pieces.add(text, at_start);
  for (const auto& stage : stages_) {
    next.clear();
    for (size_t i = 0; i < pieces.size(); ++i)
      if (!pieces[i].empty()) stage->apply(pieces[i], pieces.at_front(i), next);
    std::swap(pieces, next);
  }
  return pieces;
}

}  // namespace llmtk::text
