#include "text/jinja/methods.h"

#include <algorithm>
#include <array>
#include <map>

#include "core/utf8.h"
#include "text/jinja/format.h"
#include "text/jinja/objects.h"
#include "text/jinja/unicode.h"

namespace llmtk::text::jinja {
namespace {

using Method = Value (*)(Runtime&, const Value& self, const Arguments&);
using Methods = std::map<std::string_view, Method>;

Value texts(const std::vector<std::string_view>& parts, Work& work) {
  work.spend(parts.size());
  std::vector<Value> items;
  items.reserve(parts.size());
  for (const std::string_view part : parts) items.emplace_back(part);
  return Value::list(std::move(items));
}

// --- str: changed copies ---

template <std::string (*change)(std::string_view)>
Value changed(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Bound none("the method", arguments, {});
  runtime.work.spend_bytes(16 * self.text().size());  // letter by letter
  return Value(change(self.text()));
}

template <bool left, bool right>
Value stripped(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Bound bound("strip", arguments, {"chars"});
  runtime.work.spend_bytes(self.text().size());
  if (bound.none(0)) return Value(strip(self.text(), left, right));
  const std::string_view chars = bound.text(0);
  return Value(strip(self.text(), left, right, &chars));
}

Value replaced(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Bound bound("replace", arguments, {"old", "new", "count"}, 2);
  const std::string &from = bound.text(0), &to = bound.text(1);
  const size_t places = from.empty() ? self.text().size() + 1 : self.text().size() / from.size();
  runtime.work.spend_bytes(self.text().size());
  if (to.size() > from.size()) runtime.work.spend_bytes(places * (to.size() - from.size()) / 8);
  std::string text = replace(self.text(), from, to, bound.integer(2, -1));
  runtime.work.spend_bytes(text.size());
  return Value(std::move(text));
}

template <bool prefix>
Value removed(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Bound bound(prefix ? "removeprefix" : "removesuffix", arguments, {"affix"}, 1);
  const std::string &text = self.text(), &affix = bound.text(0);
  runtime.work.spend_bytes(text.size());
  if (prefix) return Value(text.starts_with(affix) ? text.substr(affix.size()) : text);
  return Value(text.ends_with(affix) ? text.substr(0, text.size() - affix.size()) : text);
}

/// How many fill characters go before and behind: ljust, rjust, center.
enum class Side { left, right, center };
template <Side side>
Value justified(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Bound bound("justify", arguments, {"width", "fillchar"}, 1);
  const std::string fill = bound.text_or(1, " ");
  if (count(fill) != 1) throw TemplateError{.what = "The fill character must be exactly one character long"};
  const auto size = static_cast<int64_t>(count(self.text()));
  const int64_t width = bound.integer(0, 0);
  if (width <= size) return self;
  const int64_t pad = width - size;
  runtime.work.spend(static_cast<uint64_t>(pad) / 16);
  const int64_t before = side == Side::left ? 0 : side == Side::right ? pad : pad / 2 + (pad & width & 1);
  std::string out;
  for (int64_t i = 0; i < before; ++i) out += fill;
  out += self.text();
  for (int64_t i = before; i < pad; ++i) out += fill;
  return Value(std::move(out));
}

Value zero_filled(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Bound bound("zfill", arguments, {"width"}, 1);
  const auto size = static_cast<int64_t>(count(self.text()));
  const int64_t pad = std::max<int64_t>(bound.integer(0, 0) - size, 0);
  runtime.work.spend_bytes(static_cast<size_t>(pad));
  const bool sign = self.text().starts_with('-') || self.text().starts_with('+');
  return Value(self.text().substr(0, sign) + std::string(static_cast<size_t>(pad), '0') + self.text().substr(sign));
}

// --- str: parts ---

template <bool from_right>
Value split(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Bound bound(from_right ? "rsplit" : "split", arguments, {"sep", "maxsplit"});
  const int64_t most = bound.integer(1, -1);
  runtime.work.spend_bytes(self.text().size());
  if (bound.none(0)) return texts(split_words(self.text(), most, from_right), runtime.work);
  if (bound.text(0).empty()) throw TemplateError{.what = "empty separator"};
  return texts(split_at(self.text(), bound.text(0), most, from_right), runtime.work);
}

Value lines(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Bound bound("splitlines", arguments, {"keepends"});
  runtime.work.spend_bytes(self.text().size());
  return texts(split_lines(self.text(), bound.flag(0, false)), runtime.work);
}

template <bool from_right>
Value partition(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Bound bound("partition", arguments, {"sep"}, 1);
  const std::string &text = self.text(), &separator = bound.text(0);
  runtime.work.spend_bytes(text.size());
  if (separator.empty()) throw TemplateError{.what = "empty separator"};
  const size_t at = from_right ? text.rfind(separator) : text.find(separator);
  if (at == std::string::npos) {
    if (from_right) return Value::tuple({Value(""), Value(""), self});
    return Value::tuple({self, Value(""), Value("")});
  }
  return Value::tuple({Value(text.substr(0, at)), Value(separator), Value(text.substr(at + separator.size()))});
}

Value joined(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Bound bound("join", arguments, {"iterable"}, 1);
  if (bound[0]->is_undefined()) return Value("");
  const auto items = to_list(*bound[0], runtime.work);
  for (size_t i = 0; i < items.size(); ++i)
    if (!items[i].is_string())
      throw TemplateError{.what = "sequence item " + std::to_string(i) + ": expected str instance, " +
                                  type_name(items[i]) + " found"};
  return join(self.text(), items, runtime);
}

// --- str: questions ---

/// Bytes of `text` between two places in code points, as the arguments `start` and `end` of find() and the like say.
struct Window {
  size_t begin, end;
  bool valid;  // else start lies behind the end
};

Window window(const std::string& text, const Bound& bound, size_t start_index) {
  const bool whole = bound.none(start_index) && bound.none(start_index + 1);
  if (whole) return {0, text.size(), true};
  const auto size = static_cast<int64_t>(count(text));
  const auto place = [&](size_t i, int64_t otherwise) {
    const int64_t at = bound.none(i) ? otherwise : bound.integer(i, otherwise);
    return at < 0 ? std::max<int64_t>(at + size, 0) : at;
  };
  const int64_t start = place(start_index, 0), end = std::min(place(start_index + 1, size), size);
  if (start > end) return {0, 0, false};
  return {byte_offset(text, static_cast<size_t>(start)), byte_offset(text, static_cast<size_t>(end)), true};
}

template <bool prefix>
Value affixed(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Bound bound(prefix ? "startswith" : "endswith", arguments, {"affix", "start", "end"}, 1);
  const Window part = window(self.text(), bound, 1);
  const std::string_view text = std::string_view(self.text()).substr(part.begin, part.end - part.begin);
  const auto matches = [&](const Value& affix) {
    if (!affix.is_string())
      unsuitable(affix, std::string(prefix ? "startswith" : "endswith") +
                            " first arg must be str or a tuple of str, not " + type_name(affix));
    return part.valid && (prefix ? text.starts_with(affix.text()) : text.ends_with(affix.text()));
  };
  if (!bound[0]->is(Kind::tuple)) return Value(matches(*bound[0]));
  runtime.work.spend(bound[0]->items().size());
  return Value(std::ranges::any_of(bound[0]->items(), matches));
}

template <bool from_right, bool must_be_there>
Value found(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Bound bound(must_be_there ? "index" : "find", arguments, {"sub", "start", "end"}, 1);
  runtime.work.spend_bytes(self.text().size());
  const std::string& wanted = bound.text(0);
  const Window part = window(self.text(), bound, 1);
  const std::string_view text = std::string_view(self.text()).substr(part.begin, part.end - part.begin);
  const size_t at = !part.valid ? text.npos : from_right ? text.rfind(wanted) : text.find(wanted);
  if (at != text.npos)
    return Value(static_cast<int64_t>(count(std::string_view(self.text()).substr(0, part.begin + at))));
  if (must_be_there) throw TemplateError{.what = "substring not found"};
  return Value(-1);
}

Value counted(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Bound bound("count", arguments, {"sub", "start", "end"}, 1);
  runtime.work.spend_bytes(self.text().size());
  const std::string& wanted = bound.text(0);
  const Window part = window(self.text(), bound, 1);
  if (!part.valid) return Value(0);
  const std::string_view text = std::string_view(self.text()).substr(part.begin, part.end - part.begin);
  if (wanted.empty()) return Value(static_cast<int64_t>(count(text)) + 1);
  int64_t found = 0;
  for (size_t at = 0; (at = text.find(wanted, at)) != text.npos; at += wanted.size()) ++found;
  return Value(found);
}

/// Whether the text is not empty and every character is of a kind.
template <bool (*of_kind)(int32_t)>
Value all_are(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Bound none("the method", arguments, {});
  runtime.work.spend_bytes(16 * self.text().size());
  const auto all = characters(self.text());
  return Value(!all.empty() && std::ranges::all_of(all, [](std::string_view character) {
    size_t at = 0;
    return of_kind(next_code_point(character, at));
  }));
}

/// islower, isupper: some character has a case, and none has the other.
template <bool (*wanted)(int32_t), bool (*other)(int32_t)>
Value cased(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Bound none("the method", arguments, {});
  runtime.work.spend_bytes(16 * self.text().size());
  bool any = false;
  for (size_t i = 0; i < self.text().size();) {
    const int32_t c = next_code_point(self.text(), i);
    if (other(c) || is_title(c)) return Value(false);
    any = any || wanted(c);
  }
  return Value(any);
}

Value is_titled(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Bound none("istitle", arguments, {});
  runtime.work.spend_bytes(16 * self.text().size());
  bool any = false, inside = false;
  for (size_t i = 0; i < self.text().size();) {
    const int32_t c = next_code_point(self.text(), i);
    if (is_upper(c) || is_title(c)) {
      if (inside) return Value(false);
      any = inside = true;
    } else if (is_lower(c)) {
      if (!inside) return Value(false);
    } else {
      inside = false;
    }
  }
  return Value(any);
}

Value is_ascii(Runtime&, const Value& self, const Arguments& arguments) {
  const Bound none("isascii", arguments, {});
  return Value(std::ranges::all_of(self.text(), [](char c) { return static_cast<unsigned char>(c) < 0x80; }));
}

Value formatted(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return Value(format_braces(self.text(), arguments, runtime));
}

const Methods kStringMethods = {{"capitalize", changed<capitalize>},
                                {"center", justified<Side::center>},
                                {"count", counted},
                                {"endswith", affixed<false>},
                                {"find", found<false, false>},
                                {"format", formatted},
                                {"index", found<false, true>},
                                {"isalnum", all_are<is_alphanumeric>},
                                {"isalpha", all_are<is_alpha>},
                                {"isascii", is_ascii},
                                {"isdecimal", all_are<is_decimal>},
                                {"isdigit", all_are<is_digit>},
                                {"islower", cased<is_lower, is_upper>},
                                {"isspace", all_are<is_space>},
                                {"istitle", is_titled},
                                {"isupper", cased<is_upper, is_lower>},
                                {"join", joined},
                                {"ljust", justified<Side::left>},
                                {"lower", changed<to_lower>},
                                {"lstrip", stripped<true, false>},
                                {"partition", partition<false>},
                                {"removeprefix", removed<true>},
                                {"removesuffix", removed<false>},
                                {"replace", replaced},
                                {"rfind", found<true, false>},
                                {"rindex", found<true, true>},
                                {"rjust", justified<Side::right>},
                                {"rpartition", partition<true>},
                                {"rsplit", split<true>},
                                {"rstrip", stripped<false, true>},
                                {"split", split<false>},
                                {"splitlines", lines},
                                {"startswith", affixed<true>},
                                {"strip", stripped<true, true>},
                                {"swapcase", changed<swap_case>},
                                {"title", changed<to_title>},
                                {"upper", changed<to_upper>},
                                {"zfill", zero_filled}};
constexpr std::array kOtherStringMethods = {"casefold",  "encode",      "expandtabs", "format_map", "isidentifier",
                                            "isnumeric", "isprintable", "maketrans",  "translate"};

// --- list, tuple ---

Value item_count(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Bound bound("count", arguments, {"value"}, 1);
  return Value(static_cast<int64_t>(
      std::ranges::count_if(self.items(), [&](const Value& item) { return equal(item, *bound[0], runtime.work); })));
}

Value item_index(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Bound bound("index", arguments, {"value", "start", "stop"}, 1);
  const auto size = static_cast<int64_t>(self.items().size());
  const auto place = [&](size_t i, int64_t otherwise) {
    const int64_t at = bound.integer(i, otherwise);
    return std::clamp<int64_t>(at < 0 ? at + size : at, 0, size);
  };
  for (int64_t i = place(1, 0); i < place(2, size); ++i)
    if (equal(self.items()[static_cast<size_t>(i)], *bound[0], runtime.work)) return Value(i);
  throw TemplateError{.what = repr(*bound[0], runtime.work) + " is not in " + type_name(self)};
}

Value same(Runtime&, const Value& self, const Arguments& arguments) {  // nothing can change a list or a dict
  const Bound none("copy", arguments, {});
  return self;
}

const Methods kListMethods = {{"copy", same}, {"count", item_count}, {"index", item_index}};
constexpr std::array kListChanges = {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"};
const Methods kTupleMethods = {{"count", item_count}, {"index", item_index}};

// --- dict ---

Value get(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Bound bound("get", arguments, {"key", "default"}, 1);
  const Value* found = self.dict().find(*bound[0], runtime.work);
  return found ? *found : bound.given(1) ? *bound[1] : Value();
}

template <View::Of of>
Value view(Runtime&, const Value& self, const Arguments& arguments) {
  const Bound none("the method", arguments, {});
  return Value(std::make_shared<View>(self, of));
}

const Methods kDictMethods = {{"copy", same},
                              {"get", get},
                              {"items", view<View::Of::items>},
                              {"keys", view<View::Of::keys>},
                              {"values", view<View::Of::values>}};
constexpr std::array kDictChanges = {"clear", "pop", "popitem", "setdefault", "update"};
constexpr std::array kOtherDictMethods = {"fromkeys"};

// --- numbers ---

constexpr std::array kNumberAttributes = {"as_integer_ratio", "bit_count", "bit_length", "conjugate",
                                          "denominator",      "hex",       "imag",       "is_integer",
                                          "numerator",        "real",      "to_bytes"};

bool among(const auto& names, std::string_view name) { return std::ranges::find(names, name) != std::end(names); }

Value unsupported(const Value& self, std::string_view name) {
  const std::string what = "the method '" + std::string(name) + "' of " + type_name(self) + " is not supported";
  return Value(std::make_shared<NativeFunction>(
      std::string(name), [what](Runtime&, const Arguments&) -> Value { throw TemplateError{.what = what}; }));
}

Value forbidden(const Value& self, std::string_view name) {
  return Value::undefined("access to attribute '" + std::string(name) + "' of '" + type_name(self) +
                          "' object is unsafe.");
}

const Methods* methods_of(const Value& value) {
  switch (value.kind()) {
    case Kind::string:
      return &kStringMethods;
    case Kind::list:
      return &kListMethods;
    case Kind::tuple:
      return &kTupleMethods;
    case Kind::dict:
      return &kDictMethods;
    default:
      return nullptr;
  }
}

}  // namespace

Value join(std::string_view separator, const std::vector<Value>& items, Runtime& runtime) {
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    runtime.work.spend_bytes(separator.size());
    if (i > 0) out += separator;
    out += str(items[i], runtime.work);
  }
  return Value(std::move(out));
}

std::optional<Value> get_method(const Value& value, std::string_view name) {
  if (value.is_numeric())
    return among(kNumberAttributes, name) ? std::optional(unsupported(value, name)) : std::nullopt;
  const Methods* methods = methods_of(value);
  if (!methods) return std::nullopt;
  if (const auto found = methods->find(name); found != methods->end()) {
    auto bound = [value, method = found->second](Runtime& runtime, const Arguments& arguments) {
      runtime.work.spend();
      if (value.is_markup())
        throw TemplateError{.what = "methods of what `safe` or `escape` gave are not supported",
                            .hint = "nothing is escaped in chat templates: leave the filter away"};
      return method(runtime, value, arguments);
    };
    return Value(std::make_shared<NativeFunction>(std::string(name), std::move(bound), value.depth()));
  }
  if ((value.is(Kind::list) && among(kListChanges, name)) || (value.is(Kind::dict) && among(kDictChanges, name)))
    return forbidden(value, name);
  if ((value.is_string() && among(kOtherStringMethods, name)) ||
      (value.is(Kind::dict) && among(kOtherDictMethods, name)))
    return unsupported(value, name);
  return std::nullopt;
}

}  // namespace llmtk::text::jinja
