#include "text/jinja/parser.h"

#include <algorithm>
#include <initializer_list>
#include <string_view>

#include "text/jinja/parse_expression.h"

namespace llmtk::text::jinja {
namespace {

class Parser : private ExpressionParser {
 public:
  Parser(std::vector<Token> tokens, const std::string& where) : ExpressionParser(std::move(tokens), where) {}

  Body run() {
    Body body = statements({});
    check_names();
    return body;
  }

 private:
  using Ends = std::initializer_list<std::string_view>;

  /// Statements up to a tag that `ends` names, which is the token that peek() gives then; or up to the template's end
  /// where `ends` is empty.
  Body statements(Ends ends) {
    const Nesting nesting(*this);
    Body body;
    while (peek().kind != TokenKind::end) {
      if (peek().kind == TokenKind::text) {
        const Token token = take();
        body.push_back({token.at, Text{token.text}});
      } else if (peek().kind == TokenKind::variable_begin) {
        const Position at = take().at;
        body.push_back({at, Output{tuple_or_expression()}});
        expect(TokenKind::variable_end, "'}}'");
      } else {
        take();
        if (std::ranges::any_of(ends, [&](std::string_view end) { return peek().is_name(end); })) return body;
        statement(body);
        expect(TokenKind::block_end, "'%}'");
      }
    }
    if (ends.size() > 0) fail(peek(), "a block is not closed", "the end of the template", shown(ends));
    return body;
  }

  static std::string shown(Ends ends) {
    std::string out;
    for (const std::string_view end : ends) out += (out.empty() ? "{% " : " or {% ") + std::string(end) + " %}";
    return out;
  }

  /// The statements of a block, from behind its tag's own words; the ending tag's name is taken.
  Body block(Ends ends, std::string* ended_by = nullptr) {
    if (peek().is_op(":")) take();
    expect(TokenKind::block_end, "'%}'");
    Body body = statements(ends);
    const std::string name = take().text;
    if (ended_by) *ended_by = name;
    return body;
  }

  void statement(Body& body) {
    const Token tag = peek();
    if (tag.kind != TokenKind::name) fail(tag, "a tag without a name", tag.shown());
    take();
    const auto add = [&](auto node) { body.push_back({tag.at, std::move(node)}); };
    if (tag.text == "if") return add(if_statement());
    if (tag.text == "for") return add(for_statement());
    if (tag.text == "set") return set_statement(tag, body);
    if (tag.text == "macro") return add(macro());
    if (tag.text == "call") return add(call_block(tag));
    if (tag.text == "generation") return add(Generation{function_body("endgeneration", {})});
    if (tag.text == "filter") return add(filter_block());
    if (tag.text == "with") return add(with_statement());
    if (tag.text == "print") return print_statement(body);
    if (tag.text == "break" || tag.text == "continue") {
      if (loops_ == 0) fail(tag, "'" + tag.text + "' outside of a loop");
      return tag.text == "break" ? add(Break{}) : add(Continue{});
    }
    unknown_tag(tag);
  }

  [[noreturn]] void unknown_tag(const Token& tag) const {
    for (const char* name : {"include", "import", "from", "extends", "block", "autoescape"})
      if (tag.text == name)
        fail(tag, "the tag '" + tag.text + "' is not supported", {}, "a template that stands alone",
             "a chat template reads no other files");
    if (tag.text.starts_with("end") || tag.text == "else" || tag.text == "elif")
      fail(tag, "a tag that nothing opens", "'" + tag.text + "'");
    fail(tag, "an unknown tag", "'" + tag.text + "'");
  }

  If if_statement() {
    If node;
    std::string ended_by = "if";
    while (ended_by != "endif") {
      const Setting deferred(under_if_, true);
      ExpressionPtr test;
      if (ended_by != "else") test = tuple_or_expression(/*conditional=*/false);
      Body body = ended_by == "else" ? block({"endif"}, &ended_by) : block({"elif", "else", "endif"}, &ended_by);
      node.branches.push_back({std::move(test), std::move(body)});
    }
    return node;
  }

  For for_statement() {
    For node;
    node.target = target(/*with_attribute=*/false, /*ends_at_in=*/true);
    if (!peek().is_name("in")) fail(peek(), "a loop without 'in'", peek().shown());
    take();
    node.iterable = tuple_or_expression(/*conditional=*/false, /*ends_at_recursive=*/true);
    if (take_name("if")) node.test = expression();
    node.recursive = take_name("recursive");
    std::string ended_by;
    const Setting not_under_if(under_if_, false);
    {
      const Setting inside(loops_, loops_ + 1);
      node.body = block({"endfor", "else"}, &ended_by);
    }
    if (ended_by == "else") node.otherwise = block({"endfor"});
    return node;
  }

  void set_statement(const Token& tag, Body& body) {
    Target assigned = target(/*with_attribute=*/true, /*ends_at_in=*/false);
    if (peek().is_op("=")) {
      take();
      body.push_back({tag.at, Set{std::move(assigned), tuple_or_expression()}});
      return;
    }
    SetBlock node{.target = std::move(assigned)};
    while (peek().is_op("|")) node.filters.push_back(filter());
    const Setting not_under_if(under_if_, false);
    node.body = block({"endset"});
    body.push_back({tag.at, std::move(node)});
  }

  void print_statement(Body& body) {
    while (peek().kind != TokenKind::block_end) {
      const Position at = peek().at;
      body.push_back({at, Output{expression()}});
      if (!peek().is_op(",")) break;
      take();
    }
  }

  FilterBlock filter_block() {
    FilterBlock node;
    node.filters.push_back(filter(/*with_bar=*/false));
    while (peek().is_op("|")) node.filters.push_back(filter());
    const Setting not_under_if(under_if_, false);
    node.body = block({"endfilter"});
    return node;
  }

  With with_statement() {
    With node;
    while (peek().kind != TokenKind::block_end && !peek().is_op(":")) {
      if (!node.values.empty()) expect_op(",");
      Target name = target(/*with_attribute=*/false, /*ends_at_in=*/false);
      expect_op("=");
      node.values.emplace_back(std::move(name), expression());
    }
    const Setting not_under_if(under_if_, false);
    node.body = block({"endwith"});
    return node;
  }

  // --- macros and the like ---

  Macro macro() {
    const std::string name = expect(TokenKind::name, "the macro's name").text;
    auto signature = std::make_unique<Function>();
    signature->name = name;
    parameters(*signature);
    return {function_body("endmacro", std::move(signature))};
  }

  CallBlock call_block(const Token& tag) {
    auto signature = std::make_unique<Function>();
    signature->name = "caller";
    if (peek().is_op("(")) parameters(*signature);
    ExpressionPtr call = expression();
    const auto* postfix = std::get_if<Postfix>(&call->node);
    if (!postfix || !std::holds_alternative<Call>(postfix->suffixes.back().node))
      fail(tag, "a call block without a call", {}, "{% call name(...) %}");
    return {function_body("endcall", std::move(signature)), std::move(call)};
  }

  void parameters(Function& function) {
    expect_op("(");
    while (!peek().is_op(")")) {
      if (!function.parameters.empty()) expect_op(",");
      const Token name = expect(TokenKind::name, "a parameter's name");
      function.parameters.push_back(name.text);
      if (peek().is_op("=")) {
        take();
        function.defaults.push_back(expression());
      } else if (!function.defaults.empty()) {
        fail(name, "a parameter without a default behind one with it", "'" + name.text + "'");
      }
    }
    take();
  }

  std::unique_ptr<Function> function_body(std::string_view end, std::unique_ptr<Function> function) {
    if (!function) function = std::make_unique<Function>();
    const Setting not_under_if(under_if_, false);
    const Setting no_loop(loops_, 0);
    functions_.push_back(function.get());
    function->body = block({end});
    functions_.pop_back();
    const auto declares = [&](std::string_view name) {
      return std::ranges::find(function->parameters, name) != function->parameters.end();
    };
    function->uses_caller = function->uses_caller && !declares("caller");
    function->uses_kwargs = function->uses_kwargs && !declares("kwargs");
    function->uses_varargs = function->uses_varargs && !declares("varargs");
    return function;
  }

  int loops_ = 0;  // open ones that a break here would end
};

}  // namespace

Body parse(std::vector<Token> tokens, const std::string& where) { return Parser(std::move(tokens), where).run(); }

}  // namespace llmtk::text::jinja
