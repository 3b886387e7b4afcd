// Renders templates for tests against Jinja2: JSON lines {"template", "variables", "now"} in; {"text", "generations"
// (in characters)} or {"error", "exit"} out.

#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "core/error.h"
#include "core/utf8.h"
#include "text/jinja/jinja.h"
#include "text/jinja/json.h"

using namespace llmtk;
using Json = nlohmann::ordered_json;

namespace {

Json render(const Json& request) {
  const text::jinja::Template made(request["template"].get<std::string>(), "template");
  text::jinja::Dict variables;
  for (const auto& [name, value] : request["variables"].items()) variables.set(name, text::jinja::from_json(value));
  std::optional<std::time_t> now;
  if (request.contains("now")) now = request["now"].get<std::time_t>();
  const auto rendered = made.render(variables, {}, now);
  Json answer = {{"text", rendered.text}, {"generations", Json::array()}};
  const std::string_view text = rendered.text;
  for (const auto& span : rendered.generations) {
    const size_t begin = count_code_points(text.substr(0, span.begin));
    answer["generations"].push_back({begin, begin + count_code_points(text.substr(span.begin, span.end - span.begin))});
  }
  return answer;
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    Json answer;
    try {
      answer = render(Json::parse(line));
    } catch (const Error& e) {
      answer = {{"error", e.what()}, {"exit", static_cast<int>(e.exit())}};
    }
    std::cout << answer.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
  }
}
