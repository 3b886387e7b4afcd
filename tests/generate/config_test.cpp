#include "generate/config.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "test.h"

using namespace llmtk;
using namespace llmtk::generate;
using nlohmann::json;

TEST_CASE("defaults are transformers'") {
  const GenerationConfig config;
  CHECK(config.new_tokens_limit(7) == 20);
  CHECK_FALSE(config.do_sample);
  CHECK(config.top_k == 50);
  CHECK(config.temperature == 1.0);
  CHECK(config.top_p == 1.0);
  CHECK(config.repetition_penalty == 1.0);
}

TEST_CASE("max_new_tokens wins over max_length") {
  GenerationConfig config{.max_length = 10};
  CHECK(config.new_tokens_limit(7) == 3);
  CHECK(config.new_tokens_limit(12) == -2);
  config.max_new_tokens = 5;
  CHECK(config.new_tokens_limit(7) == 5);
}

TEST_CASE("a generation_config.json is read, and what it asks for in vain is named") {
  std::vector<std::string> ignored;
  const auto config = config_from_hf(json::parse(R"({"do_sample": true, "temperature": 0.6, "top_p": null, "top_k": 20,
      "eos_token_id": [5, 7], "bos_token_id": 3, "num_beams": 4, "no_repeat_ngram_size": 0, "stop_strings": "END",
      "transformers_version": "4.40", "max_length": 64})"),
                                     "generation_config.json", ignored);
  CHECK(config.do_sample);
  CHECK(config.temperature == 0.6);
  CHECK(config.top_p == 1.0);
  CHECK(config.top_k == 20);
  CHECK(config.eos_token_ids == std::vector<text::TokenId>{5, 7});
  CHECK(config.bos_token_id == 3);
  CHECK(config.stop_strings == std::vector<std::string>{"END"});
  CHECK(config.max_length == 64);
  CHECK(ignored == std::vector<std::string>{"num_beams=4"});
}

TEST_CASE("a wrong type in generation_config.json names file and key") {
  std::vector<std::string> ignored;
  for (const auto* text :
       {R"({"temperature": "hot"})", R"({"top_k": 1.5})", R"({"do_sample": 1})", R"({"eos_token_id": ["</s>"]})"}) {
    const auto object = json::parse(text);
    try {
      config_from_hf(object, "m/generation_config.json", ignored);
      FAIL("no error for " << text);
    } catch (const Error& error) {
      CHECK(error.exit() == Exit::file);
      CHECK(error.parts().where == "m/generation_config.json");
      CHECK(error.parts().what.find(object.begin().key()) != std::string::npos);
    }
  }
}

TEST_CASE("eos and bos come from config.json where generation_config.json does not say them") {
  test::TemporaryFolder folder;
  CHECK(load_config(folder.path(), nullptr) == GenerationConfig{});
  write_file_atomic(folder / "config.json", R"({"eos_token_id": 9, "bos_token_id": 8})");
  CHECK(load_config(folder.path(), nullptr).eos_token_ids == std::vector<text::TokenId>{9});
  write_file_atomic(folder / "generation_config.json", R"({"eos_token_id": [1, 2]})");
  const auto config = load_config(folder.path(), nullptr);
  CHECK(config.eos_token_ids == std::vector<text::TokenId>{1, 2});
  CHECK(config.bos_token_id == 8);
  write_file_atomic(folder / "generation_config.json", R"({"eos_token_id": )");
  CHECK_THROWS_AS(load_config(folder.path(), nullptr), Error);
}

TEST_CASE("values out of range name the flag") {
  const auto flag_of = [](const GenerationConfig& config) {
    try {
      config.validate();
    } catch (const Error& error) {
      CHECK(error.exit() == Exit::usage);
      return error.parts().what.substr(0, error.parts().what.find(' '));
    }
    return std::string("none");
  };
  CHECK(flag_of({}) == "none");
  CHECK(flag_of({.max_new_tokens = 0}) == "--max-new-tokens");
  CHECK(flag_of({.max_length = -1}) == "--max-length");
  CHECK(flag_of({.max_new_tokens = 2, .min_new_tokens = 3}) == "--min-new-tokens");
  CHECK(flag_of({.repetition_penalty = 0}) == "--repetition-penalty");
  CHECK(flag_of({.do_sample = true, .temperature = 0}) == "--temperature");
  CHECK(flag_of({.temperature = 0}) == "none");  // as configs of models that take the most probable token say
  CHECK(flag_of({.temperature = std::nan("")}) == "--temperature");
  CHECK(flag_of({.top_k = -1}) == "--top-k");
  CHECK(flag_of({.top_p = 1.5}) == "--top-p");
  CHECK(flag_of({.min_p = -0.1}) == "--min-p");
  CHECK(flag_of({.typical_p = 0}) == "--typical-p");
  CHECK(flag_of({.num_return_sequences = 2}) == "--num-return-sequences");
  CHECK(flag_of({.do_sample = true, .num_return_sequences = 2}) == "none");
  CHECK(flag_of({.stop_strings = {""}}) == "--stop");
}
