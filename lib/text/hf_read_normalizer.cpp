// The section `normalizer` of tokenizer.json.

#include "text/bert_normalizer.h"
#include "text/charsmap.h"
#include "text/hf_read.h"

namespace llmtk::text {
namespace {

using Steps = std::vector<std::unique_ptr<NormalizerStep>>;

void add_replace(JsonObject& object, Steps& steps) {
  const std::string content = object.string("content");
  JsonObject pattern(object.need("pattern"), object.where(), object.at("pattern"));
  if (pattern.find("Regex")) {
    steps.push_back(make_replace(Regex(pattern.string("Regex"), object.at("pattern"), object.where()), content));
  } else {
    std::string text = pattern.string("String");
    if (text.empty()) pattern.fail("the pattern is empty");
    steps.push_back(make_replace(std::move(text), content));
  }
  pattern.finish();
}

void add_bert(JsonObject& object, Steps& steps) {
  BertNormalizerOptions options;
  options.clean_text = object.flag("clean_text", true);
  options.handle_chinese_chars = object.flag("handle_chinese_chars", true);
  options.lowercase = object.flag("lowercase", true);
  options.strip_accents = object.flag("strip_accents", options.lowercase);
  steps.push_back(make_bert_normalizer(options));
}

void add_precompiled(JsonObject& object, Steps& steps) {
  if (!object.find("precompiled_charsmap")) return;  // of a model that does not normalize
  const auto charsmap = decode_base64(object.string("precompiled_charsmap"));
  if (!charsmap) object.fail("'precompiled_charsmap' is not base 64");
  steps.push_back(make_precompiled(*charsmap, object.where(), object.at("precompiled_charsmap")));
}

void add_steps(const Json& value, const std::string& where, const std::string& path, Steps& steps, int depth) {
  JsonObject object(value, where, path);
  const std::string type = object.type();
  if (type == "Sequence") {
    if (depth > kMaxSectionDepth) object.fail("sequences are nested too deep");
    const Json& list = object.list("normalizers");
    for (size_t i = 0; i < list.size(); ++i)
      add_steps(list[i], where, path + ".normalizers[" + std::to_string(i) + "]", steps, depth + 1);
  } else if (type == "NFC") {
    steps.push_back(make_unicode_form(UnicodeForm::nfc));
  } else if (type == "NFD") {
    steps.push_back(make_unicode_form(UnicodeForm::nfd));
  } else if (type == "NFKC") {
    steps.push_back(make_unicode_form(UnicodeForm::nfkc));
  } else if (type == "NFKD") {
    steps.push_back(make_unicode_form(UnicodeForm::nfkd));
  } else if (type == "Lowercase") {
    steps.push_back(make_lowercase());
  } else if (type == "StripAccents") {
    steps.push_back(make_strip_accents());
  } else if (type == "Nmt") {
    steps.push_back(make_nmt());
  } else if (type == "Strip") {
    const bool left = object.flag("strip_left", true);
    steps.push_back(make_strip(left, object.flag("strip_right", true)));
  } else if (type == "Prepend") {
    steps.push_back(make_prepend(object.string("prepend")));
  } else if (type == "Replace") {
    add_replace(object, steps);
  } else if (type == "BertNormalizer") {
    add_bert(object, steps);
  } else if (type == "Precompiled") {
    add_precompiled(object, steps);
  } else {
    object.unsupported("normalizer", type,
                       "BertNormalizer, Lowercase, NFC, NFD, NFKC, NFKD, Nmt, Precompiled, Prepend, Replace, Strip, "
                       "StripAccents or Sequence");
  }
  object.finish();
}

}  // namespace

Normalizer read_normalizer(const Json& value, const std::string& where) {
  Steps steps;
  add_steps(value, where, "normalizer", steps, 0);
  return Normalizer(std::move(steps));
}

}  // namespace llmtk::text
