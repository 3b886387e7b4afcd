#include "text/jinja/loop.h"

namespace llmtk::text::jinja {

const std::optional<Value>& Loop::peek() {
  if (after_) return after_;
  if (next_ahead_ < ahead_.size())
    after_ = ahead_[next_ahead_++];
  else
    after_ = values_->next();
  return after_;
}

bool Loop::advance() {
  std::optional<Value> next = peek();
  after_.reset();
  if (!next) return false;
  ++index0_;
  before_ = std::move(current_);
  current_ = std::move(next);
  return true;
}

size_t Loop::size() {
  if (!size_) {
    while (auto value = values_->next()) ahead_.push_back(std::move(*value));
    size_ = static_cast<size_t>(index0_ + 1) + (ahead_.size() - next_ahead_) + after_.has_value();
  }
  return *size_;
}

std::optional<size_t> Loop::length() const { return const_cast<Loop*>(this)->size(); }  // may look ahead

std::string Loop::repr(Work&) const {
  return "<LoopContext " + std::to_string(index0_ + 1) + "/" + std::to_string(*length()) + ">";
}

std::optional<Value> Loop::attribute(std::string_view name) {
  if (name == "index") return Value(index0_ + 1);
  if (name == "index0") return Value(index0_);
  if (name == "first") return Value(index0_ == 0);
  if (name == "last") return Value(!peek().has_value());
  if (name == "length") return Value(static_cast<int64_t>(size()));
  if (name == "revindex") return Value(static_cast<int64_t>(size()) - index0_);
  if (name == "revindex0") return Value(static_cast<int64_t>(size()) - index0_ - 1);
  if (name == "depth") return Value(depth_ + 1);
  if (name == "depth0") return Value(depth_);
  if (name == "previtem") return before_ ? *before_ : Value::undefined("there is no previous item");
  if (name == "nextitem") return peek() ? *peek() : Value::undefined("there is no next item");
  const auto method = [&](auto body) {
    return Value(std::make_shared<NativeFunction>(std::string(name), std::move(body), Object::depth()));
  };
  if (name == "cycle")
    return method([index0 = index0_](Runtime&, const Arguments& arguments) {
      if (arguments.positional.empty()) throw TemplateError{.what = "no items for cycling given"};
      return arguments.positional[static_cast<size_t>(index0) % arguments.positional.size()];
    });
  if (name == "changed")
    return method([this](Runtime& runtime, const Arguments& arguments) { return changed(runtime, arguments); });
  return std::nullopt;
}

Value Loop::changed(Runtime& runtime, const Arguments& arguments) {
  Value now = Value::tuple(arguments.positional);
  const bool differs = !last_changed_ || !equal(*last_changed_, now, runtime.work);
  last_changed_ = std::move(now);
  return Value(differs);
}

Value Loop::call(Runtime& runtime, Arguments& arguments) {
  const Bound bound("loop", arguments, {"iterable"}, 1);
  runtime.work.spend();
  if (!recursion_) throw TemplateError{.what = "The loop must have the 'recursive' marker to be called recursively."};
  return Value(recursion_(*bound[0], depth_ + 1));
}

}  // namespace llmtk::text::jinja
