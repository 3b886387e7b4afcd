#include "models/config.h"

#include "core/error.h"
#include "io/gguf.h"
#include "io/model_folder.h"
#include "models/registry.h"

namespace llmtk::models {

namespace fs = std::filesystem;

void ModelConfig::validate(config::Problems& problems) const {
  if (!config.is_object()) return problems.add("config", {.what = "not a section", .got = config.dump()});
  if (!preset.empty() && !name_or_path.empty())
    problems.add("preset", {.what = "given together with model.name_or_path", .expected = "one of the two"});
  try {
    if (!preset.empty()) models::preset(preset);
  } catch (const Error& error) {
    problems.add("preset", error.parts());
  }
  if (!preset.empty() || !name_or_path.empty()) {
    if (config.contains("model_type"))
      problems.add("config", {.what = "model_type is the preset's or the model's own", .hint = "leave it out"});
  } else if (!config.contains("model_type")) {
    problems.add("config", {.what = "no model is named",
                            .expected = "model.preset, model.name_or_path, or model.config with a model_type"});
  }
}

ResolvedModel resolve_model(const ModelConfig& section, const config::Places& places) {
  ResolvedModel model;
  model.typed_keys = places.below("model.config");
  if (!section.preset.empty()) {
    model.config = preset(section.preset);
    model.where = places.of("model.preset");
    model.typed_keys[""] = model.where;
  } else if (io::is_gguf_path(section.name_or_path) && !fs::is_directory(section.name_or_path)) {
    throw Error(Exit::usage, {.what = "a GGUF file is no model to train",
                              .where = places.of("model.name_or_path"),
                              .got = section.name_or_path,
                              .expected = "a model folder",
                              .hint = "make one of it with `llmtk convert " + section.name_or_path + " FOLDER`"});
  } else if (!section.name_or_path.empty() && fs::is_regular_file(section.name_or_path)) {
    model.where = section.name_or_path;
    model.config = language_part(io::read_json(section.name_or_path), model.where);
    model.vocab_size_given = true;
  } else if (!section.name_or_path.empty()) {
    model.weights = io::find_model(section.name_or_path);
    model.where = (*model.weights / "config.json").string();
    model.config = language_part(io::read_model_config(*model.weights), model.where);
    model.vocab_size_given = true;
  } else {
    model.where = places.of("model.config");
    model.typed_keys[""] = model.where;
  }
  for (const auto& [key, value] : section.config.items()) model.config[key] = value;
  model.vocab_size_given |= section.config.contains("vocab_size");
  return model;
}

void adopt_vocabulary(ResolvedModel& model, int64_t vocab_size, int64_t bos, int64_t eos, int64_t pad) {
  if (model.weights) return;  // their ids have meanings already
  if (!model.vocab_size_given) model.config["vocab_size"] = vocab_size;
  const auto set = [&](const char* key, int64_t id) {
    if (model.typed_keys.contains(key)) return;  // the user knows better
    if (id >= 0)
      model.config[key] = id;
    else
      model.config.erase(key);
  };
  set("bos_token_id", bos >= 0 ? bos : eos);
  set("eos_token_id", eos);
  const bool is_encoder_decoder = model.config.contains("decoder_start_token_id");
  if (is_encoder_decoder && pad < 0) pad = eos;  // its decoder begins with padding, as T5's does
  set("pad_token_id", pad);
  if (is_encoder_decoder) set("decoder_start_token_id", pad);
}

}  // namespace llmtk::models
