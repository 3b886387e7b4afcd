// The sections `post_processor` and `decoder` of tokenizer.json.

#include <map>

#include "text/hf_read.h"
#include "text/hf_write.h"

namespace llmtk::text {
namespace {

using Piece = PostProcessor::Piece;

/// "special_tokens" of a template: the ids that each name stands for.
std::map<std::string, std::vector<TokenId>> read_template_tokens(JsonObject& object) {
  std::map<std::string, std::vector<TokenId>> tokens;
  const Json& specials = object.need("special_tokens");
  if (!specials.is_object()) object.fail("wrong type of 'special_tokens'", shown(specials), "an object");
  for (const auto& [name, entry] : specials.items()) {
    const std::string path = object.at("special_tokens") + "." + name;
    JsonObject token(entry, object.where(), path);
    token.skip("id");
    token.skip("tokens");
    for (const Json& id : token.list("ids")) tokens[name].push_back(read_id(id, object.where(), path + ".ids"));
    token.finish();
  }
  return tokens;
}

/// "single" or "pair" of a template: each of `texts` has to stand in it once.
std::vector<Piece> read_pieces(JsonObject& object, const char* key, std::string_view texts,
                               const std::map<std::string, std::vector<TokenId>>& tokens) {
  std::vector<Piece> pieces;
  std::string met;
  const Json& list = object.list(key);
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string path = object.at(key) + "[" + std::to_string(i) + "]";
    JsonObject entry(list[i], object.where(), path);
    const bool is_text = entry.find("Sequence");
    JsonObject inner(entry.need(is_text ? "Sequence" : "SpecialToken"), object.where(), path);
    entry.finish();
    const std::string id = inner.string("id");
    Piece piece{.type_id = read_id(inner.need("type_id"), object.where(), path + ".type_id")};
    inner.finish();
    if (is_text) {
      piece.kind = id == "A" ? Piece::Kind::text : Piece::Kind::pair;
      met += id;
    } else {
      const auto found = tokens.find(id);
      if (found == tokens.end()) object.fail("'special_tokens' lacks a token of the template", "'" + id + "'");
      piece.kind = Piece::Kind::tokens;
      piece.ids = found->second;
    }
    pieces.push_back(std::move(piece));
  }
  if (met != texts && met != std::string(texts.rbegin(), texts.rend()))
    object.fail(std::string("the template '") + key + "' is not supported", "texts " + met,
                "each of the texts " + std::string(texts) + " once");
  return pieces;
}

/// [CLS] A [SEP], and [CLS] A [SEP] B [SEP]; RoBERTa has two [SEP] in the middle, and one type.
PostProcessor read_cls_sep(JsonObject& object, bool roberta) {
  const auto id = [&](const char* key) {
    const Json& pair = object.list(key);
    if (pair.size() != 2) object.fail(std::string("wrong length of '") + key + "'", shown(pair), "[token, id]");
    return read_id(pair[1], object.where(), object.at(key));
  };
  const Piece cls{.kind = Piece::Kind::tokens, .ids = {id("cls")}};
  const Piece sep{.kind = Piece::Kind::tokens, .ids = {id("sep")}};
  const TokenId second = roberta ? 0 : 1;
  Piece end = sep, pair{.kind = Piece::Kind::pair, .type_id = second};
  end.type_id = second;
  std::vector<Piece> both = {cls, {}, sep, pair, end};
  if (roberta) both.insert(both.begin() + 3, sep);
  return PostProcessor({cls, {}, sep}, std::move(both));
}

PostProcessor read_post(const Json& value, const std::string& where, const std::string& path, int depth) {
  JsonObject object(value, where, path);
  const std::string type = object.type();
  PostProcessor post;
  if (type == "Sequence") {
    if (depth > kMaxSectionDepth) object.fail("sequences are nested too deep");
    const Json& list = object.list("processors");
    for (size_t i = 0; i < list.size(); ++i) {
      PostProcessor inner = read_post(list[i], where, path + ".processors[" + std::to_string(i) + "]", depth + 1);
      if (inner.adds_nothing()) continue;
      if (!post.adds_nothing()) object.fail("two post-processors that add tokens are not supported");
      post = std::move(inner);
    }
  } else if (type == "ByteLevel") {  // moves offsets, which nobody sees here
    for (const char* key : {"add_prefix_space", "trim_offsets", "use_regex"}) object.skip(key);
  } else if (type == "TemplateProcessing") {
    const auto tokens = read_template_tokens(object);
    auto single = read_pieces(object, "single", "A", tokens);
    post = PostProcessor(std::move(single), read_pieces(object, "pair", "AB", tokens));
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    post = read_cls_sep(object, type == "RobertaProcessing");
    for (const char* key : {"add_prefix_space", "trim_offsets"}) object.skip(key);
  } else {
    object.unsupported("post-processor", type,
                       "BertProcessing, ByteLevel, RobertaProcessing, TemplateProcessing or Sequence");
  }
  object.finish();
  return post;
}

DecoderStep read_decoder_step(JsonObject& object, const std::string& type) {
  using Kind = DecoderStep::Kind;
  if (type == "ByteLevel") {
    for (const char* key : {"add_prefix_space", "trim_offsets", "use_regex"}) object.skip(key);
    return {.kind = Kind::byte_level};
  }
  if (type == "Fuse") return {.kind = Kind::fuse};
  if (type == "ByteFallback") return {.kind = Kind::byte_fallback};
  if (type == "Replace") {
    JsonObject pattern(object.need("pattern"), object.where(), object.at("pattern"));
    if (pattern.find("Regex")) pattern.fail("replacing by a regular expression is not supported", {}, "a String");
    const std::string text = pattern.string("String");
    pattern.finish();
    if (text.empty()) pattern.fail("the pattern is empty");
    return {.kind = Kind::replace, .pattern = text, .content = object.string("content")};
  }
  if (type == "Strip") {
    DecoderStep step{.kind = Kind::strip, .content = object.character("content")};
    step.start = object.count("start");
    step.stop = object.count("stop");
    return step;
  }
  if (type == "Metaspace") {
    const auto [replacement, scheme] = read_metaspace(object);
    object.skip("split");
    return {.kind = Kind::metaspace, .pattern = replacement, .drop_first = scheme != PrependScheme::never};
  }
  if (type == "WordPiece") {
    const std::string prefix = object.string("prefix");
    return {.kind = Kind::wordpiece, .pattern = prefix, .cleanup = object.flag("cleanup", true)};
  }
  object.unsupported("decoder", type,
                     "ByteFallback, ByteLevel, Fuse, Metaspace, Replace, Strip, WordPiece or Sequence");
}

void add_decoder_steps(const Json& value, const std::string& where, const std::string& path,
                       std::vector<DecoderStep>& steps, int depth) {
  JsonObject object(value, where, path);
  const std::string type = object.type();
  if (type == "Sequence") {
    if (depth > kMaxSectionDepth) object.fail("sequences are nested too deep");
    const Json& list = object.list("decoders");
    for (size_t i = 0; i < list.size(); ++i)
      add_decoder_steps(list[i], where, path + ".decoders[" + std::to_string(i) + "]", steps, depth + 1);
  } else {
    steps.push_back(read_decoder_step(object, type));
  }
  object.finish();
}

}  // namespace

PostProcessor read_post_processor(const Json& value, const std::string& where) {
  return read_post(value, where, "post_processor", 0);
}

Decoder read_decoder(const Json& value, const std::string& where) {
  std::vector<DecoderStep> steps;
  add_decoder_steps(value, where, "decoder", steps, 0);
  return Decoder(std::move(steps));
}

}  // namespace llmtk::text
