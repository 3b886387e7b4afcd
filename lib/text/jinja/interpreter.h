#pragma once
// Runs a parsed template.

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/jinja.h"
#include "text/jinja/runtime.h"

namespace llmtk::text::jinja {

/// The names that statements have set in one block.
struct Scope : std::enable_shared_from_this<Scope> {
  explicit Scope(std::shared_ptr<Scope> parent) : parent(std::move(parent)) {}

  const std::shared_ptr<Scope> parent;
  std::vector<std::pair<std::string, Value>> variables;
  bool captured = false;  // a macro looks into it: it stays until the rendering ends
};

/// One rendering.
class Interpreter {
 public:
  Interpreter(const Dict& variables, Runtime& runtime);

  /// Throws TemplateError; position() is where, then.
  Rendered run(const Body& body);
  Position position() const { return at_; }

  /// What a macro's call gives. `scope`: where it was defined.
  Value call_function(const Function& function, Scope& scope, const Arguments& arguments);
  /// The body of a recursive loop over other values.
  std::string run_loop(const For& loop, Scope& scope, const Value& iterable, int depth);
  Runtime& runtime() { return runtime_; }

 private:
  enum class Flow { next, leave_loop, next_iteration };
  /// One level deeper, until the C++ scope ends.
  class Level {
   public:
    explicit Level(Interpreter& interpreter);
    ~Level() { --interpreter_.level_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Interpreter& interpreter_;
  };
  class Inside;
  class Filtered;

  // --- statements ---
  Flow run_body(const Body& body);
  Flow run_statement(const Statement& statement);
  Flow run_if(const If& node);
  Flow run_for(const For& node, const Value& iterable, int depth);
  Flow run_set_block(const SetBlock& node);
  Flow run_with(const With& node);
  Flow run_filter_block(const FilterBlock& node);
  void run_generation(const Generation& node);
  void run_call_block(const CallBlock& node);
  void write(std::string_view text);
  /// What `body` writes.
  template <class Run>
  std::string captured(const Run& run);

  void assign(const Target& target, const Value& value);
  void set(const std::string& name, Value value);
  Value make_macro(const Function& function);
  Scope& capture_scope();
  void bind_parameters(const Function& function, const Arguments& arguments);

  // --- expressions ---
  Value evaluate(const Expression& expression);
  Value evaluate_or_none(const ExpressionPtr& expression);
  Value look_up(const std::string& name);
  Value evaluate_node(const Constant& node) { return node.value; }
  Value evaluate_node(const Name& node) { return look_up(node.name); }
  Value evaluate_node(const ListLiteral& node);
  Value evaluate_node(const DictLiteral& node);
  Value evaluate_node(const Unary& node);
  Value evaluate_node(const Arithmetic& node);
  Value evaluate_node(const Concatenation& node);
  Value evaluate_node(const Comparison& node);
  Value evaluate_node(const Logic& node);
  Value evaluate_node(const Conditional& node);
  Value evaluate_node(const Postfix& node);
  Value apply(const Suffix& suffix, const Value& value);
  Value apply_node(const Attribute& node, const Value& value);
  Value apply_node(const Item& node, const Value& value);
  Value apply_node(const Slice& node, const Value& value);
  Value apply_node(const Call& node, const Value& value);
  Value apply_node(const Filter& node, const Value& value);
  Value apply_node(const Test& node, const Value& value);
  bool compare_once(const std::string& op, const Value& a, const Value& b);
  Value call(const Value& callee, Arguments arguments);
  Arguments evaluate_arguments(const CallArguments& node);

  const Dict& variables_;
  Runtime& runtime_;
  Position at_;
  int level_ = 0;
  std::shared_ptr<Scope> scope_;
  std::vector<std::shared_ptr<Scope>> captured_scopes_;  // held, so that macros need not hold them
  std::string root_;                                     // what is written for good
  std::string* out_ = &root_;                            // what is written to now
  std::vector<Span> generations_;
};

}  // namespace llmtk::text::jinja
