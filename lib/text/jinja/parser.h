#pragma once
// Tokens to statements: Jinja2's grammar as far as chat templates go.

#include <string>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"

namespace llmtk::text::jinja {

/// Throws Error(file) naming `where`, line and column. Other templates (include, import, extends, block) are refused,
/// as is nesting deeper than 100.
Body parse(std::vector<Token> tokens, const std::string& where);

}  // namespace llmtk::text::jinja
