#include "quant/scheme.h"

#include <algorithm>

#include "core/error.h"
#include "core/suggest.h"

namespace llmtk::quant {
namespace {

struct Preset {
  SchemeName name;
  kernels::IntegerFormat format;
  bool nf4 = false;
};

constexpr int64_t kDefaultGroup = 128;

const std::vector<Preset>& presets() {
  static const std::vector<Preset> all = {
      {{"W8A8", "8-bit integers, a scale per row; what comes in is rounded to 8 bits per token"},
       {.bits = 8, .dynamic_activations = true}},
      {{"W8A16", "8-bit integers, a scale per row or group; what comes in stays"}, {.bits = 8, .packed = true}},
      {{"W4A16", "4-bit integers in groups with a scale each; what comes in stays"},
       {.bits = 4, .group_size = kDefaultGroup, .packed = true}},
      {{"W4A16_ASYM", "the same with a zero point per group"},
       {.bits = 4, .group_size = kDefaultGroup, .symmetric = false, .packed = true}},
      {{"W4A8", "4-bit integers in groups; what comes in is rounded to 8 bits per token"},
       {.bits = 4, .group_size = kDefaultGroup, .packed = true, .dynamic_activations = true}},
      {{"NF4", "4-bit codes of normally distributed numbers in blocks of 64 (QLoRA), as bitsandbytes keeps them"},
       {},
       true},
  };
  return all;
}

}  // namespace

const std::vector<SchemeName>& scheme_names() {
  static const std::vector<SchemeName> names = [] {
    std::vector<SchemeName> found;
    for (const Preset& preset : presets()) found.push_back(preset.name);
    return found;
  }();
  return names;
}

Scheme scheme_named(const std::string& name, int64_t group_size) {
  const auto found = std::ranges::find_if(presets(), [&](const Preset& preset) { return preset.name.name == name; });
  if (found == presets().end()) {
    std::vector<std::string> names;
    std::string all;
    for (const Preset& preset : presets()) {
      names.emplace_back(preset.name.name);
      all += (all.empty() ? "" : ", ") + names.back();
    }
    const std::string near = nearest(name, names);
    throw Error(Exit::usage, {.what = "unknown scheme",
                              .got = "'" + name + "'",
                              .expected = all,
                              .hint = near.empty() ? "" : "did you mean '" + near + "'?"});
  }
  Scheme scheme{name, found->format, found->nf4};
  if (group_size == 0) return scheme;
  if (name == "W8A8" || scheme.nf4)
    throw Error(Exit::usage, {.what = "a group size has no effect with " + name,
                              .got = std::to_string(group_size),
                              .hint = scheme.nf4 ? "its blocks have 64 weights" : "it has a scale per row"});
  scheme.format.group_size = group_size;
  return scheme;
}

Pattern::Pattern(const std::string& text) : text_(text) {
  if (!text.starts_with("re:")) return;
  try {
    regex_ = std::regex(text.substr(3), std::regex::ECMAScript);
  } catch (const std::regex_error& error) {
    throw Error(Exit::usage, {.what = "a pattern of modules is a regular expression that cannot be read",
                              .got = "'" + text + "'",
                              .expected = error.what()});
  }
}

bool Pattern::names(const std::string& path) const {
  return regex_ ? std::regex_search(path, *regex_, std::regex_constants::match_continuous) : text_ == path;
}

const SchemeGroup* group_of(const std::vector<SchemeGroup>& groups, const std::vector<Pattern>& ignore,
                            const std::string& path, bool is_table) {
  const auto means = [&](const Pattern& p) { return p.names(path) || p.is_class(is_table); };
  if (std::ranges::any_of(ignore, means)) return nullptr;
  const SchemeGroup* best = nullptr;
  std::tuple<bool, bool, std::string> best_rank;
  for (const SchemeGroup& group : groups)
    for (const Pattern& target : group.targets) {
      if (!means(target)) continue;
      const std::tuple rank(!target.names(path), target.is_regex(), target.text());
      if (!best || rank < best_rank) {
        best = &group;
        best_rank = rank;
      }
    }
  return best;
}

}  // namespace llmtk::quant
