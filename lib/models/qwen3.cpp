#include "models/qwen3.h"

#include "models/common.h"
#include "models/qwen2.h"

namespace llmtk::models {
namespace {

LlamaConfig read_qwen3(const io::Json& json, const std::string& where, const io::TypedKeys* typed_keys) {
  io::ObjectReader config(json, where, typed_keys);
  config.integer("head_dim");  // not hidden_size / num_attention_heads in any model of this family
  LlamaConfig c = LlamaConfig::from_common(config);
  c.architecture = "Qwen3ForCausalLM";
  c.qkv_bias = c.o_bias = config.boolean_or("attention_bias", false);
  c.qk_norm = true;
  read_qwen_window(config, c);
  refuse_unread(config, typed_keys);
  c.raw = json;
  return c;
}

}  // namespace

std::shared_ptr<nn::Model> make_qwen3(const io::Json& config, const std::string& where, const nn::Build& build) {
  return make_llama_decoder(read_qwen3(config, where, build.typed_keys), build);
}

std::map<std::string, io::Json> qwen3_presets() {
  // As the published config.json of each says.
  static constexpr LlamaShape kShapes[] = {
      {"qwen3-0.6b", 151936, 1024, 3072, 28, 16, 8, 128, 40960, 1e-6, true, 151643, 151645},
      {"qwen3-1.7b", 151936, 2048, 6144, 28, 16, 8, 128, 40960, 1e-6, true, 151643, 151645},
      {"qwen3-4b", 151936, 2560, 9728, 36, 32, 8, 128, 40960, 1e-6, true, 151643, 151645},
      {"qwen3-8b", 151936, 4096, 12288, 36, 32, 8, 128, 40960, 1e-6, false, 151643, 151645},
      {"qwen3-14b", 151936, 5120, 17408, 40, 40, 8, 128, 40960, 1e-6, false, 151643, 151645},
  };
  std::map<std::string, io::Json> presets;
  for (const LlamaShape& shape : kShapes) {
    io::Json& json = presets[shape.name] = llama_preset(shape, "qwen3", "Qwen3ForCausalLM", {.theta = 1e6});
    json["attention_bias"] = false;
    json["use_sliding_window"] = false;
    json["sliding_window"] = nullptr;
    json["max_window_layers"] = shape.layers;
  }
  return presets;
}

}  // namespace llmtk::models
