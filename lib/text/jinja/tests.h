#pragma once
// Jinja2's tests: "value is name(arguments)".

#include <string_view>

#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace llmtk::text::jinja {

bool has_test(std::string_view name);
/// Throws TemplateError; also for a test that is not there.
bool apply_test(std::string_view name, const Value& value, const Arguments& arguments, Runtime& runtime);

}  // namespace llmtk::text::jinja
