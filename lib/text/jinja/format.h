#pragma once
// Python's two ways to format: "%5.2f" % value and "{:>5}".format(value).

#include <string>
#include <string_view>

#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace llmtk::text::jinja {

/// `format` % `values`: a tuple, a dict or one value. Throws TemplateError.
std::string format_percent(std::string_view format, const Value& values, Runtime& runtime);
/// format.format(*arguments). Throws TemplateError.
std::string format_braces(std::string_view format, const Arguments& arguments, Runtime& runtime);

}  // namespace llmtk::text::jinja
