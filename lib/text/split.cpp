#include "text/split.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>

#include "core/error.h"
#include "text/normalizer.h"

namespace llmtk::text {
namespace {

struct Part {
  size_t begin, end;
  bool match;
};

/// Hugging Face's rules for what a split keeps: `parts` cover the text.
void emit_parts(std::string_view text, std::vector<Part> parts, SplitBehavior behavior, bool invert,
                std::vector<std::string>& pieces) {
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
    if (part.end > part.begin) pieces.emplace_back(text.substr(part.begin, part.end - part.begin));
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
  RegexSplit(const std::string& regex, SplitBehavior behavior, bool invert, std::string where)
      : behavior_(behavior), invert_(invert), where_(std::move(where)), regex_(regex) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    constexpr uint32_t kOptions = PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C;
    code_.reset(
        pcre2_compile(reinterpret_cast<PCRE2_SPTR>(regex.data()), regex.size(), kOptions, &error, &offset, nullptr));
    if (!code_)
      throw Error(Exit::file, {.what = "the pre-tokenizer's pattern does not compile: " + message(error),
                               .where = where_,
                               .got = "'" + regex + "' (at character " + std::to_string(offset) + ")"});
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);
  }

  void apply(std::string_view text, bool /*at_start*/, std::vector<std::string>& pieces) const override {
    struct FreeMatch {
      void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
    };
    std::unique_ptr<pcre2_match_data, FreeMatch> match(pcre2_match_data_create_from_pattern(code_.get(), nullptr));
    if (!match) throw std::bad_alloc();
    std::vector<Part> parts;
    for (size_t at = 0; at < text.size();) {
      const int rc =
          pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at, 0, match.get(), nullptr);
      if (rc == PCRE2_ERROR_NOMATCH) break;
      if (rc < 0)
        throw Error(Exit::data, {.what = "the pre-tokenizer's pattern cannot be matched: " + message(rc),
                                 .where = where_,
                                 .got = "'" + regex_ + "' on a text of " + std::to_string(text.size()) + " bytes"});
      const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match.get());
      if (range[1] > range[0]) add_match(parts, range[0], range[1]);
      at = range[1];
      if (range[1] <= range[0]) at += decode_utf8(text.data() + at, text.data() + text.size()).size;
    }
    add_rest(parts, text.size());
    emit_parts(text, std::move(parts), behavior_, invert_, pieces);
  }

 private:
  static std::string message(int error) {
    PCRE2_UCHAR text[256];
    pcre2_get_error_message(error, text, sizeof text);
    return reinterpret_cast<const char*>(text);
  }
  struct FreeCode {
    void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  };
  std::unique_ptr<pcre2_code, FreeCode> code_;
  SplitBehavior behavior_;
  bool invert_;
  std::string where_, regex_;
};

class StringSplit : public SplitStage {
 public:
  StringSplit(std::string text, SplitBehavior behavior, bool invert)
      : text_(std::move(text)), behavior_(behavior), invert_(invert) {}
  void apply(std::string_view text, bool /*at_start*/, std::vector<std::string>& pieces) const override {
    std::vector<Part> parts;
    if (!text_.empty())
      for (size_t at = 0; (at = text.find(text_, at)) != text.npos; at += text_.size())
        add_match(parts, at, at + text_.size());
    add_rest(parts, text.size());
    emit_parts(text, std::move(parts), behavior_, invert_, pieces);
  }

 private:
  std::string text_;
  SplitBehavior behavior_;
  bool invert_;
};

class DigitsSplit : public SplitStage {
 public:
  explicit DigitsSplit(bool individual) : individual_(individual) {}
  void apply(std::string_view text, bool /*at_start*/, std::vector<std::string>& pieces) const override {
    const CharTable& table = CharTable::get();
    std::vector<Part> parts;
    for (const char *p = text.data(), *end = p + text.size(); p < end;) {
      const auto c = detail::class_at(p, end, table);
      const auto at = static_cast<size_t>(p - text.data());
      if (c.bits & kNumeric) add_match(parts, at, at + c.size);
      p += c.size;
    }
    add_rest(parts, text.size());
    emit_parts(text, std::move(parts), individual_ ? SplitBehavior::isolated : SplitBehavior::contiguous, false,
               pieces);
  }

 private:
  bool individual_;
};

class PatternSplit : public SplitStage {
 public:
  explicit PatternSplit(Pattern pattern) : words_({}, pattern) {}
  void apply(std::string_view text, bool /*at_start*/, std::vector<std::string>& pieces) const override {
    words_.for_each_word(text, false, [&](std::string_view word, const char*) { pieces.emplace_back(word); });
  }

 private:
  PreTokenizer words_;
};

class PrefixSpace : public SplitStage {
 public:
  void apply(std::string_view text, bool /*at_start*/, std::vector<std::string>& pieces) const override {
    pieces.emplace_back(text.starts_with(' ') ? "" : " ");
    pieces.back() += text;
  }
};

class Metaspace : public SplitStage {
 public:
  Metaspace(std::string replacement, PrependScheme scheme, bool split)
      : replacement_(std::move(replacement)), scheme_(scheme), split_(split) {}
  void apply(std::string_view text, bool at_start, std::vector<std::string>& pieces) const override {
    std::string spelled = replace_all(text, " ", replacement_);
    const bool prepends = scheme_ == PrependScheme::always || (scheme_ == PrependScheme::first && at_start);
    if (prepends && !spelled.starts_with(replacement_)) spelled.insert(0, replacement_);
    if (!split_) {
      pieces.push_back(std::move(spelled));
      return;
    }
    for (size_t at = 0; at < spelled.size();) {
      // Of several in a row each but the last is a piece of its own.
      const size_t end = std::min(spelled.find(replacement_, at + 1), spelled.size());
      pieces.push_back(spelled.substr(at, end - at));
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

std::unique_ptr<SplitStage> make_regex_split(const std::string& regex, SplitBehavior behavior, bool invert,
                                             const std::string& where) {
  return std::make_unique<RegexSplit>(regex, behavior, invert, where);
}
std::unique_ptr<SplitStage> make_string_split(std::string text, SplitBehavior behavior, bool invert) {
  return std::make_unique<StringSplit>(std::move(text), behavior, invert);
}
std::unique_ptr<SplitStage> make_digits_split(bool individual) { return std::make_unique<DigitsSplit>(individual); }
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

std::vector<std::string> PreTokenizer::run_stages(std::string_view text, bool at_start) const {
  std::vector<std::string> pieces = {std::string(text)};
  for (const auto& stage : stages_) {
    std::vector<std::string> next;
    for (size_t i = 0; i < pieces.size(); ++i)
      if (!pieces[i].empty()) stage->apply(pieces[i], at_start && i == 0, next);
    pieces = std::move(next);
  }
  return pieces;
}

}  // namespace llmtk::text
