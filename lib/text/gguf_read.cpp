#include "text/gguf_read.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <tuple>
#include <unordered_map>
#include <unordered_set>

#include "core/error.h"
#include "core/log.h"
#include "core/utf8.h"
#include "text/gguf_pre_tokenizers.h"
#include "text/hf_write.h"
#include "text/sentencepiece_json.h"

namespace llmtk::text {
namespace {

using OrderedJson = nlohmann::ordered_json;

const std::string kTokens = "tokenizer.ggml.tokens";

struct GgufEntry {
  std::string_view text;
  GgufKind kind = GgufKind::normal;
};

std::vector<GgufEntry> read_tokens(const io::GgufFile& file) {
  const auto* texts = file.find_strings(kTokens);
  if (!texts || texts->empty())
    throw Error(Exit::file, {.what = "no vocabulary in this file",
                             .where = file.path().string(),
                             .expected = "the key " + kTokens,
                             .hint = "name a tokenizer: --tokenizer FOLDER"});
  const auto* kinds = file.find_integers("tokenizer.ggml.token_type");
  if (kinds && kinds->size() != texts->size())
    file.fail("tokenizer.ggml.token_type", std::to_string(kinds->size()) + " elements",
              std::to_string(texts->size()) + ", one for each token");
  std::vector<GgufEntry> tokens(texts->size());
  std::unordered_set<std::string_view> seen;
  for (size_t id = 0; id < texts->size(); ++id) {
    const std::string& text = (*texts)[id];
    tokens[id] = {text, kinds ? static_cast<GgufKind>((*kinds)[id]) : GgufKind::normal};
    if (find_invalid_utf8(text) != text.npos)
      file.fail(kTokens, "bytes that are not UTF-8 in token " + std::to_string(id), "text");
    if (!seen.insert(text).second) file.fail(kTokens, json_string(text) + " twice", "tokens that differ");
  }
  return tokens;
}

/// The token with a role; -1 where the file names none. An id beyond the vocabulary is an error.
TokenId role(const io::GgufFile& file, const char* name, size_t tokens, TokenId otherwise = -1) {
  const std::string key = std::string("tokenizer.ggml.") + name + "_token_id";
  const auto id = file.find_integer(key);
  if (!id) return otherwise < static_cast<TokenId>(tokens) ? otherwise : -1;
  if (*id < 0 || *id >= static_cast<int64_t>(tokens))
    file.fail(key, std::to_string(*id), "an id below " + std::to_string(tokens));
  return static_cast<TokenId>(*id);
}

/// What a vocabulary comes to, whichever kind it is.
struct Vocab {
  std::vector<GgufEntry> tokens;
  TokenId bos = -1, eos = -1, unk = -1, pad = -1;
  bool add_bos = false, add_eos = false;
};

std::string added_text(const Vocab& vocab, bool user_defined_normalized) {
  std::string text = "[";
  for (size_t id = 0; id < vocab.tokens.size(); ++id) {
    const GgufEntry& token = vocab.tokens[id];
    const bool special = token.kind == GgufKind::control || token.kind == GgufKind::unknown;
    if (!special && token.kind != GgufKind::user_defined) continue;
    // Sentencepiece looks for its own pieces in a text whose blanks are spelled already.
    const bool normalized =
        user_defined_normalized && !special && token.text.find(kSpaceMark) != std::string_view::npos;
    text += text.size() > 1 ? ",\n" : "\n";
    text +=
        "    " + OrderedJson{{"id", id},        {"content", token.text},    {"single_word", false}, {"lstrip", false},
                             {"rstrip", false}, {"normalized", normalized}, {"special", special}}
                     .dump();
  }
  return text + "\n  ]";
}

std::string vocab_text(const std::vector<GgufEntry>& tokens) {
  std::string text = "{";
  for (size_t id = 0; id < tokens.size(); ++id)
    text += (id ? ",\n      " : "\n      ") + json_string(tokens[id].text) + ": " + std::to_string(id);
  return text + "\n    }";
}

OrderedJson post_processor(const Vocab& vocab) {
  if (!vocab.add_bos && !vocab.add_eos) return nullptr;
  OrderedJson single = OrderedJson::array(), pair = OrderedJson::array(), specials = OrderedJson::object();
  const auto add_token = [&](TokenId id, int type) {
    const std::string name(vocab.tokens[id].text);
    specials[name] = {{"id", name}, {"ids", OrderedJson::array({id})}, {"tokens", OrderedJson::array({name})}};
    (type == 0 ? single : pair).push_back({{"SpecialToken", {{"id", name}, {"type_id", type}}}});
  };
  const auto add_sequence = [&](const char* name, int type) {
    if (vocab.add_bos) add_token(vocab.bos, type);
    (type == 0 ? single : pair).push_back({{"Sequence", {{"id", name}, {"type_id", type}}}});
    if (vocab.add_eos) add_token(vocab.eos, type);
  };
  add_sequence("A", 0);
  add_sequence("B", 1);
  OrderedJson both = single;
  both.insert(both.end(), pair.begin(), pair.end());
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", both}, {"special_tokens", specials}};
}

/// The parts of tokenizer.json that the two kinds of vocabulary say differently.
struct Description {
  OrderedJson normalizer, pre_tokenizer, decoder;
  std::string model_options;  ///< the lines of `model` before the vocabulary
  std::string merges;         ///< a JSON list
  bool user_defined_normalized = false;
};

std::string tokenizer_json(const Vocab& vocab, const Description& description) {
  const auto line = [](const char* key, const OrderedJson& value) {
    return "  \"" + std::string(key) + "\": " + value.dump() + ",\n";
  };
  return "{\n" + line("version", "1.0") + line("truncation", nullptr) + line("padding", nullptr) +
         "  \"added_tokens\": " + added_text(vocab, description.user_defined_normalized) + ",\n" +
         line("normalizer", description.normalizer) + line("pre_tokenizer", description.pre_tokenizer) +
         line("post_processor", post_processor(vocab)) + line("decoder", description.decoder) + "  \"model\": {\n" +
         description.model_options + "    \"vocab\": " + vocab_text(vocab.tokens) +
         ",\n    \"merges\": " + description.merges + "\n  }\n}\n";
}

std::string model_options(const std::string& unk, bool fuse_unk, bool byte_fallback, bool ignore_merges) {
  const auto flag = [](bool on) { return std::string(on ? "true" : "false"); };
  return "    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": " + unk +
         ",\n    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": " +
         flag(fuse_unk) + ",\n    \"byte_fallback\": " + flag(byte_fallback) +
         ",\n    \"ignore_merges\": " + flag(ignore_merges) + ",\n";
}

const GgufPreTokenizer& pre_tokenizer_of(const io::GgufFile& file) {
  const std::string key = "tokenizer.ggml.pre";
  const auto name = file.find_string(key);
  if (!name)
    log::warn(file.path().string() + ": names no pre-tokenizer (" + key +
              "); numbers and signs may be cut otherwise than in training");
  if (const auto* found = find_gguf_pre_tokenizer(name.value_or("default"))) return *found;
  std::string known;
  for (const auto& row : gguf_pre_tokenizers()) known += (known.empty() ? "" : ", ") + std::string(row.name);
  file.fail(key, json_string(replace_invalid_utf8(*name)), known, "name a tokenizer: --tokenizer FOLDER");
}

Description describe_byte_level(const io::GgufFile& file, const GgufPreTokenizer& pre) {
  const auto* lines = file.find_strings("tokenizer.ggml.merges");
  if (!lines)
    throw Error(Exit::file, {.what = "key 'tokenizer.ggml.merges' is missing", .where = file.path().string()});
  std::string merges = "[";
  for (const std::string& line : *lines) {
    const size_t blank = line.find(' ', 1);
    if (blank == line.npos || find_invalid_utf8(line) != line.npos)
      file.fail("tokenizer.ggml.merges", json_string(replace_invalid_utf8(line.substr(0, 80))),
                "two tokens with one space between them");
    merges += merges.size() > 1 ? ",\n      " : "\n      ";
    merges += "[" + json_string(line.substr(0, blank)) + ", " + json_string(line.substr(blank + 1)) + "]";
  }
  const OrderedJson bytes = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  return {.normalizer = pre.nfc ? OrderedJson{{"type", "NFC"}} : OrderedJson(nullptr),
          .pre_tokenizer = pre_tokenizer_json(pre),
          .decoder = bytes,
          .model_options = model_options("null", false, false, pre.ignore_merges),
          .merges = merges + "]"};
}

Description describe_sentencepiece(const io::GgufFile& file, const Vocab& vocab) {
  const auto* scores = file.find_numbers("tokenizer.ggml.scores");
  if (!scores || scores->size() != vocab.tokens.size())
    file.fail("tokenizer.ggml.scores", scores ? std::to_string(scores->size()) + " elements" : "nothing",
              std::to_string(vocab.tokens.size()) + ", one for each token");
  if (file.find_boolean("tokenizer.ggml.remove_extra_whitespaces").value_or(false))
    file.fail("tokenizer.ggml.remove_extra_whitespaces", "true", "false");
  std::vector<ScoredPiece> pieces;
  bool bytes = false;
  for (size_t id = 0; id < vocab.tokens.size(); ++id) {
    const GgufEntry& token = vocab.tokens[id];
    const bool mergeable = token.kind == GgufKind::normal || token.kind == GgufKind::user_defined;
    if (mergeable && token.text.size() > kMostPieceBytes)
      file.fail(kTokens, "a piece of " + std::to_string(token.text.size()) + " bytes",
                "at most " + std::to_string(kMostPieceBytes));
    if (!std::isfinite((*scores)[id])) file.fail("tokenizer.ggml.scores", "a score that is no number", "numbers");
    pieces.push_back({token.text, (*scores)[id], mergeable});
    bytes = bytes || token.kind == GgufKind::byte;
  }
  std::string merges = "[";
  for (const auto& [left, right] : merges_of_scores(pieces)) {
    merges += merges.size() > 1 ? ",\n      " : "\n      ";
    merges += "[" + json_string(pieces[left].text) + ", " + json_string(pieces[right].text) + "]";
  }
  const bool prefix = file.find_boolean("tokenizer.ggml.add_space_prefix").value_or(true);
  const OrderedJson spell = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpaceMark}};
  OrderedJson normalizer = spell;
  OrderedJson decoders =
      OrderedJson::array({{{"type", "Replace"}, {"pattern", {{"String", kSpaceMark}}}, {"content", " "}},
                          {{"type", "ByteFallback"}},
                          {{"type", "Fuse"}}});
  if (prefix) {
    normalizer = {{"type", "Sequence"},
                  {"normalizers", OrderedJson::array({{{"type", "Prepend"}, {"prepend", kSpaceMark}}, spell})}};
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  return {.normalizer = normalizer,
          .pre_tokenizer = nullptr,
          .decoder = {{"type", "Sequence"}, {"decoders", decoders}},
          .model_options =
              model_options(vocab.unk < 0 ? "null" : json_string(vocab.tokens[vocab.unk].text), true, bytes, false),
          .merges = merges + "]",
          .user_defined_normalized = !prefix};
}

std::string config_json(const io::GgufFile& file, const Vocab& vocab) {
  OrderedJson config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
  const auto put = [&](const char* key, TokenId id) {
    if (id >= 0) config[key] = vocab.tokens[id].text;
  };
  put("bos_token", vocab.bos);
  put("eos_token", vocab.eos);
  put("unk_token", vocab.unk);
  put("pad_token", vocab.pad);
  const std::string length = file.find_string("general.architecture").value_or("") + ".context_length";
  if (const auto positions = file.find_integer(length)) config["model_max_length"] = *positions;
  return config.dump(2) + "\n";
}

/// Whether a text gets the token around it: what the file says, else what llama.cpp does for its kind of vocabulary.
bool adds(const io::GgufFile& file, const char* which, TokenId id, bool otherwise) {
  const std::string key = std::string("tokenizer.ggml.add_") + which + "_token";
  const bool wanted = file.find_boolean(key).value_or(otherwise);
  if (wanted && id < 0) file.fail(key, "true", std::string("the key tokenizer.ggml.") + which + "_token_id beside it");
  return wanted;
}

}  // namespace

std::vector<std::pair<TokenId, TokenId>> merges_of_scores(const std::vector<ScoredPiece>& pieces) {
  std::unordered_map<std::string_view, size_t> ids;
  for (size_t id = 0; id < pieces.size(); ++id)
    if (pieces[id].mergeable) ids.emplace(pieces[id].text, id);
  std::vector<std::tuple<float, TokenId, TokenId>> found;
  for (const auto& [text, id] : ids)
    for (size_t cut = 1; cut < text.size(); ++cut) {
      if ((static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) continue;
      const auto left = ids.find(text.substr(0, cut));
      if (left == ids.end()) continue;
      if (const auto right = ids.find(text.substr(cut)); right != ids.end())
        found.emplace_back(-pieces[id].score, static_cast<TokenId>(left->second), static_cast<TokenId>(right->second));
    }
  std::ranges::sort(found);
  std::vector<std::pair<TokenId, TokenId>> merges;
  for (const auto& [score, left, right] : found) merges.emplace_back(left, right);
  return merges;
}

std::vector<KeptFile> gguf_tokenizer_files(const io::GgufFile& file) {
  const std::string model = file.string("tokenizer.ggml.model");
  Vocab vocab{.tokens = read_tokens(file)};
  const size_t count = vocab.tokens.size();
  const bool sentencepiece = model == "llama";
  vocab.bos = role(file, "bos", count, sentencepiece ? 1 : -1);
  vocab.eos = role(file, "eos", count, sentencepiece ? 2 : -1);
  vocab.unk = role(file, "unknown", count, sentencepiece ? 0 : -1);
  vocab.pad = role(file, "padding", count);
  Description description;
  if (sentencepiece) {
    vocab.add_bos = adds(file, "bos", vocab.bos, true);
    description = describe_sentencepiece(file, vocab);
  } else if (model == "gpt2") {
    const GgufPreTokenizer& pre = pre_tokenizer_of(file);
    vocab.add_bos = adds(file, "bos", vocab.bos, pre.add_bos);
    description = describe_byte_level(file, pre);
  } else {
    file.fail("tokenizer.ggml.model", json_string(replace_invalid_utf8(model)), "gpt2 or llama",
              "name a tokenizer: --tokenizer FOLDER");
  }
  vocab.add_eos = adds(file, "eos", vocab.eos, false);
  std::vector<KeptFile> files = {{"tokenizer.json", tokenizer_json(vocab, description)},
                                 {"tokenizer_config.json", config_json(file, vocab)}};
  for (auto& [name, text] : gguf_chat_templates(file))
    files.emplace_back(name == "default" ? "chat_template.jinja" : "additional_chat_templates/" + name + ".jinja",
                       std::move(text));
  return files;
}

std::unique_ptr<HfTokenizer> read_gguf_tokenizer(const io::GgufFile& file) {
  auto files = gguf_tokenizer_files(file);
  const std::string json = files.front().second;
  return parse_tokenizer_json(json, file.path().string(), std::move(files));
}

std::vector<TokenId> gguf_end_tokens(const std::filesystem::path& path) {
  if (!io::is_gguf_path(path) || !std::filesystem::is_regular_file(path)) return {};
  const auto ids = io::gguf_end_ids(io::GgufFile(path));
  return {ids.begin(), ids.end()};
}

bool is_template_name(std::string_view name) {
  constexpr size_t kMost = 64;
  return !name.empty() && name.size() <= kMost && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
}

std::string gguf_template_key(const std::string& name) {
  return "tokenizer.chat_template" + (name == "default" ? "" : "." + name);
}

std::vector<std::pair<std::string, std::string>> gguf_chat_templates(const io::GgufFile& file) {
  std::vector<std::pair<std::string, std::string>> templates;
  const std::string key = gguf_template_key("default"), prefix = key + ".";
  if (auto text = file.find_string(key)) templates.emplace_back("default", std::move(*text));
  for (auto at = file.metadata().lower_bound(prefix); at != file.metadata().end() && at->first.starts_with(prefix);
       ++at) {
    const std::string name = at->first.substr(prefix.size());
    if (!is_template_name(name) || name == "default")
      throw Error(Exit::file, {.what = "a chat template that no file could be named after",
                               .where = file.path().string(),
                               .got = in_quotes(name),
                               .expected = "letters, digits, _ and -"});
    templates.emplace_back(name, *file.find_string(at->first));
  }
  return templates;
}

}  // namespace llmtk::text
