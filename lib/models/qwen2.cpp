#include "models/qwen2.h"

#include "models/common.h"

namespace llmtk::models {

void read_qwen_window(io::ObjectReader& config, LlamaConfig& c) {
  const bool slides = config.boolean_or("use_sliding_window", false);
  const int64_t window = read_window(config, 4096);
  const int64_t full_layers = config.integer_or("max_window_layers", 28);
  c.sliding_window = slides ? window : 0;
  c.is_sliding = read_sliding_layers(config, c.num_hidden_layers,
                                     [&](int64_t layer) { return c.sliding_window > 0 && layer >= full_layers; });
  for (const bool sliding : c.is_sliding)
    if (sliding && c.sliding_window == 0)
      config.fail("layer_types", "full_attention alone without use_sliding_window and sliding_window");
}

namespace {

LlamaConfig read_qwen2(const io::Json& json, const std::string& where, const io::TypedKeys* typed_keys) {
  io::ObjectReader config(json, where, typed_keys);
  LlamaConfig c = LlamaConfig::from_common(config);
  c.architecture = "Qwen2ForCausalLM";
  c.qkv_bias = true;
  read_qwen_window(config, c);
  refuse_unread(config, typed_keys);
  c.raw = json;
  return c;
}

}  // namespace

std::shared_ptr<nn::Model> make_qwen2(const io::Json& config, const std::string& where, const nn::Build& build) {
  return make_llama_decoder(read_qwen2(config, where, build.typed_keys), build);
}

std::map<std::string, io::Json> qwen2_presets() {
  // As the published config.json of each says (Qwen2.5's; those of Qwen2 differ in the longest sequence alone).
  static constexpr LlamaShape kShapes[] = {
      {"qwen2.5-0.5b", 151936, 896, 4864, 24, 14, 2, 64, 32768, 1e-6, true, 151643, 151643},
      {"qwen2.5-1.5b", 151936, 1536, 8960, 28, 12, 2, 128, 131072, 1e-6, true, 151643, 151643},
      {"qwen2.5-3b", 151936, 2048, 11008, 36, 16, 2, 128, 32768, 1e-6, true, 151643, 151643},
      {"qwen2.5-7b", 152064, 3584, 18944, 28, 28, 4, 128, 131072, 1e-6, false, 151643, 151643},
      {"qwen2.5-14b", 152064, 5120, 13824, 48, 40, 8, 128, 131072, 1e-5, false, 151643, 151643},
  };
  std::map<std::string, io::Json> presets;
  for (const LlamaShape& shape : kShapes) {
    io::Json& json = presets[shape.name] = llama_preset(shape, "qwen2", "Qwen2ForCausalLM", {.theta = 1e6});
    json["use_sliding_window"] = false;
    json["sliding_window"] = shape.positions;
    json["max_window_layers"] = shape.layers;
  }
  return presets;
}

}  // namespace llmtk::models
