#include "text/jinja/tests.h"

#include <map>

#include "text/jinja/filters.h"
#include "text/jinja/methods.h"
#include "text/jinja/objects.h"
#include "text/jinja/operators.h"

namespace llmtk::text::jinja {
namespace {

using TestBody = bool (*)(Runtime&, const Value&, const Bound&);

struct Entry {
  TestBody body;
  int parameters;  // 0 or 1
};

template <Kind... kinds>
bool of_kind(Runtime&, const Value& value, const Bound&) {
  return (value.is(kinds) || ...);
}

template <bool expected>
bool is_boolean(Runtime&, const Value& value, const Bound&) {
  return value.is(Kind::boolean) && value.boolean() == expected;
}

/// value % number == rest
bool leaves(Runtime& runtime, const Value& value, const Value& number, int rest) {
  return equal(arithmetic("%", value, number, runtime), Value(rest), runtime.work);
}

bool is_cased(Runtime& runtime, const Value& value, std::string_view method) {
  Arguments none;
  return truth(get_method(Value(str(value, runtime.work)), method)->object().call(runtime, none));
}

bool is_sequence(Runtime&, const Value& value, const Bound&) {
  if (value.is_string() || value.is_sequence() || value.is(Kind::dict) || value.is_undefined()) return true;
  return value.as<Range>() != nullptr;
}

bool is_iterable(Runtime&, const Value& value, const Bound&) {
  if (value.is(Kind::object)) return value.object().iterate() != nullptr;
  return !value.is_numeric() && !value.is_none();
}

/// "name is filter", "name is test": looked up as a key would be.
bool is_name_of(bool (*has)(std::string_view), const Value& value) {
  if (value.is(Kind::list) || value.is(Kind::dict))
    throw TemplateError{.what = "unhashable type: '" + type_name(value) + "'"};
  return value.is_string() && has(value.text());
}

/// Comparisons, under the names that Jinja2 gives them.
enum class Order { less, less_equal, greater, greater_equal };
template <Order wanted>
bool ordered(Runtime& runtime, const Value& value, const Bound& bound) {
  constexpr const char* names[] = {"<", "<=", ">", ">="};
  const int order = compare(value, *bound[0], names[static_cast<int>(wanted)], runtime.work);
  switch (wanted) {
    case Order::less:
      return order == -1;
    case Order::less_equal:
      return order == -1 || order == 0;
    case Order::greater:
      return order == 1;
    case Order::greater_equal:
      break;
  }
  return order == 1 || order == 0;
}

bool is_equal(Runtime& runtime, const Value& value, const Bound& bound) {
  return equal(value, *bound[0], runtime.work);
}
bool is_unequal(Runtime& runtime, const Value& value, const Bound& bound) {
  return !equal(value, *bound[0], runtime.work);
}

const std::map<std::string_view, Entry>& test_table() {
  static const std::map<std::string_view, Entry> entries = {
      {"defined", {[](Runtime&, const Value& v, const Bound&) { return !v.is_undefined(); }, 0}},
      {"undefined", {of_kind<Kind::undefined>, 0}},
      {"none", {of_kind<Kind::none>, 0}},
      {"boolean", {of_kind<Kind::boolean>, 0}},
      {"true", {is_boolean<true>, 0}},
      {"false", {is_boolean<false>, 0}},
      {"integer", {of_kind<Kind::integer>, 0}},
      {"float", {of_kind<Kind::number>, 0}},
      {"number", {of_kind<Kind::integer, Kind::number, Kind::boolean>, 0}},
      {"string", {of_kind<Kind::string>, 0}},
      {"mapping", {of_kind<Kind::dict>, 0}},
      {"sequence", {is_sequence, 0}},
      {"iterable", {is_iterable, 0}},
      {"callable",
       {[](Runtime&, const Value& v, const Bound&) {
          return v.is_undefined() || (v.is(Kind::object) && v.object().callable());
        },
        0}},
      {"escaped", {[](Runtime&, const Value& v, const Bound&) { return v.is_markup(); }, 0}},
      {"odd", {[](Runtime& r, const Value& v, const Bound&) { return leaves(r, v, Value(2), 1); }, 0}},
      {"even", {[](Runtime& r, const Value& v, const Bound&) { return leaves(r, v, Value(2), 0); }, 0}},
      {"divisibleby", {[](Runtime& r, const Value& v, const Bound& b) { return leaves(r, v, *b[0], 0); }, 1}},
      {"lower", {[](Runtime& r, const Value& v, const Bound&) { return is_cased(r, v, "islower"); }, 0}},
      {"upper", {[](Runtime& r, const Value& v, const Bound&) { return is_cased(r, v, "isupper"); }, 0}},
      {"filter", {[](Runtime&, const Value& v, const Bound&) { return is_name_of(has_filter, v); }, 0}},
      {"test", {[](Runtime&, const Value& v, const Bound&) { return is_name_of(has_test, v); }, 0}},
      {"sameas", {[](Runtime&, const Value& v, const Bound& b) { return v.same_as(*b[0]); }, 1}},
      {"in", {[](Runtime& r, const Value& v, const Bound& b) { return contains(*b[0], v, r.work); }, 1}},
      {"==", {is_equal, 1}},
      {"eq", {is_equal, 1}},
      {"equalto", {is_equal, 1}},
      {"!=", {is_unequal, 1}},
      {"ne", {is_unequal, 1}},
      {"<", {ordered<Order::less>, 1}},
      {"lt", {ordered<Order::less>, 1}},
      {"lessthan", {ordered<Order::less>, 1}},
      {"<=", {ordered<Order::less_equal>, 1}},
      {"le", {ordered<Order::less_equal>, 1}},
      {">", {ordered<Order::greater>, 1}},
      {"gt", {ordered<Order::greater>, 1}},
      {"greaterthan", {ordered<Order::greater>, 1}},
      {">=", {ordered<Order::greater_equal>, 1}},
      {"ge", {ordered<Order::greater_equal>, 1}}};
  return entries;
}

}  // namespace

bool has_test(std::string_view name) { return test_table().contains(name); }

bool apply_test(std::string_view name, const Value& value, const Arguments& arguments, Runtime& runtime) {
  runtime.work.spend();
  const auto found = test_table().find(name);
  if (found == test_table().end()) throw TemplateError{.what = "no test named '" + std::string(name) + "'"};
  const auto& [body, parameters] = found->second;
  if (parameters == 0) return body(runtime, value, Bound(name, arguments, {}));
  return body(runtime, value, Bound(name, arguments, {"other"}, 1));
}

}  // namespace llmtk::text::jinja
