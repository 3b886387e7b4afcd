// StreamDecoder: ids one by one, over every kind of tokenizer; no piece of text may end or begin inside a character.

#include <array>
#include <memory>
#include <random>
#include <vector>

#include "core/utf8.h"
#include "test.h"
#include "text/hf_tokenizer.h"
#include "text/hf_write.h"
#include "text/sentencepiece.h"
#include "text/tokenizer.h"
#include "text/train_bpe.h"

using namespace llmtk;
using namespace llmtk::text;

namespace {

struct Named {
  std::string name;
  std::unique_ptr<Tokenizer> tokenizer;
};

constexpr const char* kTexts[] = {
    "The quick brown fox jumps over the lazy dog, and the fox is quick.",
    "床前明月光，疑是地上霜。举头望明月，低头思故乡。",
    "《論語》：學而時習之，不亦說乎？ 龘靐齉 a mix of 汉字 and words",
    "👍🏽👨‍👩‍👧‍👦🇫🇷 e\u0301 ½ Привет नमस्ते 日本語",
    " leading blank",
    "  two",
    "line\nline\n",
    "世",
    "",
};

std::unique_ptr<Tokenizer> byte_level() {
  WordCounts words;
  for (const char* text : kTexts)
    for (int i = 0; i < 3; ++i) words.add(text, PreTokenizer({}, Pattern::gpt2));
  return train_bpe(words, {.vocab_size = 300});
}

std::unique_ptr<Tokenizer> sentencepiece(const char* type) {
  size_t at = 0;
  const auto next = [&](std::string& sentence) {
    if (at == 60) return false;
    sentence = kTexts[at++ % 2];  // the other texts come to bytes
    return true;
  };
  return train_sentencepiece(next, {.model_type = type, .vocab_size = 310});
}

/// As Llama 2's tokenizer.json: characters, <0x..> for those that the vocabulary lacks, a blank before every text.
std::unique_ptr<Tokenizer> llama2_like() {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  for (int b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", b);
    tokens.emplace_back(name);
  }
  for (const char* token : {"▁", "a", "b", "▁a", "▁▁", "世", "界", "世界", "▁世界"}) tokens.emplace_back(token);
  std::string vocab;
  for (size_t i = 0; i < tokens.size(); ++i) vocab += (i ? "," : "") + json_string(tokens[i]) + ":" + std::to_string(i);
  const std::string json =
      R"({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
          {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
          "added_tokens": [{"id": 0, "content": "<unk>", "special": true}, {"id": 1, "content": "<s>", "special": true},
          {"id": 2, "content": "</s>", "special": true}],
          "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
          {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
          "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": true, "fuse_unk": true, "vocab": {)" +
      vocab + R"(}, "merges": ["▁ a", "▁ ▁", "世 界", "▁ 世界"]}})";
  return parse_tokenizer_json(json, "llama2-like", {});
}

/// A vocabulary of `kind` (WordPiece or Unigram) whose texts do not come back as they were, blanks cleaned up or not.
std::unique_ptr<Tokenizer> pieces(const std::string& kind, bool cleans_up) {
  const char* const words[] = {"the", "fox", "don", "is", "a", ".", ",", "'", "t", "n't", "s", "m", "世", "界", "é"};
  std::string vocab;
  int id = 0;
  const auto add = [&](const std::string& token) {
    if (id > 0) vocab += ",";
    const std::string number = std::to_string(id++);
    vocab += kind == "WordPiece" ? json_string(token) + ":" + number : "[" + json_string(token) + ", -" + number + "]";
  };
  for (const char* token : {"[UNK]", "▁"}) add(token);
  for (const std::string word : words)
    for (const char* prefix : {"", kind == "WordPiece" ? "##" : "▁"}) add(prefix + word);
  const std::string wordpiece = R"("pre_tokenizer": {"type": "BertPreTokenizer"}, "decoder": {"type": "WordPiece",
      "prefix": "##", "cleanup": true}, "model": {"type": "WordPiece", "unk_token": "[UNK]",
      "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": {)" +
                                vocab + "}}";
  const std::string unigram = R"("pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
      "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
      "model": {"type": "Unigram", "unk_id": 0, "vocab": [)" +
                              vocab + "]}";
  const std::string json = "{" + (kind == "WordPiece" ? wordpiece : unigram) + "}";
  const std::string config = std::string(R"({"clean_up_tokenization_spaces": )") + (cleans_up ? "true" : "false") + "}";
  return parse_tokenizer_json(json, kind, {{"tokenizer_config.json", config}});
}

std::vector<Named> tokenizers() {
  std::vector<Named> all;
  all.push_back({"byte-level", byte_level()});
  all.push_back({"sentencepiece-bpe", sentencepiece("bpe")});
  all.push_back({"sentencepiece-unigram", sentencepiece("unigram")});
  all.push_back({"llama2-like", llama2_like()});
  if (const char* data = std::getenv("LLMTK_TEST_DATA"))
    all.push_back({"gpt2", load_tokenizer(std::filesystem::path(data) / "tokenizers" / "gpt2")});
  return all;
}

bool whole(const std::string& text) { return find_invalid_utf8(text) == std::string_view::npos; }

}  // namespace

TEST_CASE("ids one by one give the text of all of them, and every piece is whole characters") {
  for (const auto& [name, tokenizer] : tokenizers()) {
    size_t inside = 0;  // ids after which a character was not complete
    for (const std::string text : kTexts) {
      CAPTURE(name, text);
      std::vector<TokenId> ids;
      tokenizer->encode(text, ids);
      StreamDecoder decoder(*tokenizer, true, StreamDecoder::Begins::text);
      std::string joined;
      for (const TokenId id : ids) {
        const std::string piece = decoder.push(id);
        CHECK(whole(piece));
        CHECK(piece.find("\xEF\xBF\xBD") == std::string::npos);
        inside += piece.empty();
        joined += piece;
      }
      CHECK(decoder.finish().empty());
      CHECK(joined == text);
      CHECK(joined == tokenizer->decode(ids, true));
    }
    CAPTURE(name);
    CHECK(inside > 10);  // else the texts do not test what they are here for
  }
}

TEST_CASE("ids one by one give what decode() gives, blanks cleaned up or not") {
  std::mt19937 random(5);
  for (const std::string kind : {"WordPiece", "Unigram"}) {
    for (const bool cleans_up : {false, true}) {
      CAPTURE(kind, cleans_up);
      const auto tokenizer = pieces(kind, cleans_up);
      size_t cleaned = 0;
      for (int round = 0; round < 400; ++round) {
        std::vector<TokenId> ids(1 + random() % 12);
        for (TokenId& id : ids) id = static_cast<TokenId>(random() % tokenizer->vocab_size());
        CAPTURE(ids);
        StreamDecoder decoder(*tokenizer, true, StreamDecoder::Begins::text);
        std::string joined;
        for (const TokenId id : ids) joined += decoder.push(id);
        joined += decoder.finish();
        CHECK(joined == tokenizer->decode(ids, true));
        cleaned += joined != pieces(kind, false)->decode(ids, true);
      }
      CHECK((cleaned > 20) == cleans_up);
    }
  }
}

TEST_CASE("with blanks cleaned up, text comes as soon as nothing can change it") {
  const auto tokenizer = pieces("Unigram", true);
  const auto id = [&](const char* token) { return *tokenizer->token_to_id(token); };
  StreamDecoder decoder(*tokenizer, true, StreamDecoder::Begins::text);
  CHECK(decoder.push(id("▁fox")) == "fox");
  CHECK(decoder.push(id("▁,")).empty());
  CHECK(decoder.push(id("▁is")) == ", i");
  CHECK(decoder.finish() == "s");
}

TEST_CASE("a character comes with the id that completes it, not later") {
  const auto tokenizer = llama2_like();
  std::vector<TokenId> ids;
  tokenizer->encode("a龘b", ids);  // ▁a, three bytes, b
  StreamDecoder decoder(*tokenizer, true, StreamDecoder::Begins::text);
  std::vector<std::string> pieces;
  for (const TokenId id : ids) pieces.push_back(decoder.push(id));
  CHECK(pieces == std::vector<std::string>{"a", "", "", "龘", "b"});
}

TEST_CASE("ids in any order give whole characters") {
  std::mt19937 random(3);
  for (const auto& [name, tokenizer] : tokenizers()) {
    CAPTURE(name);
    for (const bool skip_special : {true, false}) {
      StreamDecoder decoder(*tokenizer, skip_special);
      for (int i = 0; i < 4000; ++i) {
        CHECK(whole(decoder.push(static_cast<TokenId>(random() % tokenizer->vocab_size()))));
        if (i % 97 == 96) CHECK(whole(decoder.finish()));
      }
    }
  }
}

TEST_CASE("bytes that no character begins with come out at once, an unfinished character at the end") {
  const auto tokenizer = llama2_like();
  const auto byte = [&](int b) { return static_cast<TokenId>(3 + b); };
  StreamDecoder decoder(*tokenizer);
  CHECK(decoder.push(byte(0xFF)) == "\xEF\xBF\xBD");
  CHECK(decoder.push(byte(0xE4)).empty());
  CHECK(decoder.push(byte(0xBD)).empty());
  CHECK(decoder.push(byte('a')) ==
        "\xEF\xBF\xBD"
        "a");
  CHECK(decoder.push(byte(0xF0)).empty());
  CHECK(decoder.finish() == "\xEF\xBF\xBD");
  CHECK(decoder.finish().empty());
}

TEST_CASE("the blank of a first word is dropped at the front of a text and kept behind one") {
  const auto tokenizer = llama2_like();
  std::vector<TokenId> ids;
  tokenizer->encode("世界 a", ids);
  for (const auto begins : {StreamDecoder::Begins::text, StreamDecoder::Begins::continuation}) {
    StreamDecoder decoder(*tokenizer, true, begins);
    for (int round = 0; round < 2; ++round) {  // finish() begins anew
      std::string text;
      for (const TokenId id : ids) text += decoder.push(id);
      text += decoder.finish();
      CHECK(text == (begins == StreamDecoder::Begins::text ? "世界 a" : " 世界 a"));
    }
  }
}

TEST_CASE("special tokens are left out, or stand as they are spelled") {
  const auto tokenizer = llama2_like();
  const std::array<TokenId, 4> ids = {1, *tokenizer->token_to_id("世"), 2, *tokenizer->token_to_id("b")};
  for (const bool skip : {true, false}) {
    StreamDecoder decoder(*tokenizer, skip, StreamDecoder::Begins::text);
    std::string text;
    for (const TokenId id : ids) text += decoder.push(id);
    CHECK(text == (skip ? "世b" : "<s>世</s>b"));
    CHECK(text == tokenizer->decode(ids, skip));
  }
}
