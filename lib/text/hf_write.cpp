#include "text/hf_write.h"

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace llmtk::text {
namespace {

using OrderedJson = nlohmann::ordered_json;

OrderedJson byte_level_json(bool add_prefix_space) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", add_prefix_space}, {"trim_offsets", true}, {"use_regex", true}};
}

OrderedJson pre_tokenizer_json(const TokenizerSketch& sketch) {
  if (!sketch.byte_level) return nullptr;
  const OrderedJson byte_level = byte_level_json(sketch.add_prefix_space);
  if (sketch.pattern == Pattern::gpt2) return byte_level;
  LLMTK_CHECK(sketch.pattern == Pattern::gpt2_digits, "no JSON for pattern ", static_cast<int>(sketch.pattern));
  return {{"type", "Sequence"},
          {"pretokenizers",
           OrderedJson::array({OrderedJson{{"type", "Digits"}, {"individual_digits", true}}, byte_level})}};
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
  text += "  \"added_tokens\": " + added_tokens_json(sketch.added) + ",\n";
  text += field("normalizer", nullptr);
  text += field("pre_tokenizer", pre_tokenizer_json(sketch));
  if (!sketch.post_processor.empty())
    text += "  \"post_processor\": " + sketch.post_processor + ",\n";
  else
    text += field("post_processor", sketch.byte_level ? byte_level_json(false) : OrderedJson(nullptr));
  text += field("decoder", sketch.byte_level ? byte_level_json(false) : OrderedJson{{"type", "Fuse"}});
  const OrderedJson unk = !sketch.byte_level && !sketch.unk.empty() ? OrderedJson(sketch.unk) : OrderedJson(nullptr);
  text += "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": " + unk.dump() +
          ",\n    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n"
          "    \"byte_fallback\": false,\n    \"ignore_merges\": false,\n";
  text += "    \"vocab\": " + vocab_json(*sketch.vocabulary, "    ") + ",\n";
  text += "    \"merges\": " + merges_text(sketch, "    ") + "\n  }\n}\n";
  return text;
}

std::string config_json(const TokenizerSketch& sketch) {
  OrderedJson config = {{"tokenizer_class", sketch.tokenizer_class}, {"clean_up_tokenization_spaces", false}};
  if (sketch.byte_level) config["add_prefix_space"] = sketch.add_prefix_space;
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

std::string added_tokens_json(const std::vector<AddedToken>& added) {
  OrderedJson list = OrderedJson::array();
  for (const AddedToken& token : added)
    list.push_back({{"id", token.id},
                    {"content", token.content},
                    {"single_word", token.single_word},
                    {"lstrip", token.lstrip},
                    {"rstrip", token.rstrip},
                    {"normalized", token.normalized},
                    {"special", token.special}});
  return list.dump();
}

std::string vocab_json(const Vocabulary& vocabulary, const std::string& indent) {
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

std::string json_string(std::string_view text) { return OrderedJson(text).dump(); }

std::vector<KeptFile> write_tokenizer_files(const TokenizerSketch& sketch, bool gpt2_files) {
  std::vector<KeptFile> files = {{"tokenizer.json", tokenizer_json(sketch)},
                                 {"tokenizer_config.json", config_json(sketch)}};
  if (!gpt2_files) return files;
  files.emplace_back("vocab.json", vocab_json(*sketch.vocabulary, "") + "\n");
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
