// Comparing values, and going over them.

#include <algorithm>

#include "core/utf8.h"
#include "text/jinja/unicode.h"
#include "text/jinja/value.h"

namespace llmtk::text::jinja {

// --- comparisons ---

namespace {

int order(double a, double b) { return a < b ? -1 : a > b ? 1 : a == b ? 0 : 2; }

int order_numbers(const Value& a, const Value& b) {
  if (!a.is_integral() || !b.is_integral()) return order(a.numeric(), b.numeric());
  return a.integral() < b.integral() ? -1 : a.integral() > b.integral();
}

bool equal_items(const std::vector<Value>& a, const std::vector<Value>& b, Work& work) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](const Value& x, const Value& y) { return x.same_as(y) || equal(x, y, work); });
}

bool equal_dicts(const Dict& a, const Dict& b, Work& work) {
  if (a.size() != b.size()) return false;
  return std::ranges::all_of(a.items(), [&](const Dict::Item& item) {
    const Value* other = b.find(item.first, work);
    return other && equal(item.second, *other, work);
  });
}

}  // namespace

bool equal(const Value& a, const Value& b, Work& work) {
  work.spend();
  if (a.is_numeric() && b.is_numeric()) return order_numbers(a, b) == 0;
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::string:
      work.spend_bytes(std::min(a.text().size(), b.text().size()));
      return a.text() == b.text();
    case Kind::list:
    case Kind::tuple:
      return equal_items(a.items(), b.items(), work);
    case Kind::dict:
      return equal_dicts(a.dict(), b.dict(), work);
    case Kind::object:
      return a.object().equals(b.object(), work);
    default:
      return true;  // None and undefined are each equal to their like
  }
}

int compare(const Value& a, const Value& b, std::string_view op, Work& work) {
  work.spend();
  for (const Value* side : {&a, &b})
    if (side->is_undefined()) throw TemplateError{.what = side->undefined_message()};
  if (a.is_numeric() && b.is_numeric()) return order_numbers(a, b);
  if (a.is_string() && b.is_string()) {
    work.spend_bytes(std::min(a.text().size(), b.text().size()));
    const int order = a.text().compare(b.text());  // UTF-8 sorts as its code points do
    return order < 0 ? -1 : order > 0;
  }
  if (a.is_sequence() && a.kind() == b.kind()) {
    const size_t shorter = std::min(a.items().size(), b.items().size());
    for (size_t i = 0; i < shorter; ++i)
      if (!equal(a.items()[i], b.items()[i], work)) return compare(a.items()[i], b.items()[i], op, work);
    return a.items().size() < b.items().size() ? -1 : a.items().size() > b.items().size();
  }
  throw TemplateError{.what = "'" + std::string(op) + "' not supported between instances of '" + type_name(a) +
                              "' and '" + type_name(b) + "'"};
}

bool contains(const Value& container, const Value& item, Work& work) {
  if (container.is_string()) {
    if (item.is_undefined()) throw TemplateError{.what = item.undefined_message()};
    if (!item.is_string())
      throw TemplateError{.what = "'in <string>' requires string as left operand, not " + type_name(item)};
    work.spend_bytes(container.text().size());
    return container.text().find(item.text()) != std::string::npos;
  }
  if (container.is(Kind::dict)) return container.dict().find(item, work) != nullptr;
  if (container.is_sequence())
    return std::ranges::any_of(container.items(),
                               [&](const Value& each) { return each.same_as(item) || equal(each, item, work); });
  if (!container.is_undefined() && !container.is(Kind::object))
    throw TemplateError{.what = "argument of type '" + type_name(container) + "' is not iterable"};
  const auto iterator = iterate(container, work);
  while (const auto each = iterator->next())
    if (equal(*each, item, work)) return true;
  return false;
}

// --- iteration ---

namespace {

class SequenceIterator : public Iterator {
 public:
  explicit SequenceIterator(Value sequence) : sequence_(std::move(sequence)) {}
  std::optional<Value> next() override {
    if (at_ >= sequence_.items().size()) return std::nullopt;
    return sequence_.items()[at_++];
  }

 private:
  Value sequence_;
  size_t at_ = 0;
};

class KeyIterator : public Iterator {
 public:
  explicit KeyIterator(Value dict) : dict_(std::move(dict)) {}
  std::optional<Value> next() override {
    if (at_ >= dict_.dict().size()) return std::nullopt;
    return dict_.dict().items()[at_++].first;
  }

 private:
  Value dict_;
  size_t at_ = 0;
};

class CharacterIterator : public Iterator {
 public:
  explicit CharacterIterator(Value text) : text_(std::move(text)) {}
  std::optional<Value> next() override {
    if (at_ >= text_.text().size()) return std::nullopt;
    const size_t begin = at_;
    next_code_point(text_.text(), at_);
    return Value(text_.text().substr(begin, at_ - begin));
  }

 private:
  Value text_;
  size_t at_ = 0;
};

}  // namespace

std::unique_ptr<Iterator> iterate(const Value& value, Work& work) {
  work.spend();
  switch (value.kind()) {
    case Kind::undefined:
      return std::make_unique<SequenceIterator>(Value::list({}));
    case Kind::string:
      return std::make_unique<CharacterIterator>(value);
    case Kind::list:
    case Kind::tuple:
      return std::make_unique<SequenceIterator>(value);
    case Kind::dict:
      return std::make_unique<KeyIterator>(value);
    case Kind::object:
      if (auto iterator = value.object().iterate()) return iterator;
      break;
    default:
      break;
  }
  throw TemplateError{.what = "'" + type_name(value) + "' object is not iterable"};
}

std::vector<Value> to_list(const Value& value, Work& work) {
  if (value.is_sequence()) {
    work.spend(value.items().size());
    return value.items();
  }
  std::vector<Value> items;
  const auto iterator = iterate(value, work);
  while (auto item = iterator->next()) {
    work.spend();
    items.push_back(std::move(*item));
  }
  return items;
}

size_t length(const Value& value, Work& work) {
  switch (value.kind()) {
    case Kind::undefined:
      return 0;
    case Kind::string:
      work.spend_bytes(value.text().size());
      return count(value.text());
    case Kind::list:
    case Kind::tuple:
      return value.items().size();
    case Kind::dict:
      return value.dict().size();
    case Kind::object:
      if (const auto length = value.object().length()) return *length;
      break;
    default:
      break;
  }
  throw TemplateError{.what = "object of type '" + type_name(value) + "' has no len()"};
}

}  // namespace llmtk::text::jinja
