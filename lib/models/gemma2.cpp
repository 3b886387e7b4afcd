#include "models/gemma2.h"

#include <algorithm>

#include "models/common.h"

namespace llmtk::models {
namespace {

GemmaConfig read_gemma2(const io::Json& json, const std::string& where, const io::TypedKeys* typed_keys) {
  io::ObjectReader config(json, where, typed_keys);
  GemmaConfig c = GemmaConfig::from_common(config);
  c.architecture = "Gemma2ForCausalLM";
  c.rope = read_rope(config, {c.head_dim, c.max_position_embeddings});
  c.attn_logit_softcapping = read_bound(config, "attn_logit_softcapping", 50);
  c.final_logit_softcapping = read_bound(config, "final_logit_softcapping", 30);
  c.is_sliding = read_sliding_layers(config, c.num_hidden_layers, [](int64_t layer) { return layer % 2 == 0; });
  const bool slides = std::ranges::find(c.is_sliding, true) != c.is_sliding.end();
  c.sliding_window = slides ? config.integer("sliding_window") : 0;
  config.ignore({"sliding_window"});
  refuse_unread(config, typed_keys);
  c.raw = json;
  return c;
}

}  // namespace

std::shared_ptr<nn::Model> make_gemma2(const io::Json& config, const std::string& where, const nn::Build& build) {
  return make_gemma_decoder(read_gemma2(config, where, build.typed_keys), build);
}

std::map<std::string, io::Json> gemma2_presets() {
  // As the published config.json of each says.
  static constexpr GemmaShape kShapes[] = {
      {"gemma-2-2b", 256000, 2304, 9216, 26, 8, 4, 256, 8192, 256, 4096},
      {"gemma-2-9b", 256000, 3584, 14336, 42, 16, 8, 256, 8192, 256, 4096},
      {"gemma-2-27b", 256000, 4608, 36864, 46, 32, 16, 128, 8192, 144, 4096},
  };
  std::map<std::string, io::Json> presets;
  for (const GemmaShape& shape : kShapes) {
    io::Json& json = presets[shape.name] = gemma_preset(shape, "gemma2", "Gemma2ForCausalLM");
    json["attn_logit_softcapping"] = 50.0;
    json["final_logit_softcapping"] = 30.0;
    write_rope({.theta = 1e4}, json);
  }
  return presets;
}

}  // namespace llmtk::models
