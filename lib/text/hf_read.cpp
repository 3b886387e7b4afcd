// Reading tokenizer.json, and GPT-2's two older files, into an HfTokenizer.

#include <algorithm>
#include <map>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "text/hf_tokenizer.h"
#include "text/hf_write.h"
#include "text/json_reader.h"
#include "text/unicode.h"

namespace llmtk::text {
namespace {

/// What the pre-tokenizers of the file come to.
struct Splitting {
  std::vector<std::unique_ptr<SplitStage>> stages;
  std::vector<Pattern> patterns;  ///< known ones, each at the end of `stages` so far
  bool byte_level = false;
};

std::string kind(const std::string& role, const std::string& type) { return role + " '" + type + "' is not supported"; }

const Json& array_of(JsonObject& object, const char* key) {
  const Json& list = object.need(key);
  if (!list.is_array()) object.fail(std::string("wrong type of '") + key + "'", shown(list), "a list");
  return list;
}

/// What the pre-tokenizer and the decoder of that name share. Files older than prepend_scheme have add_prefix_space.
std::pair<std::string, PrependScheme> read_metaspace(JsonObject& object) {
  const std::string replacement = object.string("replacement");
  if (replacement.empty() ||
      decode_utf8(replacement.data(), replacement.data() + replacement.size()).size != replacement.size())
    object.fail("wrong 'replacement'", json_string(replacement), "one character");
  object.skip("str_rep");
  const bool prefix = object.flag("add_prefix_space", true);
  if (!object.find("prepend_scheme")) return {replacement, prefix ? PrependScheme::always : PrependScheme::never};
  const std::string name = object.string("prepend_scheme");
  const auto scheme = parse_prepend_scheme(name);
  if (!scheme) object.fail("unknown prepend_scheme", "'" + name + "'", "always, first or never");
  return {replacement, *scheme};
}

/// "pattern": {"String": "..."} of what replaces.
std::string read_string_pattern(JsonObject& object, const std::string& where) {
  JsonObject pattern(object.need("pattern"), where, object.at("pattern"));
  if (pattern.find("Regex")) object.fail("replacing by a regular expression is not supported", {}, "a String");
  const std::string text = pattern.string("String");
  pattern.finish();
  if (text.empty()) object.fail("the pattern is empty");
  return text;
}

void read_normalizer(const Json& value, const std::string& where, const std::string& path,
                     std::vector<NormalizerStep>& steps, int depth = 0) {
  JsonObject object(value, where, path);
  const std::string type = object.type();
  if (type == "Sequence") {
    if (depth > 8) object.fail("sequences are nested more than 8 deep");
    const Json& list = array_of(object, "normalizers");
    for (size_t i = 0; i < list.size(); ++i)
      read_normalizer(list[i], where, path + ".normalizers[" + std::to_string(i) + "]", steps, depth + 1);
  } else if (type == "NFC") {
    steps.push_back({.kind = NormalizerStep::Kind::nfc, .pattern = {}, .content = {}});
  } else if (type == "Prepend") {
    steps.push_back({.kind = NormalizerStep::Kind::prepend, .pattern = {}, .content = object.string("prepend")});
  } else if (type == "Replace") {
    std::string pattern = read_string_pattern(object, where);
    steps.push_back(
        {.kind = NormalizerStep::Kind::replace, .pattern = std::move(pattern), .content = object.string("content")});
  } else {
    object.fail(kind("the normalizer", type), {}, "NFC, Prepend, Replace or Sequence");
  }
  object.finish();
}

class PreTokenizerReader {
 public:
  explicit PreTokenizerReader(const std::string& where) : where_(where) {}

  void read(const Json& value, const std::string& path, int depth = 0) {
    JsonObject object(value, where_, path);
    const std::string type = object.type();
    if (byte_level_) object.fail("a pre-tokenizer after ByteLevel is not supported", "'" + type + "'");
    if (type == "Sequence") {
      if (depth > 8) object.fail("sequences are nested more than 8 deep");
      const Json& list = array_of(object, "pretokenizers");
      object.finish();
      for (size_t i = 0; i < list.size(); ++i)
        read(list[i], path + ".pretokenizers[" + std::to_string(i) + "]", depth + 1);
    } else if (type == "ByteLevel") {
      if (object.flag("add_prefix_space", true)) add(make_prefix_space());
      object.skip("trim_offsets");
      if (object.flag("use_regex", true)) add(Pattern::gpt2);
      object.finish();
      byte_level_ = true;
    } else if (type == "Digits") {
      const bool individual = object.flag("individual_digits", false);
      object.finish();
      digits_ = individual && steps_.empty();
      add(make_digits_split(individual));
    } else if (type == "Split") {
      read_split(object);
    } else if (type == "Metaspace") {
      const auto [replacement, scheme] = read_metaspace(object);
      add(make_metaspace(replacement, scheme, object.flag("split", true)));
      object.finish();
    } else {
      object.fail(kind("the pre-tokenizer", type), {}, "ByteLevel, Digits, Metaspace, Split or Sequence");
    }
  }

  PreTokenizer finish() {
    // The two shapes nearly everybody has get their own loops; a pattern at the end of others needs no copies.
    Pattern last = Pattern::none;
    if (!steps_.empty() && steps_.back().pattern != Pattern::none) {
      last = steps_.back().pattern;
      steps_.pop_back();
      if (digits_ && steps_.size() == 1 && last == Pattern::gpt2) {
        steps_.clear();
        last = Pattern::gpt2_digits;
      }
    }
    std::vector<std::unique_ptr<SplitStage>> stages;
    for (Step& step : steps_) stages.push_back(step.stage ? std::move(step.stage) : make_pattern_split(step.pattern));
    return PreTokenizer(std::move(stages), last);
  }
  bool byte_level() const { return byte_level_; }

 private:
  struct Step {
    std::unique_ptr<SplitStage> stage;
    Pattern pattern = Pattern::none;
  };
  void add(std::unique_ptr<SplitStage> stage) { steps_.push_back({std::move(stage), Pattern::none}); }
  void add(Pattern pattern) { steps_.push_back({nullptr, pattern}); }

  void read_split(JsonObject& object) {
    const std::string name = object.string("behavior");
    const auto behavior = parse_split_behavior(name);
    if (!behavior) object.fail("unknown behavior", "'" + name + "'");
    const bool invert = object.flag("invert", false);
    JsonObject pattern(object.need("pattern"), where_, object.at("pattern"));
    object.finish();
    if (pattern.find("String")) {
      add(make_string_split(pattern.string("String"), *behavior, invert));
    } else {
      const std::string regex = pattern.string("Regex");
      const auto known = known_split_pattern(regex);
      // A known pattern covers every text, so nothing stands between its matches to be treated differently.
      if (known && (*behavior == SplitBehavior::isolated || (*behavior == SplitBehavior::removed && invert)))
        add(*known);
      else
        add(make_regex_split(regex, *behavior, invert, where_));
    }
    pattern.finish();
  }

  std::string where_;
  std::vector<Step> steps_;
  bool byte_level_ = false, digits_ = false;
};

std::vector<AddedToken> read_added(const Json& list, const std::string& where) {
  if (!list.is_array())
    throw Error(Exit::file,
                {.what = "added_tokens: wrong type", .where = where, .got = shown(list), .expected = "a list"});
  std::vector<AddedToken> tokens;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string path = "added_tokens[" + std::to_string(i) + "]";
    JsonObject object(list[i], where, path);
    AddedToken token;
    token.id = read_id(object.need("id"), where, path + ".id");
    token.content = object.string("content");
    token.single_word = object.flag("single_word", false);
    token.lstrip = object.flag("lstrip", false);
    token.rstrip = object.flag("rstrip", false);
    token.special = object.flag("special", false);
    token.normalized = object.flag("normalized", !token.special);
    object.finish();
    tokens.push_back(std::move(token));
  }
  return tokens;
}

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

BpeModel::Merge read_merge(const Vocabulary& vocabulary, std::string_view left, std::string_view right,
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

std::vector<BpeModel::Merge> read_merges(const Json& list, const Vocabulary& vocabulary, const std::string& where) {
  std::vector<BpeModel::Merge> merges;
  merges.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string path = "model.merges[" + std::to_string(i) + "]";
    const Json& entry = list[i];
    if (entry.is_string()) {
      const auto [left, right] = split_merge(entry.get_ref<const std::string&>(), where, path);
      merges.push_back(read_merge(vocabulary, left, right, where, path));
    } else if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string()) {
      merges.push_back(read_merge(vocabulary, entry[0].get_ref<const std::string&>(),
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

std::unique_ptr<BpeModel> read_model(const Json& value, bool byte_level, const std::string& where) {
  JsonObject model(value, where, "model");
  // GPT-2's own file is older than the key.
  const std::string type = model.find("type") || !model.find("merges") ? model.type() : "BPE";
  if (type != "BPE") model.fail(kind("the model", type), {}, "BPE");
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
  auto merges = read_merges(array_of(model, "merges"), vocabulary, where);
  if (model.find("unk_token")) {
    const std::string unk = model.string("unk_token");
    options.unk = vocabulary.find(unk);
    if (options.unk < 0 && !unk.empty() && !byte_level)
      model.fail("the vocabulary lacks the unk_token", json_string(unk));
  }
  model.finish();
  return std::make_unique<BpeModel>(std::move(vocabulary), std::move(merges), options);
}

void read_template(JsonObject& object, PostProcessor& post, const std::string& where) {
  std::map<std::string, std::vector<TokenId>> tokens;
  const Json& specials = object.need("special_tokens");
  if (!specials.is_object()) object.fail("wrong type of 'special_tokens'", shown(specials), "an object");
  for (const auto& [name, entry] : specials.items()) {
    const std::string path = object.at("special_tokens") + "." + name;
    JsonObject token(entry, where, path);
    token.skip("id");
    token.skip("tokens");
    for (const Json& id : array_of(token, "ids")) tokens[name].push_back(read_id(id, where, path + ".ids"));
    token.finish();
  }
  bool after = false;
  for (const Json& entry : array_of(object, "single")) {
    JsonObject piece(entry, where, object.at("single"));
    if (piece.find("Sequence")) {
      if (after) object.fail("a template with the sequence twice is not supported");
      after = true;
      continue;
    }
    JsonObject token(piece.need("SpecialToken"), where, object.at("single.SpecialToken"));
    const std::string name = token.string("id");
    const auto found = tokens.find(name);
    if (found == tokens.end()) object.fail("'special_tokens' lacks a token of the template", "'" + name + "'");
    auto& ids = after ? post.after : post.before;
    ids.insert(ids.end(), found->second.begin(), found->second.end());
  }
  if (!after) object.fail("the template leaves the text out");
  object.skip("pair");
}

void read_post(const Json& value, PostProcessor& post, const std::string& where, const std::string& path, int depth) {
  JsonObject object(value, where, path);
  const std::string type = object.type();
  if (type == "Sequence") {
    if (depth > 8) object.fail("sequences are nested more than 8 deep");
    const Json& list = array_of(object, "processors");
    for (size_t i = 0; i < list.size(); ++i) {
      PostProcessor inner;
      read_post(list[i], inner, where, path + ".processors[" + std::to_string(i) + "]", depth + 1);
      post.before.insert(post.before.begin(), inner.before.begin(), inner.before.end());
      post.after.insert(post.after.end(), inner.after.begin(), inner.after.end());
    }
  } else if (type == "ByteLevel") {  // moves offsets, which nobody sees here
    for (const char* key : {"add_prefix_space", "trim_offsets", "use_regex"}) object.skip(key);
  } else if (type == "TemplateProcessing") {
    read_template(object, post, where);
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    const auto id = [&](const char* key) {
      const Json& pair = array_of(object, key);
      if (pair.size() != 2) object.fail(std::string("wrong length of '") + key + "'", shown(pair), "[token, id]");
      return read_id(pair[1], where, object.at(key));
    };
    post.before.push_back(id("cls"));
    post.after.push_back(id("sep"));
    for (const char* key : {"add_prefix_space", "trim_offsets"}) object.skip(key);
  } else {
    object.fail(kind("the post-processor", type), {}, "ByteLevel, TemplateProcessing, RobertaProcessing or Sequence");
  }
  object.finish();
}

size_t read_count(JsonObject& object, const char* key) {
  const Json& value = object.need(key);
  if (!value.is_number_unsigned())
    object.fail(std::string("wrong type of '") + key + "'", shown(value), "a whole number");
  return value.get<size_t>();
}

void read_decoder(const Json& value, const std::string& where, const std::string& path, std::vector<DecoderStep>& steps,
                  int depth = 0) {
  using Kind = DecoderStep::Kind;
  JsonObject object(value, where, path);
  const std::string type = object.type();
  DecoderStep step;
  if (type == "Sequence") {
    if (depth > 8) object.fail("sequences are nested more than 8 deep");
    const Json& list = array_of(object, "decoders");
    for (size_t i = 0; i < list.size(); ++i)
      read_decoder(list[i], where, path + ".decoders[" + std::to_string(i) + "]", steps, depth + 1);
    object.finish();
    return;
  }
  if (type == "ByteLevel") {
    step.kind = Kind::byte_level;
    for (const char* key : {"add_prefix_space", "trim_offsets", "use_regex"}) object.skip(key);
  } else if (type == "Fuse") {
    step.kind = Kind::fuse;
  } else if (type == "ByteFallback") {
    step.kind = Kind::byte_fallback;
  } else if (type == "Replace") {
    step.kind = Kind::replace;
    step.pattern = read_string_pattern(object, where);
    step.content = object.string("content");
  } else if (type == "Strip") {
    step.kind = Kind::strip;
    step.content = object.string("content");
    step.start = read_count(object, "start");
    step.stop = read_count(object, "stop");
    if (step.content.empty()) object.fail("wrong 'content'", "\"\"", "one character");
  } else if (type == "Metaspace") {
    step.kind = Kind::metaspace;
    const auto [replacement, scheme] = read_metaspace(object);
    step.pattern = replacement;
    step.drop_first = scheme != PrependScheme::never;
    object.skip("split");
  } else {
    object.fail(kind("the decoder", type), {}, "ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip or Sequence");
  }
  object.finish();
  steps.push_back(std::move(step));
}

/// The tokens with a role, from tokenizer_config.json or special_tokens_map.json.
void read_roles(const std::string& text, const std::string& where, const HfTokenizer::Parts& parts,
                SpecialTokens& special) {
  const Json config = parse_json(text, where);
  JsonObject object(config, where, "");
  const auto role = [&](const char* key, TokenId& id) {
    const Json* value = object.find(key);
    if (value && value->is_object()) {
      const auto content = value->find("content");
      value = content == value->end() ? nullptr : &*content;
    }
    if (!value) return;
    if (!value->is_string()) object.fail(std::string("wrong type of '") + key + "'", shown(*value), "a token");
    const std::string& token = value->get_ref<const std::string&>();
    TokenId found = parts.model->vocabulary().find(token);
    for (const AddedToken& added : parts.added)
      if (added.content == token) found = added.id;
    if (found < 0 && !token.empty())
      object.fail(std::string("the vocabulary lacks the ") + key, json_string(token), "a token of the tokenizer");
    id = found;
  };
  role("bos_token", special.bos);
  role("eos_token", special.eos);
  role("pad_token", special.pad);
  role("unk_token", special.unk);
}

void check_added(const HfTokenizer::Parts& parts, const std::string& where) {
  const Vocabulary& vocabulary = parts.model->vocabulary();
  for (const AddedToken& token : parts.added) {
    const TokenId known = vocabulary.find(token.content);
    if (known == token.id || (known < 0 && !vocabulary.has(token.id))) continue;
    throw Error(Exit::file, {.what = "added_tokens disagree with the model's vocabulary",
                             .where = where,
                             .got = json_string(token.content) + " with id " + std::to_string(token.id),
                             .expected = known >= 0 ? "id " + std::to_string(known)
                                                    : "an id that is free, not that of " +
                                                          json_string(vocabulary.token(token.id))});
  }
}

}  // namespace

std::unique_ptr<HfTokenizer> parse_tokenizer_json(const std::string& json, const std::string& where,
                                                  std::vector<KeptFile> files) {
  const Json root = parse_json(json, where);
  JsonObject object(root, where, "");
  object.skip("version");
  for (const char* key : {"truncation", "padding"})
    if (object.find(key)) log::debug(where + ": '" + key + "' is left to the caller, who knows the lengths");
  HfTokenizer::Parts parts;
  std::vector<NormalizerStep> normalizer;
  if (const Json* value = object.find("normalizer")) read_normalizer(*value, where, "normalizer", normalizer);
  parts.normalizer = Normalizer(std::move(normalizer));
  PreTokenizerReader splitting(where);
  if (const Json* value = object.find("pre_tokenizer")) splitting.read(*value, "pre_tokenizer");
  parts.model = read_model(object.need("model"), splitting.byte_level(), where);
  parts.pre_tokenizer = splitting.finish();
  if (const Json* value = object.find("added_tokens")) parts.added = read_added(*value, where);
  check_added(parts, where);
  if (const Json* value = object.find("post_processor"))
    read_post(*value, parts.post_processor, where, "post_processor", 0);
  std::vector<DecoderStep> decoder;
  if (const Json* value = object.find("decoder")) read_decoder(*value, where, "decoder", decoder);
  parts.decoder = Decoder(std::move(decoder));
  object.finish();
  parts.special.unk = parts.model->options().unk;
  const fs::path folder = fs::path(where).parent_path();
  for (const char* name : {"special_tokens_map.json", "tokenizer_config.json"})
    for (const auto& [file, text] : files)
      if (file == name) read_roles(text, (folder / file).string(), parts, parts.special);
  parts.files = std::move(files);
  return std::make_unique<HfTokenizer>(std::move(parts));
}

std::unique_ptr<HfTokenizer> read_tokenizer_json(const fs::path& file) {
  const std::string json = read_file(file);
  std::vector<KeptFile> files = {{"tokenizer.json", json}};
  for (const char* name : {"special_tokens_map.json", "tokenizer_config.json", "chat_template.jinja"}) {
    const fs::path beside = file.parent_path() / name;
    if (fs::exists(beside)) files.emplace_back(name, read_file(beside));
  }
  return parse_tokenizer_json(json, file.string(), std::move(files));
}

std::unique_ptr<HfTokenizer> read_gpt2_files(const fs::path& vocab_json, const fs::path& merges_txt) {
  const std::string json = read_file(vocab_json);
  Vocabulary vocabulary = read_vocab(parse_json(json, vocab_json.string()), vocab_json.string(), "");
  const std::string text = read_file(merges_txt);
  std::vector<BpeModel::Merge> merges;
  size_t line_number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = std::string_view(text).substr(at, end - at);
    at = end + 1;
    ++line_number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.starts_with("#version") || line.empty()) continue;
    const std::string place = "line " + std::to_string(line_number);
    const auto [left, right] = split_merge(line, merges_txt.string(), place);
    merges.push_back(read_merge(vocabulary, left, right, merges_txt.string(), place));
  }
  HfTokenizer::Parts parts;
  TokenizerSketch sketch;
  const std::string_view end_of_text = "<|endoftext|>";
  if (const TokenId id = vocabulary.find(end_of_text); id >= 0) {
    sketch.added = {{.id = id, .content = std::string(end_of_text), .special = true}};
    sketch.bos = sketch.eos = sketch.unk = end_of_text;
    parts.special = {.bos = id, .eos = id, .pad = -1, .unk = id};
  }
  sketch.vocabulary = &vocabulary;
  sketch.merges = merges;
  sketch.tokenizer_class = "GPT2Tokenizer";
  parts.files = write_tokenizer_files(sketch, false);
  parts.files.emplace_back("vocab.json", json);
  parts.files.emplace_back("merges.txt", text);
  parts.added = sketch.added;
  parts.pre_tokenizer = PreTokenizer({}, Pattern::gpt2);
  parts.decoder = Decoder({{.kind = DecoderStep::Kind::byte_level, .pattern = {}, .content = {}}});
  parts.model = std::make_unique<BpeModel>(std::move(vocabulary), std::move(merges), BpeOptions{});
  return std::make_unique<HfTokenizer>(std::move(parts));
}

}  // namespace llmtk::text
