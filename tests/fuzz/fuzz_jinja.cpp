#include "fuzz.h"
#include "text/jinja/jinja.h"
#include "text/jinja/json.h"

using namespace llmtk;

namespace {

/// What templates are given; made once.
const text::jinja::Dict& variables() {
  static const text::jinja::Dict made = [] {
    const auto json = nlohmann::ordered_json::parse(R"({
      "messages": [{"role": "system", "content": "Be kind. 你好"}, {"role": "user", "content": "Hi\n"},
                   {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1.5}}}]}],
      "tools": [{"function": {"name": "f", "parameters": {"properties": {"a": {"type": "string"}}}}}],
      "add_generation_prompt": true, "bos_token": "<s>", "n": 3, "x": [1, 2, [3]], "d": {"k": "v", "2": false}})");
    text::jinja::Dict dict;
    for (const auto& [name, value] : json.items()) dict.set(name, text::jinja::from_json(value));
    return dict;
  }();
  return made;
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  test::read_or_refuse([&] {
    const text::jinja::Template made({reinterpret_cast<const char*>(data), size}, "template");
    const auto rendered = made.render(variables(), {.steps = 200'000}, 0);
    for (const auto& span : rendered.generations)
      if (span.begin > span.end || span.end > rendered.text.size()) std::abort();
  });
  return 0;
}
