#include "config/suggest_key.h"

#include <algorithm>

#include "core/suggest.h"

namespace llmtk::config::detail {
namespace {

/// The keys of all sections as (section, key); "data.sources[]" stands for the elements of a list.
void collect_keys(const Type& type, void* object, const std::string& path,
                  std::vector<std::pair<std::string, std::string>>& keys) {
  if (type.kind == Kind::section) {
    for (const Field& field : type.fields(object)) {
      keys.emplace_back(path, field.name);
      collect_keys(*field.type, field.member, join(path, field.name), keys);
    }
  } else if (type.element) {
    const auto element = type.element->make();
    collect_keys(*type.element, element.get(), type.kind == Kind::optional ? path : path + "[]", keys);
  }
}

}  // namespace

std::string suggest_key(const std::string& key, const std::string& path, const std::vector<Field>& fields,
                        const Type& type, void* object) {
  std::vector<std::pair<std::string, std::string>> all;
  collect_keys(type, object, "", all);
  std::vector<std::string> names, elsewhere;
  for (const Field& field : fields) names.push_back(field.name);
  std::string homes;
  bool dotted = false;
  for (const auto& [section, name] : all) {
    elsewhere.push_back(name);
    if (name == key) homes += (homes.empty() ? "'" : " or '") + (section.empty() ? "the top level" : section) + "'";
    dotted = dotted || (key.find('.') != key.npos && join(section, name) == join(path, key));
  }
  if (dotted) {
    const size_t dot = key.rfind('.');
    return "in a file write sections: '" + key.substr(dot + 1) + ":' indented under '" + key.substr(0, dot) + ":'";
  }
  if (!homes.empty()) return "it belongs under " + homes;
  if (const std::string near = nearest(key, names); !near.empty()) return "did you mean '" + near + "'?";
  if (const std::string far = nearest(key, elsewhere); !far.empty()) {
    const auto& [section, name] = all[static_cast<size_t>(std::ranges::find(elsewhere, far) - elsewhere.begin())];
    return "did you mean '" + join(section, name) + "'?";
  }
  constexpr size_t kShown = 16;
  std::string hint;
  for (size_t i = 0; i < names.size() && i < kShown; ++i) hint += (i ? ", " : "the keys here are ") + names[i];
  return hint + (names.size() > kShown ? ", ..." : "");
}

}  // namespace llmtk::config::detail
