#pragma once
// A template's text as tokens: what stands between the tags, and the words inside them.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace llmtk::text::jinja {

/// A place in the template, from 1.
struct Position {
  int line = 1, column = 1;
};

/// Throws Error(file): "where:line:column: what: got ..., expected ...".
[[noreturn]] void fail_at(const std::string& where, Position at, const std::string& what, const std::string& got = {},
                          const std::string& expected = {}, const std::string& hint = {});

enum class TokenKind {
  text,
  variable_begin,
  variable_end,
  block_begin,
  block_end,
  name,
  string,
  integer,
  number,
  op,
  end
};

struct Token {
  TokenKind kind = TokenKind::end;
  std::string text;  ///< the text, the name, the string's value, or the operator's characters
  int64_t integer = 0;
  double number = 0;
  Position at;

  bool is(TokenKind k, std::string_view t) const { return kind == k && text == t; }
  bool is_op(std::string_view t) const { return is(TokenKind::op, t); }
  bool is_name(std::string_view t) const { return is(TokenKind::name, t); }
  /// For messages: "'endif'", "the end of the template".
  std::string shown() const;
};

/// Jinja2's lexer as transformers configures it: trim_blocks and lstrip_blocks on, one newline at the end dropped.
/// Comments are left out and raw blocks are text. Throws Error(file) naming `where`, line and column.
std::vector<Token> tokenize(std::string_view source, const std::string& where);

}  // namespace llmtk::text::jinja
