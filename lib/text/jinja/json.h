#pragma once
// JSON to values: messages, tools, and what else a template is given.

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "text/jinja/value.h"

namespace llmtk::text::jinja {

/// Numbers beyond 64 bits become floats, as the JSON library reads them; parse_json() refuses them.
Value from_json(const nlohmann::ordered_json& json);

}  // namespace llmtk::text::jinja
