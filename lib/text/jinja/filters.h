#pragma once
// Jinja2's filters, and tojson as transformers has it.

#include <map>
#include <string_view>

#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace llmtk::text::jinja {

/// Whether Jinja2 has the filter; not all of them are supported here.
bool has_filter(std::string_view name);
/// value | name(arguments). Throws TemplateError; also for a filter that is not there or not supported.
Value apply_filter(std::string_view name, const Value& value, const Arguments& arguments, Runtime& runtime);

using FilterBody = Value (*)(Runtime&, const Value&, const Arguments&);
using FilterTable = std::map<std::string_view, FilterBody>;

/// Those that take or give several values.
const FilterTable& sequence_filters();
/// tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False): Python's json.dumps.
Value to_json(Runtime& runtime, const Value& value, const Arguments& arguments);

}  // namespace llmtk::text::jinja
