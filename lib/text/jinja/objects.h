#pragma once
// The built-in kinds of Object.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace llmtk::text::jinja {

/// range(start, stop, step)
class Range : public Object {
 public:
  Range(int64_t start, int64_t stop, int64_t step);
  std::string_view type_name() const override { return "range"; }
  std::string repr(Work&) const override;
  bool truth() const override { return size_ > 0; }
  std::optional<size_t> length() const override { return size_; }
  std::unique_ptr<Iterator> iterate() override;
  bool equals(const Object& other, Work& work) const override;
  /// The number at `index`; what would come next where that is the length.
  int64_t at(int64_t index) const {
    return static_cast<int64_t>(static_cast<uint64_t>(start_) +
                                static_cast<uint64_t>(index) * static_cast<uint64_t>(step_));
  }
  int64_t step() const { return step_; }
  size_t size() const { return size_; }

 private:
  int64_t start_, stop_, step_;
  size_t size_ = 0;
};

/// dict.items(), keys(), values(): looks at the dict again each time.
class View : public Object {
 public:
  enum class Of { keys, values, items };
  View(Value dict, Of of) : Object(dict.depth() + 1), dict_(std::move(dict)), of_(of) {}
  std::string_view type_name() const override;
  std::string repr(Work& work) const override;
  bool truth() const override { return dict_.dict().size() > 0; }
  std::optional<size_t> length() const override { return dict_.dict().size(); }
  std::unique_ptr<Iterator> iterate() override;

 private:
  Value dict_;
  Of of_;
};

/// Values that are gone once they were looked at, as Python's generators and iterators give them.
class Generator : public Object {
 public:
  /// `name`: "generator", "list_reverseiterator".
  Generator(std::string name, std::vector<Value> items);
  std::string_view type_name() const override { return name_; }
  std::unique_ptr<Iterator> iterate() override;

 private:
  struct Rest {
    std::vector<Value> items;
    size_t at = 0;
  };
  std::string name_;
  std::shared_ptr<Rest> rest_;
};

/// namespace(): attributes that templates may change.
class Namespace : public Object {
 public:
  std::string_view type_name() const override { return "Namespace"; }
  std::string repr(Work& work) const override;
  std::optional<Value> attribute(std::string_view name) override;
  void set(const std::string& name, Value value) { attributes_.set(name, std::move(value)); }
  void clear() { attributes_ = Dict(); }

 private:
  Dict attributes_;
  mutable bool printing_ = false;
};

/// A function of C++.
class NativeFunction : public Object {
 public:
  using Body = std::function<Value(Runtime&, const Arguments&)>;
  /// `depth`: of what the function holds.
  NativeFunction(std::string name, Body body, int depth = 0)
      : Object(depth + 1), name_(std::move(name)), body_(std::move(body)) {}
  std::string_view type_name() const override { return "builtin_function_or_method"; }
  std::string repr(Work&) const override { return "<built-in function " + name_ + ">"; }
  bool callable() const override { return true; }
  Value call(Runtime& runtime, Arguments& arguments) override { return body_(runtime, arguments); }

 private:
  std::string name_;
  Body body_;
};

/// range, dict, namespace, cycler, joiner, raise_exception, strftime_now.
const std::map<std::string, Value, std::less<>>& globals();

}  // namespace llmtk::text::jinja
