#include "text/train_wordpiece.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "text/hf_read.h"
#include "text/hf_write.h"
#include "text/unicode.h"

namespace llmtk::text {
namespace {

using WordPieceJson = nlohmann::ordered_json;

constexpr const char* kContinues = "##";
constexpr const char* kBertTokens[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};

WordPieceJson bert_normalizer_json(bool lowercase) {
  return {{"type", "BertNormalizer"},
          {"clean_text", true},
          {"handle_chinese_chars", true},
          {"strip_accents", nullptr},  // as lowercase
          {"lowercase", lowercase}};
}
WordPieceJson bert_pre_tokenizer_json() { return {{"type", "BertPreTokenizer"}}; }

/// [CLS] text [SEP], or [CLS] text [SEP] pair [SEP].
WordPieceJson bert_post_processor_json(const Vocabulary& vocabulary) {
  const auto special = [](const char* token, int type) {
    return WordPieceJson{{"SpecialToken", {{"id", token}, {"type_id", type}}}};
  };
  const auto sequence = [](const char* name, int type) {
    return WordPieceJson{{"Sequence", {{"id", name}, {"type_id", type}}}};
  };
  WordPieceJson tokens = WordPieceJson::object();
  for (const char* token : {"[CLS]", "[SEP]"})
    tokens[token] = {{"id", token},
                     {"ids", WordPieceJson::array({vocabulary.find(token)})},
                     {"tokens", WordPieceJson::array({token})}};
  return {{"type", "TemplateProcessing"},
          {"single", WordPieceJson::array({special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0)})},
          {"pair", WordPieceJson::array({special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0), sequence("B", 1),
                                         special("[SEP]", 1)})},
          {"special_tokens", tokens}};
}

template <class Visit>
void for_each_character(std::string_view text, Visit&& visit) {
  for (const char *p = text.data(), *end = p + text.size(); p < end;) {
    const Utf8Char c = decode_utf8(p, end);
    visit(c.code);
    p += c.size;
  }
}

/// The characters of all words with their counts, at most `most`: the rarest are left out.
std::vector<char32_t> alphabet_of(const WordCounts& words, size_t most) {
  std::map<char32_t, uint64_t> counts;
  for (const auto& [word, count] : words.words())
    for_each_character(word, [&](char32_t c) { counts[c] += count; });
  std::vector<std::pair<char32_t, uint64_t>> all(counts.begin(), counts.end());
  if (all.size() > most) {
    log::warn(std::to_string(all.size() - most) + " of " + std::to_string(all.size()) +
              " characters have no room in the vocabulary and become [UNK]");
    std::ranges::stable_sort(all, [](const auto& a, const auto& b) { return a.second > b.second; });
    all.resize(most);
    std::ranges::sort(all);
  }
  std::vector<char32_t> alphabet;
  for (const auto& [c, count] : all) alphabet.push_back(c);
  return alphabet;
}

std::string spelled(char32_t c, bool continues) {
  std::string token = continues ? kContinues : "";
  append_utf8(c, token);
  return token;
}

/// The words as tokens of one character each, those that continue a word added to the vocabulary in order.
std::vector<std::vector<TokenId>> spell_words(const std::vector<std::string_view>& words, Vocabulary& vocabulary) {
  std::map<std::string, bool> continuing;
  for (const auto word : words) {
    bool first = true;
    for_each_character(word, [&](char32_t c) {
      if (!first && vocabulary.find(spelled(c, false)) >= 0) continuing[spelled(c, true)] = true;
      first = false;
    });
  }
  for (const auto& [token, used] : continuing)
    if (vocabulary.find(token) < 0) vocabulary.add(token, static_cast<TokenId>(vocabulary.size()));
  std::vector<std::vector<TokenId>> out;
  for (const auto word : words) {
    std::vector<TokenId>& symbols = out.emplace_back();
    bool first = true;
    for_each_character(word, [&](char32_t c) {
      const TokenId id = vocabulary.find(spelled(c, !first));
      if (id >= 0) symbols.push_back(id);  // a character without a token joins with nothing
      first = false;
    });
  }
  return out;
}

std::unique_ptr<HfTokenizer> open_wordpiece(const Vocabulary& vocabulary, const std::vector<std::string>& special,
                                            bool lowercase) {
  std::vector<AddedToken> added;
  for (const auto& token : special)
    added.push_back({.id = vocabulary.find(token), .content = token, .special = true});
  const auto field = [](const char* key, const std::string& value) {
    return "  \"" + std::string(key) + "\": " + value + ",\n";
  };
  std::string json = "{\n" + field("version", "\"1.0\"") + field("truncation", "null") + field("padding", "null") +
                     field("added_tokens", added_tokens_json(added)) +
                     field("normalizer", bert_normalizer_json(lowercase).dump()) +
                     field("pre_tokenizer", bert_pre_tokenizer_json().dump()) +
                     field("post_processor", bert_post_processor_json(vocabulary).dump()) +
                     field("decoder", R"({"type":"WordPiece","prefix":"##","cleanup":true})") +
                     "  \"model\": {\n    \"type\": \"WordPiece\",\n    \"unk_token\": \"[UNK]\",\n"
                     "    \"continuing_subword_prefix\": \"##\",\n    \"max_input_chars_per_word\": 100,\n"
                     "    \"vocab\": " +
                     vocab_json(vocabulary, "    ") + "\n  }\n}\n";
  const WordPieceJson config = {{"tokenizer_class", "BertTokenizer"}, {"do_lower_case", lowercase},
                                {"clean_up_tokenization_spaces", true}, {"pad_token", "[PAD]"},
                                {"unk_token", "[UNK]"},             {"cls_token", "[CLS]"},
                                {"sep_token", "[SEP]"},             {"mask_token", "[MASK]"}};
  std::string lines;
  for (size_t id = 0; id < vocabulary.size(); ++id)
    lines += std::string(vocabulary.token(static_cast<TokenId>(id))) + "\n";
  std::vector<KeptFile> files = {
      {"tokenizer.json", json}, {"tokenizer_config.json", config.dump(2) + "\n"}, {"vocab.txt", lines}};
  return parse_tokenizer_json(json, "the trained tokenizer.json", std::move(files));
}

}  // namespace

WordPieceWords wordpiece_words(const WordPieceTrainingOptions& options) {
  const std::string where = "BERT's normalizer";
  return {read_normalizer(parse_json(bert_normalizer_json(options.lowercase).dump(), where), where),
          read_pre_tokenizer(parse_json(bert_pre_tokenizer_json().dump(), where), where).pre_tokenizer};
}

std::unique_ptr<HfTokenizer> train_wordpiece(const WordCounts& counts, const WordPieceTrainingOptions& options,
                                             const std::function<void(size_t, size_t)>& progress) {
  Vocabulary vocabulary;
  std::vector<std::string> special(std::begin(kBertTokens), std::end(kBertTokens));
  special.insert(special.end(), options.special_tokens.begin(), options.special_tokens.end());
  if (options.vocab_size <= special.size())
    throw Error(Exit::usage, {.what = "the vocabulary has no room beside the special tokens",
                              .got = std::to_string(options.vocab_size),
                              .expected = "more than " + std::to_string(special.size())});
  for (const auto& token : special)
    if (!vocabulary.add(token, static_cast<TokenId>(vocabulary.size())))
      throw Error(Exit::usage, {.what = "a special token is given twice", .got = "'" + token + "'"});
  for (const char32_t c : alphabet_of(counts, options.vocab_size - special.size()))
    vocabulary.add(spelled(c, false), static_cast<TokenId>(vocabulary.size()));

  std::vector<std::string_view> words;
  std::vector<uint64_t> frequencies;
  for (const auto& [word, count] : counts.words()) {
    words.push_back(word);
    frequencies.push_back(count);
  }
  auto symbols = spell_words(words, vocabulary);
  MergeLearner learner(vocabulary, kContinues);
  for (size_t i = 0; i < symbols.size(); ++i) learner.add_word(std::move(symbols[i]), frequencies[i]);
  learner.run(options.vocab_size, options.min_frequency, progress);
  return open_wordpiece(vocabulary, special, options.lowercase);
}

}  // namespace llmtk::text
