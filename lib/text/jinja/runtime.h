#pragma once
// What the functions of one rendering share.

#include <ctime>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace llmtk::text::jinja {

class Namespace;

class Runtime {
 public:
  Runtime(uint64_t units, std::time_t now) : work(units), now(now) {}
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  /// An empty one, which lives as long as this object: namespaces may hold each other in circles.
  std::shared_ptr<Namespace> make_namespace();

  Work work;
  const std::time_t now;  ///< what strftime_now() shows, in local time

 private:
  std::vector<std::shared_ptr<Namespace>> namespaces_;
};

/// The arguments of a built-in function by the names of its parameters. Throws TemplateError where too few or too many
/// are given, or one that the function does not have.
class Bound {
 public:
  Bound(std::string_view function, const Arguments& arguments, std::initializer_list<std::string_view> parameters,
        size_t required = 0);

  /// Null: not given.
  const Value* operator[](size_t i) const { return values_[i]; }
  bool given(size_t i) const { return values_[i] != nullptr; }
  /// Not given, or None.
  bool none(size_t i) const { return !values_[i] || values_[i]->is_none(); }
  // Throw TemplateError where the argument is of another type.
  int64_t integer(size_t i, int64_t otherwise) const;
  bool flag(size_t i, bool otherwise) const;
  const std::string& text(size_t i) const;
  std::string text_or(size_t i, std::string_view otherwise) const;

 private:
  [[noreturn]] void wrong(size_t i, std::string_view expected) const;

  std::string function_;
  std::vector<std::string_view> names_;
  std::vector<const Value*> values_;
};

/// Throws what using an undefined value, or one of an unsuitable type, says.
[[noreturn]] void unsuitable(const Value& value, const std::string& what);

}  // namespace llmtk::text::jinja
