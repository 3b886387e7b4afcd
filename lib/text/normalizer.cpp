#include "text/normalizer.h"

#include <algorithm>

#include "text/unicode_versions.h"

namespace llmtk::text {
namespace {

class UnicodeFormStep : public NormalizerStep {
 public:
  explicit UnicodeFormStep(UnicodeForm form) : form_(form) {}
  bool apply(std::string_view text, std::string& out) const override { return to_unicode_form(form_, text, out); }

 private:
  UnicodeForm form_;
};

/// A step that sees one character at a time. Map::operator()(code, text of it, out) appends what becomes of it.
template <class Map>
class CharacterStep : public NormalizerStep {
 public:
  bool apply(std::string_view text, std::string& out) const override {
    out.clear();
    out.reserve(text.size());
    for (const char *p = text.data(), *end = p + text.size(); p < end;) {
      const Utf8Char c = decode_utf8(p, end);
      Map()(c.code, std::string_view(p, c.size), out);
      p += c.size;
    }
    return out != text;
  }
};

struct LowercaseMap {
  void operator()(char32_t code, std::string_view character, std::string& out) const {
    if (code == kInvalid)
      out += character;
    else
      append_lowercase(code, out);
  }
};

struct StripAccentsMap {
  void operator()(char32_t code, std::string_view character, std::string& out) const {
    if (!is_old_combining_mark(code)) out += character;
  }
};

struct NmtMap {
  void operator()(char32_t c, std::string_view character, std::string& out) const {
    const auto between = [c](char32_t first, char32_t last) { return c >= first && c <= last; };
    const bool control = between(0x01, 0x08) || c == 0x0B || between(0x0E, 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
    const bool blank = c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 || between(0x200B, 0x200F) ||
                       c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
    if (control) return;
    out += blank ? " " : character;
  }
};

class StripStep : public NormalizerStep {
 public:
  StripStep(bool left, bool right) : left_(left), right_(right) {}
  bool apply(std::string_view text, std::string& out) const override {
    const std::string_view whole = text;
    const auto is_space = [](const Utf8Char& c) { return (CharTable::get().of(c.code) & kSpace) != 0; };
    while (left_ && !text.empty()) {
      const Utf8Char c = decode_utf8(text.data(), text.data() + text.size());
      if (!is_space(c)) break;
      text.remove_prefix(c.size);
    }
    while (right_ && !text.empty()) {
      const Utf8Char c = last_character(text);
      if (!is_space(c)) break;
      text.remove_suffix(c.size);
    }
    if (text.size() == whole.size()) return false;
    out = text;
    return true;
  }

 private:
  bool left_, right_;
};

class PrependStep : public NormalizerStep {
 public:
  explicit PrependStep(std::string content) : content_(std::move(content)) {}
  bool apply(std::string_view text, std::string& out) const override {
    out = content_;
    out += text;
    return true;
  }

 private:
  std::string content_;
};

class ReplaceStep : public NormalizerStep {
 public:
  ReplaceStep(std::string pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}
  bool apply(std::string_view text, std::string& out) const override {
    if (text.find(pattern_) == text.npos) return false;
    out = replace_all(text, pattern_, content_);
    return true;
  }

 private:
  std::string pattern_, content_;
};

class RegexReplaceStep : public NormalizerStep {
 public:
  RegexReplaceStep(Regex pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}
  bool apply(std::string_view text, std::string& out) const override {
    const auto matches = pattern_.matches(text);
    if (matches.empty()) return false;
    out.clear();
    size_t done = 0;
    for (const auto& [begin, end] : matches) {
      out += text.substr(done, begin - done);
      out += content_;
      done = end;
    }
    out += text.substr(done);
    return true;
  }

 private:
  Regex pattern_;
  std::string content_;
};

}  // namespace

std::unique_ptr<NormalizerStep> make_unicode_form(UnicodeForm form) { return std::make_unique<UnicodeFormStep>(form); }
std::unique_ptr<NormalizerStep> make_lowercase() { return std::make_unique<CharacterStep<LowercaseMap>>(); }
std::unique_ptr<NormalizerStep> make_strip_accents() { return std::make_unique<CharacterStep<StripAccentsMap>>(); }
std::unique_ptr<NormalizerStep> make_nmt() { return std::make_unique<CharacterStep<NmtMap>>(); }
std::unique_ptr<NormalizerStep> make_strip(bool left, bool right) { return std::make_unique<StripStep>(left, right); }
std::unique_ptr<NormalizerStep> make_prepend(std::string content) {
  return std::make_unique<PrependStep>(std::move(content));
}
std::unique_ptr<NormalizerStep> make_replace(std::string pattern, std::string content) {
  return std::make_unique<ReplaceStep>(std::move(pattern), std::move(content));
}
std::unique_ptr<NormalizerStep> make_replace(Regex pattern, std::string content) {
  return std::make_unique<RegexReplaceStep>(std::move(pattern), std::move(content));
}

std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content) {
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  for (size_t at = 0; at <= text.size();) {
    const size_t found = std::min(text.find(pattern, at), text.size());
    out += text.substr(at, found - at);
    if (found < text.size()) out += content;
    at = found < text.size() ? found + pattern.size() : text.size() + 1;
  }
  return out;
}

std::string_view Normalizer::apply(std::string_view text, std::string& buffer) const {
  std::string next;
  for (const auto& step : steps_) {
    if (text.empty()) break;
    if (!step->apply(text, next)) continue;
    buffer.swap(next);
    text = buffer;
  }
  return text;
}

}  // namespace llmtk::text
