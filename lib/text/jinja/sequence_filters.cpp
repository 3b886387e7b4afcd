// The filters that take or give several values.

#include <algorithm>
#include <cctype>
#include <functional>

#include "text/jinja/filters.h"
#include "text/jinja/methods.h"
#include "text/jinja/objects.h"
#include "text/jinja/operators.h"
#include "text/jinja/tests.h"
#include "text/jinja/unicode.h"

namespace llmtk::text::jinja {
namespace {

using Getter = std::function<Value(const Value&)>;

Value generator(std::vector<Value> items) { return Value(std::make_shared<Generator>("generator", std::move(items))); }

/// A parameter that says which attribute of each value is meant: "name", "a.b", 0; null or None: the value itself.
Getter attribute_getter(const Value* attribute, Runtime& runtime, const Value* otherwise = nullptr) {
  std::vector<Value> parts;
  if (attribute && attribute->is_string()) {
    for (const std::string_view part : split_at(attribute->text(), ".", -1, false)) {
      const bool number = !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == part.npos;
      parts.push_back(number ? Value(int64_t{std::stoi(std::string(part))}) : Value(part));
    }
  } else if (attribute && !attribute->is_none()) {
    parts.push_back(*attribute);
  }
  const std::optional<Value> fallback = otherwise && !otherwise->is_none() ? std::optional(*otherwise) : std::nullopt;
  return [parts, fallback, &runtime](const Value& value) {
    Value found = value;
    for (const Value& part : parts) {
      found = get_item(found, part, runtime);
      if (fallback && found.is_undefined()) found = *fallback;
    }
    return found;
  };
}

/// What values are sorted and grouped by: texts in small letters unless `case_sensitive`.
Getter sort_key(const Value* attribute, bool case_sensitive, Runtime& runtime, const Value* otherwise = nullptr) {
  return [get = attribute_getter(attribute, runtime, otherwise), case_sensitive, &runtime](const Value& value) {
    Value key = get(value);
    if (case_sensitive || !key.is_string()) return key;
    runtime.work.spend_bytes(16 * key.text().size());
    return Value(to_lower(key.text()));
  };
}

using Keyed = std::pair<Value, Value>;  // key, value

std::vector<Keyed> sorted_by(const std::vector<Value>& items, const Getter& key, bool reverse, Runtime& runtime) {
  std::vector<Keyed> keyed;
  keyed.reserve(items.size());
  for (const Value& item : items) keyed.emplace_back(key(item), item);
  const auto less = [&](const Keyed& a, const Keyed& b) {
    return compare(reverse ? b.first : a.first, reverse ? a.first : b.first, "<", runtime.work) == -1;
  };
  std::ranges::stable_sort(keyed, less);
  return keyed;
}

Value list_of_values(const std::vector<Keyed>& keyed) {
  std::vector<Value> values;
  values.reserve(keyed.size());
  for (const auto& [key, value] : keyed) values.push_back(value);
  return Value::list(std::move(values));
}

Value sorted(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound bound("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  const bool case_sensitive = bound.flag(1, false);
  std::vector<Getter> getters;
  if (bound.given(2) && bound[2]->is_string()) {
    for (const std::string_view part : split_at(bound[2]->text(), ",", -1, false)) {
      const Value attribute(part);
      getters.push_back(sort_key(&attribute, case_sensitive, runtime));
    }
  } else {
    getters.push_back(sort_key(bound[2], case_sensitive, runtime));
  }
  const auto key = [&](const Value& item) {
    std::vector<Value> keys;
    for (const Getter& get : getters) keys.push_back(get(item));
    return Value::list(std::move(keys));
  };
  return list_of_values(sorted_by(to_list(value, runtime.work), key, bound.flag(0, false), runtime));
}

Value sorted_dict(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound bound("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const std::string by = bound.text_or(1, "key");
  if (by != "key" && by != "value") throw TemplateError{.what = "You can only sort by either \"key\" or \"value\""};
  if (!value.is(Kind::dict)) unsuitable(value, "dictsort() takes a dict, not " + type_name(value));
  std::vector<Value> pairs;
  for (const auto& [key, item] : value.dict().items()) pairs.push_back(Value::tuple({key, item}));
  const Value index(by == "key" ? 0 : 1);
  return list_of_values(
      sorted_by(pairs, sort_key(&index, bound.flag(0, false), runtime), bound.flag(2, false), runtime));
}

Value grouped(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound bound("groupby", arguments, {"attribute", "default", "case_sensitive"}, 1);
  const auto keyed = sorted_by(to_list(value, runtime.work),
                               sort_key(bound[0], bound.flag(2, false), runtime, bound[1]), false, runtime);
  const Getter real_key = attribute_getter(bound[0], runtime, bound[1]);
  std::vector<Value> groups;
  for (size_t begin = 0; begin < keyed.size();) {
    size_t end = begin;
    std::vector<Value> members;
    for (; end < keyed.size() && equal(keyed[end].first, keyed[begin].first, runtime.work); ++end)
      members.push_back(keyed[end].second);
    if (end == begin) members.push_back(keyed[end++].second);  // what is not equal to itself (nan) stands alone
    groups.push_back(Value::tuple({real_key(keyed[begin].second), Value::list(std::move(members))}));
    begin = end;
  }
  return Value::list(std::move(groups));
}

Value unique(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound bound("unique", arguments, {"case_sensitive", "attribute"});
  const Getter key = sort_key(bound[1], bound.flag(0, false), runtime);
  Dict seen;
  std::vector<Value> kept;
  for (const Value& item : to_list(value, runtime.work)) {
    const Value of = key(item);
    if (seen.find(of, runtime.work)) continue;
    seen.set(of, Value(), runtime.work);
    kept.push_back(item);
  }
  return generator(std::move(kept));
}

template <bool largest>
Value extreme(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound bound(largest ? "max" : "min", arguments, {"case_sensitive", "attribute"});
  const Getter key = sort_key(bound[1], bound.flag(0, false), runtime);
  const auto items = to_list(value, runtime.work);
  if (items.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  size_t best = 0;
  Value best_key = key(items[0]);
  for (size_t i = 1; i < items.size(); ++i) {
    const Value other = key(items[i]);
    const int order = compare(other, best_key, largest ? ">" : "<", runtime.work);
    if (order != (largest ? 1 : -1)) continue;
    best = i;
    best_key = other;
  }
  return items[best];
}

Value sum(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound bound("sum", arguments, {"attribute", "start"});
  const Getter get = attribute_getter(bound[0], runtime);
  Value total = bound.given(1) ? *bound[1] : Value(0);
  if (total.is_string()) throw TemplateError{.what = "sum() can't sum strings [use ''.join(seq) instead]"};
  for (const Value& item : to_list(value, runtime.work)) total = arithmetic("+", total, get(item), runtime);
  return total;
}

// --- parts ---

Value first(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound none("first", arguments, {});
  auto item = iterate(value, runtime.work)->next();
  return item ? *item : Value::undefined("No first item, sequence was empty.");
}

/// What reversed() takes: not generators.
std::vector<Value> reversible(const Value& value, Runtime& runtime) {
  const bool generator = value.as<Generator>() != nullptr;
  if (generator || (!value.is(Kind::object) && (value.is_numeric() || value.is_none())) || value.is_undefined())
    unsuitable(value, "'" + type_name(value) + "' object is not reversible");
  return to_list(value, runtime.work);
}

Value last(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound none("last", arguments, {});
  if (value.is_sequence() && !value.items().empty()) return value.items().back();
  const auto items = reversible(value, runtime);
  return items.empty() ? Value::undefined("No last item, sequence was empty.") : items.back();
}

Value reversed(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound none("reverse", arguments, {});
  auto items = to_list(value, runtime.work);
  std::ranges::reverse(items);
  if (!value.is_string()) {
    if (value.as<Generator>()) return Value::list(std::move(items));
    return Value(std::make_shared<Generator>(type_name(value) + "_reverseiterator", std::move(items)));
  }
  return join("", items, runtime);
}

Value listed(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound none("list", arguments, {});
  return Value::list(to_list(value, runtime.work));
}

Value filter_length(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound none("length", arguments, {});
  return Value(static_cast<int64_t>(length(value, runtime.work)));
}

Value items(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound none("items", arguments, {});
  if (value.is_undefined()) return generator({});
  if (!value.is(Kind::dict)) throw TemplateError{.what = "Can only get item pairs from a mapping."};
  std::vector<Value> pairs;
  runtime.work.spend(value.dict().size());
  for (const auto& [key, item] : value.dict().items()) pairs.push_back(Value::tuple({key, item}));
  return generator(std::move(pairs));
}

Value filter_join(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound bound("join", arguments, {"d", "attribute"});
  const std::string separator = bound.given(0) ? str(*bound[0], runtime.work) : "";
  auto parts = to_list(value, runtime.work);
  if (!bound.none(1)) std::ranges::transform(parts, parts.begin(), attribute_getter(bound[1], runtime));
  return join(separator, parts, runtime);
}

Value batched(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound bound("batch", arguments, {"linecount", "fill_with"}, 1);
  const auto size = static_cast<size_t>(std::max<int64_t>(bound.integer(0, 1), 1));
  std::vector<Value> batches, current;
  for (const Value& item : to_list(value, runtime.work)) {
    if (current.size() == size) batches.push_back(Value::list(std::exchange(current, {})));
    current.push_back(item);
  }
  if (!current.empty()) {
    if (!bound.none(1)) {
      runtime.work.spend(size);
      current.resize(size, *bound[1]);
    }
    batches.push_back(Value::list(std::move(current)));
  }
  return generator(std::move(batches));
}

Value sliced(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound bound("slice", arguments, {"slices", "fill_with"}, 1);
  const auto all = to_list(value, runtime.work);
  const int64_t slices = bound.integer(0, 1);
  if (slices == 0) throw TemplateError{.what = "integer division or modulo by zero"};
  runtime.work.spend(static_cast<uint64_t>(std::max<int64_t>(slices, 0)));
  std::vector<Value> out;
  size_t begin = 0;
  for (int64_t i = 0; i < slices; ++i) {
    const bool extra = i < static_cast<int64_t>(all.size()) % slices;
    const size_t end = begin + all.size() / static_cast<size_t>(slices) + extra;
    std::vector<Value> part(all.begin() + static_cast<int64_t>(begin), all.begin() + static_cast<int64_t>(end));
    if (!bound.none(1) && !extra) part.push_back(*bound[1]);
    out.push_back(Value::list(std::move(part)));
    begin = end;
  }
  return generator(std::move(out));
}

// --- functions of each ---

const std::string& name_of(const Value& value, std::string_view of) {
  if (!value.is_string()) throw TemplateError{.what = "the name of a " + std::string(of) + " must be a string"};
  return value.text();
}

Value mapped(Runtime& runtime, const Value& value, const Arguments& arguments) {
  if (!truth(value)) return generator({});
  auto all = to_list(value, runtime.work);
  if (arguments.positional.empty() &&
      std::ranges::any_of(arguments.keyword, [](const auto& argument) { return argument.first == "attribute"; })) {
    const Bound bound("map", arguments, {"attribute", "default"});
    std::ranges::transform(all, all.begin(), attribute_getter(bound[0], runtime, bound[1]));
    return generator(std::move(all));
  }
  if (arguments.positional.empty()) throw TemplateError{.what = "map requires a filter argument"};
  const std::string& name = name_of(arguments.positional[0], "filter");
  constexpr size_t kMostArguments = 64;  // each may be a `map` inside the one before
  if (arguments.positional.size() > kMostArguments) throw TemplateError{.what = "map has too many arguments"};
  const Arguments passed{{arguments.positional.begin() + 1, arguments.positional.end()}, arguments.keyword};
  for (Value& item : all) item = apply_filter(name, item, passed, runtime);
  return generator(std::move(all));
}

/// select, reject; and by an attribute: selectattr, rejectattr.
template <bool wanted, bool by_attribute>
Value selected(Runtime& runtime, const Value& value, const Arguments& arguments) {
  if (!truth(value)) return generator({});
  if (by_attribute && arguments.positional.empty()) throw TemplateError{.what = "Missing parameter for attribute name"};
  const Getter get = attribute_getter(by_attribute ? &arguments.positional[0] : nullptr, runtime);
  constexpr size_t kName = by_attribute;
  const bool has_name = arguments.positional.size() > kName;
  const std::string name = has_name ? name_of(arguments.positional[kName], "test") : "";
  Arguments passed;
  if (has_name) passed = {{arguments.positional.begin() + kName + 1, arguments.positional.end()}, arguments.keyword};
  std::vector<Value> kept;
  for (const Value& item : to_list(value, runtime.work)) {
    const Value of = get(item);
    if ((has_name ? apply_test(name, of, passed, runtime) : truth(of)) == wanted) kept.push_back(item);
  }
  return generator(std::move(kept));
}

}  // namespace

const FilterTable& sequence_filters() {
  static const FilterTable filters = {{"batch", batched},
                                      {"count", filter_length},
                                      {"dictsort", sorted_dict},
                                      {"first", first},
                                      {"groupby", grouped},
                                      {"items", items},
                                      {"join", filter_join},
                                      {"last", last},
                                      {"length", filter_length},
                                      {"list", listed},
                                      {"map", mapped},
                                      {"max", extreme<true>},
                                      {"min", extreme<false>},
                                      {"reject", selected<false, false>},
                                      {"rejectattr", selected<false, true>},
                                      {"reverse", reversed},
                                      {"select", selected<true, false>},
                                      {"selectattr", selected<true, true>},
                                      {"slice", sliced},
                                      {"sort", sorted},
                                      {"sum", sum},
                                      {"unique", unique}};
  return filters;
}

}  // namespace llmtk::text::jinja
