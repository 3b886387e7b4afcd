// The interpreter's part that computes expressions.

#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/operators.h"
#include "text/jinja/tests.h"

namespace llmtk::text::jinja {

Value Interpreter::evaluate(const Expression& expression) {
  const Level level(*this);
  runtime_.work.spend();
  const Position outer = std::exchange(at_, expression.at);
  Value value = std::visit([&](const auto& node) { return evaluate_node(node); }, expression.node);
  at_ = outer;  // not where something was thrown: position() says where
  return value;
}

Value Interpreter::evaluate_or_none(const ExpressionPtr& expression) {
  return expression ? evaluate(*expression) : Value();
}

Value Interpreter::evaluate_node(const ListLiteral& node) {
  std::vector<Value> items;
  items.reserve(node.items.size());
  for (const auto& item : node.items) items.push_back(evaluate(*item));
  return node.tuple ? Value::tuple(std::move(items)) : Value::list(std::move(items));
}

Value Interpreter::evaluate_node(const DictLiteral& node) {
  Dict dict;
  for (const auto& [key, value] : node.items) {
    Value name = evaluate(*key);
    dict.set(std::move(name), evaluate(*value), runtime_.work);
  }
  return Value(std::move(dict));
}

Value Interpreter::evaluate_node(const Unary& node) {
  const Value operand = evaluate(*node.operand);
  if (node.op == '!') return Value(!truth(operand));
  return node.op == '-' ? negate(operand) : posit(operand);
}

Value Interpreter::evaluate_node(const Arithmetic& node) {
  Value value = evaluate(*node.first);
  for (const auto& [op, operand, at] : node.rest) {
    const Value right = evaluate(*operand);
    at_ = at;
    value = arithmetic(op, value, right, runtime_);
  }
  return value;
}

Value Interpreter::evaluate_node(const Concatenation& node) {
  std::string text;
  for (const auto& operand : node.operands) {
    const std::string part = str(evaluate(*operand), runtime_.work);
    runtime_.work.spend_bytes(part.size());
    text += part;
  }
  return Value(std::move(text));
}

bool Interpreter::compare_once(const std::string& op, const Value& a, const Value& b) {
  Work& work = runtime_.work;
  if (op == "==") return equal(a, b, work);
  if (op == "!=") return !equal(a, b, work);
  if (op == "in") return contains(b, a, work);
  if (op == "not in") return !contains(b, a, work);
  const int order = compare(a, b, op, work);
  if (op == "<") return order == -1;
  if (op == "<=") return order == -1 || order == 0;
  if (op == ">") return order == 1;
  return order == 1 || order == 0;
}

Value Interpreter::evaluate_node(const Comparison& node) {
  Value left = evaluate(*node.first);
  for (const auto& [op, operand, at] : node.rest) {
    Value right = evaluate(*operand);
    at_ = at;
    if (!compare_once(op, left, right)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Interpreter::evaluate_node(const Logic& node) {
  Value value;
  for (const auto& operand : node.operands) {
    value = evaluate(*operand);
    if (truth(value) != node.conjunction) break;
  }
  return value;
}

Value Interpreter::evaluate_node(const Conditional& node) {
  if (truth(evaluate(*node.test))) return evaluate(*node.then);
  if (node.otherwise) return evaluate(*node.otherwise);
  return Value::undefined("the inline if-expression on line " + std::to_string(at_.line) +
                          " evaluated to false and no else section was defined.");
}

// --- what follows an operand ---

Value Interpreter::evaluate_node(const Postfix& node) {
  Value value = evaluate(*node.operand);
  for (const Suffix& suffix : node.suffixes) value = apply(suffix, value);
  return value;
}

Value Interpreter::apply(const Suffix& suffix, const Value& value) {
  runtime_.work.spend();
  at_ = suffix.at;
  return std::visit([&](const auto& node) { return apply_node(node, value); }, suffix.node);
}

Value Interpreter::apply_node(const Attribute& node, const Value& value) {
  return get_attribute(value, node.name, runtime_);
}

Value Interpreter::apply_node(const Item& node, const Value& value) {
  return get_item(value, evaluate(*node.index), runtime_);
}

Value Interpreter::apply_node(const Slice& node, const Value& value) {
  const Value start = evaluate_or_none(node.start), stop = evaluate_or_none(node.stop);
  return get_slice(value, start, stop, evaluate_or_none(node.step), runtime_);
}

Value Interpreter::apply_node(const Call& node, const Value& value) {
  return call(value, evaluate_arguments(node.arguments));
}

Value Interpreter::apply_node(const Filter& node, const Value& value) {
  return apply_filter(node.name, value, evaluate_arguments(node.arguments), runtime_);
}

Value Interpreter::apply_node(const Test& node, const Value& value) {
  return Value(apply_test(node.name, value, evaluate_arguments(node.arguments), runtime_) != node.negated);
}

Value Interpreter::call(const Value& callee, Arguments arguments) {
  if (!callee.is(Kind::object)) unsuitable(callee, "'" + type_name(callee) + "' object is not callable");
  const auto kept = callee.shared_object();  // a namespace may let go of it meanwhile
  return kept->call(runtime_, arguments);
}

Arguments Interpreter::evaluate_arguments(const CallArguments& node) {
  Arguments arguments;
  for (const auto& value : node.positional) arguments.positional.push_back(evaluate(*value));
  for (const auto& [name, value] : node.keyword) arguments.keyword.emplace_back(name, evaluate(*value));
  if (node.unpacked)
    for (const Value& value : to_list(evaluate(*node.unpacked), runtime_.work)) arguments.positional.push_back(value);
  if (node.unpacked_keyword) {
    const Value named = evaluate(*node.unpacked_keyword);
    if (!named.is(Kind::dict)) unsuitable(named, "argument after ** must be a mapping, not " + type_name(named));
    for (const auto& [name, value] : named.dict().items()) {
      if (!name.is_string()) throw TemplateError{.what = "keywords must be strings"};
      arguments.keyword.emplace_back(name.text(), value);
    }
  }
  return arguments;
}

}  // namespace llmtk::text::jinja
