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
      "eos_token_id": [5, 7], "bos_token_id": 3, "num_beams": 4, "no_repeat_ngram_size": 3, "stop_strings": "END",
      "transformers_version": "4.40", "max_length": 64, "early_stopping": "never", "length_penalty": 0.5,
      "bad_words_ids": [[7], [8, 9]], "sequence_bias": [[[4], 2], [[4], -1.5]], "exponential_decay_length_penalty": [5, 1.1],
      "forced_eos_token_id": 2, "suppress_tokens": [1, 2], "guidance_scale": 1.5, "encoder_repetition_penalty": 1.0})"),
                                     "generation_config.json", ignored);
  CHECK(config.do_sample);
  CHECK(config.temperature == 0.6);
  CHECK(config.top_p == 1.0);
  CHECK(config.top_k == 20);
  CHECK(config.eos_token_ids == std::vector<text::TokenId>{5, 7});
  CHECK(config.bos_token_id == 3);
  CHECK(config.stop_strings == std::vector<std::string>{"END"});
  CHECK(config.max_length == 64);
  CHECK(config.num_beams == 4);
  CHECK(config.early_stopping == EarlyStopping::never);
  CHECK(config.length_penalty == 0.5);
  CHECK(config.no_repeat_ngram_size == 3);
  CHECK(config.bad_words_ids == std::vector<std::vector<text::TokenId>>{{7}, {8, 9}});
  CHECK(config.sequence_bias == std::vector<SequenceBias>{{{4}, -1.5}});
  CHECK(config.exponential_decay_length_penalty == LengthDecay{5, 1.1});
  CHECK(config.forced_eos_token_ids == std::vector<text::TokenId>{2});
  CHECK(config.suppress_tokens == std::vector<text::TokenId>{1, 2});
  CHECK(ignored == std::vector<std::string>{"guidance_scale=1.5"});
}

TEST_CASE("a wrong type in generation_config.json names file and key") {
  std::vector<std::string> ignored;
  for (const auto* text :
       {R"({"temperature": "hot"})", R"({"top_k": 1.5})", R"({"do_sample": 1})", R"({"eos_token_id": ["</s>"]})",
        R"({"early_stopping": "soon"})", R"({"bad_words_ids": [5]})", R"({"bad_words_ids": [[]]})",
        R"({"sequence_bias": {"5": 1.0}})", R"({"exponential_decay_length_penalty": 1.1})",
        R"({"suppress_tokens": [4294967296]})"}) {
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
  write_file_atomic(folder / "config.json", R"({"eos_token_id": 9, "bos_token_id": 8, "num_beams": 4})");
  CHECK(load_config(folder.path(), nullptr).eos_token_ids == std::vector<text::TokenId>{9});
  CHECK(load_config(folder.path(), nullptr).num_beams == 4);  // as old folders have it
  write_file_atomic(folder / "generation_config.json", R"({"eos_token_id": [1, 2]})");
  const auto config = load_config(folder.path(), nullptr);
  CHECK(config.eos_token_ids == std::vector<text::TokenId>{1, 2});
  CHECK(config.bos_token_id == 8);
  CHECK(config.num_beams == 1);
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
  CHECK(flag_of({.num_beams = 0}) == "--num-beams");
  CHECK(flag_of({.num_beams = 2, .num_return_sequences = 3}) == "--num-return-sequences");
  CHECK(flag_of({.num_beams = 3, .num_return_sequences = 3}) == "none");
  CHECK(flag_of({.no_repeat_ngram_size = -1}) == "--no-repeat-ngram-size");
  CHECK(flag_of({.presence_penalty = std::nan("")}) == "--presence-penalty");
  CHECK(flag_of({.epsilon_cutoff = 1}) == "--epsilon-cutoff");
  CHECK(flag_of({.suppress_tokens = {4, 5}, .forced_bos_token_id = 4}) == "--forced-bos-token-id");
  CHECK(flag_of({.suppress_tokens = {4, 5}, .forced_eos_token_ids = {4, 6}}) == "none");
  CHECK(flag_of({.exponential_decay_length_penalty = LengthDecay{3, 0}}) == "--exponential-decay-length-penalty");
}

TEST_CASE("ids that the model does not know are named by their setting") {
  GenerationConfig config{.bad_words_ids = {{5, 100}}};
  CHECK_NOTHROW(config.check_ids(101));
  try {
    config.check_ids(100);
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.exit() == Exit::usage);
    CHECK(error.parts().what.starts_with("bad_words_ids"));
    CHECK(error.parts().got == "100");
  }
}
