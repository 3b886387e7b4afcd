#include "text/jinja/operators.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "text/jinja/format.h"
#include "text/jinja/methods.h"
#include "text/jinja/objects.h"
#include "text/jinja/unicode.h"

namespace llmtk::text::jinja {
namespace {

[[noreturn]] void too_large() { throw TemplateError{.what = "a whole number of more than 64 bits"}; }
[[noreturn]] void by_zero() { throw TemplateError{.what = "division by zero"}; }

int64_t power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) too_large();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) too_large();
  }
  return result;
}

int64_t floor_divide(int64_t a, int64_t b) {
  if (b == 0) by_zero();
  if (b == -1) {
    int64_t negated;
    if (__builtin_sub_overflow(int64_t{0}, a, &negated)) too_large();
    return negated;
  }
  return a / b - ((a % b != 0) && ((a < 0) != (b < 0)));
}

Value integers(std::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  if (op == "+") {
    if (__builtin_add_overflow(a, b, &result)) too_large();
  } else if (op == "-") {
    if (__builtin_sub_overflow(a, b, &result)) too_large();
  } else if (op == "*") {
    if (__builtin_mul_overflow(a, b, &result)) too_large();
  } else if (op == "/") {
    if (b == 0) by_zero();
    return Value(static_cast<double>(static_cast<long double>(a) / static_cast<long double>(b)));
  } else if (op == "//") {
    result = floor_divide(a, b);
  } else if (op == "%") {
    if (b == 0) by_zero();
    result = b == -1 ? 0 : a - floor_divide(a, b) * b;
  } else {
    if (b < 0 && a == 0) throw TemplateError{.what = "0.0 cannot be raised to a negative power"};
    if (b < 0) return Value(std::pow(static_cast<double>(a), static_cast<double>(b)));
    result = power(a, b);
  }
  return Value(result);
}

/// Python's float remainder: of the divisor's sign.
double remainder(double a, double b) {
  const double mod = std::fmod(a, b);
  if (mod == 0) return std::copysign(0.0, b);
  return (b < 0) != (mod < 0) ? mod + b : mod;
}

double floor_divide(double a, double b) {
  double mod = std::fmod(a, b);
  double div = (a - mod) / b;
  if (mod != 0 && (b < 0) != (mod < 0)) div -= 1;
  if (div == 0) return std::copysign(0.0, a / b);
  const double floored = std::floor(div);
  return div - floored > 0.5 ? floored + 1 : floored;
}

Value numbers(std::string_view op, double a, double b) {
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "**") {
    if (a == 0 && b < 0) throw TemplateError{.what = "0.0 cannot be raised to a negative power"};
    if (a < 0 && std::isfinite(b) && b != std::floor(b))
      throw TemplateError{.what = "a negative number cannot be raised to a fractional power here"};
    const double result = std::pow(a, b);
    if (std::isinf(result) && std::isfinite(a) && std::isfinite(b))
      throw TemplateError{.what = "a number too large for a float"};
    return Value(result);
  }
  if (b == 0) by_zero();
  if (op == "/") return Value(a / b);
  if (op == "//") return Value(floor_divide(a, b));
  return Value(remainder(a, b));
}

[[noreturn]] void unsupported(std::string_view op, const Value& a, const Value& b) {
  for (const Value* side : {&a, &b})
    if (side->is_undefined()) throw TemplateError{.what = side->undefined_message()};
  if (op == "+" && (a.is_string() || a.is_sequence()))
    throw TemplateError{.what = "can only concatenate " + type_name(a) + " (not \"" + type_name(b) + "\") to " +
                                type_name(a)};
  throw TemplateError{.what = "unsupported operand type(s) for " + std::string(op) + ": '" + type_name(a) + "' and '" +
                              type_name(b) + "'"};
}

Value repeat(const Value& value, int64_t times, Work& work) {
  const auto n = static_cast<uint64_t>(std::max<int64_t>(times, 0));
  const size_t size = value.is_string() ? value.text().size() : value.items().size();
  uint64_t total = 0;
  if (__builtin_mul_overflow(n, uint64_t{size}, &total)) total = UINT64_MAX / 2;
  value.is_string() ? work.spend_bytes(total) : work.spend(total);
  if (value.is_string()) {
    std::string text;
    text.reserve(total);
    for (uint64_t i = 0; size > 0 && i < n; ++i) text += value.text();
    return Value(std::move(text));
  }
  std::vector<Value> items;
  items.reserve(total);
  for (uint64_t i = 0; size > 0 && i < n; ++i) items.insert(items.end(), value.items().begin(), value.items().end());
  return value.is(Kind::tuple) ? Value::tuple(std::move(items)) : Value::list(std::move(items));
}

Value concatenate(const Value& a, const Value& b, Work& work) {
  if (a.is_string()) {
    work.spend_bytes(a.text().size() + b.text().size());
    return Value(a.text() + b.text());
  }
  work.spend(a.items().size() + b.items().size());
  std::vector<Value> items = a.items();
  items.insert(items.end(), b.items().begin(), b.items().end());
  return a.is(Kind::tuple) ? Value::tuple(std::move(items)) : Value::list(std::move(items));
}

}  // namespace

Value arithmetic(std::string_view op, const Value& a, const Value& b, Runtime& runtime) {
  if (a.is_numeric() && b.is_numeric()) {
    if (a.is_integral() && b.is_integral()) return integers(op, a.integral(), b.integral());
    return numbers(op, a.numeric(), b.numeric());
  }
  if (a.is_markup() || b.is_markup())
    throw TemplateError{.what = "operators on what `safe` or `escape` gave are not supported",
                        .hint = "nothing is escaped in chat templates: leave the filter away"};
  if (op == "+" && a.kind() == b.kind() && (a.is_string() || a.is_sequence())) return concatenate(a, b, runtime.work);
  if (op == "*") {
    if ((a.is_string() || a.is_sequence()) && b.is_integral()) return repeat(a, b.integral(), runtime.work);
    if ((b.is_string() || b.is_sequence()) && a.is_integral()) return repeat(b, a.integral(), runtime.work);
  }
  if (op == "%" && a.is_string()) return Value(format_percent(a.text(), b, runtime));
  unsupported(op, a, b);
}

Value negate(const Value& value) {
  if (value.is(Kind::number)) return Value(-value.numeric());
  if (!value.is_integral()) unsuitable(value, "bad operand type for unary -: '" + type_name(value) + "'");
  return integers("-", 0, value.integral());
}

Value posit(const Value& value) {
  if (value.is(Kind::number)) return value;
  if (!value.is_integral()) unsuitable(value, "bad operand type for unary +: '" + type_name(value) + "'");
  return Value(value.integral());
}

// --- attributes and items ---

namespace {

std::string shown_type(const Value& value) { return value.is_none() ? "None" : type_name(value) + " object"; }

Value no_attribute(const Value& value, std::string_view name) {
  return Value::undefined("'" + shown_type(value) + "' has no attribute '" + std::string(name) + "'");
}

/// What getattr() finds.
std::optional<Value> attribute_of(const Value& value, std::string_view name) {
  if (value.is(Kind::object)) return value.object().attribute(name);
  return get_method(value, name);
}

/// The place in a sequence of `size` items, counted from the end where negative; nullopt: beyond.
std::optional<size_t> place(int64_t index, size_t size) {
  if (index < 0) index += static_cast<int64_t>(size);
  if (index < 0 || static_cast<uint64_t>(index) >= size) return std::nullopt;
  return static_cast<size_t>(index);
}

Value character_at(const std::string& text, int64_t index, Work& work) {
  work.spend_bytes(text.size());
  const size_t size = count(text);
  const auto at = place(index, size);
  if (!at) return Value::undefined({});
  if (one_byte_each(text, size)) return Value(text.substr(*at, 1));
  const size_t begin = byte_offset(text, *at);
  return Value(text.substr(begin, byte_offset(std::string_view(text).substr(begin), 1)));
}

/// value[index] as Python's own subscription finds it.
std::optional<Value> item_of(const Value& value, const Value& index, Work& work) {
  if (value.is(Kind::dict)) {
    if (index.is(Kind::list) || index.is(Kind::dict)) return std::nullopt;
    const Value* found = value.dict().find(index, work);
    return found ? std::optional(*found) : std::nullopt;
  }
  if (!index.is_integral()) return std::nullopt;
  if (value.is_string()) {
    const Value character = character_at(value.text(), index.integral(), work);
    return character.is_undefined() ? std::nullopt : std::optional(character);
  }
  if (value.is_sequence()) {
    const auto at = place(index.integral(), value.items().size());
    return at ? std::optional(value.items()[*at]) : std::nullopt;
  }
  if (const auto* range = value.as<Range>()) {
    const auto at = place(index.integral(), range->size());
    return at ? std::optional(Value(range->at(static_cast<int64_t>(*at)))) : std::nullopt;
  }
  return std::nullopt;
}

}  // namespace

Value get_attribute(const Value& value, std::string_view name, Runtime& runtime) {
  if (value.is_undefined()) throw TemplateError{.what = value.undefined_message()};
  if (auto found = attribute_of(value, name)) return *found;
  if (value.is(Kind::dict))
    if (const Value* found = value.dict().find(name)) return *found;
  runtime.work.spend();
  return no_attribute(value, name);
}

Value get_item(const Value& value, const Value& index, Runtime& runtime) {
  if (value.is_undefined()) throw TemplateError{.what = value.undefined_message()};
  if (auto found = item_of(value, index, runtime.work)) return *found;
  runtime.work.spend();
  if (!index.is_string()) return Value::undefined(shown_type(value) + " has no element " + repr(index, runtime.work));
  if (auto found = attribute_of(value, index.text())) return *found;
  return no_attribute(value, index.text());
}

// --- slices ---

namespace {

struct SliceBounds {
  int64_t start, step;
  size_t count;
};

std::optional<int64_t> slice_index(const Value& value) {
  if (value.is_none()) return std::nullopt;
  if (!value.is_integral()) unsuitable(value, "slice indices must be integers or None");
  return value.integral();
}

/// Python's slice.indices().
SliceBounds bounds(const Value& start, const Value& stop, const Value& step_value, size_t size) {
  const int64_t step = slice_index(step_value).value_or(1);
  if (step == 0) throw TemplateError{.what = "slice step cannot be zero"};
  const auto n = static_cast<int64_t>(size);
  const int64_t lowest = step < 0 ? -1 : 0, highest = step < 0 ? n - 1 : n;
  const auto clamp = [&](std::optional<int64_t> index, int64_t otherwise) {
    if (!index) return otherwise;
    const int64_t at = *index < 0 ? (*index < -n ? lowest : *index + n) : *index;
    return std::clamp(at, lowest, std::max(lowest, highest));
  };
  const int64_t first = clamp(slice_index(start), step < 0 ? highest : lowest);
  const int64_t last = clamp(slice_index(stop), step < 0 ? lowest : highest);
  const auto distance = static_cast<uint64_t>(step < 0 ? first - last : last - first);
  const bool none = step < 0 ? last >= first : first >= last;
  const uint64_t stride = step < 0 ? uint64_t{0} - static_cast<uint64_t>(step) : static_cast<uint64_t>(step);
  return {first, step, none ? 0 : static_cast<size_t>((distance - 1) / stride + 1)};
}

Value slice_text(const std::string& text, const Value& start, const Value& stop, const Value& step, Work& work) {
  work.spend_bytes(text.size());
  const size_t size = count(text);
  const SliceBounds slice = bounds(start, stop, step, size);
  if (slice.count == 0) return Value("");
  const auto first = static_cast<size_t>(slice.start);
  if (slice.step == 1) {
    if (one_byte_each(text, size)) return Value(text.substr(first, slice.count));
    const size_t begin = byte_offset(text, first);
    return Value(text.substr(begin, byte_offset(std::string_view(text).substr(begin), slice.count)));
  }
  work.spend(size / 16);
  const auto all = characters(text);
  std::string out;
  for (size_t i = 0; i < slice.count; ++i)
    out += all[static_cast<size_t>(slice.start + static_cast<int64_t>(i) * slice.step)];
  return Value(std::move(out));
}

}  // namespace

Value get_slice(const Value& value, const Value& start, const Value& stop, const Value& step, Runtime& runtime) {
  if (value.is_string()) return slice_text(value.text(), start, stop, step, runtime.work);
  if (value.is_sequence()) {
    const SliceBounds slice = bounds(start, stop, step, value.items().size());
    runtime.work.spend(slice.count);
    std::vector<Value> items;
    items.reserve(slice.count);
    for (size_t i = 0; i < slice.count; ++i)
      items.push_back(value.items()[static_cast<size_t>(slice.start + static_cast<int64_t>(i) * slice.step)]);
    return value.is(Kind::tuple) ? Value::tuple(std::move(items)) : Value::list(std::move(items));
  }
  if (const auto* range = value.as<Range>()) {
    const SliceBounds slice = bounds(start, stop, step, range->size());
    const int64_t stride = slice.count > 1 ? slice.step : 1;  // a single number has none, and it may be enormous
    const int64_t last = slice.start + static_cast<int64_t>(slice.count) * stride;
    return Value(std::make_shared<Range>(range->at(slice.start), range->at(last), stride * range->step()));
  }
  if (value.is(Kind::dict)) throw TemplateError{.what = "unhashable type: 'slice'"};
  unsuitable(value, "'" + type_name(value) + "' object is not subscriptable");
}

}  // namespace llmtk::text::jinja
