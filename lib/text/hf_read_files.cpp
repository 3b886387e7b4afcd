// The files that tokenizers had before tokenizer.json: vocab.json with merges.txt, and vocab.txt. They are put together
// as transformers does it, and kept with the tokenizer.json that says the same.

#include <algorithm>
#include <iterator>
#include <utility>

#include "core/error.h"
#include "core/file.h"
#include "text/hf_read.h"
#include "text/hf_write.h"
#include "text/older_config.h"

namespace llmtk::text {
namespace {

/// The lines of a file, without what ends them, and the number of each.
template <class Line>
void for_each_line(std::string_view text, Line&& line) {
  for (size_t at = 0, number = 1; at < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', at), text.size());
    line(text.substr(at, end - at), number);
    at = end + 1;
  }
}

std::vector<BpeModel::Merge> read_merges_txt(const std::string& text, const Vocabulary& vocabulary,
                                             const std::string& where) {
  std::vector<BpeModel::Merge> merges;
  for_each_line(text, [&](std::string_view line, size_t number) {
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.starts_with("#version") || line.empty()) return;
    const std::string place = "line " + std::to_string(number);
    const auto [left, right] = split_merge(line, where, place);
    merges.push_back(find_merge_tokens(vocabulary, left, right, where, place));
  });
  return merges;
}

Json roberta_post_processor(const AddedToken& cls, const AddedToken& sep, bool add_prefix_space) {
  return {{"type", "RobertaProcessing"},
          {"sep", Json::array({sep.content, sep.id})},
          {"cls", Json::array({cls.content, cls.id})},
          {"trim_offsets", true},
          {"add_prefix_space", add_prefix_space}};
}

/// vocab.txt: a token a line. Of a token that stands there twice the later line counts.
Vocabulary read_lines_of_tokens(const std::string& text, const std::string& where) {
  std::vector<std::string_view> tokens;
  for_each_line(text, [&](std::string_view line, size_t) {
    while (!line.empty()) {
      const Utf8Char c = last_character(line);
      if ((CharTable::get().of(c.code) & kSpace) == 0) break;
      line.remove_suffix(c.size);
    }
    tokens.push_back(line);
  });
  if (tokens.size() > Vocabulary::kMaxId)
    throw Error(Exit::file, {.what = "too many lines for a vocabulary", .where = where});
  Vocabulary vocabulary;
  vocabulary.reserve(tokens.size(), text.size());
  for (size_t id = tokens.size(); id-- > 0;) vocabulary.add(tokens[id], static_cast<TokenId>(id));
  return vocabulary;
}

/// The section post_processor that puts these tokens, each with its type, around the texts, which are null.
Json template_json(const std::vector<std::pair<const AddedToken*, int>>& single,
                   const std::vector<std::pair<const AddedToken*, int>>& pair) {
  Json specials = Json::object();
  const auto pieces = [&](const auto& list) {
    Json out = Json::array();
    const char* text = "A";
    for (const auto& [token, type] : list) {
      if (!token) {
        out.push_back({{"Sequence", {{"id", std::exchange(text, "B")}, {"type_id", type}}}});
        continue;
      }
      out.push_back({{"SpecialToken", {{"id", token->content}, {"type_id", type}}}});
      specials[token->content] = {
          {"id", token->content}, {"ids", Json::array({token->id})}, {"tokens", Json::array({token->content})}};
    }
    return out;
  };
  const Json of_one = pieces(single), of_two = pieces(pair);
  return {{"type", "TemplateProcessing"}, {"single", of_one}, {"pair", of_two}, {"special_tokens", specials}};
}

Json bert_template(const AddedToken& cls, const AddedToken& sep) {
  return template_json({{&cls, 0}, {nullptr, 0}, {&sep, 0}},
                       {{&cls, 0}, {nullptr, 0}, {&sep, 0}, {nullptr, 1}, {&sep, 1}});
}

/// What add_bos_token and add_eos_token ask for, as OPT's files do; null for nothing.
Json bos_eos_template(JsonObject object, const std::optional<AddedToken>& bos, const std::optional<AddedToken>& eos) {
  std::vector<std::pair<const AddedToken*, int>> single, pair;
  for (const int type : {0, 1}) {
    if (bos && object.flag("add_bos_token", false)) pair.emplace_back(&*bos, type);
    pair.emplace_back(nullptr, type);
    if (eos && object.flag("add_eos_token", false)) pair.emplace_back(&*eos, type);
    if (type == 0) single = pair;
  }
  return single.size() == 1 ? Json() : template_json(single, pair);
}

Json bert_normalizer(const OlderConfig& config) {
  JsonObject object = config.object();
  const bool lowercase = object.flag("do_lower_case", true);
  Json json = {{"type", "BertNormalizer"},
               {"clean_text", true},
               {"handle_chinese_chars", object.flag("tokenize_chinese_chars", true)},
               {"strip_accents", nullptr},
               {"lowercase", lowercase}};
  if (object.find("strip_accents")) json["strip_accents"] = object.flag("strip_accents", lowercase);
  return json;
}

/// What is kept: `json`, which says all, the config with what was taken for granted, and `sources`.
std::vector<KeptFile> files_to_keep(std::string json, const OlderConfig& config, std::vector<KeptFile> sources) {
  std::vector<KeptFile> files = {{"tokenizer.json", std::move(json)},
                                 {"tokenizer_config.json", config.config.dump(2) + "\n"}};
  for (const auto& file : config.files)
    if (file.first != "tokenizer_config.json" && file.first != "special_tokens_map.json") files.push_back(file);
  std::ranges::move(sources, std::back_inserter(files));
  return files;
}

}  // namespace

std::unique_ptr<HfTokenizer> read_vocab_and_merges(const fs::path& vocab_file, const fs::path& merges_file) {
  const std::string vocab = read_file(vocab_file), merges = read_file(merges_file);
  Vocabulary vocabulary = read_vocab(parse_json(vocab, vocab_file.string()), vocab_file.string(), "");
  OlderConfig config(vocab_file);
  const bool roberta = config.is_of("Roberta", "roberta");
  config.config.emplace("tokenizer_class", roberta ? "RobertaTokenizer" : "GPT2Tokenizer");
  AddedTokenReader added(config, vocabulary.size(), [&](std::string_view t) { return vocabulary.find(t); });
  HfTokenizer::Parts parts;
  TokenizerSketch sketch{.vocabulary = &vocabulary,
                         .merges = read_merges_txt(merges, vocabulary, merges_file.string())};
  sketch.add_prefix_space = config.object().flag("add_prefix_space", false);
  Json post_processor;
  if (roberta) {
    for (const auto& [key, token] : {std::pair("bos_token", "<s>"),
                                     {"pad_token", "<pad>"},
                                     {"eos_token", "</s>"},
                                     {"unk_token", "<unk>"},
                                     {"mask_token", "<mask>"}})
      added.role(key, token);
    const AddedToken cls = added.needed_role("cls_token", "<s>"), sep = added.needed_role("sep_token", "</s>");
    post_processor = roberta_post_processor(cls, sep, sketch.add_prefix_space);
  } else {
    const char* const end_of_text = vocabulary.find("<|endoftext|>") >= 0 ? "<|endoftext|>" : nullptr;
    const auto bos = added.role("bos_token", end_of_text), eos = added.role("eos_token", end_of_text);
    added.role("unk_token", end_of_text);
    added.role("pad_token", nullptr);
    post_processor = bos_eos_template(config.object(), bos, eos);
  }
  if (!post_processor.is_null()) {
    sketch.post_processor = post_processor.dump();
    parts.post_processor = read_post_processor(post_processor, vocab_file.string());
  }
  sketch.added = parts.added = added.tokens();
  parts.files = files_to_keep(write_tokenizer_files(sketch, false).front().second, config,
                              {{"vocab.json", vocab}, {"merges.txt", merges}});
  // As tokenizer.json would be read, which for so many merges takes a while.
  std::vector<std::unique_ptr<SplitStage>> stages;
  if (sketch.add_prefix_space) stages.push_back(make_prefix_space());
  parts.pre_tokenizer = PreTokenizer(std::move(stages), Pattern::gpt2);
  parts.decoder = Decoder({{.kind = DecoderStep::Kind::byte_level}});
  parts.model = std::make_unique<BpeModel>(std::move(vocabulary), std::move(sketch.merges), BpeOptions{});
  check_added_tokens(parts.added, parts.model->vocabulary(), vocab_file.string());
  read_token_roles(parts.files, config.folder, parts);
  return std::make_unique<HfTokenizer>(std::move(parts));
}

std::unique_ptr<HfTokenizer> read_vocab_txt(const fs::path& file) {
  const std::string text = read_file(file);
  const Vocabulary vocabulary = read_lines_of_tokens(text, file.string());
  OlderConfig config(file);
  config.config.emplace("tokenizer_class", "BertTokenizer");
  AddedTokenReader added(config, vocabulary.size(), [&](std::string_view t) { return vocabulary.find(t); });
  added.role("pad_token", "[PAD]");
  const AddedToken unk = added.needed_role("unk_token", "[UNK]");
  const AddedToken cls = added.needed_role("cls_token", "[CLS]"), sep = added.needed_role("sep_token", "[SEP]");
  added.role("mask_token", "[MASK]");
  const Json model_head = {{"type", "WordPiece"},
                           {"unk_token", unk.content},
                           {"continuing_subword_prefix", "##"},
                           {"max_input_chars_per_word", 100}};
  std::string model = model_head.dump();
  model.pop_back();
  model += ", \"vocab\": " + vocab_json(vocabulary, "    ") + "}";
  const Json decoder = {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}};
  std::string json = "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n";
  json += "  \"added_tokens\": " + added_tokens_json(added.tokens()) + ",\n";
  json += "  \"normalizer\": " + bert_normalizer(config).dump() + ",\n";
  json += "  \"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"},\n";
  json += "  \"post_processor\": " + bert_template(cls, sep).dump() + ",\n";
  json += "  \"decoder\": " + decoder.dump() + ",\n";
  json += "  \"model\": " + model + "\n}\n";
  return parse_tokenizer_json(json, file.string(), files_to_keep(json, config, {{"vocab.txt", text}}));
}

}  // namespace llmtk::text
