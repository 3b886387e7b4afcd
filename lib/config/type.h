#pragma once
// What a field list turns into: Fields with the address, the type and the rules of each member. Everything else in this
// folder is plain code over these; only this header knows the members' C++ types. Users include config.h.

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace llmtk::config {

struct Places;

/// What a value must satisfy beside its type. Ranges and choices hold for each element of a list or map; `not_empty`
/// and `count` for a text or list itself.
struct Rules {
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
  bool low_open = false, high_open = false;  ///< the bound itself is excluded
  std::vector<std::string> choices;
  bool is_not_empty = false;
  bool is_required = false;
  bool takes_bool = false;  ///< a text: `true` and `false` need no quotes
  std::optional<size_t> length;
};

inline Rules above(double low) { return {.low = low, .low_open = true}; }
inline Rules at_least(double low) { return {.low = low}; }
inline Rules below(double high) { return {.high = high, .high_open = true}; }
inline Rules at_most(double high) { return {.high = high}; }
inline Rules between(double low, double high) { return {.low = low, .high = high}; }  ///< both included
inline Rules one_of(std::vector<std::string> choices) { return {.choices = std::move(choices)}; }
inline Rules count(size_t length) { return {.length = length}; }  ///< of a list's elements
inline const Rules not_empty{.is_not_empty = true};
inline const Rules or_bool{.takes_bool = true};
inline const Rules required{.is_required = true};  ///< the file or an override must give it

/// Where validate() reports what is wrong between fields.
class Problems {
 public:
  virtual ~Problems() = default;
  /// `key` is relative to the struct that validates ("betas", "sources.0.path"); the message points to the place it was
  /// given at. `parts.where` is filled in.
  virtual void add(const std::string& key, Error::Parts parts) = 0;
};

namespace detail {

struct Type;

struct Field {
  std::string name, help;
  void* member;
  const Type* type;
  Rules rules;
};

/// The visitor that a struct's fields() is given.
class FieldList {
 public:
  template <class M, class... R>
  void operator()(std::string name, M& member, std::string help, const R&... rules);
  std::vector<Field> fields;
};

template <class T>
concept Section = requires(T& t, FieldList& list) {
  t.fields(list);
};

enum class Kind { boolean, integer, number, text, section, list, optional, map, any };

/// A member type with its operations on untyped addresses.
struct Type {
  Kind kind;
  const Type* element = nullptr;                                             // list, optional, map
  std::vector<Field> (*fields)(void* section) = nullptr;                     // section
  void (*validate)(const void* section, Problems& problems) = nullptr;       // section; may be null
  size_t (*size)(const void* container) = nullptr;                           // list, map, optional (0 or 1)
  void* (*at)(void* container, size_t index) = nullptr;                      // list, map (in order of keys), optional
  void (*clear)(void* container) = nullptr;                                  // list, map, optional
  void* (*add)(void* container, const std::string& key) = nullptr;           // a default element; key: map
  const std::string& (*key)(const void* container, size_t index) = nullptr;  // map
  std::shared_ptr<void> (*make)() = nullptr;                                 // a default object
};

template <class T>
const Type& type_of();

template <class T>
struct Make;

template <class C>
Type container(Kind kind) {
  Type type{.kind = kind};
  type.clear = [](void* c) { *static_cast<C*>(c) = C{}; };
  return type;
}

template <>
struct Make<bool> {
  static Type type() { return {.kind = Kind::boolean}; }
};
template <>
struct Make<int64_t> {
  static Type type() { return {.kind = Kind::integer}; }
};
template <>
struct Make<double> {
  static Type type() { return {.kind = Kind::number}; }
};
template <>
struct Make<std::string> {
  static Type type() { return {.kind = Kind::text}; }
};

/// Whatever the file says, for objects that somebody else defines (the config.json of a model). Needs nlohmann/json.hpp.
template <>
struct Make<nlohmann::ordered_json> {
  static Type type() { return {.kind = Kind::any}; }
};

template <Section T>
struct Make<T> {
  static Type type() {
    Type type{.kind = Kind::section};
    type.fields = [](void* section) {
      FieldList list;
      static_cast<T*>(section)->fields(list);
      return std::move(list.fields);
    };
    if constexpr (requires(const T& t, Problems& p) { t.validate(p); })
      type.validate = [](const void* section, Problems& p) { static_cast<const T*>(section)->validate(p); };
    return type;
  }
};

template <class E>
struct Make<std::vector<E>> {
  static_assert(!std::same_as<E, bool>, "std::vector<bool> has no addressable elements");
  using C = std::vector<E>;
  static Type type() {
    Type type = container<C>(Kind::list);
    type.element = &type_of<E>();
    type.size = [](const void* c) { return static_cast<const C*>(c)->size(); };
    type.at = [](void* c, size_t i) -> void* { return &(*static_cast<C*>(c))[i]; };
    type.add = [](void* c, const std::string&) -> void* { return &static_cast<C*>(c)->emplace_back(); };
    return type;
  }
};

template <class E>
struct Make<std::optional<E>> {
  using C = std::optional<E>;
  static Type type() {
    Type type = container<C>(Kind::optional);
    type.element = &type_of<E>();
    type.size = [](const void* c) -> size_t { return static_cast<const C*>(c)->has_value(); };
    type.at = [](void* c, size_t) -> void* { return &**static_cast<C*>(c); };
    type.add = [](void* c, const std::string&) -> void* { return &static_cast<C*>(c)->emplace(); };
    return type;
  }
};

template <class E>
struct Make<std::map<std::string, E>> {
  using C = std::map<std::string, E>;
  static Type type() {
    Type type = container<C>(Kind::map);
    type.element = &type_of<E>();
    type.size = [](const void* c) { return static_cast<const C*>(c)->size(); };
    type.at = [](void* c, size_t i) -> void* { return &std::next(static_cast<C*>(c)->begin(), i)->second; };
    type.add = [](void* c, const std::string& key) -> void* { return &(*static_cast<C*>(c))[key]; };
    type.key = [](const void* c, size_t i) -> const std::string& {
      return std::next(static_cast<const C*>(c)->begin(), i)->first;
    };
    return type;
  }
};

template <class T>
const Type& type_of() {
  static const Type type = [] {
    Type made = Make<T>::type();
    made.make = [] { return std::shared_ptr<void>(std::make_shared<T>()); };
    return made;
  }();
  return type;
}

Rules merge(const Rules& a, const Rules& b);

template <class M, class... R>
void FieldList::operator()(std::string name, M& member, std::string help, const R&... rules) {
  Rules all;
  ((all = merge(all, rules)), ...);
  fields.push_back({std::move(name), std::move(help), &member, &type_of<M>(), std::move(all)});
}

/// "a number above 0", "one of adamw, sgd", "a list of text".
std::string describe(const Type& type, const Rules& rules);

// The untyped halves of config.h's functions; the object's type is `type`, a section.
void load_file(const std::filesystem::path& path, const std::vector<std::string>& overrides, const Type& type,
               void* object, Places* places);
void load_text(std::string_view yaml, const std::string& name, const std::vector<std::string>& overrides,
               const Type& type, void* object, Places* places);
nlohmann::ordered_json to_json(const Type& type, const void* object);
void add_defaults(const Type& type, const void* defaults, nlohmann::ordered_json& json);
std::string dump(const Type& type, const void* object);
std::string json_schema(const Type& type, const void* defaults, const std::string& title);
std::string help(const Type& type, const void* defaults);

}  // namespace detail
}  // namespace llmtk::config
