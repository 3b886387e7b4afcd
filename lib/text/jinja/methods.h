#pragma once
// The methods of strings, lists, tuples and dicts that templates may call.

#include <optional>
#include <string_view>

#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace llmtk::text::jinja {

/// The bound method; undefined where it would change the value (the sandbox forbids that), nullopt where the type has
/// no method of this name. A method that Python has and this program does not is an error when it is called.
std::optional<Value> get_method(const Value& value, std::string_view name);

/// str.join; also what the filter does.
Value join(std::string_view separator, const std::vector<Value>& items, Runtime& runtime);

}  // namespace llmtk::text::jinja
