// Jinja templates: what hostile ones cost, what errors say, generation blocks. That texts are Jinja2's is tested
// against it (jinja_parity.py).

#include "text/jinja/jinja.h"

#include <ctime>

#include "core/error.h"
#include "test.h"
#include "text/jinja/json.h"

using namespace llmtk;
using namespace llmtk::text::jinja;

namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr double kMostSeconds = 20;
#else
constexpr double kMostSeconds = 1;
#endif

Dict variables(const std::string& json = "{}") {
  Dict dict;
  const auto parsed = nlohmann::ordered_json::parse(json);
  for (const auto& [name, value] : parsed.items()) dict.set(name, from_json(value));
  return dict;
}

std::string render(const std::string& source, const std::string& json = "{}") {
  return Template(source, "t.jinja").render(variables(json)).text;
}

/// The error of a template that has one.
Error error_of(const std::string& source, const std::string& json = "{}") {
  try {
    const std::string text = render(source, json);
    FAIL("no error, but " << text.substr(0, 200));
  } catch (const Error& e) {
    return e;
  }
  throw;  // not reached
}

std::string repeated(const std::string& text, size_t times) {
  std::string out;
  for (size_t i = 0; i < times; ++i) out += text;
  return out;
}

}  // namespace

TEST_CASE("errors of a template name line and column") {
  const auto where = [](const std::string& source) { return error_of(source).parts().where; };
  CHECK(where("a\nb {{ x.y }}") == "t.jinja:2:7");
  CHECK(where("{{ 1 + }}") == "t.jinja:1:8");
  CHECK(where("你好 {% if x %}\n") == "t.jinja:1:14");  // the end, in characters
  CHECK(where("{{ 'abc }}") == "t.jinja:1:4");
  CHECK(where("\n\n{{ [1, 2)}}") == "t.jinja:3:9");
  CHECK(where("{% for x in 5 %}{% endfor %}") == "t.jinja:1:13");
  CHECK(where("{{ 'a' | nosuch }}") == "t.jinja:1:10");
  CHECK(where("{{ 1 < 'a' }}") == "t.jinja:1:6");
  CHECK(where("{% endfor %}") == "t.jinja:1:4");
  CHECK(where("ab\n  {# never ends") == "t.jinja:2:3");
}

TEST_CASE("errors say what is wrong") {
  const auto what = [](const std::string& source) { return error_of(source).parts().what; };
  CHECK(what("{{ nope.x }}") == "'nope' is undefined");
  CHECK(what("{{ {'a': 1}.b.c }}") == "'dict object' has no attribute 'b'");
  CHECK(what("{{ 1 / 0 }}") == "division by zero");
  CHECK(what("{{ 'a' + 1 }}") == "can only concatenate str (not \"int\") to str");
  CHECK(what("{{ [].append(1) }}") == "access to attribute 'append' of 'list' object is unsafe.");
  CHECK(what("{{ 9223372036854775807 + 1 }}") == "a whole number of more than 64 bits");
  CHECK(what("{% break %}") == "'break' outside of a loop");
  CHECK(what("{{ x | urlize }}") == "the filter 'urlize' is not supported");
  CHECK(error_of("{% include 'x' %}").exit() == Exit::file);
  CHECK(what("{% include '/etc/passwd' %}") == "the tag 'include' is not supported");
  CHECK(what("{% extends 'x' %}") == "the tag 'extends' is not supported");
  CHECK(what(std::string("a\xff", 2)) == "the template is not UTF-8");
}

TEST_CASE("a template that refuses its messages is a fault of the data") {
  const Error error = error_of("x{{ raise_exception('Roles must alternate\x1b[2J') }}");
  CHECK(error.exit() == Exit::data);
  CHECK(error.parts().what == "the chat template refuses these messages: Roles must alternate\\x1b[2J");
  CHECK(error.parts().where == "t.jinja:1:20");
  const Error of_lines = error_of("{{ raise_exception('one\\ntwo' ~ 'x' * 100000) }}");
  CHECK(of_lines.parts().what.find("one two") != std::string::npos);
  CHECK(of_lines.parts().what.size() < 500);
}

TEST_CASE("a hostile template is one clear error within a second") {
  const std::string deep_lists =
      "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = [ns.l] %}{% endfor %}";
  const std::pair<const char*, std::string> cases[] = {
      {"repeated text", "{{ 'a' * 10000000000 }}"},
      {"repeated lists", "{{ ([0] * 1000000000) | length }}"},
      {"doubling",
       "{% set ns = namespace(s='a') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}"},
      {"nested loops", repeated("{% for a in range(99999) %}", 9) + "x" + repeated("{% endfor %}", 9)},
      {"range", "{% for i in range(10 ** 15) %}{% endfor %}"},
      {"recursion", "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}"},
      {"two macros",
       "{% macro f() %}{{ g() }}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}"},
      {"deep lists", deep_lists},
      {"a tree of lists",
       "{% set ns = namespace(l=[1]) %}{% for i in range(150) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}"},
      {"a tree of lists as JSON",
       "{% set ns = namespace(l=[1]) %}{% for i in range(150) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ "
       "ns.l|tojson }}"},
      {"trees compared",
       "{% set ns = namespace(l=[1], m=[1]) %}{% for i in range(150) %}{% set ns.l = [ns.l, ns.l] %}"
       "{% set ns.m = [ns.m, ns.m] %}{% endfor %}{{ ns.l == ns.m }}"},
      {"brackets", "{{ " + repeated("(", 100000) + "1" + repeated(")", 100000) + " }}"},
      {"nots", "{{ " + repeated("not ", 100000) + "1 }}"},
      {"signs", "{{ " + repeated("-", 100000) + "1 }}"},
      {"blocks", repeated("{% if true %}", 100000) + repeated("{% endif %}", 100000)},
      {"conditions", "{{ " + repeated("1 if 0 else ", 100000) + "1 }}"},
      {"conditions without else", "{{ 1" + repeated(" if 1", 100000) + " }}"},
      {"targets", "{% set " + repeated("(", 100000) + "x" + repeated(")", 100000) + " = 1 %}"},
      {"width", "{{ 'a'.center(1000000000000) }}"},
      {"format width", "{{ '%1000000000d' % 1 }}"},
      {"precision", "{{ '{:.999999999f}'.format(1.0) }}"},
      {"replacing", "{% set s = 'a' * 100000 %}{{ s.replace('a', s).replace('a', s) }}"},
      {"joining", "{% set s = 'a' * 100000 %}{{ s.join(s) }}"},
      {"indenting", "{{ ('\\n' * 100000) | indent(1000000) }}"},
      {"tojson's indent", "{{ [1, 2] | tojson(indent=10000000000) }}"},
      {"batches", "{{ [1] | batch(100000000000, 0) | list }}"},
      {"slices", "{{ [1] | slice(100000000000) | list }}"},
      {"powers", "{{ 10 ** 100 ** 100 }}"},
      {"a loop over itself", "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}"},
      {"a namespace in itself",
       "{% set ns = namespace() %}{% set ns.a = ns %}{% for i in range(3000) %}{% set ns.b = [ns] %}{% endfor %}{{ "
       "ns.b == [ns, 1] "
       "}}{{ ns.nothing.x }}"},
      {"namespaces in namespaces",
       "{% set ns = namespace() %}{% for i in range(100000) %}{% set ns.a = namespace(a=ns.a) %}{% endfor %}{{ ns }}"},
      {"escapes of strings", "{{ ('%s' * 100000) % ('a' * 100000,) }}"},
  };
  for (const auto& [name, source] : cases) {
    CAPTURE(name);
    const std::clock_t begin = std::clock();  // of the processor: others may use it too
    const Error error = error_of(source);
    CHECK(error.exit() == Exit::file);
    CHECK(error.parts().what.size() < 200);
    const double seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
    INFO(error.what());
    CHECK(seconds < kMostSeconds);
  }
}

TEST_CASE("long conversations are within the limits") {
  nlohmann::ordered_json messages;
  for (int i = 0; i < 2000; ++i)
    messages.push_back({{"role", i % 2 ? "assistant" : "user"}, {"content", std::string(2000, 'x')}});
  const std::string source =
      "{% for m in messages[::-1] %}{% if m.role == 'user' and not m.content.startswith('<t>') %}{% set x = 1 %}{% "
      "endif %}{% endfor %}"
      "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' + m['content'] | trim }}{% if not loop.last %}{{ '\\n' }}{% "
      "endif %}{% endfor %}";
  CHECK(render(source, nlohmann::ordered_json{{"messages", messages}}.dump()).size() > 4'000'000);
}

TEST_CASE("generation blocks give their places in bytes") {
  const auto rendered =
      Template("你{% for m in x %}<{{ m }}>{% generation %}{{ m * 2 }}é{% endgeneration %}{% endfor %}!", "t")
          .render(variables(R"({"x": ["a", "世"]})"));
  CHECK(rendered.text == "你<a>aaé<世>世世é!");
  REQUIRE(rendered.generations.size() == 2);
  const auto text_of = [&](const Span& span) { return rendered.text.substr(span.begin, span.end - span.begin); };
  CHECK(text_of(rendered.generations[0]) == "aaé");
  CHECK(text_of(rendered.generations[1]) == "世世é");
}

TEST_CASE("the time is the caller's, and a template serves again") {
  const Template made("{{ strftime_now('%Y') }}{% set x = (x or 0) + 1 %}{{ x }}", "t");
  const Dict given = variables(R"({"x": 5})");
  for (int i = 0; i < 2; ++i) CHECK(made.render(given, {}, std::time_t{86400 * 365 * 30}).text == "19996");
}
