#include "text/hf_write.h"

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace llmtk::text {
namespace {

using OrderedJson = nlohmann::ordered_json;

OrderedJson added_json(const std::vector<AddedToken>& added) {
  OrderedJson list = OrderedJson::array();
  for (const AddedToken& token : added)
    list.push_back({{"id", token.id},
                    {"content", token.content},
                    {"single_word", token.single_word},
                    {"lstrip", token.lstrip},
                    {"rstrip", token.rstrip},
                    {"normalized", token.normalized},
                    {"special", token.special}});
  return list;
}

OrderedJson byte_level_json(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

OrderedJson pre_tokenizer_json(const TokenizerSketch& sketch) {
  if (!sketch.byte_level) return nullptr;
  if (sketch.pattern == Pattern::gpt2) return byte_level_json(true);
  LLMTK_CHECK(sketch.pattern == Pattern::gpt2_digits, "no JSON for pattern ", static_cast<int>(sketch.pattern));
  return {{"type", "Sequence"},
          {"pretokenizers",
           OrderedJson::array({OrderedJson{{"type", "Digits"}, {"individual_digits", true}}, byte_level_json(true)})}};
}

/// The vocabulary in the order of ids, one token a line.
std::string vocab_text(const Vocabulary& vocabulary, const std::string& indent) {
  std::string text = "{";
  bool first = true;
  for (size_t id = 0; id < vocabulary.size(); ++id) {
    if (!vocabulary.has(static_cast<TokenId>(id))) continue;
    text += first ? "\n" : ",\n";
    text += indent + "  " + json_string(vocabulary.token(static_cast<TokenId>(id))) + ": " + std::to_string(id);
    first = false;
  }
  return text + "\n" + indent + "}";
}

std::string merges_text(const TokenizerSketch& sketch, const std::string& indent) {
  std::string text = "[";
  for (size_t i = 0; i < sketch.merges.size(); ++i) {
    text += i == 0 ? "\n" : ",\n";
    text += indent + "  [" + json_string(sketch.vocabulary->token(sketch.merges[i].left)) + ", " +
            json_string(sketch.vocabulary->token(sketch.merges[i].right)) + "]";
  }
  return text + (sketch.merges.empty() ? "]" : "\n" + indent + "]");
}

std::string tokenizer_json(const TokenizerSketch& sketch) {
  const auto field = [](const char* key, const OrderedJson& value) {
    return "  \"" + std::string(key) + "\": " + value.dump() + ",\n";
  };
  std::string text = "{\n";
  text += field("version", "1.0");
  text += field("truncation", nullptr);
  text += field("padding", nullptr);
  text += field("added_tokens", added_json(sketch.added));
  text += field("normalizer", nullptr);
  text += field("pre_tokenizer", pre_tokenizer_json(sketch));
  text += field("post_processor", sketch.byte_level ? byte_level_json(true) : OrderedJson(nullptr));
  text += field("decoder", sketch.byte_level ? byte_level_json(true) : OrderedJson{{"type", "Fuse"}});
  const OrderedJson unk = !sketch.byte_level && !sketch.unk.empty() ? OrderedJson(sketch.unk) : OrderedJson(nullptr);
  text += "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": " + unk.dump() +
          ",\n    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n"
          "    \"byte_fallback\": false,\n    \"ignore_merges\": false,\n";
  text += "    \"vocab\": " + vocab_text(*sketch.vocabulary, "    ") + ",\n";
  text += "    \"merges\": " + merges_text(sketch, "    ") + "\n  }\n}\n";
  return text;
}

std::string config_json(const TokenizerSketch& sketch) {
  OrderedJson config = {{"tokenizer_class", sketch.tokenizer_class}, {"clean_up_tokenization_spaces", false}};
  if (sketch.byte_level) config["add_prefix_space"] = false;
  const auto role = [&](const char* key, const std::string& token) {
    if (!token.empty()) config[key] = token;
  };
  role("bos_token", sketch.bos);
  role("eos_token", sketch.eos);
  role("pad_token", sketch.pad);
  role("unk_token", sketch.unk);
  return config.dump(2) + "\n";
}

}  // namespace

std::string json_string(std::string_view text) { return OrderedJson(text).dump(); }

std::vector<KeptFile> write_tokenizer_files(const TokenizerSketch& sketch, bool gpt2_files) {
  std::vector<KeptFile> files = {{"tokenizer.json", tokenizer_json(sketch)},
                                 {"tokenizer_config.json", config_json(sketch)}};
  if (!gpt2_files) return files;
  files.emplace_back("vocab.json", vocab_text(*sketch.vocabulary, "") + "\n");
  std::string merges = "#version: 0.2\n";
  for (const auto& merge : sketch.merges) {
    merges += sketch.vocabulary->token(merge.left);
    merges += ' ';
    merges += sketch.vocabulary->token(merge.right);
    merges += '\n';
  }
  files.emplace_back("merges.txt", std::move(merges));
  return files;
}

}  // namespace llmtk::text
