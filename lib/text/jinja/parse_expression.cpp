#include "text/jinja/parse_expression.h"

#include "text/jinja/filters.h"
#include "text/jinja/tests.h"

namespace llmtk::text::jinja {
namespace {

constexpr int kMaxNesting = 100;

template <class Node>
ExpressionPtr make_expression(Position at, Node node) {
  return std::make_unique<Expression>(Expression{at, std::move(node)});
}

/// `operand` with what follows it.
ExpressionPtr with_suffixes(ExpressionPtr operand, std::vector<Suffix> suffixes) {
  if (suffixes.empty()) return operand;
  const Position at = operand->at;
  return make_expression(at, Postfix{std::move(operand), std::move(suffixes)});
}

}  // namespace

ExpressionParser::Nesting::Nesting(ExpressionParser& parser) : parser_(parser) {
  if (++parser_.depth_ > kMaxNesting)
    parser_.fail(parser_.peek(), "blocks or brackets are nested too deep", {},
                 "at most " + std::to_string(kMaxNesting) + " levels");
}

Token ExpressionParser::expect(TokenKind kind, const std::string& what) {
  if (peek().kind != kind) fail(peek(), "unexpected " + peek().shown(), {}, what);
  return take();
}

void ExpressionParser::expect_op(std::string_view op) {
  if (!peek().is_op(op)) fail(peek(), "unexpected " + peek().shown(), {}, "'" + std::string(op) + "'");
  take();
}

bool ExpressionParser::take_name(std::string_view name) {
  if (!peek().is_name(name)) return false;
  take();
  return true;
}

void ExpressionParser::check_names() const {
  if (unknown_.empty()) return;
  const auto& [token, is_filter] = unknown_.front();
  fail(token, std::string("no ") + (is_filter ? "filter" : "test") + " named '" + token.text + "'");
}

// --- from the loosest operator to the tightest ---

ExpressionPtr ExpressionParser::expression(bool conditional) {
  const Nesting nesting(*this);
  return conditional ? conditional_expression() : logic(false);
}

ExpressionPtr ExpressionParser::conditional_expression() {
  const Position at = peek().at;
  const size_t known = unknown_.size();
  ExpressionPtr left = logic(false);
  constexpr int kMaxChain = 8;
  for (int i = 0; peek().is_name("if"); ++i) {
    if (i == kMaxChain) fail(peek(), "too many conditions without else", {}, "at most 8");
    take();
    Conditional node{.test = logic(false), .then = std::move(left), .otherwise = nullptr};
    if (take_name("else")) {
      const Nesting nesting(*this);
      node.otherwise = conditional_expression();
    }
    left = make_expression(at, std::move(node));
    unknown_.resize(known);
  }
  return left;
}

ExpressionPtr ExpressionParser::logic(bool conjunction) {
  const Position at = peek().at;
  const auto operand = [&] { return conjunction ? negation() : logic(true); };
  Logic node{conjunction, {}};
  node.operands.push_back(operand());
  while (take_name(conjunction ? "and" : "or")) node.operands.push_back(operand());
  if (node.operands.size() == 1) return std::move(node.operands.front());
  return make_expression(at, std::move(node));
}

ExpressionPtr ExpressionParser::negation() {
  const Position at = peek().at;
  if (!take_name("not")) return comparison();
  const Nesting nesting(*this);
  return make_expression(at, Unary{'!', negation()});
}

/// Takes it; empty where there is none.
std::string ExpressionParser::comparison_operator() {
  for (const char* op : {"==", "!=", "<", "<=", ">", ">="})
    if (peek().is_op(op)) return take().text;
  if (take_name("in")) return "in";
  if (!peek().is_name("not") || !peek(1).is_name("in")) return {};
  take();
  take();
  return "not in";
}

ExpressionPtr ExpressionParser::comparison() {
  const Position at = peek().at;
  Comparison node{.first = sum(), .rest = {}};
  while (true) {
    const Position operator_at = peek().at;
    const std::string op = comparison_operator();
    if (op.empty()) break;
    node.rest.push_back({op, sum(), operator_at});
  }
  if (node.rest.empty()) return std::move(node.first);
  return make_expression(at, std::move(node));
}

ExpressionPtr ExpressionParser::sum() {
  const Position at = peek().at;
  Arithmetic node{.first = concatenation(), .rest = {}};
  while (peek().is_op("+") || peek().is_op("-")) {
    const Token op = take();
    node.rest.push_back({op.text, concatenation(), op.at});
  }
  if (node.rest.empty()) return std::move(node.first);
  return make_expression(at, std::move(node));
}

ExpressionPtr ExpressionParser::concatenation() {
  const Position at = peek().at;
  Concatenation node;
  node.operands.push_back(product());
  while (peek().is_op("~")) {
    take();
    node.operands.push_back(product());
  }
  if (node.operands.size() == 1) return std::move(node.operands.front());
  return make_expression(at, std::move(node));
}

ExpressionPtr ExpressionParser::product() {
  const Position at = peek().at;
  Arithmetic node{.first = power(), .rest = {}};
  while (peek().is_op("*") || peek().is_op("/") || peek().is_op("//") || peek().is_op("%")) {
    const Token op = take();
    node.rest.push_back({op.text, power(), op.at});
  }
  if (node.rest.empty()) return std::move(node.first);
  return make_expression(at, std::move(node));
}

ExpressionPtr ExpressionParser::power() {
  const Position at = peek().at;
  Arithmetic node{.first = unary(), .rest = {}};
  while (peek().is_op("**")) {  // from the left, unlike Python's
    const Token op = take();
    node.rest.push_back({op.text, unary(), op.at});
  }
  if (node.rest.empty()) return std::move(node.first);
  return make_expression(at, std::move(node));
}

ExpressionPtr ExpressionParser::unary(bool with_filters) {
  const Position at = peek().at;
  ExpressionPtr operand;
  if (peek().is_op("-") || peek().is_op("+")) {
    const Nesting nesting(*this);
    const char op = take().text.front();
    operand = make_expression(at, Unary{op, unary(/*with_filters=*/false)});
  } else {
    operand = primary();
  }
  std::vector<Suffix> suffixes;
  postfix(suffixes);
  if (with_filters) filters_and_tests(suffixes);
  return with_suffixes(std::move(operand), std::move(suffixes));
}

// --- operands ---

ExpressionPtr ExpressionParser::primary() {
  switch (peek().kind) {
    case TokenKind::name:
      return name_or_constant();
    case TokenKind::string:
      return string_literal();
    case TokenKind::integer: {
      const Token token = take();
      return make_expression(token.at, Constant{Value(token.integer)});
    }
    case TokenKind::number: {
      const Token token = take();
      return make_expression(token.at, Constant{Value(token.number)});
    }
    default:
      break;
  }
  if (peek().is_op("(")) return parenthesized();
  if (peek().is_op("[")) return list_literal();
  if (peek().is_op("{")) return dict_literal();
  fail(peek(), "unexpected " + peek().shown(), {}, "an expression");
}

ExpressionPtr ExpressionParser::name_or_constant() {
  const Token token = take();
  const std::string& name = token.text;
  if (name == "true" || name == "True") return make_expression(token.at, Constant{Value(true)});
  if (name == "false" || name == "False") return make_expression(token.at, Constant{Value(false)});
  if (name == "none" || name == "None") return make_expression(token.at, Constant{Value()});
  for (Function* function : functions_) {
    function->uses_caller = function->uses_caller || name == "caller";
    function->uses_kwargs = function->uses_kwargs || name == "kwargs";
    function->uses_varargs = function->uses_varargs || name == "varargs";
  }
  return make_expression(token.at, Name{name});
}

ExpressionPtr ExpressionParser::string_literal() {
  const Position at = peek().at;
  std::string text;
  while (peek().kind == TokenKind::string) text += take().text;  // neighbours are one, as in Python
  return make_expression(at, Constant{Value(std::move(text))});
}

ExpressionPtr ExpressionParser::parenthesized() {
  const Position at = take().at;
  if (peek().is_op(")")) {
    take();
    return make_expression(at, ListLiteral{.items = {}, .tuple = true});
  }
  ExpressionPtr inside = tuple_or_expression();
  expect_op(")");
  return inside;
}

ExpressionPtr ExpressionParser::list_literal() {
  const Position at = take().at;
  ListLiteral node;
  while (!peek().is_op("]")) {
    if (!node.items.empty()) expect_op(",");
    if (peek().is_op("]")) break;
    node.items.push_back(expression());
  }
  take();
  return make_expression(at, std::move(node));
}

ExpressionPtr ExpressionParser::dict_literal() {
  const Position at = take().at;
  DictLiteral node;
  while (!peek().is_op("}")) {
    if (!node.items.empty()) expect_op(",");
    if (peek().is_op("}")) break;
    ExpressionPtr key = expression();
    expect_op(":");
    node.items.emplace_back(std::move(key), expression());
  }
  take();
  return make_expression(at, std::move(node));
}

bool ExpressionParser::tuple_ends(bool ends_at_recursive) const {
  return peek().kind == TokenKind::variable_end || peek().kind == TokenKind::block_end || peek().is_op(")") ||
         (ends_at_recursive && peek().is_name("recursive"));
}

ExpressionPtr ExpressionParser::tuple_or_expression(bool conditional, bool ends_at_recursive) {
  const Position at = peek().at;
  ExpressionPtr first = expression(conditional);
  if (!peek().is_op(",")) return first;
  ListLiteral node{.items = {}, .tuple = true};
  node.items.push_back(std::move(first));
  while (peek().is_op(",")) {
    take();
    if (tuple_ends(ends_at_recursive)) break;
    node.items.push_back(expression(conditional));
  }
  return make_expression(at, std::move(node));
}

// --- what follows an operand ---

void ExpressionParser::postfix(std::vector<Suffix>& suffixes) {
  while (true) {
    if (peek().is_op("."))
      suffixes.push_back(attribute());
    else if (peek().is_op("["))
      suffixes.push_back(subscript());
    else if (peek().is_op("("))
      suffixes.push_back(call());
    else
      return;
  }
}

void ExpressionParser::filters_and_tests(std::vector<Suffix>& suffixes) {
  while (true) {
    if (peek().is_op("|"))
      suffixes.push_back(filter());
    else if (peek().is_name("is"))
      suffixes.push_back(test());
    else if (peek().is_op("("))
      suffixes.push_back(call());
    else
      return;
  }
}

Suffix ExpressionParser::attribute() {
  const Position at = take().at;
  const Token token = take();
  if (token.kind == TokenKind::name) return {at, Attribute{token.text}};
  if (token.kind != TokenKind::integer) fail(token, "unexpected " + token.shown(), {}, "a name or a number behind '.'");
  return {at, Item{make_expression(token.at, Constant{Value(token.integer)})}};
}

Suffix ExpressionParser::subscript() {
  const Position at = take().at;
  std::vector<std::variant<Item, Slice>> parts;
  while (!peek().is_op("]")) {
    if (!parts.empty()) expect_op(",");
    parts.push_back(subscribed());
  }
  take();
  if (parts.size() == 1) {
    if (auto* slice = std::get_if<Slice>(&parts.front())) return {at, std::move(*slice)};
    return {at, std::move(std::get<Item>(parts.front()))};
  }
  ListLiteral index{.items = {}, .tuple = true};
  for (auto& part : parts) {
    if (!std::holds_alternative<Item>(part)) fail(peek(), "slices of several dimensions are not supported");
    index.items.push_back(std::move(std::get<Item>(part).index));
  }
  return {at, Item{make_expression(at, std::move(index))}};
}

std::variant<Item, Slice> ExpressionParser::subscribed() {
  Slice slice;
  if (!peek().is_op(":")) {
    ExpressionPtr index = expression();
    if (!peek().is_op(":")) return Item{std::move(index)};
    slice.start = std::move(index);
  }
  take();
  const auto absent = [&] { return peek().is_op(":") || peek().is_op("]") || peek().is_op(","); };
  if (!absent()) slice.stop = expression();
  if (peek().is_op(":")) {
    take();
    if (!absent()) slice.step = expression();
  }
  return slice;
}

Suffix ExpressionParser::call() {
  const Position at = peek().at;
  return {at, Call{call_arguments()}};
}

CallArguments ExpressionParser::call_arguments() {
  CallArguments arguments;
  const Token open = take();
  const auto ensure = [&](bool good) {
    if (!good) fail(peek(), "arguments in the wrong order", {}, "positional ones, then named ones, then * and **");
  };
  for (bool first = true; !peek().is_op(")"); first = false) {
    if (!first) {
      expect_op(",");
      if (peek().is_op(")")) break;
    }
    if (peek().is_op("*")) {
      ensure(!arguments.unpacked && !arguments.unpacked_keyword);
      take();
      arguments.unpacked = expression();
    } else if (peek().is_op("**")) {
      ensure(!arguments.unpacked_keyword);
      take();
      arguments.unpacked_keyword = expression();
    } else if (peek().kind == TokenKind::name && peek(1).is_op("=")) {
      ensure(!arguments.unpacked_keyword);
      const std::string name = take().text;
      take();
      arguments.keyword.emplace_back(name, expression());
    } else {
      ensure(!arguments.unpacked && !arguments.unpacked_keyword && arguments.keyword.empty());
      arguments.positional.push_back(expression());
    }
  }
  take();
  return arguments;
}

/// The name of a filter or a test; dots may stand in it.
Token ExpressionParser::name_of(bool is_filter) {
  Token token = expect(TokenKind::name, is_filter ? "a filter's name" : "a test's name");
  while (peek().is_op(".")) {
    take();
    token.text += "." + expect(TokenKind::name, "a name").text;
  }
  if (!under_if_ && !(is_filter ? has_filter(token.text) : has_test(token.text)))
    unknown_.push_back({token, is_filter});
  return token;
}

Suffix ExpressionParser::filter(bool with_bar) {
  if (with_bar) take();
  const Token name = name_of(/*is_filter=*/true);
  Filter node{.name = name.text, .arguments = {}};
  if (peek().is_op("(")) node.arguments = call_arguments();
  return {name.at, std::move(node)};
}

Suffix ExpressionParser::test() {
  const Position at = take().at;
  const bool negated = take_name("not");
  Test node{.name = name_of(/*is_filter=*/false).text, .arguments = {}, .negated = negated};
  node.arguments = test_argument();
  return {at, std::move(node)};
}

/// In brackets, or one operand without: "is divisibleby 3".
CallArguments ExpressionParser::test_argument() {
  if (peek().is_op("(")) return call_arguments();
  CallArguments arguments;
  const Token& next = peek();
  const bool begins_operand = next.kind == TokenKind::name || next.kind == TokenKind::string ||
                              next.kind == TokenKind::integer || next.kind == TokenKind::number || next.is_op("[") ||
                              next.is_op("{");
  if (!begins_operand || next.is_name("else") || next.is_name("or") || next.is_name("and")) return arguments;
  if (next.is_name("is")) fail(next, "tests cannot be chained", {}, "'and' between two tests");
  ExpressionPtr operand = primary();
  std::vector<Suffix> suffixes;
  postfix(suffixes);
  arguments.positional.push_back(with_suffixes(std::move(operand), std::move(suffixes)));
  return arguments;
}

// --- what is assigned to ---

Target ExpressionParser::simple_target(bool with_attribute) {
  const Nesting nesting(*this);
  Target one{.at = peek().at};
  if (peek().is_op("(")) {
    take();
    one = target(with_attribute, /*ends_at_in=*/false);
    expect_op(")");
    return one;
  }
  const Token name = expect(TokenKind::name, "a name to assign to");
  for (const char* constant : {"true", "false", "none", "True", "False", "None"})
    if (name.text == constant) fail(name, "'" + name.text + "' cannot be assigned to");
  one.name = name.text;
  if (with_attribute && peek().is_op(".")) {
    take();
    one.attribute = expect(TokenKind::name, "an attribute's name").text;
  }
  return one;
}

Target ExpressionParser::target(bool with_attribute, bool ends_at_in) {
  Target first = simple_target(with_attribute);
  if (!peek().is_op(",")) return first;
  Target all{.at = first.at};
  all.several.push_back(std::move(first));
  while (peek().is_op(",")) {
    take();
    if (tuple_ends(false) || (ends_at_in && peek().is_name("in"))) break;
    all.several.push_back(simple_target(with_attribute));
  }
  return all;
}

}  // namespace llmtk::text::jinja
