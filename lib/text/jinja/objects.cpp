#include "text/jinja/objects.h"

#include <algorithm>

namespace llmtk::text::jinja {
namespace {

int depth_of(const std::vector<Value>& items) {
  int deepest = 0;
  for (const Value& item : items) deepest = std::max(deepest, item.depth());
  return deepest + 1;
}

/// An iterator that a function makes.
class FunctionIterator : public Iterator {
 public:
  explicit FunctionIterator(std::function<std::optional<Value>()> next) : next_(std::move(next)) {}
  std::optional<Value> next() override { return next_(); }

 private:
  std::function<std::optional<Value>()> next_;
};

}  // namespace

// --- Runtime and arguments ---

Runtime::~Runtime() {
  for (const auto& each : namespaces_) each->clear();
}

std::shared_ptr<Namespace> Runtime::make_namespace() {
  work.spend(8);
  return namespaces_.emplace_back(std::make_shared<Namespace>());
}

void unsuitable(const Value& value, const std::string& what) {
  throw TemplateError{.what = value.is_undefined() ? value.undefined_message() : what};
}

Bound::Bound(std::string_view function, const Arguments& arguments, std::initializer_list<std::string_view> parameters,
             size_t required)
    : function_(function), names_(parameters), values_(parameters.size()) {
  if (arguments.positional.size() > names_.size())
    throw TemplateError{.what = function_ + "() takes at most " + std::to_string(names_.size()) + " arguments, not " +
                                std::to_string(arguments.positional.size())};
  for (size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.keyword) {
    const auto found = std::ranges::find(names_, name);
    if (found == names_.end()) throw TemplateError{.what = function_ + "() has no argument named '" + name + "'"};
    const Value*& place = values_[static_cast<size_t>(found - names_.begin())];
    if (place) throw TemplateError{.what = function_ + "() is given the argument '" + name + "' twice"};
    place = &value;
  }
  for (size_t i = 0; i < required; ++i)
    if (!values_[i]) throw TemplateError{.what = function_ + "() misses the argument '" + std::string(names_[i]) + "'"};
}

void Bound::wrong(size_t i, std::string_view expected) const {
  unsuitable(*values_[i], function_ + "(): the argument '" + std::string(names_[i]) + "' must be " +
                              std::string(expected) + ", not " + jinja::type_name(*values_[i]));
}

int64_t Bound::integer(size_t i, int64_t otherwise) const {
  if (!values_[i]) return otherwise;
  if (!values_[i]->is_integral()) wrong(i, "a whole number");
  return values_[i]->integral();
}

bool Bound::flag(size_t i, bool otherwise) const { return values_[i] ? truth(*values_[i]) : otherwise; }

const std::string& Bound::text(size_t i) const {
  if (!values_[i]->is_string()) wrong(i, "a string");
  return values_[i]->text();
}

std::string Bound::text_or(size_t i, std::string_view otherwise) const {
  return values_[i] ? text(i) : std::string(otherwise);
}

// --- Range ---

Range::Range(int64_t start, int64_t stop, int64_t step) : start_(start), stop_(stop), step_(step) {
  if (step == 0) throw TemplateError{.what = "range() arg 3 must not be zero"};
  const auto distance = step > 0 ? static_cast<__int128>(stop) - start : static_cast<__int128>(start) - stop;
  const auto stride = step > 0 ? static_cast<__int128>(step) : -static_cast<__int128>(step);
  constexpr int kMostOfSandbox = 100000;  // jinja2's MAX_RANGE
  const __int128 size = distance <= 0 ? 0 : (distance + stride - 1) / stride;
  if (size > kMostOfSandbox)
    throw TemplateError{.what = "range() of more than " + std::to_string(kMostOfSandbox) + " numbers"};
  size_ = static_cast<size_t>(size);
}

std::string Range::repr(Work&) const {
  return "range(" + std::to_string(start_) + ", " + std::to_string(stop_) +
         (step_ == 1 ? ")" : ", " + std::to_string(step_) + ")");
}

std::unique_ptr<Iterator> Range::iterate() {
  return std::make_unique<FunctionIterator>([copy = *this, i = size_t{0}]() mutable -> std::optional<Value> {
    if (i >= copy.size_) return std::nullopt;
    return Value(copy.at(static_cast<int64_t>(i++)));
  });
}

bool Range::equals(const Object& other, Work&) const {
  const auto* range = dynamic_cast<const Range*>(&other);
  if (!range || range->size_ != size_) return false;
  return size_ == 0 || (at(0) == range->at(0) && (size_ == 1 || step_ == range->step_));
}

// --- View ---

std::string_view View::type_name() const {
  switch (of_) {
    case Of::keys:
      return "dict_keys";
    case Of::values:
      return "dict_values";
    case Of::items:
      break;
  }
  return "dict_items";
}

std::string View::repr(Work& work) const {
  std::string out;
  for (const auto& [key, value] : dict_.dict().items()) {
    if (!out.empty()) out += ", ";
    if (of_ == Of::items)
      out += "(" + jinja::repr(key, work) + ", " + jinja::repr(value, work) + ")";
    else
      out += jinja::repr(of_ == Of::keys ? key : value, work);
  }
  return std::string(type_name()) + "([" + out + "])";
}

std::unique_ptr<Iterator> View::iterate() {
  return std::make_unique<FunctionIterator>([dict = dict_, of = of_, i = size_t{0}]() mutable -> std::optional<Value> {
    if (i >= dict.dict().size()) return std::nullopt;
    const auto& [key, value] = dict.dict().items()[i++];
    if (of == Of::items) return Value::tuple({key, value});
    return of == Of::keys ? key : value;
  });
}

// --- Generator ---

Generator::Generator(std::string name, std::vector<Value> items)
    : Object(depth_of(items)), name_(std::move(name)), rest_(std::make_shared<Rest>(Rest{std::move(items)})) {}

std::unique_ptr<Iterator> Generator::iterate() {
  return std::make_unique<FunctionIterator>([rest = rest_]() -> std::optional<Value> {
    if (rest->at >= rest->items.size()) return std::nullopt;
    return rest->items[rest->at++];
  });
}

// --- Namespace ---

std::string Namespace::repr(Work& work) const {
  if (printing_) return "<Namespace {...}>";
  printing_ = true;
  std::string out;
  for (const auto& [key, value] : attributes_.items())
    out += (out.empty() ? "" : ", ") + jinja::repr(key, work) + ": " + jinja::repr(value, work);
  printing_ = false;
  return "<Namespace {" + out + "}>";
}

std::optional<Value> Namespace::attribute(std::string_view name) {
  const Value* value = attributes_.find(name);
  return value ? std::optional(*value) : std::nullopt;
}

// --- globals ---

namespace {

/// cycler(a, b, ...): gives one after another, round and round.
class Cycler : public Object {
 public:
  explicit Cycler(std::vector<Value> items) : Object(depth_of(items)), items_(std::move(items)) {}
  std::string_view type_name() const override { return "Cycler"; }
  std::optional<Value> attribute(std::string_view name) override {
    if (name == "current") return items_[*at_];
    if (name == "next")
      return method("next", [items = items_, at = at_] {
        const size_t now = *at;
        *at = (now + 1) % items.size();
        return items[now];
      });
    if (name == "reset")
      return method("reset", [at = at_] {
        *at = 0;
        return Value();
      });
    return std::nullopt;
  }

 private:
  template <class Body>
  Value method(const char* name, Body body) {
    auto call = [body](Runtime&, const Arguments&) { return body(); };
    return Value(std::make_shared<NativeFunction>(name, std::move(call), depth()));
  }
  std::vector<Value> items_;
  std::shared_ptr<size_t> at_ = std::make_shared<size_t>(0);
};

/// joiner(separator): nothing the first time, then the separator.
class Joiner : public Object {
 public:
  explicit Joiner(std::string separator) : separator_(std::move(separator)) {}
  std::string_view type_name() const override { return "Joiner"; }
  bool callable() const override { return true; }
  Value call(Runtime&, Arguments&) override { return Value(std::exchange(used_, true) ? separator_ : ""); }

 private:
  std::string separator_;
  bool used_ = false;
};

Value make_range(Runtime& runtime, const Arguments& arguments) {
  const Bound bound("range", arguments, {"start", "stop", "step"}, 1);
  runtime.work.spend();
  const int64_t first = bound.integer(0, 0);
  if (!bound.given(1)) return Value(std::make_shared<Range>(0, first, 1));
  return Value(std::make_shared<Range>(first, bound.integer(1, 0), bound.integer(2, 1)));
}

/// From a mapping or pairs, and named arguments.
Dict dict_of(std::string_view function, Runtime& runtime, const Arguments& arguments) {
  Dict dict;
  if (arguments.positional.size() > 1)
    throw TemplateError{.what = std::string(function) + "() takes at most 1 positional argument"};
  if (!arguments.positional.empty()) {
    const Value& from = arguments.positional.front();
    if (from.is(Kind::dict)) {
      for (const auto& [key, value] : from.dict().items()) dict.set(key, value, runtime.work);
    } else {
      for (const Value& item : to_list(from, runtime.work)) {
        const auto pair = to_list(item, runtime.work);
        if (pair.size() != 2)
          throw TemplateError{.what = std::string(function) + "() takes pairs, not " + std::to_string(pair.size()) +
                                      " values"};
        dict.set(pair[0], pair[1], runtime.work);
      }
    }
  }
  for (const auto& [name, value] : arguments.keyword) dict.set(Value(name), value, runtime.work);
  return dict;
}

Value make_dict(Runtime& runtime, const Arguments& arguments) { return Value(dict_of("dict", runtime, arguments)); }

Value make_namespace(Runtime& runtime, const Arguments& arguments) {
  auto made = runtime.make_namespace();
  const Dict attributes = dict_of("namespace", runtime, arguments);
  for (const auto& [key, value] : attributes.items()) {
    if (!key.is_string()) throw TemplateError{.what = "namespace() takes names as keys"};
    made->set(key.text(), value);
  }
  return Value(std::shared_ptr<Object>(std::move(made)));
}

Value make_cycler(Runtime&, const Arguments& arguments) {
  if (arguments.positional.empty()) throw TemplateError{.what = "at least one item has to be provided"};
  return Value(std::make_shared<Cycler>(arguments.positional));
}

Value make_joiner(Runtime&, const Arguments& arguments) {
  const Bound bound("joiner", arguments, {"sep"});
  return Value(std::make_shared<Joiner>(bound.text_or(0, ", ")));
}

Value raise_exception(Runtime& runtime, const Arguments& arguments) {
  const Bound bound("raise_exception", arguments, {"message"}, 1);
  throw TemplateError{.what = str(*bound[0], runtime.work), .hint = {}, .refused = true};
}

Value strftime_now(Runtime& runtime, const Arguments& arguments) {
  const Bound bound("strftime_now", arguments, {"format"}, 1);
  const std::string& format = bound.text(0);
  if (format.empty()) return Value("");
  if (format.size() > 1000) throw TemplateError{.what = "strftime_now(): the format is longer than 1000 bytes"};
  std::tm local{};
  ::localtime_r(&runtime.now, &local);
  std::string out(64 * 1024, '\0');
  out.resize(std::strftime(out.data(), out.size(), (format + " ").c_str(), &local));
  if (!out.empty()) out.pop_back();  // the blank tells an empty text from one that did not fit
  return Value(std::move(out));
}

}  // namespace

const std::map<std::string, Value, std::less<>>& globals() {
  static const auto* const table = [] {
    auto* made = new std::map<std::string, Value, std::less<>>;
    const std::pair<const char*, Value (*)(Runtime&, const Arguments&)> functions[] = {
        {"range", make_range},         {"dict", make_dict},     {"namespace", make_namespace},
        {"cycler", make_cycler},       {"joiner", make_joiner}, {"raise_exception", raise_exception},
        {"strftime_now", strftime_now}};
    for (const auto& [name, function] : functions)
      made->emplace(name, Value(std::make_shared<NativeFunction>(name, function)));
    return made;
  }();
  return *table;
}

}  // namespace llmtk::text::jinja
