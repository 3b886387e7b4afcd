#include "text/bert_normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>

#include "text/unicode.h"
#include "text/unicode_versions.h"

namespace llmtk::text {
namespace {

/// The blocks that BERT counts as Chinese.
bool is_bert_ideograph(char32_t c) {
  constexpr std::array<std::pair<char32_t, char32_t>, 8> kBlocks = {{{0x3400, 0x4DBF},
                                                                     {0x4E00, 0x9FFF},
                                                                     {0xF900, 0xFAFF},
                                                                     {0x20000, 0x2A6DF},
                                                                     {0x2A700, 0x2B73F},
                                                                     {0x2B740, 0x2B81F},
                                                                     {0x2B920, 0x2CEAF},
                                                                     {0x2F800, 0x2FA1F}}};
  return std::ranges::any_of(kBlocks, [c](const auto& block) { return c >= block.first && c <= block.second; });
}

/// Marks that stay and that canonical order may move: with one of them in the text characters are not independent.
bool is_ordered_spacing_mark(char32_t c) {
  return c == 0x302E || c == 0x302F || c == 0x16FF0 || c == 0x16FF1 || c == 0x1D165 || c == 0x1D166 ||
         (c >= 0x1D16D && c <= 0x1D172);
}

/// Every character becomes a string of its own, looked up in a table of two stages (made in some 2 ms).
class BertNormalizer : public NormalizerStep {
 public:
  explicit BertNormalizer(const BertNormalizerOptions& options) : options_(options) {
    std::map<std::array<uint32_t, kBlock>, uint16_t> seen;
    for (char32_t first = 0; first < kEnd; first += kBlock) {
      std::array<uint32_t, kBlock> block;
      for (char32_t i = 0; i < kBlock; ++i) block[i] = entry_of(first + i);
      const auto [it, is_new] = seen.try_emplace(block, static_cast<uint16_t>(seen.size()));
      if (is_new) entries_.insert(entries_.end(), block.begin(), block.end());
      blocks_[first / kBlock] = it->second;
    }
  }

  bool apply(std::string_view text, std::string& out) const override {
    out.clear();
    out.reserve(text.size() + text.size() / 8);
    for (const char *p = text.data(), *end = p + text.size(); p < end;) {
      const Utf8Char c = decode_utf8(p, end);
      const uint32_t entry = c.code < kEnd ? entry_at(c.code) : kKept;
      if (entry < kFirstMark)
        out.append(strings_, entry >> kLengthBits, entry & kMaxLength);
      else if (entry == kOrdered)
        return apply_in_order(text, out);
      else
        append_apart(std::string_view(p, c.size), entry == kApart, out);
      p += c.size;
    }
    return out != text;
  }

 private:
  static constexpr char32_t kEnd = 0x110000, kBlock = 256;
  static constexpr int kLengthBits = 5;
  static constexpr uint32_t kMaxLength = (1 << kLengthBits) - 1;
  // An entry is offset and length of a string, or one of these.
  static constexpr uint32_t kKept = 0xFFFFFFFF, kApart = 0xFFFFFFFE, kOrdered = 0xFFFFFFFD, kFirstMark = kOrdered;

  uint32_t entry_at(char32_t c) const { return entries_[size_t{blocks_[c / kBlock]} * kBlock + c % kBlock]; }

  uint32_t entry_of(char32_t c) {
    if (c >= 0x32400 && c < 0xE0000) return kKept;  // planes of nothing
    const bool apart = is_apart(c);
    if (!has_mapping(c)) return apart ? kApart : kKept;
    if (options_.strip_accents && is_ordered_spacing_mark(c)) return kOrdered;
    const auto offset = static_cast<uint32_t>(strings_.size());
    std::string becomes;
    if (is_blank(c)) {
      becomes = " ";
    } else if (!is_removed(c)) {
      if (apart) becomes += ' ';
      append_folded(c, becomes);
      if (apart) becomes += ' ';
    }
    strings_ += becomes;
    return offset << kLengthBits | static_cast<uint32_t>(becomes.size());
  }

  // Controls that are white space are taken out, but for the three that are typed.
  bool is_removed(char32_t c) const {
    return options_.clean_text && (c == 0 || c == 0xFFFD || is_old_control_or_format(c)) && !is_typed(c);
  }
  bool is_blank(char32_t c) const {
    return options_.clean_text && (CharTable::get().of(c) & kSpace) != 0 && !is_removed(c);
  }
  static bool is_typed(char32_t c) { return c == '\t' || c == '\n' || c == '\r'; }
  bool is_apart(char32_t c) const { return options_.handle_chinese_chars && is_bert_ideograph(c); }
  /// Most characters have none, and are not worth a closer look.
  bool has_mapping(char32_t c) const {
    const auto* property = utf8proc_get_property(static_cast<utf8proc_int32_t>(c));
    const bool decomposes = property->decomp_seqindex != UINT16_MAX || (c >= 0xAC00 && c < 0xD7A4);
    return is_blank(c) || is_removed(c) || (options_.lowercase && property->lowercase_seqindex != UINT16_MAX) ||
           (options_.strip_accents && (decomposes || is_old_nonspacing_mark(c) || is_ordered_spacing_mark(c)));
  }

  void append_cased(char32_t c, std::string& out) const {
    options_.lowercase ? append_lowercase(c, out) : append_utf8(c, out);
  }

  static void append_apart(std::string_view character, bool apart, std::string& out) {
    if (apart) out += ' ';
    out += character;
    if (apart) out += ' ';
  }

  void append_folded(char32_t c, std::string& out) const {
    if (!options_.strip_accents) return append_cased(c, out);
    std::array<utf8proc_int32_t, 8> parts;
    const auto count =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts.data(), parts.size(),
                                static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE), nullptr);
    for (ptrdiff_t i = 0; i < count; ++i)
      if (const auto part = static_cast<char32_t>(parts[static_cast<size_t>(i)]); !is_old_nonspacing_mark(part))
        append_cased(part, out);
  }

  /// Decomposes the text as a whole.
  bool apply_in_order(std::string_view text, std::string& out) const {
    std::string spaced, decomposed;
    for_each_character(text, [&](char32_t c, std::string_view character) {
      if (is_blank(c))
        spaced += ' ';
      else if (!is_removed(c))
        append_apart(character, is_apart(c), spaced);
    });
    if (!to_unicode_form(UnicodeForm::nfd, spaced, decomposed)) decomposed = spaced;
    out.clear();
    for_each_character(decomposed, [&](char32_t c, std::string_view character) {
      if (c == kInvalid)
        out += character;
      else if (!is_old_nonspacing_mark(c))
        append_cased(c, out);
    });
    return out != text;
  }

  template <class Visit>
  static void for_each_character(std::string_view text, Visit&& visit) {
    for (const char *p = text.data(), *end = p + text.size(); p < end;) {
      const Utf8Char c = decode_utf8(p, end);
      visit(c.code, std::string_view(p, c.size));
      p += c.size;
    }
  }

  BertNormalizerOptions options_;
  std::array<uint16_t, kEnd / kBlock> blocks_;
  std::vector<uint32_t> entries_;
  std::string strings_;
};

}  // namespace

std::unique_ptr<NormalizerStep> make_bert_normalizer(const BertNormalizerOptions& options) {
  return std::make_unique<BertNormalizer>(options);
}

}  // namespace llmtk::text
