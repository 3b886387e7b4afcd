// llmtk inspect checkpoint: what a checkpoint, a run's folder or a model folder holds, and whether it is whole.

#include "train/checkpoint.h"

#include <algorithm>
#include <iostream>

#include "core/error.h"
#include "inspect/inspect.h"
#include "inspect/table.h"
#include "io/model_folder.h"

namespace llmtk {
namespace {

/// A folder without a manifest has no checksums to hold it against: config and headers must be right, and every shard
/// there with its full length.
std::optional<std::string> model_folder_damage(const fs::path& folder) {
  try {
    io::read_model_config(folder);
    const io::WeightFiles weights(folder);
  } catch (const Error& error) {
    return error.what();
  }
  return std::nullopt;
}

Json describe(const fs::path& folder) {
  const bool has_manifest =
      fs::exists(folder / "manifest.json") || folder.filename().string().starts_with("checkpoint-");
  const auto damage = has_manifest ? train::checkpoint_damage(folder) : model_folder_damage(folder);
  Json json = {{"path", folder.string()}, {"kind", has_manifest ? "checkpoint" : "model"}, {"whole", !damage}};
  if (damage) json["damage"] = *damage;
  json["verified_by"] = has_manifest ? "checksums" : "headers";

  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(folder))  // not below: a run's checkpoints are no part of its model
    if (entry.is_regular_file()) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  Json& files = json["files"] = Json::array();
  uintmax_t bytes = 0;
  for (const auto& path : paths) {
    Json file = {{"name", path.filename().string()}, {"bytes", fs::file_size(path)}};
    bytes += fs::file_size(path);
    if (path.extension() == ".safetensors") {
      try {
        const io::SafetensorsFile tensors(path);
        file["tensors"] = tensors.tensors().size();
      } catch (const Error& error) {
        file["damage"] = error.what();
      }
    }
    files.push_back(std::move(file));
  }
  json["bytes"] = bytes;
  if (!damage && fs::exists(folder / "trainer_state.json")) {
    const io::Json state = io::read_json(folder / "trainer_state.json");
    if (const auto loop = state.find("loop"); loop != state.end()) json["state"] = *loop;
  }
  return json;
}

void print(const Json& json) {
  const bool whole = json["whole"];
  std::cout << json["path"].get<std::string>() << ": " << (whole ? "whole" : "DAMAGED")
            << (json["verified_by"] == "checksums" ? " (every byte against the manifest's checksums)"
                                                   : " (headers and lengths; there is no manifest)")
            << '\n';
  if (!whole) std::cout << "  " << json["damage"].get<std::string>() << '\n';
  std::cout << '\n';
  Table table({"file", "size", "tensors"}, {1, 2});
  for (const auto& file : json["files"])
    table.add({file["name"], readable_bytes(file["bytes"].get<double>()),
               file.contains("tensors") ? std::to_string(file["tensors"].get<int64_t>()) : ""});
  table.print();
  if (json.contains("state")) {
    std::cout << '\n';
    Table state({"state", "value"});
    for (const auto& [key, value] : json["state"].items()) state.add({key, value.dump()});
    state.print();
  }
}

int damaged(size_t count) {
  if (count == 0) return 0;
  return static_cast<int>(Exit::file);
}

/// A run's folder: every checkpoint in one line, and the model that stands there since the run's end.
int run_folder(const fs::path& folder, const std::vector<train::CheckpointFolder>& checkpoints, bool json) {
  Table table({"checkpoint", "step", "size", ""}, {1, 2});
  size_t broken = 0;
  const auto add = [&](const fs::path& path, const std::string& step) {
    Json one = describe(path);
    const bool whole = one["whole"];
    if (!whole) ++broken;
    table.add({path.string(), step, readable_bytes(one["bytes"].get<double>()),
               whole ? "whole" : "DAMAGED: " + one["damage"].get<std::string>()});
    return one;
  };
  Json found = {{"checkpoints", Json::array()}};
  for (const auto& checkpoint : checkpoints)
    found["checkpoints"].push_back(add(checkpoint.path, std::to_string(checkpoint.step)));
  if (train::holds_model(folder)) found["model"] = add(folder, "model");
  if (json)
    print_json(found);
  else
    table.print();
  return damaged(broken);
}

int run(const std::string& name, bool json) {
  const fs::path folder = io::find_model(name);
  if (const auto checkpoints = train::list_checkpoints(folder); !checkpoints.empty())
    return run_folder(folder, checkpoints, json);
  const Json described = describe(folder);
  if (json)
    print_json(described);
  else
    print(described);
  return damaged(described["whole"] ? 0 : 1);
}

}  // namespace

void add_checkpoint_command(CLI::App& app, InspectContext& context) {
  auto path = std::make_shared<std::string>();
  auto* command = app.add_subcommand("checkpoint", "What a checkpoint holds, and whether it is whole");
  command->add_option("folder", *path, "A checkpoint, a run's folder with checkpoints in it, or a model folder")
      ->required();
  command->footer(
      "Exit code 5: something is damaged or missing.\n\nExamples:\n"
      "  llmtk inspect checkpoint runs/poems\n"
      "  llmtk inspect checkpoint runs/poems/checkpoint-1000 --json");
  command->callback([&context, path] { context.run = [&context, path] { return run(*path, context.common.json); }; });
}

}  // namespace llmtk
