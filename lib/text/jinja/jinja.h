#pragma once
// Jinja templates as chat templates use them: Jinja2's language, Python's values, transformers' settings.

#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace llmtk::text::jinja {

struct Span {
  size_t begin = 0, end = 0;  ///< bytes of the text
  bool operator==(const Span&) const = default;
};

struct Rendered {
  std::string text;
  std::vector<Span> generations;  ///< what stood in {% generation %} blocks, in the order in which they ended
};

struct RenderLimits {
  /// Operations, each 64 bytes or one element that an operation goes over counting as another one.
  uint64_t steps = 3'000'000;
};

/// A parsed template; one object serves all threads.
///
/// The language is that of Jinja2 3.1 in its immutable sandbox, with transformers' extensions (loop controls,
/// generation blocks, tojson, raise_exception, strftime_now) and trim_blocks and lstrip_blocks on. Other templates
/// cannot be reached; of the filters random, pprint, striptags, urlize, wordwrap and xmlattr are not there; whole
/// numbers have 64 bits.
class Template {
 public:
  /// Throws Error(file) naming `where`, line and column.
  Template(std::string_view source, std::string where);
  ~Template();
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;

  /// Throws Error(file) with the place for what goes wrong while it runs, limits included; Error(data) where the
  /// template itself calls raise_exception. `now`: what strftime_now shows; the time of the call where it is absent.
  Rendered render(const Dict& variables, const RenderLimits& limits = {},
                  std::optional<std::time_t> now = std::nullopt) const;

 private:
  struct Parsed;
  std::unique_ptr<const Parsed> parsed_;
};

}  // namespace llmtk::text::jinja
