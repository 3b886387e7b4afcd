#include "train/run_files.h"

#include <torch/csrc/autograd/grad_mode.h>

#include <map>

#include "core/error.h"
#include "core/log.h"
#include "io/json.h"
#include "io/tensors.h"
#include "train/random_state.h"

namespace llmtk::train {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kTrainedFile = "trained.safetensors";
constexpr const char* kRandomFile = "random_state.safetensors";
constexpr uint64_t kSmallFiles = 4 << 20;  ///< config, tokenizer, states, manifest

io::NamedTensors named(const std::vector<Parameter>& parameters) {
  io::NamedTensors tensors;
  for (const Parameter& parameter : parameters) tensors.emplace_back(parameter.name, parameter.tensor);
  return tensors;
}

uint64_t bytes_of(const io::NamedTensors& tensors) {
  uint64_t bytes = 0;
  for (const auto& [name, tensor] : tensors) bytes += tensor.nbytes();
  return bytes;
}

void compare(const Json& saved_config, const Json& run_config, const std::string& where) {
  std::string refused;
  for (const auto& change : compare_configs(saved_config, run_config)) {
    const std::string text = detail::concat(change.key, " was ", change.before.empty() ? "not set" : change.before,
                                            ", is ", change.after.empty() ? "not set" : change.after);
    if (change.kind == ConfigChange::Kind::refused)
      refused += (refused.empty() ? "" : "; ") + text;
    else
      log::warn("resuming with another config: " + text);
  }
  if (!refused.empty())
    throw Error(Exit::usage, {.what = "cannot go on from this checkpoint with another config: " + refused,
                              .where = where,
                              .hint = "put the old values back, or begin anew in another trainer.output_dir"});
}

}  // namespace

Json read_trainer_state(const CheckpointFolder& checkpoint, const Json& run_config, const AddDefaults& add_defaults) {
  const std::string where = (checkpoint.path / kStateFile).string();
  Json saved = io::read_json(checkpoint.path / kStateFile);
  if (saved.value("format", "") != "llmtk-trainer-state" || saved.value("version", 0) != 1)
    throw Error(Exit::file, {.what = "not a trainer's state that this program reads", .where = where});
  for (const char* key : {"config", "loop", "data"})
    if (!saved.contains(key))
      throw Error(Exit::file, {.what = std::string("key '") + key + "' is missing", .where = where});
  if (add_defaults) add_defaults(saved["config"]);
  compare(saved["config"], run_config, where);
  return saved;
}

void RunFiles::begin(const Start& start, const std::function<int64_t(const CheckpointFolder&)>& resume) const {
  const fs::path output = config_.output_dir;
  remove_unfinished(output);
  seed_generators(static_cast<uint64_t>(config_.seed) + static_cast<uint64_t>(task_.parallel->rank()), device_);
  const int64_t step = start.checkpoint ? resume(*start.checkpoint) : 0;
  // Only what can go on may cost an older run its files.
  if (start.clear) clear_run(output);
  if (start.checkpoint && task_.parallel->is_main()) abandon_checkpoints(output, step);
}

uint64_t RunFiles::bytes_of_model() const {
  uint64_t bytes = 0;
  if (task_.saves_all)
    for (const auto& parameter : task_.module->parameters()) bytes += parameter.nbytes();
  else
    bytes = bytes_of(named(optimizer_.parameters()));
  return bytes;
}

void RunFiles::load_weights(const fs::path& checkpoint) const {
  if (task_.load_state) task_.load_state(checkpoint);
  if (task_.saves_all) return task_.load_weights(checkpoint);
  const torch::autograd::AutoGradMode no_grad(false);
  const std::string where = (checkpoint / kTrainedFile).string();
  const io::NamedTensors saved = io::load_tensors(where), own = named(optimizer_.parameters());
  if (saved.size() != own.size())
    throw Error(Exit::file, {.what = "another number of trained parameters",
                             .where = where,
                             .got = std::to_string(saved.size()),
                             .expected = std::to_string(own.size())});
  const std::map<std::string, at::Tensor> by_name(saved.begin(), saved.end());
  for (const auto& [name, tensor] : own) {
    const auto found = by_name.find(name);
    if (found == by_name.end() || found->second.sizes() != tensor.sizes() ||
        found->second.scalar_type() != tensor.scalar_type())
      throw Error(Exit::file, {.what = "tensor '" + name + "' is missing or of another shape or type", .where = where});
    tensor.copy_(found->second);
  }
}

void RunFiles::save(int64_t step, const Json& loop, const Json& data, int64_t best_step, uint64_t extra_bytes) const {
  if (task_.observer) task_.observer->sync();
  if (task_.parallel->is_main()) {
    const io::NamedTensors optimizer = optimizer_.state();
    CheckpointWriter writer(config_.output_dir, step,
                            bytes_of_model() + bytes_of(optimizer) + kSmallFiles + extra_bytes);
    task_.save_model(writer.folder());
    if (!task_.saves_all) io::save_tensors(writer.folder() / kTrainedFile, named(optimizer_.parameters()));
    io::save_tensors(writer.folder() / kOptimizerFile, optimizer);
    io::save_tensors(writer.folder() / kRandomFile, random_state(device_));
    if (task_.save_state) task_.save_state(writer.folder());
    io::write_json(writer.folder() / kStateFile, {{"format", "llmtk-trainer-state"},
                                                  {"version", 1},
                                                  {"loop", loop},
                                                  {"data", data},
                                                  {"config", task_.run_config}});
    const fs::path path = writer.commit();
    log::debug("saved " + path.string());
    // The best model's checkpoint is kept only where there is one of that very step.
    rotate_checkpoints(config_.output_dir, config_.save_total_limit, best_step);
  }
  task_.parallel->barrier();
}

Json RunFiles::resume(const CheckpointFolder& checkpoint) const {
  Json saved = read_trainer_state(checkpoint, task_.run_config, task_.add_defaults);
  load_weights(checkpoint.path);
  optimizer_.load_state(io::load_tensors(checkpoint.path / kOptimizerFile),
                        (checkpoint.path / kOptimizerFile).string());
  load_random_state(io::load_tensors(checkpoint.path / kRandomFile), device_,
                    static_cast<uint64_t>(config_.seed) + saved["loop"].value("step", uint64_t{0}),
                    (checkpoint.path / kRandomFile).string());
  return saved;
}

bool RunFiles::is_own(const CheckpointFolder& checkpoint) const {
  return fs::absolute(checkpoint.path).parent_path().lexically_normal() ==
         (fs::absolute(config_.output_dir) / "").lexically_normal().parent_path();
}

void RunFiles::save_final() const {
  if (task_.parallel->is_main()) {
    FolderUpdate update(config_.output_dir, bytes_of_model() + kSmallFiles);
    task_.save_model(update.folder());
    update.commit();
    remove_abandoned(config_.output_dir);
  }
  if (task_.observer) task_.observer->sync();
  task_.parallel->barrier();
}

}  // namespace llmtk::train
