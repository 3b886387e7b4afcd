#pragma once
// What a template means: statements and expressions as the parser found them.
//
// Operators of one level and everything that follows an operand (attributes, calls, filters) are lists, not nested
// nodes: so a tree is never deeper than the parser's own recursion.

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "text/jinja/lexer.h"
#include "text/jinja/value.h"

namespace llmtk::text::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Constant {
  Value value;
};
struct Name {
  std::string name;
};
struct ListLiteral {
  std::vector<ExpressionPtr> items;
  bool tuple = false;
};
struct DictLiteral {
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> items;
};
struct Unary {
  char op;  ///< '+', '-', '!' (not)
  ExpressionPtr operand;
};
/// Operators of one level, from left to right: "+" and "-"; "*", "/", "//" and "%"; "**".
struct Arithmetic {
  struct Term {
    std::string op;
    ExpressionPtr operand;
    Position at;
  };
  ExpressionPtr first;
  std::vector<Term> rest;
};
/// a ~ b ~ c
struct Concatenation {
  std::vector<ExpressionPtr> operands;
};
/// a < b <= c, as Python chains them; also "in" and "not in".
struct Comparison {
  struct Term {
    std::string op;
    ExpressionPtr operand;
    Position at;
  };
  ExpressionPtr first;
  std::vector<Term> rest;
};
/// and, or
struct Logic {
  bool conjunction;
  std::vector<ExpressionPtr> operands;
};
/// a if b else c
struct Conditional {
  ExpressionPtr test, then, otherwise;  ///< otherwise: may be null
};

struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> keyword;
  ExpressionPtr unpacked, unpacked_keyword;  ///< *a, **b; may be null
};
struct Attribute {
  std::string name;
};
struct Item {
  ExpressionPtr index;
};
struct Slice {
  ExpressionPtr start, stop, step;  ///< each may be null
};
struct Call {
  CallArguments arguments;
};
struct Filter {
  std::string name;
  CallArguments arguments;
};
struct Test {
  std::string name;
  CallArguments arguments;
  bool negated = false;
};
/// What follows an operand.
struct Suffix {
  Position at;
  std::variant<Attribute, Item, Slice, Call, Filter, Test> node;
};
struct Postfix {
  ExpressionPtr operand;
  std::vector<Suffix> suffixes;
};

struct Expression {
  Position at;
  std::variant<Constant, Name, ListLiteral, DictLiteral, Unary, Arithmetic, Concatenation, Comparison, Logic,
               Conditional, Postfix>
      node;
};

/// What is assigned to: a name, a namespace's attribute, or several.
struct Target {
  Position at;
  std::string name;       ///< empty for several
  std::string attribute;  ///< of the namespace `name`; empty: the name itself
  std::vector<Target> several;
};

struct Statement;
using Body = std::vector<Statement>;

struct Text {
  std::string text;
};
struct Output {
  ExpressionPtr value;
};
struct If {
  struct Branch {
    ExpressionPtr test;  ///< null: else
    Body body;
  };
  std::vector<Branch> branches;
};
struct For {
  Target target;
  ExpressionPtr iterable, test;  ///< test: may be null
  bool recursive = false;
  Body body, otherwise;
};
struct Break {};
struct Continue {};
struct Set {
  Target target;
  ExpressionPtr value;
};
struct SetBlock {
  Target target;
  std::vector<Suffix> filters;
  Body body;
};
struct With {
  std::vector<std::pair<Target, ExpressionPtr>> values;
  Body body;
};
struct FilterBlock {
  std::vector<Suffix> filters;
  Body body;
};
/// A macro, or the body of a call block.
struct Function {
  std::string name;
  std::vector<std::string> parameters;
  std::vector<ExpressionPtr> defaults;  ///< of the last ones
  Body body;
  bool uses_caller = false, uses_kwargs = false, uses_varargs = false;
};
struct Macro {
  std::unique_ptr<Function> function;
};
/// {% call(arguments) f(x) %} body {% endcall %}
struct CallBlock {
  std::unique_ptr<Function> body;
  ExpressionPtr call;  ///< a Postfix whose last suffix is a Call
};
/// {% generation %} body {% endgeneration %}: what the model itself writes.
struct Generation {
  std::unique_ptr<Function> body;
};

struct Statement {
  Position at;
  std::variant<Text, Output, If, For, Break, Continue, Set, SetBlock, With, FilterBlock, Macro, CallBlock, Generation>
      node;
};

}  // namespace llmtk::text::jinja
