#include "generate/text_stream.h"

#include "fake_tokenizer.h"
#include "test.h"

using namespace llmtk;
using namespace llmtk::generate;

namespace {

struct Written {
  std::vector<std::string> pieces;
  std::string text;
  std::string stop;
  size_t tokens = 0;  // pushed before it stopped
};

/// Streams `tokens` (by their spelling) until a stop string is found.
Written stream(const std::vector<std::string>& tokens, const std::vector<std::string>& stops) {
  test::FakeTokenizer tokenizer;
  TextStream stream(tokenizer, stops);
  Written result;
  const auto keep = [&](std::string piece) {
    if (!piece.empty()) result.pieces.push_back(std::move(piece));
  };
  for (const auto& token : tokens) {
    ++result.tokens;
    keep(stream.push(tokenizer.add(token)));
    if (stream.stopped_by()) break;
  }
  keep(stream.finish());
  result.text = stream.text();
  if (stream.stopped_by()) result.stop = *stream.stopped_by();
  std::string joined;
  for (const auto& piece : result.pieces) joined += piece;
  CHECK(joined == result.text);
  return result;
}

}  // namespace

TEST_CASE("text comes token by token") {
  const auto written = stream({"Hello", ",", " world"}, {});
  CHECK(written.pieces == std::vector<std::string>{"Hello", ",", " world"});
}

TEST_CASE("a character is never cut in half") {
  const auto written = stream({"\xE4\xBD", "\xA0\xE5", "\xA5", "\xBD", "!"}, {});  // 你好!
  CHECK(written.pieces == std::vector<std::string>{"你", "好", "!"});
}

TEST_CASE("an incomplete character at the end comes out as U+FFFD") {
  CHECK(stream({"a", "\xE4\xBD"}, {}).text == "a\xEF\xBF\xBD");
}

TEST_CASE("a stop string is found across tokens, and the text ends before it") {
  for (const auto& tokens : std::vector<std::vector<std::string>>{
           {"a st", "op"}, {"a ", "stop"}, {"a st", "opera"}, {"a s", "to", "pped"}, {"a ", "s", "t", "o", "p"}}) {
    const auto written = stream(tokens, {"stop"});
    CHECK(written.text == "a ");
    CHECK(written.stop == "stop");
    CHECK(written.tokens == tokens.size());
  }
}

TEST_CASE("what might begin a stop string is held back, and comes when it does not") {
  const auto written = stream({"a", "#", "#", "b", "##"}, {"###"});
  CHECK(written.pieces == std::vector<std::string>{"a", "##b", "##"});
  CHECK(written.stop.empty());
}

TEST_CASE("the first of several stop strings counts") {
  CHECK(stream({"x END\n"}, {"\n", "END"}).stop == "END");
  CHECK(stream({"aab"}, {"ab", "aab"}).text.empty());
}

TEST_CASE("stop strings may overlap themselves") {
  CHECK(stream({"a", "a", "b", "a", "a", "c"}, {"aac"}).text == "aab");
}

TEST_CASE("a special token's spelling stops, though it is not part of the text") {
  const auto written = stream({"Hi", "<|im_end|>"}, {"<|im_end|>"});
  CHECK(written.text == "Hi");
  CHECK(written.stop == "<|im_end|>");
  CHECK(stream({"Hi", "<|other|>", "!"}, {"<|im_end|>"}).text == "Hi!");
  CHECK(stream({"Hi", "<|other|>"}, {}).text == "Hi");
}

TEST_CASE("Chinese stop strings work across byte tokens") {
  const auto written = stream({"你\xE3", "\x80", "\x82", "好"}, {"。"});
  CHECK(written.text == "你");
  CHECK(written.tokens == 3);
}
