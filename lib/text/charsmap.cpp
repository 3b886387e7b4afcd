#include "text/charsmap.h"

#include <utf8proc.h>

#include <array>
#include <cstdint>
#include <vector>

#include "core/error.h"
#include "core/utf8.h"
#include "text/unicode.h"

namespace llmtk::text {
namespace {

/// Whether a grapheme surely ends between two characters of this kind, whatever stands around them.
bool stands_alone(char32_t c) {
  if (c < 0x300) return c != '\r' && c != '\n';
  const bool is_mark = (c >= 0x302A && c <= 0x302F) || c == 0x3099 || c == 0x309A;
  return c >= 0x2E80 && c < 0xA000 && !is_mark;
}

/// A double array as of darts-clone, and the texts that its values point to.
struct DoubleArray {
  static constexpr uint32_t kIsValue = 1u << 31;  // a unit of that kind; the other bits are the value

  std::vector<uint32_t> units;
  std::string texts;

  /// What is wrong with the bytes; empty where nothing is.
  std::string read(std::string_view bytes) {
    const auto word = [&](size_t at) {
      uint32_t value = 0;
      for (size_t i = 4; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
      return value;
    };
    if (bytes.size() < 4) return "it is shorter than its header";
    const size_t size = word(0);
    if (size % 4 != 0 || size == 0 || size > bytes.size() - 4)
      return "a table of " + std::to_string(size) + " bytes in " + std::to_string(bytes.size());
    for (size_t i = 0; i < size / 4; ++i) units.push_back(word(4 + 4 * i));
    texts = bytes.substr(4 + size);
    return find_invalid_utf8(texts) == texts.npos ? "" : "its texts are not UTF-8";
  }
  /// How far from a unit those are that follow it: from there a byte's bits are changed.
  static size_t offset(uint32_t unit) { return size_t{unit >> 10} << ((unit & (1u << 9)) >> 6); }
  static bool has_value(uint32_t unit) { return unit >> 8 & 1; }
};

class Precompiled : public NormalizerStep {
 public:
  Precompiled(std::string_view charsmap, const std::string& where, const std::string& path) {
    if (const std::string problem = array_.read(charsmap); !problem.empty())
      throw Error(Exit::file, {.what = path + ": not a precompiled charsmap: " + problem, .where = where});
    for (size_t c = 0; c < kept_.size(); ++c) {
      const char character = static_cast<char>(c);
      kept_[c] = stands_alone(static_cast<char32_t>(c)) && !find({&character, 1});
    }
  }

  bool apply(std::string_view text, std::string& out) const override {
    out.clear();
    out.reserve(text.size() + text.size() / 8);
    for (size_t at = 0; at < text.size();) {
      const size_t kept = kept_run(text.substr(at));
      out += text.substr(at, kept);
      at += kept;
      if (at == text.size()) break;
      const size_t size = grapheme_size(text.substr(at));
      append_grapheme(text.substr(at, size), out);
      at += size;
    }
    return out != text;
  }

 private:
  /// The length of the ASCII text at the front that stays as it is: nothing joins it with what follows.
  size_t kept_run(std::string_view text) const {
    size_t size = 0;
    while (size < text.size() && static_cast<unsigned char>(text[size]) < kept_.size() &&
           kept_[static_cast<unsigned char>(text[size])])
      ++size;
    // A mark may follow the last one.
    return size < text.size() && static_cast<unsigned char>(text[size]) >= kept_.size() && size > 0 ? size - 1 : size;
  }

  static size_t grapheme_size(std::string_view text) {
    const char* const end = text.data() + text.size();
    Utf8Char c = decode_utf8(text.data(), end);
    size_t size = c.size;
    utf8proc_int32_t state = 0;
    while (size < text.size() && c.code != kInvalid) {
      const Utf8Char next = decode_utf8(text.data() + size, end);
      if (next.code == kInvalid || (stands_alone(c.code) && stands_alone(next.code))) break;
      if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(c.code),
                                           static_cast<utf8proc_int32_t>(next.code), &state))
        break;
      size += next.size;
      c = next;
    }
    return size;
  }

  void append_grapheme(std::string_view grapheme, std::string& out) const {
    constexpr size_t kMaxWhole = 5;  // bytes of one that is looked up as a whole
    if (grapheme.size() <= kMaxWhole) {
      if (const auto becomes = find(grapheme)) {
        out += *becomes;
        return;
      }
    }
    for (const char *p = grapheme.data(), *end = p + grapheme.size(); p < end;) {
      const std::string_view character(p, decode_utf8(p, end).size);
      out += find(character).value_or(character);
      p += character.size();
    }
  }

  /// What the shortest key becomes that `text` begins with.
  std::optional<std::string_view> find(std::string_view text) const {
    const auto& units = array_.units;
    size_t node = DoubleArray::offset(units[0]);
    for (const char byte : text) {
      const uint32_t label = static_cast<unsigned char>(byte);
      node ^= label;
      if (label == 0 || node >= units.size()) break;
      const uint32_t unit = units[node];
      if ((unit & (DoubleArray::kIsValue | 0xFF)) != label) break;
      node ^= DoubleArray::offset(unit);
      if (!DoubleArray::has_value(unit)) continue;
      if (node >= units.size()) break;
      const size_t at = units[node] & ~DoubleArray::kIsValue;
      if (at > array_.texts.size()) break;
      return std::string_view(array_.texts).substr(at, array_.texts.find('\0', at) - at);
    }
    return std::nullopt;
  }

  DoubleArray array_;
  std::array<bool, 128> kept_{};  // ASCII that has no mapping
};

}  // namespace

std::unique_ptr<NormalizerStep> make_precompiled(std::string_view charsmap, const std::string& where,
                                                 const std::string& path) {
  return std::make_unique<Precompiled>(charsmap, where, path);
}

std::string problem_of_charsmap(std::string_view charsmap) {
  DoubleArray array;
  if (std::string problem = array.read(charsmap); !problem.empty()) return problem;
  const size_t count = array.units.size();
  for (size_t i = 0; i < count; ++i) {
    const uint32_t unit = array.units[i];
    if (unit & DoubleArray::kIsValue) continue;
    const size_t next = i ^ DoubleArray::offset(unit);
    if ((next | 0xFF) >= count) return "unit " + std::to_string(i) + " of its table points outside";
    if (DoubleArray::has_value(unit) && (array.units[next] & ~DoubleArray::kIsValue) > array.texts.size())
      return "unit " + std::to_string(next) + " of its table points behind its texts";
  }
  return "";
}

std::optional<std::string> decode_base64(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  while (text.ends_with('=')) text.remove_suffix(1);
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3 + 3);
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    uint32_t value = 0;
    if (c >= 'A' && c <= 'Z')
      value = static_cast<uint32_t>(c - 'A');
    else if (c >= 'a' && c <= 'z')
      value = static_cast<uint32_t>(c - 'a' + 26);
    else if (c >= '0' && c <= '9')
      value = static_cast<uint32_t>(c - '0' + 52);
    else if (c == '+')
      value = 62;
    else if (c == '/')
      value = 63;
    else
      return std::nullopt;
    bits = bits << 6 | value;
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes += static_cast<char>(bits >> count);
  }
  return bytes;
}

}  // namespace llmtk::text
