#include "config/config.h"

#include <sys/stat.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/file.h"
#include "sample.h"
#include "test.h"

using namespace llmtk;
using test::Config;
using test::Source;

namespace {

const std::string kData = "data: {sources: [{path: a.txt}]}\n";

Config read(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  return config::parse<Config>(yaml, "x.yaml", overrides);
}

std::string message(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  try {
    read(yaml, overrides);
  } catch (const Error& e) {
    CHECK(e.exit() == Exit::usage);
    return e.what();
  }
  return "no error";
}

/// The message about one line put after a config that is otherwise whole.
std::string about(const std::string& line) { return message(kData + line + "\n"); }
std::string about_override(const std::string& argument) { return message(kData, {argument}); }

}  // namespace

TEST_CASE("a config is read over its defaults") {
  const Config c = read("optimizer:\n  learning_rate: 1e-4\n" + kData + "max_steps: 1_000\n");
  CHECK(c.optimizer.learning_rate == 1e-4);
  CHECK(c.optimizer.betas == std::vector{0.9, 0.95});
  CHECK(c.data.sources == std::vector{Source{"a.txt", 1.0}});
  CHECK(c.max_steps == 1000);
  CHECK(read("optimizer:\n" + kData).optimizer == Config().optimizer);  // all of a section's keys commented out
  CHECK(read(kData + "name: 中文\n").name == "中文");
  CHECK(read(kData + "name: ${HOME}\n").name == "${HOME}");
  CHECK(read("\xEF\xBB\xBF" + kData).data.sources.size() == 1);
  CHECK(read("# comment\r\n" + std::string("max_steps: 5\r\n") + kData).max_steps == 5);
}

TEST_CASE("numbers are read as people write them") {
  for (const char* text : {"3", "+3", "3.0", "3e0", "0.3e1", "30e-1"})
    CHECK(read(kData + "max_steps: " + text).max_steps == 3);
  CHECK(read(kData + "max_steps: 9223372036854775807").max_steps == std::numeric_limits<int64_t>::max());
  CHECK(read(kData + "dropout: .5").dropout == 0.5);
  CHECK(read(kData + "dropout: 0").dropout == 0.0);
  CHECK(read(kData + "dropout: null").dropout == std::nullopt);
  CHECK(about("max_steps: 10k") ==
        "x.yaml:2:12: max_steps: got '10k', expected a whole number of at least 1 (write the number out, or as 1e3, "
        "1e6, 1e9)");
  CHECK(about("max_steps: 2.5") == "x.yaml:2:12: max_steps: got '2.5', expected a whole number of at least 1");
  CHECK(about("max_steps: 0") == "x.yaml:2:12: max_steps: got '0', expected a whole number of at least 1");
  CHECK(about("max_steps: 9223372036854775808") ==
        "x.yaml:2:12: max_steps: got '9223372036854775808', expected a whole number of at most 64 bits");
  CHECK(about("max_steps: 1e30") ==
        "x.yaml:2:12: max_steps: got '1e30', expected a whole number of at least 1 (write its digits out)");
  for (const char* text : {"0x10", "010", "1__0", "_1", "1_", "1,000", "1e", "--1", "1 000", "一"}) {
    INFO(text);
    CHECK(about(std::string("max_steps: ") + text).starts_with("x.yaml:2:12: max_steps: got '"));
  }
  for (const char* text : {".nan", ".inf", "-.inf", "nan", "inf"})
    CHECK(about(std::string("optimizer: {learning_rate: ") + text + "}") ==
          std::string("x.yaml:2:28: optimizer.learning_rate: got '") + text + "', expected a finite number");
  CHECK(about("optimizer: {learning_rate: 1e999}").find("a number that fits a double") != std::string::npos);
  CHECK(about("optimizer: {learning_rate: \"1\"}") ==
        "x.yaml:2:28: optimizer.learning_rate: got the text \"1\", expected a number above 0 (remove the quotes)");
}

TEST_CASE("a wrong type says what was expected") {
  CHECK(about("packing: yes") == "x.yaml:2:10: packing: got 'yes', expected true or false (write true)");
  CHECK(about("packing: Off") == "x.yaml:2:10: packing: got 'Off', expected true or false (write false)");
  CHECK(about("name: 123") == "x.yaml:2:7: name: got '123', expected a text (put it in quotes: \"123\")");
  CHECK(about("name: no") == "x.yaml:2:7: name: got 'no', expected a text (put it in quotes: \"no\")");
  CHECK(about("name:") == "x.yaml:2:1: name: got nothing, expected a text (write \"\" for an empty text)");
  CHECK(about("max_steps: [1]") == "x.yaml:2:12: max_steps: got a list, expected a whole number of at least 1");
  CHECK(about("optimizer: fast") == "x.yaml:2:12: optimizer: got 'fast', expected a section (keys indented below)");
  CHECK(about("optimizer: {betas: 0.9}") ==
        "x.yaml:2:20: optimizer.betas: got '0.9', expected a list of 2 numbers of at least 0 and below 1 (write [0.9] "
        "for a "
        "list of one)");
  CHECK(about("optimizer: {betas: [0.9]}").find("got a list of 1, expected a list of 2 numbers") != std::string::npos);
  CHECK(about("optimizer: {betas: [0.9, 1]}").starts_with("x.yaml:2:26: optimizer.betas.1: got '1'"));
  CHECK(about("optimizer: {type: adamW}") ==
        "x.yaml:2:19: optimizer.type: got 'adamW', expected one of adamw, sgd (did you mean 'adamw'?)");
  CHECK(message("[1, 2]").find("the config: got a list, expected a section") != std::string::npos);
  CHECK(message("data: {sources: []}").find("data.sources: got a list of 0, expected a list that is not empty") !=
        std::string::npos);
  CHECK(message("data: {sources: [{path: ''}]}").find("expected a text that is not empty") != std::string::npos);
}

TEST_CASE("an unknown key names the nearest") {
  CHECK(message("optimizer:\n  learning_rte: 1\n" + kData) ==
        "x.yaml:2:3: unknown key 'learning_rte' in 'optimizer' (did you mean 'learning_rate'?)");
  CHECK(message("learning_rate: 1\n" + kData) ==
        "x.yaml:1:1: unknown key 'learning_rate' (it belongs under 'optimizer')");
  CHECK(about("weight: 1") == "x.yaml:2:1: unknown key 'weight' (it belongs under 'data.sources[]')");
  CHECK(about("optimizer: {max-steps: 1}") ==
        "x.yaml:2:13: unknown key 'max-steps' in 'optimizer' (did you mean 'max_steps'?)");
  CHECK(about("optimizer.type: sgd") ==
        "x.yaml:2:1: unknown key 'optimizer.type' (in a file write sections: 'type:' indented under 'optimizer:')");
  CHECK(about("optimizer: {xyzzy: 1}") ==
        "x.yaml:2:13: unknown key 'xyzzy' in 'optimizer' (the keys here are learning_rate, betas, type)");
}

TEST_CASE("everything wrong is said at once, in order") {
  CHECK(message("max_steps: ten\nmax_steps: 3\npakcing: true\n", {"optimizer.type=sdg", "nonsense"}) ==
        "x.yaml: 6 problems\n"
        "  x.yaml: missing key 'data.sources': expected a list that is not empty, of sections (What is read)\n"
        "  x.yaml:1:12: max_steps: got 'ten', expected a whole number of at least 1\n"
        "  x.yaml:2:1: duplicate key 'max_steps' (it stands in line 1 already)\n"
        "  x.yaml:3:1: unknown key 'pakcing' (did you mean 'packing'?)\n"
        "  argument 'optimizer.type=sdg': optimizer.type: got 'sdg', expected one of adamw, sgd (did you mean 'sgd'?)\n"
        "  argument 'nonsense': not an override: expected section.key=value");
  CHECK(message("") ==
        "x.yaml: missing key 'data.sources': expected a list that is not empty, of sections (What is read)");
  CHECK(message("data:\n  sources:\n    - weight: 2\n") ==
        "x.yaml:3:7: missing key 'data.sources.0.path': expected a text that is not empty (A text file)");
}

TEST_CASE("several problems are a list too") {
  try {
    read("max_steps: ten\n" + kData, {"optimizer.type=sdg"});
    FAIL("no error");
  } catch (const config::InvalidConfig& e) {
    CHECK(e.parts().what == "2 problems");
    CHECK(e.parts().where == "x.yaml");
    REQUIRE(e.problems().size() == 2);
    CHECK(e.problems()[0].where == "x.yaml:1:12");
    CHECK(e.problems()[0].got == "'ten'");
    CHECK(e.problems()[1].where == "argument 'optimizer.type=sdg'");
    CHECK(e.problems()[1].hint == "did you mean 'sgd'?");
  }
}

struct Open {
  nlohmann::ordered_json model;
  int64_t steps = 1;
  template <class V>
  void fields(V& v) {
    v("model", model, "What somebody else reads");
    v("steps", steps, "How long");
  }
};

TEST_CASE("where keys were given can be asked later") {
  config::Places places;
  config::parse<Open>("model:\n  width: 3\n  rope: {type: a,\n    factor: 2}\n", "x.yaml", {"model.heads=4"}, &places);
  CHECK(places.of("model.width") == "x.yaml:2:3");
  CHECK(places.of("model.rope.factor") == "x.yaml:4:5");
  CHECK(places.of("model.rope.beta") == "x.yaml:3:3");  // its section's
  CHECK(places.of("model.heads") == "argument 'model.heads=4'");
  CHECK(places.of("steps") == "x.yaml");
  CHECK(places.below("model.rope") ==
        std::map<std::string, std::string>{{"factor", "x.yaml:4:5"}, {"type", "x.yaml:3:10"}});
  config::parse<Open>("model: {width: 3}\n", "x.yaml", {"model={depth: 1}"}, &places);
  CHECK(places.below("model") == std::map<std::string, std::string>{{"depth", "argument 'model={depth: 1}'"}});
}

TEST_CASE("what an older program wrote gets the defaults of newer keys") {
  auto json = nlohmann::ordered_json::parse(
      R"({"optimizer": {"type": "sgd"}, "data": {"sources": [{"path": "a"}], "opened": 1}, "name": "x"})");
  config::add_defaults<Config>(json);
  CHECK(json["optimizer"]["type"] == "sgd");
  CHECK(json["optimizer"]["learning_rate"] == 3e-4);
  CHECK(json["data"]["sources"][0] == nlohmann::ordered_json{{"path", "a"}, {"weight", 1.0}});
  CHECK(json["data"]["opened"] == 1);
  CHECK(json["dropout"].is_null());
  CHECK(json["max_steps"] == 100);
}

TEST_CASE("rules over several fields point to where the value was given") {
  CHECK(about("optimizer: {betas: [0.95, 0.9]}") ==
        "x.yaml:2:20: optimizer.betas: the first is above the second (they may be swapped)");
  CHECK(about_override("optimizer.betas.0=0.99")
            .starts_with("argument 'optimizer.betas.0=0.99': optimizer.betas: the first"));
}

TEST_CASE("overrides") {
  const Config c = read(kData, {"optimizer.learning_rate=1e-3", "optimizer.betas.1=0.99", "data.sources.0.path=*.txt",
                                "data.sources.1.path=b", "data.sources.1.weight=2", "name=123", "packing=true",
                                "data.limits.zh=7", "data.cache= x", "dropout=0.1", "max_steps=5", "max_steps=6"});
  CHECK(c.optimizer.learning_rate == 1e-3);
  CHECK(c.optimizer.betas == std::vector{0.9, 0.99});
  CHECK(c.data.sources == std::vector{Source{"*.txt", 1}, Source{"b", 2}});
  CHECK(c.name == "123");
  CHECK(c.data.limits == std::map<std::string, int64_t>{{"zh", 7}});
  CHECK(c.data.cache == " x");
  CHECK(c.dropout == 0.1);
  CHECK(c.max_steps == 6);
  CHECK(read("", {"data.sources=[{path: a}, {path: \"b=c\"}]"}).data.sources[1].path == "b=c");
  CHECK(read("", {"data.sources.0.path=a"}).data.sources[0].path == "a");
  CHECK(read(kData, {"name=\"\""}).name.empty());
  CHECK(read(kData + "dropout: 0.5", {"dropout=null"}).dropout == std::nullopt);
  CHECK(read(kData, {"name=a: b: [c"}).name == "a: b: [c");

  CHECK(
      about_override("optimizer.learning_rte=1") ==
      "argument 'optimizer.learning_rte=1': unknown key 'learning_rte' in 'optimizer' (did you mean 'learning_rate'?)");
  CHECK(about_override("learning_rate=1").find("it belongs under 'optimizer'") != std::string::npos);
  CHECK(
      about_override("max_steps=ten").starts_with("argument 'max_steps=ten': max_steps: got 'ten', expected a whole"));
  CHECK(about_override("max_steps=[1").find("got '[1', expected a whole number") != std::string::npos);
  CHECK(about_override("data.sources.7.path=x")
            .find("'data.sources' is a list of 1: got '7', expected an index from 0 to 1") != std::string::npos);
  CHECK(about_override("max_steps.x=1").find("'max_steps' is a whole number and has no keys in it") !=
        std::string::npos);
  CHECK(about_override("name=").find("got nothing") != std::string::npos);
  CHECK(about_override("name=\xff").find("invalid UTF-8") != std::string::npos);
  CHECK(about_override("=3").find("not an override") != std::string::npos);
}

TEST_CASE("the text must be one sound YAML document") {
  CHECK(message("a: \xff\n") == "x.yaml:1:4: invalid UTF-8 at byte 3 (save the file as UTF-8)");
  CHECK(message("中: \xff\n").starts_with("x.yaml:1:4: invalid UTF-8 at byte 5"));
  CHECK(message(std::string("a: \0b\n", 7)).find("x.yaml:1:4: control character with code 0") == 0);
  CHECK(about("optimizer:\n\ttype: sgd") == "x.yaml:3:1: a tab in the indentation (YAML is indented with spaces)");
  CHECK(about("optimizer:\n  type: sgd\n \tbetas: [0, 0]").find("a tab in the indentation") != std::string::npos);
  CHECK(read(kData + "name: |\n  all:\n  \tmake\n").name == "all:\n\tmake\n");
  CHECK(message(kData + "---\n" + kData).starts_with("x.yaml:2:1: a second document"));
  CHECK(message("a: {b: 1\n").starts_with("x.yaml:"));
  CHECK(message("a: *nothing\n").starts_with("x.yaml:1:4: not valid YAML: the referenced anchor is not defined"));
  CHECK(about("<<: {name: a}").starts_with("x.yaml:2:1: merge keys ('<<') are not supported"));
  CHECK(about("name: !!int 3").find("YAML tags are not supported: got 'tag:yaml.org,2002:int'") != std::string::npos);
  CHECK(message("? [a, b]\n: c\n").find("a key must be plain text") != std::string::npos);
  CHECK(read("data: {sources: &s [{path: a}]}\noptimizer: {betas: &b [0, 0.5]}\n").data.sources.size() == 1);
  CHECK(read("data: {sources: [&s {path: a}, *s]}\n").data.sources == std::vector{Source{"a", 1}, Source{"a", 1}});
  CHECK(message("a: &a [*a]\n").find("an alias inside the value that it stands for") != std::string::npos);
}

TEST_CASE("a YAML bomb is refused in milliseconds") {
  const auto refused = [](const std::string& yaml, const std::string& why) {
    const auto start = std::chrono::steady_clock::now();
    CHECK_THAT(message(yaml), Catch::Contains(why));
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    INFO(why << " took " << seconds << " s");
    CHECK(seconds < 1.0);
  };
  std::ostringstream laughs;
  laughs << "a0: &a0 [lol, lol]\n";
  for (int i = 1; i < 30; ++i) {
    laughs << "a" << i << ": &a" << i << " [*a" << i - 1;
    for (int j = 1; j < 9; ++j) laughs << ", *a" << i - 1;
    laughs << "]\n";
  }
  refused(laughs.str(), "more than 50000 values, aliases");
  // The parser takes an endless bracket for a key before it has found its end.
  refused(std::string(500'000, '['), "a key must be plain text");
  std::string braces, blocks;
  for (int i = 0; i < 100'000; ++i) braces += "{a: ";
  for (int i = 0; i < 200; ++i) blocks += std::string(static_cast<size_t>(i), ' ') + "a:\n";
  refused(braces, "a key must be plain text");
  refused(blocks, "nested more than 40 deep");
  std::string dashes;
  for (int i = 0; i < 100'000; ++i) dashes += "- ";
  refused(dashes, "nested more than 40 deep");
  std::string many = "name: [";
  for (int i = 0; i < 200'000; ++i) many += "1, ";
  refused(many + "1]", "more than 50000 values");
  std::string large = "a: &a \"" + std::string(400'000, 'x') + "\"\nb: [";
  for (int i = 0; i < 40'000; ++i) large += "*a, ";
  refused(large + "*a]", "more than 50000 values, aliases");
  refused(std::string((1 << 20) + 1, ' '), "the config is too large: got 1048577 bytes");
}

TEST_CASE("files that are none are refused") {
  test::TemporaryFolder folder;
  const auto refusal = [](const std::filesystem::path& path) {
    try {
      config::load<Config>(path);
    } catch (const Error& e) {
      CHECK(e.exit() == Exit::usage);
      return std::string(e.what());
    }
    return std::string("no error");
  };
  CHECK(refusal(folder / "missing.yaml").ends_with("missing.yaml: cannot read the config: No such file or directory"));
  CHECK(refusal(folder.path()).ends_with("the config is not a regular file (it is a folder)"));
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK(refusal(folder / "pipe").ends_with("the config is not a regular file"));
  write_file_atomic(folder / "名.yaml", "max_steps: x\n" + kData);
  CHECK(refusal(folder / "名.yaml").find("名.yaml:1:12: max_steps: got 'x'") != std::string::npos);
}

TEST_CASE("what is dumped reads back equal") {
  Config c;
  c.data.sources = {{"a b.txt", 1.0 / 3}, {"- x: #y", 1e300}};
  c.optimizer.learning_rate = 1e-7;
  c.optimizer.betas = {0.1 + 0.2, 0.99999999999999989};
  for (const char* text : {"",       "123",         "1e-4",  "1:30",   "0x1f",  "2024-01-01", "yes",
                           "Null",   "~",           ".inf",  "- a",    "a: b",  "a #b",       "中文：你好，世界",
                           "😀",      "a\nb\tc\\\"", " lead", "trail ", "a:",    "[x]",        "{x",
                           "*x",     "&x",          "!x",    "%x",     "@x",    "`x",         "'x'",
                           "\u2028", "\x01",        "C:\\x", "./a",    "../a",  "a,b",        "|",
                           ">",      "?",           "?a",    "-",      "--- a", "..."}) {
    INFO(text);
    c.name = text;
    c.data.cache = text;
    c.data.limits[text] = 1;
    const std::string yaml = config::dump(c);
    INFO(yaml);
    CHECK(read(yaml) == c);
    CHECK(config::dump(read(yaml)) == yaml);
  }
  c.data.sources[0].weight = std::numeric_limits<double>::denorm_min() * 3;
  c.max_steps = std::numeric_limits<int64_t>::max();
  c.data.limits["least"] = std::numeric_limits<int64_t>::min();
  for (const double value :
       {1e-5, 9.99e-6, 123456789012345678.0, 1e15, 1e22, 5e-324, 1.7976931348623157e308, 2.2250738585072014e-308}) {
    c.data.sources[1].weight = value;
    INFO(config::dump(c));
    CHECK(read(config::dump(c)) == c);
  }
}

TEST_CASE("the dump is what a person would write") {
  Config c = read(kData, {"name=中文", "optimizer.learning_rate=3e-5", "data.limits={a: 1}", "dropout=1e-6"});
  CHECK(config::dump(c) ==
        "optimizer:\n  learning_rate: 0.00003\n  betas: [0.9, 0.95]\n  type: adamw\n"
        "data:\n  sources:\n    - path: a.txt\n      weight: 1.0\n  limits:\n    a: 1\n  cache: null\n"
        "max_steps: 100\npacking: false\nname: 中文\ndropout: 1.0e-06\n");
}

TEST_CASE("the schema says what the reader checks") {
  const auto schema = nlohmann::json::parse(config::json_schema<Config>());
  CHECK(schema["$schema"] == "https://json-schema.org/draft/2020-12/schema");
  CHECK(schema["additionalProperties"] == false);
  CHECK(schema["required"] == nlohmann::json{"data"});
  const auto& optimizer = schema["properties"]["optimizer"]["properties"];
  CHECK(optimizer["learning_rate"] ==
        nlohmann::json{
            {"type", "number"}, {"exclusiveMinimum", 0}, {"default", 3e-4}, {"description", "Peak learning rate"}});
  CHECK(optimizer["betas"]["minItems"] == 2);
  CHECK(optimizer["betas"]["items"]["exclusiveMaximum"] == 1);
  CHECK(optimizer["type"]["enum"] == nlohmann::json{"adamw", "sgd"});
  CHECK(schema["properties"]["dropout"]["type"] == nlohmann::json{"number", "null"});
  CHECK(schema["properties"]["data"]["properties"]["sources"]["items"]["required"] == nlohmann::json{"path"});
}

TEST_CASE("help lists every key") {
  const std::string help = config::help<Config>();
  INFO(help);
  CHECK(help.find("optimizer:  How weights move\n") != std::string::npos);
  CHECK(help.find("Peak learning rate (a number above 0; default: 0.0003)") != std::string::npos);
  CHECK(help.find("A text file (a text that is not empty; required)") != std::string::npos);
}

TEST_CASE("overrides of thousands of list elements, and long keys, stay quick") {
  std::vector<std::string> overrides;
  for (int i = 0; i < 300; ++i) {
    std::ostringstream argument;
    argument << "data.sources." << i << ".path=" << i;
    overrides.push_back(argument.str());
  }
  CHECK(read("", overrides).data.sources.size() == 300);
  CHECK(about(std::string(1000, 'x') + ": 1").size() < 400);
}
