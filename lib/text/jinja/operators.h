#pragma once
// Python's operators, attributes, items and slices.

#include <string>
#include <string_view>

#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace llmtk::text::jinja {

// All throw TemplateError where Python or the sandbox would raise, and where a whole number needs more than 64 bits.

/// op: + - * / // % **
Value arithmetic(std::string_view op, const Value& a, const Value& b, Runtime& runtime);
Value negate(const Value& value);  ///< -value
Value posit(const Value& value);   ///< +value

/// value.name: attributes and methods come first, then keys. What is not there is undefined.
Value get_attribute(const Value& value, std::string_view name, Runtime& runtime);
/// value[index]: items come first, then attributes.
Value get_item(const Value& value, const Value& index, Runtime& runtime);
/// value[start:stop:step]; None for what is not given.
Value get_slice(const Value& value, const Value& start, const Value& stop, const Value& step, Runtime& runtime);

}  // namespace llmtk::text::jinja
