// Files that are broken or hostile: one error that names the file and the place, at once.

#include <chrono>
#include <random>

#include "core/error.h"
#include "test.h"
#include "text/charsmap.h"
#include "text/hf_tokenizer.h"
#include "text/hf_write.h"

using namespace llmtk;
using namespace llmtk::text;

namespace {

std::string error_of(const std::string& json) {
  try {
    parse_tokenizer_json(json, "some/tokenizer.json", {});
  } catch (const Error& e) {
    CHECK(e.exit() == Exit::file);
    const std::string what = e.what();
    CHECK(what.find("some/tokenizer.json") != std::string::npos);
    CHECK(what.find('\n') == std::string::npos);
    return what;
  }
  return "no error";
}

std::string unigram(const std::string& vocab, const std::string& rest) {
  return R"({"model": {"type": "Unigram", "vocab": [)" + vocab + "], " + rest + "}}";
}

std::string with_model(const std::string& section) {
  return "{" + section + R"(, "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})";
}

std::string repeated(const std::string& text, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i) out += text;
  return out;
}

struct Broken {
  std::string json, message;
};

}  // namespace

TEST_CASE("a broken tokenizer.json is an error that says where") {
  const std::string wordpiece = R"({"model": {"type": "WordPiece", "continuing_subword_prefix": "##", "vocab": )";
  const std::string in_template =
      R"("post_processor": {"type": "TemplateProcessing", "special_tokens": {}, "single": )";
  const std::vector<Broken> all = {
      {"", "not valid JSON"},
      {R"({"model": {"type": "Unigram", "vocab": [["a", -1e999]], "unk_id": 0}})", "too large"},
      {unigram(R"(["a", -1], ["a", -2])", R"("unk_id": 0)"), "two entries of 'vocab' have one token"},
      {unigram(R"(["a", -1])", R"("unk_id": 1)"), "'unk_id' is no id of 'vocab'"},
      {unigram(R"(["a", -1])", R"("unk_id": -1)"), "wrong type of 'unk_id'"},
      {unigram(R"(["a", -1])", R"("unk_id": null)"), "the key 'unk_id' is missing"},
      {unigram(R"(["a"])", R"("unk_id": 0)"), "wrong type of 'vocab[0]'"},
      {unigram(R"(["a", -1])", R"("unk_id": 0, "more": 1)"), "'more' is not supported here"},
      {wordpiece + R"({"a": 0}, "unk_token": "[UNK]", "max_input_chars_per_word": 100}})", "lacks the unk_token"},
      {wordpiece + R"({"a": 0, "b": 0}, "unk_token": "a", "max_input_chars_per_word": 9}})",
       "two tokens have the id 0"},
      {wordpiece + R"({"a": -1}, "unk_token": "a", "max_input_chars_per_word": 9}})", "not a token's id"},
      {wordpiece + R"({"a": 99999999999999999999}, "unk_token": "a"}})", "not a token's id"},
      {R"({"model": {"type": "WordLevel", "vocab": {}}})", "the model 'WordLevel' is not supported"},
      {R"({"pre_tokenizer": {"type": "ByteLevel"}, "model": {"type": "Unigram", "vocab": []}})", "behind a ByteLevel"},
      {R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b"]}})", "lacks a merge's token"},
      {with_model(R"("normalizer": {"type": "Replace", "pattern": {"Regex": "("}, "content": ""})"),
       "does not compile"},
      {with_model(R"("normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "x"})"), "is empty"},
      {with_model(R"("normalizer": {"type": "Precompiled", "precompiled_charsmap": "!!!!"})"), "is not base 64"},
      {with_model(R"("normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"})"),
       "shorter than its header"},
      {with_model(R"("normalizer": {"type": "Precompiled", "precompiled_charsmap": "////fwAA"})"), "a table of"},
      {with_model(R"("normalizer": {"type": "Nonsense"})"), "the normalizer 'Nonsense' is not supported"},
      {with_model(R"("normalizer": {"type": "Lowercase", "more": 1})"), "'more' is not supported here"},
      {with_model(R"("pre_tokenizer": {"type": "CharDelimiterSplit", "delimiter": "ab"})"), "one character"},
      {with_model(R"("pre_tokenizer": {"type": "Punctuation", "behavior": "Gone"})"), "unknown behavior"},
      {with_model(in_template + R"([{"Sequence": {"id": "A", "type_id": 0}}], "pair": []})"),
       "each of the texts AB once"},
      {with_model(in_template + R"([], "pair": []})"), "each of the texts A once"},
      {with_model(in_template + R"([{"SpecialToken": {"id": "x", "type_id": 0}}], "pair": []})"), "lacks a token"},
      {with_model(R"("decoder": {"type": "CTC"})"), "the decoder 'CTC' is not supported"},
      {with_model(R"("added_tokens": )" + repeated("[", 100'000) + repeated("]", 100'000)), "wrong type"},
      {with_model(R"("normalizer": )" + repeated(R"({"type": "Sequence", "normalizers": [)", 20'000) +
                  repeated("]}", 20'000)),
       "nested too deep"},
  };
  for (const Broken& broken : all) {
    CAPTURE(broken.json.substr(0, 200), broken.message);
    const auto begin = std::chrono::steady_clock::now();
    CHECK_THAT(error_of(broken.json), Catch::Contains(broken.message));
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(1));
  }
}

TEST_CASE("merges that go in a circle come to an end") {
  // Every piece is made of others in every way and again, and of itself with nothing left to put beside it.
  const auto tokenizer = parse_tokenizer_json(
      R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "ba": 3, "aba": 4, "bab": 5, "abab": 6}, "merges": [
      ["ab", "ab"], ["aba", "b"], ["a", "bab"], ["ab", "a"], ["a", "ba"], ["b", "ab"], ["ba", "b"], ["b", "a"], ["a", "b"],
      ["ab", "ab"], ["a", "b"], ["b", "a"], ["aba", "b"]]}})",
      "some/tokenizer.json", {});
  const auto begin = std::chrono::steady_clock::now();
  for (const size_t count : {1, 2, 3, 17, 300'000}) {
    const std::string text = repeated("ab", count) + "a";
    std::vector<TokenId> ids;
    tokenizer->encode(text, ids, false);
    std::string spelled;
    for (const TokenId id : ids) spelled += tokenizer->id_to_token(id);
    CHECK((spelled == text));  // too long to be shown
  }
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(5));
}

TEST_CASE("a pattern that takes for ever is a fault of the file") {
  const auto tokenizer = parse_tokenizer_json(
      with_model(R"("pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(?:a|aa|aaa)+[bc]"}, "behavior": "Isolated",
                 "invert": false})"),
      "some/tokenizer.json", {});
  std::vector<TokenId> ids;
  try {
    tokenizer->encode(std::string(5000, 'a'), ids, false);
    FAIL("no error");
  } catch (const Error& e) {
    CHECK(e.exit() == Exit::file);
    CHECK(e.parts().where == "some/tokenizer.json");
  }
}

TEST_CASE("a table that a reader may walk without looking leads nowhere outside") {
  const auto table = [](std::vector<uint32_t> units, const std::string& texts) {
    units.insert(units.begin(), static_cast<uint32_t>(4 * units.size()));
    return std::string(reinterpret_cast<const char*>(units.data()), 4 * units.size()) + texts;
  };
  std::vector<uint32_t> units(512);
  units[0] = 256 << 10;
  units[256 ^ 'A'] = 'A' | 1 << 8 | (256 ^ 'A' ^ 300) << 10;  // its value stands at 300
  units[300] = 1u << 31 | 2;
  const std::string texts("x\0b\0", 4);
  CHECK(problem_of_charsmap(table(units, texts)).empty());
  CHECK(problem_of_charsmap("").find("header") != std::string::npos);
  CHECK(problem_of_charsmap(table(units, "\xff")).find("UTF-8") != std::string::npos);
  const auto with = [&](size_t at, uint32_t unit) {
    auto changed = units;
    changed[at] = unit;
    return problem_of_charsmap(table(changed, texts));
  };
  CHECK(with(300, 1u << 31 | 5).find("behind its texts") != std::string::npos);
  CHECK(with(0, 512u << 10).find("points outside") != std::string::npos);
  CHECK(with(7, ~0u >> 1).find("points outside") != std::string::npos);
  CHECK(problem_of_charsmap(table({0, 0}, texts)).find("points outside") != std::string::npos);  // a byte leads beyond
}

TEST_CASE("a table of normalization may be anything, texts come out whole") {
  std::mt19937 random(11);
  for (int round = 0; round < 300; ++round) {
    const size_t units = 1 + random() % 600;
    std::string charsmap;
    const auto put = [&](uint32_t value) {
      for (int i = 0; i < 4; ++i) charsmap += static_cast<char>(value >> 8 * i);
    };
    put(static_cast<uint32_t>(4 * units));
    for (size_t i = 0; i < units; ++i) put(random() % 3 ? random() % 4096 : static_cast<uint32_t>(random()));
    charsmap += std::string("a\0b\xC3\xA9\0", 6);
    const auto step = make_precompiled(charsmap, "some/tokenizer.json", "normalizer");
    std::string out;
    for (const std::string text : {"abc", "e\u0301世\r\n", "\xFF\xC3", "👨‍👩‍👧"}) step->apply(text, out);
  }
}

TEST_CASE("very long words take no longer than their length") {
  std::string vocab = R"(["<unk>", 0], ["a", -3])";
  for (int length = 2; length <= 32; ++length) vocab += ",[" + json_string(std::string(length, 'a')) + ", -5]";
  const auto one = parse_tokenizer_json(unigram(vocab, R"("unk_id": 0)"), "unigram", {});
  const auto two =
      parse_tokenizer_json(R"({"model": {"type": "WordPiece", "unk_token": "a", "vocab": {"a": 0, "##a": 1},
      "continuing_subword_prefix": "##", "max_input_chars_per_word": 100000000}})",
                           "wordpiece", {});
  const std::string word(3'000'000, 'a');
  const auto begin = std::chrono::steady_clock::now();
  std::vector<TokenId> ids;
  one->encode(word, ids, false);
  CHECK(ids.size() == word.size() / 32);
  ids.clear();
  two->encode(word, ids, false);
  CHECK(ids.size() == word.size());
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(5));
}
