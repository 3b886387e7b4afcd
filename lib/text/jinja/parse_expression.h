#pragma once
// The part of the parser that reads expressions.

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"

namespace llmtk::text::jinja {

/// Jinja2's grammar of expressions. Every function throws Error(file) with the place.
class ExpressionParser {
 protected:
  ExpressionParser(std::vector<Token> tokens, const std::string& where) : tokens_(std::move(tokens)), where_(where) {}

  // --- tokens ---

  const Token& peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  Token take() { return tokens_[std::min(at_++, tokens_.size() - 1)]; }
  Token expect(TokenKind kind, const std::string& what);
  void expect_op(std::string_view op);
  bool take_name(std::string_view name);
  [[noreturn]] void fail(const Token& token, const std::string& what, const std::string& got = {},
                         const std::string& expected = {}, const std::string& hint = {}) const {
    fail_at(where_, token.at, what, got, expected, hint);
  }

  // --- expressions ---

  /// `conditional`: whether "a if b else c" may stand here (a loop's "for x in y if z" means another if).
  ExpressionPtr expression(bool conditional = true);
  /// Or several with commas between them: a tuple.
  ExpressionPtr tuple_or_expression(bool conditional = true, bool ends_at_recursive = false);
  Target target(bool with_attribute, bool ends_at_in);
  Suffix filter(bool with_bar = true);

  /// Counts how deep the parser is; throws where it is too deep.
  class Nesting {
   public:
    explicit Nesting(ExpressionParser& parser);
    ~Nesting() { --parser_.depth_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    ExpressionParser& parser_;
  };
  /// A value that holds for a scope.
  template <class T>
  class Setting {
   public:
    Setting(T& variable, T value) : variable_(variable), before_(std::exchange(variable, value)) {}
    ~Setting() { variable_ = before_; }
    Setting(const Setting&) = delete;
    Setting& operator=(const Setting&) = delete;

   private:
    T& variable_;
    T before_;
  };

  /// Throws for the first filter or test that there is none of. Under an if it is an error only when it runs.
  void check_names() const;

  bool under_if_ = false;
  std::vector<Function*> functions_;  // those whose bodies are open

 private:
  ExpressionPtr conditional_expression();
  ExpressionPtr logic(bool conjunction);
  ExpressionPtr negation();
  ExpressionPtr comparison();
  std::string comparison_operator();
  ExpressionPtr sum();
  ExpressionPtr concatenation();
  ExpressionPtr product();
  ExpressionPtr power();
  ExpressionPtr unary(bool with_filters = true);
  ExpressionPtr primary();
  ExpressionPtr name_or_constant();
  ExpressionPtr string_literal();
  ExpressionPtr list_literal();
  ExpressionPtr dict_literal();
  ExpressionPtr parenthesized();
  void postfix(std::vector<Suffix>& suffixes);
  void filters_and_tests(std::vector<Suffix>& suffixes);
  Suffix attribute();
  Suffix subscript();
  std::variant<Item, Slice> subscribed();
  Suffix call();
  Suffix test();
  CallArguments test_argument();
  CallArguments call_arguments();
  Target simple_target(bool with_attribute);
  bool tuple_ends(bool ends_at_recursive) const;
  Token name_of(bool is_filter);

  const std::vector<Token> tokens_;
  const std::string& where_;
  size_t at_ = 0;
  int depth_ = 0;
  struct Unknown {
    Token token;
    bool is_filter;
  };
  std::vector<Unknown> unknown_;  // names of filters and tests that there are none of
};

}  // namespace llmtk::text::jinja
