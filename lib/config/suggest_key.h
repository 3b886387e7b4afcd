#pragma once
// What somebody meant who wrote a key that there is not.

#include <string>
#include <vector>

#include "config/type.h"

namespace llmtk::config::detail {

inline std::string join(const std::string& path, const std::string& key) {
  return path.empty() ? key : path + "." + key;
}

/// A hint: the section that `key` belongs under, the nearest key of its section or of another one, or what keys its
/// section has. fields: those of the section `path`; type, object: the whole config.
std::string suggest_key(const std::string& key, const std::string& path, const std::vector<Field>& fields,
                        const Type& type, void* object);

}  // namespace llmtk::config::detail
