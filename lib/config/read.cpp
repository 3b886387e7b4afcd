#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "config/config.h"
#include "config/node.h"
#include "config/scalar.h"
#include "config/suggest_key.h"
#include "core/file.h"
#include "core/suggest.h"
#include "core/utf8.h"

namespace llmtk::config {
namespace detail {
namespace {

std::string shorten(std::string_view text) {
  constexpr int kWidth = 60;
  const std::string_view start = cut_to_width(text, kWidth);
  return start.size() == text.size() ? std::string(text) : std::string(start) + "...";
}

std::string got(const Node& node) {
  switch (node.kind) {
    case Node::Kind::null:
      return "nothing";
    case Node::Kind::scalar:
      return node.quoted ? "the text \"" + shorten(node.text) + '"' : "'" + shorten(node.text) + "'";
    case Node::Kind::list:
      return "a list";
    case Node::Kind::map:
      return "a section";
    case Node::Kind::broken:
      return "'" + shorten(node.raw) + "'";
  }
  return "";
}

/// The entry of `path`, or of the nearest thing around it that has one.
template <class Map>
typename Map::const_iterator find_around(const Map& map, std::string path) {
  while (true) {
    const auto found = map.find(path);
    const size_t dot = path.rfind('.');
    if (found != map.end() || dot == path.npos) return found;
    path.resize(dot);
  }
}

/// Plain scalars become what they look like.
nlohmann::ordered_json to_any(const Node& node) {
  using Json = nlohmann::ordered_json;
  if (node.kind == Node::Kind::list) {
    Json list = Json::array();
    for (const Node& item : node.items) list.push_back(to_any(item));
    return list;
  }
  if (node.kind == Node::Kind::map) {
    Json object = Json::object();
    for (const Node::Entry& entry : node.entries) object[entry.key] = to_any(entry.value);
    return object;
  }
  if (node.kind == Node::Kind::null) return nullptr;
  if (node.quoted) return node.text;
  if (const auto value = parse_bool(node.text).value) return *value;
  if (node.text.find_first_of(".eE") == node.text.npos)
    if (const auto value = parse_integer(node.text).value) return *value;
  if (const auto value = parse_number(node.text).value) return *value;
  return node.text;
}

void set_argument(Node& node, const std::string& argument) {
  node.place = {.argument = argument};
  for (Node& item : node.items) set_argument(item, argument);
  for (Node::Entry& entry : node.entries) {
    entry.place = {.argument = argument};
    set_argument(entry.value, argument);
  }
}

/// Fills a struct from Nodes and collects all that is wrong on the way.
class Reader : public Problems {
 public:
  Reader(std::string file, const Type& type, void* object) : file_(std::move(file)), type_(type), object_(object) {}

  void read_file_text(std::string_view yaml) {
    const Node root = parse_yaml(yaml, file_, problems_);
    read(root, type_, {}, object_, "");
  }
  void apply_override(const std::string& argument);
  /// What can only be said at the end: required keys, then, when nothing is wrong so far, validate(). Throws the
  /// problems.
  void finish();
  Places places() const;

  void add(const std::string& key, Error::Parts parts) override;

 private:
  void problem(const Place& place, Error::Parts parts) { problems_.push_back({place, std::move(parts)}); }
  void wrong_type(const Node& node, const Type& type, const Rules& rules, const std::string& path,
                  std::string hint = "");

  void read(const Node& node, const Type& type, const Rules& rules, void* member, const std::string& path);
  void read_section(const Node& node, const Type& type, void* section, const std::string& path);
  void read_list(const Node& node, const Type& type, const Rules& rules, void* list, const std::string& path);
  void read_map(const Node& node, const Type& type, const Rules& rules, void* map, const std::string& path);
  void read_text(const Node& node, const Type& type, const Rules& rules, std::string& text, const std::string& path);
  template <class T>
  void read_scalar(const Node& node, const Type& type, const Rules& rules, T& value, const std::string& path);

  void unknown_key(const Place& place, const std::string& key, const std::vector<Field>& fields,
                   const std::string& path);
  void check_required(const Type& type, void* object, const std::string& path);
  void validate(const Type& type, void* object, const std::string& path);
  void given(const std::string& path, const Place& place);
  void given_below(const std::string& path, const Node& node);
  /// The place of `path`, or of the nearest thing around it that was given.
  Place place_of(const std::string& path) const;

  std::string file_;
  const Type& type_;
  void* object_;
  std::vector<Problem> problems_;
  std::map<std::string, Place> places_;  // what was given, by its full key
  std::string validating_;               // the path of the section whose validate() runs
};

void Reader::given(const std::string& path, const Place& place) {
  // What stood in an element that an override replaces is gone.
  std::erase_if(places_, [&](const auto& entry) { return entry.first.starts_with(path + "."); });
  places_[path] = place;
}

/// The keys of a member that takes any value.
void Reader::given_below(const std::string& path, const Node& node) {
  for (const Node::Entry& entry : node.entries) {
    given(join(path, entry.key), entry.place);
    given_below(join(path, entry.key), entry.value);
  }
}

Place Reader::place_of(const std::string& path) const {
  const auto found = find_around(places_, path);
  return found == places_.end() ? Place{} : found->second;
}

Places Reader::places() const {
  Places places{.file = file_, .keys = {}};
  for (const auto& [key, place] : places_) places.keys[key] = place.text(file_);
  return places;
}

void Reader::wrong_type(const Node& node, const Type& type, const Rules& rules, const std::string& path,
                        std::string hint) {
  if (node.kind == Node::Kind::broken) hint = node.text;
  problem(node.place, {.what = path.empty() ? "the config" : path,
                       .got = got(node),
                       .expected = describe(type, rules),
                       .hint = std::move(hint)});
}

void Reader::read(const Node& node, const Type& type, const Rules& rules, void* member, const std::string& path) {
  if (!path.empty()) given(path, node.place);
  switch (type.kind) {
    case Kind::section:
      return read_section(node, type, member, path);
    case Kind::list:
      return read_list(node, type, rules, member, path);
    case Kind::map:
      return read_map(node, type, rules, member, path);
    case Kind::text:
      return read_text(node, type, rules, *static_cast<std::string*>(member), path);
    case Kind::any:
      if (node.kind == Node::Kind::broken) return wrong_type(node, type, rules, path);
      *static_cast<nlohmann::ordered_json*>(member) = to_any(node);
      return given_below(path, node);
    case Kind::boolean:
      return read_scalar(node, type, rules, *static_cast<bool*>(member), path);
    case Kind::integer:
      return read_scalar(node, type, rules, *static_cast<int64_t*>(member), path);
    case Kind::number:
      return read_scalar(node, type, rules, *static_cast<double*>(member), path);
    case Kind::optional:
      type.clear(member);
      if (node.kind != Node::Kind::null) read(node, *type.element, rules, type.add(member, ""), path);
      return;
  }
}

void Reader::read_section(const Node& node, const Type& type, void* section, const std::string& path) {
  if (node.kind == Node::Kind::null) return;  // all its keys are commented out
  if (node.kind != Node::Kind::map) return wrong_type(node, type, {}, path);
  const std::vector<Field> fields = type.fields(section);
  for (const Node::Entry& entry : node.entries) {
    const auto field = std::ranges::find(fields, entry.key, &Field::name);
    if (field == fields.end())
      unknown_key(entry.place, entry.key, fields, path);
    else
      read(entry.value, *field->type, field->rules, field->member, join(path, entry.key));
  }
}

void Reader::read_list(const Node& node, const Type& type, const Rules& rules, void* list, const std::string& path) {
  if (node.kind != Node::Kind::list) {
    const bool scalar = node.kind == Node::Kind::scalar;
    return wrong_type(node, type, rules, path, scalar ? "write [" + shorten(node.text) + "] for a list of one" : "");
  }
  const size_t size = node.items.size();
  if ((rules.length && size != *rules.length) || (rules.is_not_empty && size == 0))
    problem(node.place, {.what = path, .got = "a list of " + std::to_string(size), .expected = describe(type, rules)});
  type.clear(list);
  for (size_t i = 0; i < size; ++i)
    read(node.items[i], *type.element, rules, type.add(list, ""), join(path, std::to_string(i)));
}

void Reader::read_map(const Node& node, const Type& type, const Rules& rules, void* map, const std::string& path) {
  if (node.kind != Node::Kind::map) return wrong_type(node, type, rules, path);
  if (rules.is_not_empty && node.entries.empty())
    problem(node.place, {.what = path, .got = "no keys", .expected = describe(type, rules)});
  type.clear(map);
  for (const Node::Entry& entry : node.entries)
    read(entry.value, *type.element, rules, type.add(map, entry.key), join(path, entry.key));
}

void Reader::read_text(const Node& node, const Type& type, const Rules& rules, std::string& text,
                       const std::string& path) {
  // A shell has taken the quotes from an override's value: unless it brings quotes of its own it is taken as it stands.
  const bool typed = !node.raw.empty() && !node.quoted && node.kind != Node::Kind::null;
  if (!typed) {
    if (node.kind == Node::Kind::null) return wrong_type(node, type, rules, path, "write \"\" for an empty text");
    if (node.kind != Node::Kind::scalar) return wrong_type(node, type, rules, path);
    const bool taken = rules.takes_bool && (node.text == "true" || node.text == "false");
    if (!node.quoted && node.place.argument.empty() && !taken && reads_as_other_than_text(node.text))
      return wrong_type(node, type, rules, path, "put it in quotes: \"" + shorten(node.text) + "\"");
  }
  text = typed ? node.raw : node.text;
  if (!rules.choices.empty() && std::ranges::find(rules.choices, text) == rules.choices.end()) {
    const std::string near = nearest(text, rules.choices);
    return wrong_type(node, type, rules, path, near.empty() ? "" : "did you mean '" + near + "'?");
  }
  if (rules.is_not_empty && type.kind == Kind::text && text.empty()) wrong_type(node, type, rules, path);
}

template <class T>
void Reader::read_scalar(const Node& node, const Type& type, const Rules& rules, T& value, const std::string& path) {
  if (node.kind != Node::Kind::scalar) return wrong_type(node, type, rules, path);
  const auto parsed = [&] {
    if constexpr (std::same_as<T, bool>)
      return parse_bool(node.text);
    else if constexpr (std::same_as<T, int64_t>)
      return parse_integer(node.text);
    else
      return parse_number(node.text);
  }();
  if (node.quoted) return wrong_type(node, type, rules, path, parsed.value ? "remove the quotes" : "");
  if (!parsed.value) {
    const std::string plain = describe(type, {});
    // "a number above 0"; or, where only the form of the number is at fault, what that form is.
    return problem(node.place, {.what = path,
                                .got = got(node),
                                .expected = parsed.expected == plain ? describe(type, rules) : parsed.expected,
                                .hint = parsed.hint});
  }
  value = *parsed.value;
  if constexpr (!std::same_as<T, bool>) {
    const double v = static_cast<double>(value);
    if (v < rules.low || v > rules.high || (rules.low_open && v == rules.low) || (rules.high_open && v == rules.high))
      wrong_type(node, type, rules, path);
  }
}

void Reader::unknown_key(const Place& place, const std::string& key, const std::vector<Field>& fields,
                         const std::string& path) {
  problem(place, {.what = "unknown key '" + shorten(key) + "'" + (path.empty() ? "" : " in '" + path + "'"),
                  .hint = suggest_key(key, path, fields, type_, object_)});
}

void Reader::apply_override(const std::string& argument) {
  const Place place{.argument = shorten(argument)};
  const size_t equals = argument.find('=');
  if (equals == argument.npos || equals == 0)
    return problem(place, {.what = "not an override", .expected = "section.key=value"});
  if (find_invalid_utf8(argument) != argument.npos) return problem(place, {.what = "invalid UTF-8"});

  Node node;
  try {
    node = parse_yaml(std::string_view(argument).substr(equals + 1), place.text(""), problems_);
  } catch (const Error& e) {
    node.kind = Node::Kind::broken;
    node.text = e.parts().what;
  }
  node.raw = argument.substr(equals + 1);
  set_argument(node, place.argument);

  const Type* type = &type_;
  void* member = object_;
  Rules rules;
  std::string path;
  for (size_t begin = 0; begin <= equals;) {
    const size_t end = std::min(argument.find('.', begin), equals);
    const std::string key = argument.substr(begin, end - begin);
    begin = end + 1;
    while (type->kind == Kind::optional) {
      member = type->size(member) ? type->at(member, 0) : type->add(member, "");
      type = type->element;
    }
    if (!path.empty()) places_.emplace(path, place);
    if (type->kind == Kind::section) {
      const std::vector<Field> fields = type->fields(member);
      const auto field = std::ranges::find(fields, key, &Field::name);
      if (field == fields.end()) return unknown_key(place, key, fields, path);
      type = field->type;
      member = field->member;
      rules = field->rules;
    } else if (type->kind == Kind::list) {
      const size_t size = type->size(member);
      size_t index = 0;
      const auto [stop, error] = std::from_chars(key.data(), key.data() + key.size(), index);
      if (error != std::errc() || stop != key.data() + key.size() || index > size)
        return problem(place, {.what = "'" + path + "' is a list of " + std::to_string(size),
                               .got = "'" + shorten(key) + "'",
                               .expected = "an index from 0 to " + std::to_string(size),
                               .hint = std::to_string(size) + " appends"});
      member = index == size ? type->add(member, "") : type->at(member, index);
      type = type->element;
    } else if (type->kind == Kind::map) {
      member = type->add(member, key);
      type = type->element;
    } else if (type->kind == Kind::any) {
      auto& value = *static_cast<nlohmann::ordered_json*>(member);
      if (!value.is_null() && !value.is_object())
        return problem(place, {.what = "'" + path + "' has no keys in it", .got = shorten(value.dump())});
      member = &value[key];
    } else {
      return problem(place, {.what = "'" + path + "' is " + describe(*type, {}) + " and has no keys in it"});
    }
    path = join(path, key);
  }
  read(node, *type, rules, member, path);
}

void Reader::check_required(const Type& type, void* object, const std::string& path) {
  if (type.kind == Kind::section) {
    for (const Field& field : type.fields(object)) {
      const std::string key = join(path, field.name);
      if (field.rules.is_required && !places_.contains(key))
        problem(
            place_of(path),
            {.what = "missing key '" + key + "'", .expected = describe(*field.type, field.rules), .hint = field.help});
      check_required(*field.type, field.member, key);
    }
  } else if (type.element) {
    for (size_t i = 0, size = type.size(object); i < size; ++i) {
      const std::string key = type.kind == Kind::list  ? std::to_string(i)
                              : type.kind == Kind::map ? type.key(object, i)
                                                       : "";
      check_required(*type.element, type.at(object, i), key.empty() ? path : join(path, key));
    }
  }
}

void Reader::validate(const Type& type, void* object, const std::string& path) {
  if (type.kind == Kind::section) {
    for (const Field& field : type.fields(object)) validate(*field.type, field.member, join(path, field.name));
    validating_ = path;
    if (type.validate) type.validate(object, *this);
  } else if (type.element) {
    for (size_t i = 0, size = type.size(object); i < size; ++i) {
      const std::string key = type.kind == Kind::list  ? std::to_string(i)
                              : type.kind == Kind::map ? type.key(object, i)
                                                       : "";
      validate(*type.element, type.at(object, i), key.empty() ? path : join(path, key));
    }
  }
}

void Reader::add(const std::string& key, Error::Parts parts) {
  const std::string path = join(validating_, key);
  parts.what = path + ": " + parts.what;
  problem(place_of(path), std::move(parts));
}

void Reader::finish() {
  check_required(type_, object_, "");
  if (problems_.empty()) validate(type_, object_, "");
  if (problems_.empty()) return;

  std::ranges::stable_sort(problems_, [](const Problem& a, const Problem& b) {
    return std::tuple(!a.place.argument.empty(), a.place.line, a.place.column) <
           std::tuple(!b.place.argument.empty(), b.place.line, b.place.column);
  });
  for (Problem& p : problems_) p.parts.where = p.place.text(file_);
  if (problems_.size() == 1) throw Error(Exit::usage, std::move(problems_[0].parts));
  std::vector<Error::Parts> all;
  for (Problem& p : problems_) all.push_back(std::move(p.parts));
  throw InvalidConfig(file_, std::move(all));
}

}  // namespace

Rules merge(const Rules& a, const Rules& b) {
  Rules all = a;
  if (b.low > a.low) all.low = b.low, all.low_open = b.low_open;
  if (b.high < a.high) all.high = b.high, all.high_open = b.high_open;
  if (!b.choices.empty()) all.choices = b.choices;
  all.is_not_empty |= b.is_not_empty;
  all.is_required |= b.is_required;
  all.takes_bool |= b.takes_bool;
  if (b.length) all.length = b.length;
  return all;
}

void load_text(std::string_view yaml, const std::string& name, const std::vector<std::string>& overrides,
               const Type& type, void* object, Places* places) {
  Reader reader(name, type, object);
  reader.read_file_text(yaml);
  for (const std::string& argument : overrides) reader.apply_override(argument);
  reader.finish();
  if (places) *places = reader.places();
}

void load_file(const std::filesystem::path& path, const std::vector<std::string>& overrides, const Type& type,
               void* object, Places* places) {
  const auto refuse = [&](const std::string& what, const std::string& hint) {
    throw Error(Exit::usage, {.what = what, .where = path.string(), .hint = hint});
  };
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) refuse(std::string("cannot read the config: ") + std::strerror(errno), "");
  if (!S_ISREG(info.st_mode)) refuse("the config is not a regular file", S_ISDIR(info.st_mode) ? "it is a folder" : "");
  constexpr off_t kFarTooLarge = 16 << 20;  // the exact limit is the parser's
  if (info.st_size > kFarTooLarge) refuse("the config is too large", "is this a data file?");
  load_text(read_file(path), path.string(), overrides, type, object, places);
}

}  // namespace detail

std::string Places::of(const std::string& key) const {
  const auto found = detail::find_around(keys, key);
  return found == keys.end() ? file : found->second;
}

std::map<std::string, std::string> Places::below(const std::string& section) const {
  std::map<std::string, std::string> found;
  const std::string prefix = section + ".";
  for (const auto& [key, place] : keys)
    if (key.starts_with(prefix)) found[key.substr(prefix.size())] = place;
  return found;
}

InvalidConfig::InvalidConfig(const std::string& file, std::vector<Parts> problems)
    : Error(Exit::usage, {.what = std::to_string(problems.size()) + " problems", .where = file}),
      problems_(std::move(problems)),
      message_(Error::what()) {
  constexpr size_t kShown = 20;
  for (size_t i = 0; i < problems_.size() && i < kShown; ++i)
    message_ += "\n  " + std::string(Error(Exit::usage, problems_[i]).what());
  if (problems_.size() > kShown) message_ += "\n  ... and " + std::to_string(problems_.size() - kShown) + " more";
}

}  // namespace llmtk::config
