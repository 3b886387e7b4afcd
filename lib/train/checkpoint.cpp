#include "train/checkpoint.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>
#include <regex>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"

namespace llmtk::train {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kPrefix = "checkpoint-";
constexpr std::string_view kTemporary = ".unfinished-";
constexpr const char* kAbandoned = "abandoned-";  ///< checkpoints that a run went back behind
constexpr std::string_view kManifest = "manifest.json";
constexpr int kVersion = 1;

std::string readable_bytes(uint64_t bytes) {
  char text[32];
  if (bytes < (uint64_t{1} << 20))
    std::snprintf(text, sizeof text, "%.1f KB", static_cast<double>(bytes) / 1024);
  else if (bytes < (uint64_t{1} << 30))
    std::snprintf(text, sizeof text, "%.1f MB", static_cast<double>(bytes) / (1 << 20));
  else
    std::snprintf(text, sizeof text, "%.2f GB", static_cast<double>(bytes) / (1 << 30));
  return text;
}

void check_disk(const fs::path& folder, uint64_t needed, const std::string& what) {
  const uint64_t available = free_disk_bytes(folder);
  if (available >= needed) return;
  throw Error(Exit::file, {.what = "not enough disk space for " + what,
                           .where = folder.string(),
                           .got = readable_bytes(available) + " free",
                           .expected = readable_bytes(needed),
                           .hint = "free some space, lower trainer.save_total_limit, or point trainer.output_dir to "
                                   "another disk; the checkpoints written before are untouched"});
}

void sync_file(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const int result = fd < 0 ? -1 : ::fsync(fd);
  const int error = errno;
  if (fd >= 0) ::close(fd);
  if (result != 0)
    throw Error(Exit::file, {.what = std::string("cannot sync: ") + std::strerror(error), .where = path.string()});
}

void rename_or_throw(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error) throw Error(Exit::file, {.what = "cannot rename: " + error.message(), .where = to.string()});
}

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error)
    throw Error(Exit::file, {.what = "cannot create the folder: " + error.message(), .where = folder.string()});
}

/// Every file below `folder` with size and checksum, synced to disk.
Json list_files(const fs::path& folder) {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  Json files = Json::object();
  for (const auto& path : paths) {
    sync_file(path);
    files[fs::relative(path, folder).string()] = {{"size", fs::file_size(path)}, {"checksum", checksum_file(path)}};
  }
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_directory()) sync_folder(entry.path());
  return files;
}

std::string checksum_text(const std::string& text) {
  Checksum sum;
  sum.update(std::as_bytes(std::span(text.data(), text.size())));
  return sum.hex();
}

/// The step in "checkpoint-<step>"; -1 for any other name.
int64_t step_of(const std::string& name) {
  if (!name.starts_with(kPrefix)) return -1;
  int64_t step = -1;
  const char* end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data() + kPrefix.size(), end, step);
  return error == std::errc() && rest == end && step >= 0 ? step : -1;
}

/// A folder that is half deleted must not look whole: it loses its name first.
void remove_checkpoint(const fs::path& path) {
  const fs::path doomed = path.parent_path() / (std::string(kTemporary) + "deleted-" + path.filename().string());
  std::error_code error;
  fs::remove_all(doomed, error);
  fs::rename(path, doomed, error);
  if (!error) fs::remove_all(doomed, error);
  if (error) log::warn("cannot delete the old checkpoint " + path.string() + ": " + error.message());
}

/// model.safetensors, its parts and their index: without them a folder holds no model.
bool is_weights(const fs::path& file) {
  static const std::regex names(R"(model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json)");
  return std::regex_match(file.filename().string(), names);
}

/// Everything in `folder` whose path meets the predicate; listed before anything is done to it.
template <class Predicate>
std::vector<fs::path> entries(const fs::path& folder, Predicate&& wanted) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (wanted(it->path())) found.push_back(it->path());
  return found;
}

/// What tells others how a folder's weights are to be read, and how good they are: beside weights of another kind of run
/// it would say something false.
constexpr const char* kAboutWeights[] = {
    "config.json",         "generation_config.json", "adapter_config.json",      "adapter_model.safetensors",
    "adapter.safetensors", "head_config.json",       "model_head.safetensors",   "reward_evaluation.json"};

void remove_weights(const fs::path& folder) {
  for (const fs::path& path : entries(folder, is_weights)) {
    std::error_code error;
    fs::remove(path, error);
    if (error) throw Error(Exit::file, {.what = "cannot delete: " + error.message(), .where = path.string()});
  }
}

}  // namespace

bool holds_model(const fs::path& folder) {
  for (const char* name : {"model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"})
    if (fs::exists(folder / name)) return true;
  return false;
}

bool holds_run(const fs::path& output_dir) {
  return fs::exists(output_dir / "metrics.jsonl") || fs::exists(output_dir / "config.resolved.yaml") ||
         holds_model(output_dir) || !list_checkpoints(output_dir).empty();
}

CheckpointWriter::CheckpointWriter(const fs::path& output_dir, int64_t step, uint64_t bytes_needed)
    : output_dir_(output_dir), final_(output_dir / (std::string(kPrefix) + std::to_string(step))), step_(step) {
  temporary_ = output_dir / (std::string(kTemporary) + final_.filename().string());
  check_disk(output_dir, bytes_needed, final_.filename().string());
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
  make_folder(temporary_);
}

CheckpointWriter::~CheckpointWriter() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(temporary_, ignored);
}

fs::path CheckpointWriter::commit() {
  const Json files = list_files(temporary_);
  const Json manifest = {{"format", "llmtk-checkpoint"},
                         {"version", kVersion},
                         {"step", step_},
                         {"files", files},
                         {"files_checksum", checksum_text(files.dump())}};
  write_file_atomic(temporary_ / kManifest, manifest.dump(2) + "\n");
  sync_folder(temporary_);
  // A checkpoint of the same step stands there when a run went back to an older one: the two change places in one move.
  if (fs::exists(final_)) {
    if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, final_.c_str(), RENAME_EXCHANGE) == 0) {
      std::error_code ignored;
      fs::remove_all(temporary_, ignored);
    } else {  // a file system without the exchange
      remove_checkpoint(final_);
      rename_or_throw(temporary_, final_);
    }
  } else {
    rename_or_throw(temporary_, final_);
  }
  committed_ = true;
  sync_folder(output_dir_);
  return final_;
}

std::vector<CheckpointFolder> list_checkpoints(const fs::path& output_dir) {
  std::vector<CheckpointFolder> found;
  std::error_code error;
  for (fs::directory_iterator it(output_dir, error), end; !error && it != end; it.increment(error)) {
    const int64_t step = step_of(it->path().filename().string());
    if (step >= 0 && it->is_directory()) found.push_back({step, it->path()});
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.step < b.step; });
  return found;
}

std::optional<std::string> checkpoint_damage(const fs::path& checkpoint) {
  if (!fs::is_directory(checkpoint)) return "no such folder";
  if (!fs::exists(checkpoint / kManifest)) return "manifest.json is missing";
  try {
    const Json manifest = Json::parse(read_file(checkpoint / kManifest));
    if (manifest.at("format") != "llmtk-checkpoint") return "manifest.json is not that of a checkpoint";
    if (manifest.at("version") != kVersion)
      return "manifest.json has version " + manifest.at("version").dump() + ", this program reads " +
             std::to_string(kVersion);
    const Json& files = manifest.at("files");
    if (manifest.at("files_checksum") != checksum_text(files.dump())) return "manifest.json: its own checksum differs";
    const int64_t named = step_of(fs::canonical(checkpoint).filename().string());
    if (named >= 0 && manifest.at("step") != named) return "manifest.json says step " + manifest.at("step").dump();
    for (const auto& [name, entry] : files.items()) {
      const fs::path path = checkpoint / name;
      if (!fs::is_regular_file(path)) return name + " is missing";
      const auto size = fs::file_size(path), expected = entry.at("size").get<uintmax_t>();
      if (size != expected)
        return name + ": " + std::to_string(size) + " bytes, the manifest says " + std::to_string(expected);
      if (checksum_file(path) != entry.at("checksum")) return name + ": checksum differs from the manifest's";
    }
  } catch (const Json::exception&) {
    return "manifest.json is not a manifest";
  } catch (const Error& e) {
    return e.what();
  }
  return std::nullopt;
}

std::optional<CheckpointFolder> newest_whole_checkpoint(const fs::path& output_dir) {
  auto all = list_checkpoints(output_dir);
  for (auto it = all.rbegin(); it != all.rend(); ++it) {
    const auto damage = checkpoint_damage(it->path);
    if (!damage) return *it;
    log::warn("passing over " + it->path.string() + ", which is not whole: " + *damage);
  }
  return std::nullopt;
}

void rotate_checkpoints(const fs::path& output_dir, int64_t limit, int64_t best_step) {
  if (limit <= 0) return;
  const auto all = list_checkpoints(output_dir);
  auto left = static_cast<int64_t>(all.size());
  for (size_t i = 0; i + 1 < all.size() && left > limit; ++i) {
    if (all[i].step == best_step) continue;
    remove_checkpoint(all[i].path);
    --left;
  }
}

void remove_unfinished(const fs::path& output_dir) {
  std::error_code ignored;
  const auto unfinished = [](const fs::path& path) { return path.filename().string().starts_with(kTemporary); };
  for (const fs::path& path : entries(output_dir, unfinished)) fs::remove_all(path, ignored);
}

void abandon_checkpoints(const fs::path& output_dir, int64_t step) {
  const auto all = list_checkpoints(output_dir);
  // The newest first: killed half-way, the folder's newest checkpoint is still one of the line that was left.
  for (auto it = all.rbegin(); it != all.rend() && it->step > step; ++it) {
    const fs::path aside = output_dir / (std::string(kAbandoned) + it->path.filename().string());
    std::error_code ignored;
    fs::remove_all(aside, ignored);
    rename_or_throw(it->path, aside);
    log::warn("going on from step " + std::to_string(step) + ": " + it->path.filename().string() +
              ", which came later, is now " + aside.string() + " and is deleted when this run has finished");
  }
}

void remove_abandoned(const fs::path& output_dir) {
  std::error_code ignored;
  const auto abandoned = [](const fs::path& path) {
    const std::string name = path.filename().string();
    return name.starts_with(kAbandoned) && step_of(name.substr(std::strlen(kAbandoned))) >= 0;
  };
  for (const fs::path& path : entries(output_dir, abandoned)) fs::remove_all(path, ignored);
}

void clear_run(const fs::path& output_dir) {
  remove_weights(output_dir);
  for (const auto& checkpoint : list_checkpoints(output_dir)) remove_checkpoint(checkpoint.path);
  remove_abandoned(output_dir);
  std::error_code ignored;
  for (const char* name : kAboutWeights) fs::remove(output_dir / name, ignored);
  for (const char* name : {"metrics.jsonl", "config.resolved.yaml", "loss.svg"}) fs::remove(output_dir / name, ignored);
}

FolderUpdate::FolderUpdate(const fs::path& folder, uint64_t bytes_needed)
    : folder_(folder), temporary_(folder / (std::string(kTemporary) + "model")) {
  check_disk(folder, bytes_needed, "the final model");
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
  make_folder(temporary_);
}

FolderUpdate::~FolderUpdate() {
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
}

void FolderUpdate::commit() {
  const Json files = list_files(temporary_);  // named: a range-for would not keep a temporary alive
  // The old weights go first and the new ones come last: a crash in between leaves a folder without a model, never new
  // weights beside an old tokenizer.
  remove_weights(folder_);
  std::error_code ignored;
  for (const char* name : kAboutWeights)
    if (!files.contains(name)) fs::remove(folder_ / name, ignored);
  for (const bool weights : {false, true})
    for (const auto& [name, entry] : files.items()) {
      if (is_weights(name) != weights) continue;
      if (const auto parent = (folder_ / name).parent_path(); parent != folder_) make_folder(parent);
      rename_or_throw(temporary_ / name, folder_ / name);
    }
  sync_folder(folder_);
}

RunLock::RunLock(const fs::path& output_dir) {
  make_folder(output_dir);
  const fs::path path = output_dir / ".lock";
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0)
    throw Error(Exit::file, {.what = std::string("cannot open: ") + std::strerror(errno), .where = path.string()});
  if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) return;
  if (errno != EWOULDBLOCK) {
    log::warn("this file system has no locks (" + std::string(std::strerror(errno)) +
              "): nothing keeps a second run out of " + output_dir.string());
  } else {
    ::close(fd_);
    throw Error(Exit::usage, {.what = "another run is writing to this folder",
                              .where = output_dir.string(),
                              .hint = "wait for it, stop it, or give this run a trainer.output_dir of its own"});
  }
}

RunLock::~RunLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace llmtk::train
