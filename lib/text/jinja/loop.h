#pragma once
// The special variable `loop`.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "text/jinja/objects.h"
#include "text/jinja/value.h"

namespace llmtk::text::jinja {

/// Renders a recursive loop's body over other values, at a depth.
using Recursion = std::function<std::string(const Value&, int)>;

/// Jinja2's LoopContext: looks at values ahead only when it is asked for what that needs (last, length, nextitem).
class Loop : public Object {
 public:
  /// `size`: of the values, where it is known. `recursion`: empty where the loop is not recursive.
  Loop(int nesting, std::unique_ptr<Iterator> values, std::optional<size_t> size, int depth, Recursion recursion)
      : Object(nesting + 1), values_(std::move(values)), size_(size), depth_(depth), recursion_(std::move(recursion)) {}

  /// On to the next value; false at the end.
  bool advance();
  const Value& current() const { return *current_; }

  std::string_view type_name() const override { return "LoopContext"; }
  std::string repr(Work& work) const override;
  std::optional<size_t> length() const override;
  std::optional<Value> attribute(std::string_view name) override;
  bool callable() const override { return true; }
  Value call(Runtime& runtime, Arguments& arguments) override;

 private:
  const std::optional<Value>& peek();
  size_t size();
  Value changed(Runtime& runtime, const Arguments& arguments);

  std::unique_ptr<Iterator> values_;
  std::optional<size_t> size_;
  int depth_;
  Recursion recursion_;
  int64_t index0_ = -1;
  std::optional<Value> before_, current_, after_;
  std::vector<Value> ahead_;  // taken to count them, in order; from next_ahead_ on
  size_t next_ahead_ = 0;
  std::optional<Value> last_changed_;
};

}  // namespace llmtk::text::jinja
