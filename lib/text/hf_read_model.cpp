// The section `model` of tokenizer.json, and what older files have of it.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "text/hf_read.h"
#include "text/hf_write.h"
#include "text/unigram.h"
#include "text/wordpiece.h"

namespace llmtk::text {

Vocabulary read_vocab(const Json& object, const std::string& where, const std::string& path) {
  if (!object.is_object())
    throw Error(Exit::file, {.what = path + ": wrong type",
                             .where = where,
                             .got = shown(object),
                             .expected = "an object of tokens and ids"});
  Vocabulary vocabulary;
  vocabulary.reserve(object.size(), object.size() * 8);
  const std::string one = path.empty() ? "a token" : path;
  for (const auto& [token, id] : object.items()) {
    const TokenId number = read_id(id, where, one + "[" + json_string(token) + "]");
    if (!vocabulary.add(token, number))
      throw Error(Exit::file, {.what = one + ": two tokens have the id " + std::to_string(number),
                               .where = where,
                               .got = json_string(token) + " and " + json_string(vocabulary.token(number))});
  }
  return vocabulary;
}

std::pair<std::string_view, std::string_view> split_merge(std::string_view line, const std::string& where,
                                                          const std::string& path) {
  const size_t space = line.find(' ');
  if (space == line.npos || line.find(' ', space + 1) != line.npos)
    throw Error(Exit::file, {.what = path + ": not a merge",
                             .where = where,
                             .got = json_string(line.substr(0, 60)),
                             .expected = "two tokens with one space between them"});
  return {line.substr(0, space), line.substr(space + 1)};
}

BpeModel::Merge find_merge_tokens(const Vocabulary& vocabulary, std::string_view left, std::string_view right,
                                  const std::string& where, const std::string& path) {
  const auto id = [&](const std::string& token) {
    const TokenId found = vocabulary.find(token);
    if (found < 0)
      throw Error(Exit::file, {.what = path + ": the vocabulary lacks a merge's token",
                               .where = where,
                               .got = json_string(token),
                               .hint = "vocabulary and merges belong to different tokenizers, or one is cut short"});
    return found;
  };
  return {id(std::string(left)), id(std::string(right)), id(std::string(left) + std::string(right))};
}

namespace {

std::vector<BpeModel::Merge> read_merges(const Json& list, const Vocabulary& vocabulary, const std::string& where) {
  std::vector<BpeModel::Merge> merges;
  merges.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string path = "model.merges[" + std::to_string(i) + "]";
    const Json& entry = list[i];
    if (entry.is_string()) {
      const auto [left, right] = split_merge(entry.get_ref<const std::string&>(), where, path);
      merges.push_back(find_merge_tokens(vocabulary, left, right, where, path));
    } else if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string()) {
      merges.push_back(find_merge_tokens(vocabulary, entry[0].get_ref<const std::string&>(),
                                         entry[1].get_ref<const std::string&>(), where, path));
    } else {
      throw Error(Exit::file, {.what = path + ": not a merge",
                               .where = where,
                               .got = shown(entry),
                               .expected = "\"a b\" or [\"a\", \"b\"]"});
    }
  }
  return merges;
}

std::unique_ptr<TokenModel> read_bpe(JsonObject& model, bool byte_level, const std::string& where) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const Json* affix = model.find(key);
    if (affix && *affix != "") model.fail(std::string("'") + key + "' is not supported", shown(*affix), "null");
  }
  if (const Json* dropout = model.find("dropout"); dropout && *dropout != 0.0)
    model.fail("dropout in encoding is not supported", shown(*dropout), "null");
  BpeOptions options;
  options.byte_level = byte_level;
  options.ignore_merges = model.flag("ignore_merges", false);
  options.byte_fallback = model.flag("byte_fallback", false);
  options.fuse_unk = model.flag("fuse_unk", false);
  Vocabulary vocabulary = read_vocab(model.need("vocab"), where, "model.vocab");
  auto merges = read_merges(model.list("merges"), vocabulary, where);
  if (model.find("unk_token")) {
    const std::string unk = model.string("unk_token");
    options.unk = vocabulary.find(unk);
    if (options.unk < 0 && !unk.empty() && !byte_level)
      model.fail("the vocabulary lacks the unk_token", json_string(unk));
  }
  return std::make_unique<BpeModel>(std::move(vocabulary), std::move(merges), options);
}

std::unique_ptr<TokenModel> read_wordpiece(JsonObject& model, const std::string& where) {
  Vocabulary vocabulary = read_vocab(model.need("vocab"), where, "model.vocab");
  WordPieceOptions options;
  const std::string unk = model.string("unk_token");
  options.unk = vocabulary.find(unk);
  if (options.unk < 0) model.fail("the vocabulary lacks the unk_token", json_string(unk));
  options.continuing_subword_prefix = model.string("continuing_subword_prefix");
  options.max_input_chars_per_word = model.count("max_input_chars_per_word");
  return std::make_unique<WordPieceModel>(std::move(vocabulary), std::move(options));
}

/// The number that Hugging Face's tokenizers has where `written` stands in the file: its JSON reader (serde_json) takes all digits for
/// a whole number and divides by a power of ten, both rounded. One score in seven is a last bit off by that, which decides
/// between two orders of the same pieces.
double as_tokenizers_reads(double written) {
  char text[32];
  const char* const end =
      std::to_chars(text, text + sizeof text, std::abs(written), std::chars_format::scientific).ptr;
  const char* const e = std::find(static_cast<const char*>(text), end, 'e');
  uint64_t digits = 0;
  for (const char* c = text; c != e; ++c)
    if (*c != '.') digits = digits * 10 + static_cast<uint64_t>(*c - '0');
  int exponent = 0;
  std::from_chars(e + (e[1] == '+' ? 2 : 1), end, exponent);
  if (e - text > 2) exponent -= static_cast<int>(e - text) - 2;  // digits behind the point
  auto value = static_cast<double>(digits);
  for (constexpr int kMost = 308; exponent < -kMost; exponent += kMost) value /= 1e308;
  double power = 0;
  const std::string name = "1e" + std::to_string(std::abs(exponent));
  std::from_chars(name.data(), name.data() + name.size(), power);
  return std::copysign(exponent < 0 ? value / power : value * power, written);
}

std::unique_ptr<TokenModel> read_unigram(JsonObject& model) {
  Vocabulary vocabulary;
  std::vector<double> scores;
  const Json& list = model.list("vocab");
  vocabulary.reserve(list.size(), list.size() * 8);
  if (list.size() > Vocabulary::kMaxId)
    model.fail("too many tokens", std::to_string(list.size()), "at most " + std::to_string(Vocabulary::kMaxId));
  for (const Json& entry : list) {
    const std::string path = "vocab[" + std::to_string(scores.size()) + "]";
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number())
      model.fail("wrong type of '" + path + "'", shown(entry), "[token, score]");
    const auto& token = entry[0].get_ref<const std::string&>();
    if (!vocabulary.add(token, static_cast<TokenId>(scores.size())))
      model.fail("two entries of 'vocab' have one token", json_string(token) + " of ids " +
                                                              std::to_string(vocabulary.find(token)) + " and " +
                                                              std::to_string(scores.size()));
    scores.push_back(as_tokenizers_reads(entry[1].get<double>()));
  }
  const size_t unk = model.count("unk_id");
  if (unk >= scores.size())
    model.fail("'unk_id' is no id of 'vocab'", std::to_string(unk),
               "a whole number below " + std::to_string(scores.size()));
  const UnigramOptions options{.unk = static_cast<TokenId>(unk), .byte_fallback = model.flag("byte_fallback", false)};
  return std::make_unique<UnigramModel>(std::move(vocabulary), std::move(scores), options);
}

/// Files older than the key are told apart by what else they hold, as the tokenizers library does it.
std::string model_type(JsonObject& model) {
  if (model.find("type")) return model.type();
  if (model.find("merges")) return "BPE";
  if (model.find("continuing_subword_prefix")) return "WordPiece";
  if (model.find("unk_id")) return "Unigram";
  return model.type();
}

}  // namespace

std::unique_ptr<TokenModel> read_model(const Json& value, bool byte_level, const std::string& where) {
  JsonObject model(value, where, "model");
  const std::string type = model_type(model);
  if (byte_level && type != "BPE")
    model.fail("the model '" + type + "' behind a ByteLevel pre-tokenizer is not supported", {}, "BPE");
  std::unique_ptr<TokenModel> read;
  if (type == "BPE")
    read = read_bpe(model, byte_level, where);
  else if (type == "WordPiece")
    read = read_wordpiece(model, where);
  else if (type == "Unigram")
    read = read_unigram(model);
  else
    model.unsupported("model", type, "BPE, Unigram or WordPiece");
  model.finish();
  return read;
}

}  // namespace llmtk::text
