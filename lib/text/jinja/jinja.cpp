#include "text/jinja/jinja.h"

#include <algorithm>

#include "core/error.h"
#include "core/utf8.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/parser.h"

namespace llmtk::text::jinja {
namespace {

/// A message of a length that can be read: a template may say anything.
std::string shortened(std::string message) {
  constexpr int kMostColumns = 400;
  std::ranges::replace(message, '\n', ' ');
  const std::string line = one_line(message);
  const std::string_view cut = cut_to_width(line, kMostColumns);
  return cut.size() < line.size() ? std::string(cut) + "..." : line;
}

}  // namespace

struct Template::Parsed {
  std::string where;
  Body body;
};

Template::Template(std::string_view source, std::string where) {
  constexpr size_t kMaxSource = size_t{4} << 20;
  if (source.size() > kMaxSource)
    throw Error(Exit::file, {.what = "the template is too large",
                             .where = where,
                             .got = std::to_string(source.size()) + " bytes",
                             .expected = "at most " + std::to_string(kMaxSource)});
  auto parsed = std::make_unique<Parsed>();
  parsed->where = std::move(where);
  parsed->body = parse(tokenize(source, parsed->where), parsed->where);
  parsed_ = std::move(parsed);
}

Template::~Template() = default;
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;

Rendered Template::render(const Dict& variables, const RenderLimits& limits, std::optional<std::time_t> now) const {
  Runtime runtime(limits.steps, now ? *now : std::time(nullptr));
  Interpreter interpreter(variables, runtime);
  try {
    return interpreter.run(parsed_->body);
  } catch (const TemplateError& e) {
    const auto [line, column] = interpreter.position();
    const std::string where = parsed_->where + ":" + std::to_string(line) + ":" + std::to_string(column);
    if (e.refused)
      throw Error(Exit::data,
                  {.what = "the chat template refuses these messages: " + shortened(e.what), .where = where});
    throw Error(Exit::file, {.what = shortened(e.what), .where = where, .hint = e.hint});
  }
}

}  // namespace llmtk::text::jinja
