#pragma once
// The values that templates compute with: Python's, as far as a template can see them.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace llmtk::text::jinja {

/// What went wrong while a template ran; the interpreter adds the place.
struct TemplateError {
  std::string what;
  std::string hint;
  bool refused = false;  ///< raised by the template itself, with raise_exception()
};

/// What a rendering may still cost. A unit is an operation, or 64 bytes or one element that an operation goes over: so
/// the same number bounds time and memory.
class Work {
 public:
  explicit Work(uint64_t units) : left_(units) {}
  /// Throws TemplateError when nothing is left.
  void spend(uint64_t units = 1) {
    if (units > left_) exhausted();
    left_ -= units;
  }
  void spend_bytes(size_t bytes) { spend(bytes / 64 + 1); }

  /// Values within values, one level deeper as long as it lives. Throws TemplateError where that is too deep: lists
  /// and dicts never are, but namespaces hold each other as a template likes.
  class Level {
   public:
    explicit Level(Work& work);
    ~Level() { --work_.levels_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Work& work_;
  };

 private:
  [[noreturn]] void exhausted();
  uint64_t left_;
  int levels_ = 0;
};

class Value;
class Dict;
class Object;

struct Undefined {
  std::string message;  ///< what using it says: "'x' is undefined"
};

struct String {
  std::string text;     ///< valid UTF-8
  bool markup = false;  ///< came from `safe` or `escape`: Python's markupsafe.Markup
};

/// A list or a tuple.
struct Sequence {
  std::vector<Value> items;
  bool tuple = false;
  int depth = 0;
};

enum class Kind { undefined, none, boolean, integer, number, string, list, tuple, dict, object };

/// One value. Copies share what they hold, which never changes (a namespace's attributes do).
class Value {
 public:
  Value() = default;  ///< None
  Value(bool value) : data_(value) {}
  Value(int64_t value) : data_(value) {}
  Value(int value) : data_(int64_t{value}) {}
  Value(double value) : data_(value) {}
  Value(std::string text) : data_(std::make_shared<const String>(String{std::move(text)})) {}
  Value(std::string_view text) : Value(std::string(text)) {}
  Value(const char* text) : Value(std::string(text)) {}
  Value(Dict dict);
  Value(std::shared_ptr<Object> object) : data_(std::move(object)) {}
  static Value undefined(std::string message);
  static Value markup(std::string text);
  /// Throw TemplateError where the nesting gets too deep.
  static Value list(std::vector<Value> items);
  static Value tuple(std::vector<Value> items);

  Kind kind() const;
  bool is(Kind kind) const { return this->kind() == kind; }
  bool is_undefined() const { return is(Kind::undefined); }
  bool is_none() const { return is(Kind::none); }
  bool is_string() const { return is(Kind::string); }
  bool is_sequence() const { return is(Kind::list) || is(Kind::tuple); }
  /// A whole number as Python's int takes it in: True and False too.
  bool is_integral() const { return is(Kind::integer) || is(Kind::boolean); }
  bool is_numeric() const { return is_integral() || is(Kind::number); }

  // Of the kind that the name says; anything else is a bug.
  const std::string& undefined_message() const;
  bool boolean() const { return std::get<bool>(data_); }
  int64_t integral() const;  ///< integer or boolean
  double numeric() const;    ///< of any number, rounded to a double
  const std::string& text() const { return std::get<std::shared_ptr<const String>>(data_)->text; }
  bool is_markup() const { return is_string() && std::get<std::shared_ptr<const String>>(data_)->markup; }
  const std::vector<Value>& items() const { return std::get<std::shared_ptr<const Sequence>>(data_)->items; }
  const Dict& dict() const { return *std::get<std::shared_ptr<const Dict>>(data_); }
  Object& object() const { return *std::get<std::shared_ptr<Object>>(data_); }
  /// The object as a T; null where it is another one.
  template <class T>
  T* as() const {
    const auto* object = std::get_if<std::shared_ptr<Object>>(&data_);
    return object ? dynamic_cast<T*>(object->get()) : nullptr;
  }
  const std::shared_ptr<Object>& shared_object() const { return std::get<std::shared_ptr<Object>>(data_); }

  /// How deep lists and the like are nested in it.
  int depth() const;
  /// Whether both are one object in memory, as Python's `is` asks (small values: of one kind and equal).
  bool same_as(const Value& other) const;

 private:
  std::variant<std::monostate, std::shared_ptr<const Undefined>, bool, int64_t, double, std::shared_ptr<const String>,
               std::shared_ptr<const Sequence>, std::shared_ptr<const Dict>, std::shared_ptr<Object>>
      data_;
};

/// A dict: keys keep the order in which they came. Filled before it becomes a Value.
class Dict {
 public:
  using Item = std::pair<Value, Value>;
  const std::vector<Item>& items() const { return items_; }
  size_t size() const { return items_.size(); }
  int depth() const { return depth_; }
  /// Throw TemplateError where the key cannot be one ("unhashable type: 'list'").
  const Value* find(const Value& key, Work& work) const;
  void set(Value key, Value value, Work& work);
  const Value* find(std::string_view key) const;
  void set(std::string key, Value value);

 private:
  const size_t* index_of(std::string_view key) const;
  void append(Value key, Value value);

  std::vector<Item> items_;
  std::unordered_map<std::string_view, size_t> strings_;  // views of the keys' own texts
  std::vector<size_t> others_;                            // places of the keys that are no strings
  int depth_ = 1;
};

/// Values one after another.
class Iterator {
 public:
  virtual ~Iterator() = default;
  virtual std::optional<Value> next() = 0;
};

/// The arguments of a call.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keyword;
};

class Runtime;

/// Everything else: functions, macros, namespaces, loops, ranges, views of dicts, generators.
class Object {
 public:
  explicit Object(int depth = 1);
  virtual ~Object() = default;
  virtual std::string_view type_name() const = 0;
  virtual std::string repr(Work& work) const;
  virtual bool truth() const { return true; }
  /// len(); nullopt: it has none.
  virtual std::optional<size_t> length() const { return std::nullopt; }
  /// Null: it is not iterable.
  virtual std::unique_ptr<Iterator> iterate() { return nullptr; }
  virtual std::optional<Value> attribute(std::string_view name);
  virtual bool callable() const { return false; }
  virtual Value call(Runtime& runtime, Arguments& arguments);
  virtual bool equals(const Object& other, Work&) const { return this == &other; }
  int depth() const { return depth_; }

 private:
  int depth_;
};

/// "int", "str", "NoneType", ... as Python calls it.
std::string type_name(const Value& value);
bool truth(const Value& value);
/// str(value) and repr(value). Throw TemplateError (work).
std::string str(const Value& value, Work& work);
std::string repr(const Value& value, Work& work);
std::string repr(std::string_view text);
/// A float as Python writes it: the shortest digits that read back as the same number.
std::string repr(double value);

bool equal(const Value& a, const Value& b, Work& work);
/// -1, 0, 1; 2 where one is not a number. Throws TemplateError where Python's < would.
int compare(const Value& a, const Value& b, std::string_view op, Work& work);
bool contains(const Value& container, const Value& item, Work& work);

/// Throw TemplateError: "'int' object is not iterable".
std::unique_ptr<Iterator> iterate(const Value& value, Work& work);
std::vector<Value> to_list(const Value& value, Work& work);
/// len(); throws TemplateError.
size_t length(const Value& value, Work& work);

}  // namespace llmtk::text::jinja
