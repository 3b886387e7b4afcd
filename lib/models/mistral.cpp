#include "models/mistral.h"

#include "models/common.h"

namespace llmtk::models {
namespace {

LlamaConfig read_mistral(const io::Json& json, const std::string& where, const io::TypedKeys* typed_keys) {
  io::ObjectReader config(json, where, typed_keys);
  LlamaConfig c = LlamaConfig::from_common(config);
  c.architecture = "MistralForCausalLM";
  c.sliding_window = read_window(config, 4096);
  const bool slides = c.sliding_window > 0;
  c.is_sliding = read_sliding_layers(config, c.num_hidden_layers, [&](int64_t) { return slides; });
  for (const bool sliding : c.is_sliding)
    if (sliding != slides) config.fail("layer_types", "one type for all layers, as sliding_window has it");
  refuse_unread(config, typed_keys);
  c.raw = json;
  return c;
}

}  // namespace

std::shared_ptr<nn::Model> make_mistral(const io::Json& config, const std::string& where, const nn::Build& build) {
  return make_llama_decoder(read_mistral(config, where, build.typed_keys), build);
}

std::map<std::string, io::Json> mistral_presets() {
  struct Shape {
    LlamaShape shape;
    double theta;
    int64_t window;  // 0: none
  };
  // As the published config.json of each says.
  static constexpr Shape kShapes[] = {
      {{"mistral-7b-v0.1", 32000, 4096, 14336, 32, 32, 8, 128, 32768, 1e-5, false, 1, 2}, 1e4, 4096},
      {{"mistral-7b-v0.3", 32768, 4096, 14336, 32, 32, 8, 128, 32768, 1e-5, false, 1, 2}, 1e6, 0},
      {{"mistral-nemo-12b", 131072, 5120, 14336, 40, 32, 8, 128, 131072, 1e-5, false, 1, 2}, 1e6, 0},
  };
  std::map<std::string, io::Json> presets;
  for (const auto& [shape, theta, window] : kShapes) {
    io::Json& json = presets[shape.name] = llama_preset(shape, "mistral", "MistralForCausalLM", {.theta = theta});
    json["sliding_window"] = window > 0 ? io::Json(window) : io::Json(nullptr);
  }
  return presets;
}

}  // namespace llmtk::models
