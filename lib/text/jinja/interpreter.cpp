#include "text/jinja/interpreter.h"

#include <algorithm>

#include "text/jinja/filters.h"
#include "text/jinja/loop.h"
#include "text/jinja/objects.h"

namespace llmtk::text::jinja {
namespace {

constexpr int kMaxLevels = 1000;

/// What {% macro %} defines, and the caller() of a call block.
class MacroObject : public Object {
 public:
  MacroObject(Interpreter& interpreter, const jinja::Function& function, Scope& scope)
      : interpreter_(interpreter), function_(function), scope_(scope) {}
  std::string_view type_name() const override { return "Macro"; }
  std::string repr(Work&) const override { return "<Macro " + jinja::repr(function_.name) + ">"; }
  bool callable() const override { return true; }
  Value call(Runtime&, Arguments& arguments) override {
    return interpreter_.call_function(function_, scope_, arguments);
  }
  std::optional<Value> attribute(std::string_view name) override {
    if (name == "name") return Value(function_.name);
    if (name == "catch_kwargs") return Value(function_.uses_kwargs);
    if (name == "catch_varargs") return Value(function_.uses_varargs);
    if (name == "caller") return Value(function_.uses_caller);
    if (name != "arguments") return std::nullopt;
    return Value::tuple({function_.parameters.begin(), function_.parameters.end()});
  }

 private:
  Interpreter& interpreter_;
  const jinja::Function& function_;
  Scope& scope_;
};

}  // namespace

Interpreter::Level::Level(Interpreter& interpreter) : interpreter_(interpreter) {
  if (interpreter_.level_ >= kMaxLevels)
    throw TemplateError{.what =
                            "macros or loops call each other more than " + std::to_string(kMaxLevels) + " levels deep"};
  ++interpreter_.level_;
}

/// Names of its own, until the C++ scope ends.
class Interpreter::Inside {
 public:
  Inside(Interpreter& interpreter, std::shared_ptr<Scope> parent)
      : interpreter_(interpreter),
        before_(std::exchange(interpreter.scope_, std::make_shared<Scope>(std::move(parent)))) {}
  ~Inside() { interpreter_.scope_ = std::move(before_); }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  Interpreter& interpreter_;
  std::shared_ptr<Scope> before_;
};

/// The values of a loop with an if, each looked at when it is asked for: a test may see what the body did before.
class Interpreter::Filtered : public Iterator {
 public:
  Filtered(Interpreter& interpreter, const For& loop, std::unique_ptr<Iterator> values)
      : interpreter_(interpreter), loop_(loop), values_(std::move(values)), outside_(interpreter.scope_) {}

  std::optional<Value> next() override {
    while (auto value = values_->next()) {
      const Inside inside(interpreter_, outside_);
      interpreter_.assign(loop_.target, *value);
      if (truth(interpreter_.evaluate(*loop_.test))) return value;
    }
    return std::nullopt;
  }

 private:
  Interpreter& interpreter_;
  const For& loop_;
  std::unique_ptr<Iterator> values_;
  std::shared_ptr<Scope> outside_;
};

Interpreter::Interpreter(const Dict& variables, Runtime& runtime)
    : variables_(variables), runtime_(runtime), scope_(std::make_shared<Scope>(nullptr)) {}

Rendered Interpreter::run(const Body& body) {
  run_body(body);
  for (Span& span : generations_) {  // a block whose text went elsewhere may lie beyond the end
    span.end = std::min(span.end, root_.size());
    span.begin = std::min(span.begin, span.end);
  }
  return {std::move(root_), std::move(generations_)};
}

void Interpreter::write(std::string_view text) {
  runtime_.work.spend_bytes(text.size());
  *out_ += text;
}

template <class Run>
std::string Interpreter::captured(const Run& run) {
  struct Restore {
    std::string*& out;
    std::string* before;
    ~Restore() { out = before; }
  };
  std::string text;
  const Restore restore{out_, std::exchange(out_, &text)};
  run();
  return text;
}

// --- statements ---

Interpreter::Flow Interpreter::run_body(const Body& body) {
  const Level level(*this);
  for (const Statement& statement : body)
    if (const Flow flow = run_statement(statement); flow != Flow::next) return flow;
  return Flow::next;
}

Interpreter::Flow Interpreter::run_statement(const Statement& statement) {
  at_ = statement.at;
  runtime_.work.spend();
  const auto& node = statement.node;
  if (const auto* text = std::get_if<Text>(&node)) {
    write(text->text);
  } else if (const auto* output = std::get_if<Output>(&node)) {
    write(str(evaluate(*output->value), runtime_.work));
  } else if (const auto* branches = std::get_if<If>(&node)) {
    return run_if(*branches);
  } else if (const auto* loop = std::get_if<For>(&node)) {
    if (loop->recursive)
      write(run_loop(*loop, capture_scope(), evaluate(*loop->iterable), 0));
    else
      return run_for(*loop, evaluate(*loop->iterable), 0);
  } else if (std::holds_alternative<Break>(node)) {
    return Flow::leave_loop;
  } else if (std::holds_alternative<Continue>(node)) {
    return Flow::next_iteration;
  } else if (const auto* assignment = std::get_if<Set>(&node)) {
    assign(assignment->target, evaluate(*assignment->value));
  } else if (const auto* set_block = std::get_if<SetBlock>(&node)) {
    return run_set_block(*set_block);
  } else if (const auto* with = std::get_if<With>(&node)) {
    return run_with(*with);
  } else if (const auto* filter = std::get_if<FilterBlock>(&node)) {
    return run_filter_block(*filter);
  } else if (const auto* macro = std::get_if<Macro>(&node)) {
    set(macro->function->name, make_macro(*macro->function));
  } else if (const auto* call_block = std::get_if<CallBlock>(&node)) {
    run_call_block(*call_block);
  } else {
    run_generation(std::get<Generation>(node));
  }
  return Flow::next;
}

Interpreter::Flow Interpreter::run_if(const If& node) {
  for (const If::Branch& branch : node.branches)
    if (!branch.test || truth(evaluate(*branch.test))) return run_body(branch.body);
  return Flow::next;
}

Interpreter::Flow Interpreter::run_for(const For& node, const Value& iterable, int depth) {
  at_ = node.iterable->at;
  std::unique_ptr<Iterator> values = iterate(iterable, runtime_.work);
  std::optional<size_t> size;
  if (node.test)
    values = std::make_unique<Filtered>(*this, node, std::move(values));
  else if (iterable.kind() != Kind::object || iterable.object().length())
    size = length(iterable, runtime_.work);
  Recursion recursion;
  if (node.recursive)
    recursion = [this, &node, &scope = capture_scope()](const Value& others, int deeper) {
      return run_loop(node, scope, others, deeper);
    };
  const auto loop = std::make_shared<Loop>(iterable.depth(), std::move(values), size, depth, std::move(recursion));
  const std::shared_ptr<Scope> outside = scope_;
  bool any = false;
  while (loop->advance()) {
    runtime_.work.spend();
    any = true;
    const Inside inside(*this, outside);
    assign(node.target, loop->current());
    set("loop", Value(std::shared_ptr<Object>(loop)));
    if (run_body(node.body) == Flow::leave_loop) break;
  }
  if (any || node.otherwise.empty()) return Flow::next;
  const Inside inside(*this, outside);
  return run_body(node.otherwise);
}

std::string Interpreter::run_loop(const For& loop, Scope& scope, const Value& iterable, int depth) {
  const Level level(*this);
  const Inside inside(*this, scope.shared_from_this());
  return captured([&] { run_for(loop, iterable, depth); });
}

Interpreter::Flow Interpreter::run_set_block(const SetBlock& node) {
  Value value;
  {
    const Inside inside(*this, scope_);
    Flow flow = Flow::next;
    value = Value(captured([&] { flow = run_body(node.body); }));
    if (flow != Flow::next) return flow;
    for (const Suffix& filter : node.filters) value = apply(filter, value);
  }
  assign(node.target, value);
  return Flow::next;
}

Interpreter::Flow Interpreter::run_with(const With& node) {
  std::vector<Value> values;
  for (const auto& [target, value] : node.values) values.push_back(evaluate(*value));
  const Inside inside(*this, scope_);
  for (size_t i = 0; i < values.size(); ++i) assign(node.values[i].first, values[i]);
  return run_body(node.body);
}

Interpreter::Flow Interpreter::run_filter_block(const FilterBlock& node) {
  const Inside inside(*this, scope_);
  Flow flow = Flow::next;
  Value value(captured([&] { flow = run_body(node.body); }));
  if (flow != Flow::next) return flow;
  for (const Suffix& filter : node.filters) value = apply(filter, value);
  write(str(value, runtime_.work));
  return Flow::next;
}

void Interpreter::run_generation(const Generation& node) {
  const std::string text = str(call_function(*node.body, *scope_, {}), runtime_.work);
  // As transformers counts: from what is written for good, which a block inside another one has not reached yet.
  generations_.push_back({root_.size(), root_.size() + text.size()});
  write(text);
}

void Interpreter::run_call_block(const CallBlock& node) {
  const auto& postfix = std::get<Postfix>(node.call->node);
  Value callee = evaluate(*postfix.operand);
  for (size_t i = 0; i + 1 < postfix.suffixes.size(); ++i) callee = apply(postfix.suffixes[i], callee);
  Arguments arguments = evaluate_arguments(std::get<Call>(postfix.suffixes.back().node).arguments);
  arguments.keyword.emplace_back("caller", make_macro(*node.body));
  write(str(call(callee, std::move(arguments)), runtime_.work));
}

// --- names ---

void Interpreter::set(const std::string& name, Value value) {
  auto& variables = scope_->variables;
  runtime_.work.spend(variables.size() / 64);  // they are gone through one by one
  const auto found = std::ranges::find(variables, name, &std::pair<std::string, Value>::first);
  if (found == variables.end())
    variables.emplace_back(name, std::move(value));
  else
    found->second = std::move(value);
}

void Interpreter::assign(const Target& target, const Value& value) {
  at_ = target.at;
  if (target.several.empty()) {
    if (target.attribute.empty()) return set(target.name, value);
    auto* names = look_up(target.name).as<Namespace>();
    if (!names) throw TemplateError{.what = "cannot assign attribute on non-namespace object"};
    return names->set(target.attribute, value);
  }
  const auto parts = to_list(value, runtime_.work);
  if (parts.size() != target.several.size())
    throw TemplateError{.what = "expected " + std::to_string(target.several.size()) + " values to unpack, got " +
                                std::to_string(parts.size())};
  for (size_t i = 0; i < parts.size(); ++i) assign(target.several[i], parts[i]);
}

Value Interpreter::look_up(const std::string& name) {
  for (const Scope* scope = scope_.get(); scope; scope = scope->parent.get()) {
    runtime_.work.spend(scope->variables.size() / 64);
    for (const auto& [known, value] : scope->variables)
      if (known == name) return value;
  }
  if (const Value* given = variables_.find(name)) return *given;
  if (const auto global = globals().find(name); global != globals().end()) return global->second;
  return Value::undefined("'" + name + "' is undefined");
}

Scope& Interpreter::capture_scope() {
  if (!std::exchange(scope_->captured, true)) captured_scopes_.push_back(scope_);
  return *scope_;
}

Value Interpreter::make_macro(const Function& function) {
  return Value(std::make_shared<MacroObject>(*this, function, capture_scope()));
}

// --- macros ---

Value Interpreter::call_function(const Function& function, Scope& scope, const Arguments& arguments) {
  const Level level(*this);
  const Position called_at = at_;
  const Inside inside(*this, scope.shared_from_this());
  bind_parameters(function, arguments);
  std::string text = captured([&] { run_body(function.body); });
  at_ = called_at;
  return Value(std::move(text));
}

/// Jinja2's Macro.__call__: positional arguments, then named ones, then defaults, which see the parameters before them.
void Interpreter::bind_parameters(const Function& function, const Arguments& arguments) {
  const std::vector<std::string>& names = function.parameters;
  const std::vector<Value>& positional = arguments.positional;
  auto keyword = arguments.keyword;
  const auto take = [&](std::string_view name) -> std::optional<Value> {
    const auto found = std::ranges::find(keyword, name, &std::pair<std::string, Value>::first);
    if (found == keyword.end()) return std::nullopt;
    Value value = std::move(found->second);
    keyword.erase(found);
    return value;
  };
  const size_t without_default = names.size() - function.defaults.size();
  for (size_t i = 0; i < names.size(); ++i) {
    std::optional<Value> value = i < positional.size() ? std::optional(positional[i]) : take(names[i]);
    if (!value)
      value = i < without_default ? Value::undefined("parameter '" + names[i] + "' was not provided")
                                  : evaluate(*function.defaults[i - without_default]);
    set(names[i], std::move(*value));
  }
  if (function.uses_caller) set("caller", take("caller").value_or(Value::undefined("No caller defined")));
  if (function.uses_kwargs) {
    Dict rest;
    for (auto& [name, value] : keyword) rest.set(name, std::move(value));
    set("kwargs", Value(std::move(rest)));
  } else if (!keyword.empty()) {
    throw TemplateError{.what =
                            "macro '" + function.name + "' takes no keyword argument '" + keyword.front().first + "'"};
  }
  if (function.uses_varargs)
    set("varargs", Value::tuple({positional.begin() + static_cast<int64_t>(std::min(names.size(), positional.size())),
                                 positional.end()}));
  else if (positional.size() > names.size())
    throw TemplateError{.what = "macro '" + function.name + "' takes not more than " + std::to_string(names.size()) +
                                " argument(s)"};
}

}  // namespace llmtk::text::jinja
