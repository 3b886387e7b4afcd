#include "io/model_folder.h"

#include <algorithm>
#include <cstdlib>

#include "core/error.h"
#include "io/gguf.h"

namespace llmtk::io {
namespace {

[[noreturn]] void no_weights(const fs::path& folder) {
  if (fs::exists(folder / "pytorch_model.bin") || fs::exists(folder / "pytorch_model.bin.index.json"))
    throw Error(
        Exit::file,
        {.what = "the weights are pickled (pytorch_model.bin), and unpickling can run any code",
         .where = folder.string(),
         .expected = kWeightsFile,
         .hint = "convert them where you trust them: python -c \"from transformers import AutoModelForCausalLM as A; "
                 "A.from_pretrained('" +
                 folder.string() + "').save_pretrained('" + folder.string() + "')\""});
  throw Error(Exit::file, {.what = "no weights in this folder",
                           .where = folder.string(),
                           .expected = std::string(kWeightsFile) + " or " + kWeightsIndex});
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

fs::path hub_cache() {
  if (const auto path = environment("HF_HUB_CACHE"); !path.empty()) return path;
  if (const auto path = environment("HF_HOME"); !path.empty()) return fs::path(path) / "hub";
  if (const auto path = environment("XDG_CACHE_HOME"); !path.empty()) return fs::path(path) / "huggingface" / "hub";
  return fs::path(environment("HOME")) / ".cache" / "huggingface" / "hub";
}

/// "gpt2" may lie under its old name or under its organisation's: models--gpt2, models--openai-community--gpt2.
std::vector<fs::path> cache_folders(const std::string& name) {
  std::string folder = "models--" + name;
  for (size_t at; (at = folder.find('/')) != std::string::npos;) folder.replace(at, 1, "--");
  std::vector<fs::path> folders = {hub_cache() / folder};
  if (name.starts_with("gpt2") || name == "openai-gpt")
    folders.push_back(hub_cache() / ("models--openai-community--" + name));
  return folders;
}

/// The snapshot that refs/main names, else the newest one.
fs::path snapshot(const fs::path& repository) {
  std::error_code ignored;
  if (fs::exists(repository / "refs" / "main", ignored)) {
    std::string commit = read_file(repository / "refs" / "main");
    commit.erase(commit.find_last_not_of(" \r\n") + 1);
    if (fs::is_directory(repository / "snapshots" / commit, ignored)) return repository / "snapshots" / commit;
  }
  fs::path newest;
  for (const auto& entry : fs::directory_iterator(repository / "snapshots", ignored))
    if (entry.is_directory() && (newest.empty() || entry.last_write_time() > fs::last_write_time(newest)))
      newest = entry.path();
  return newest;
}

}  // namespace

WeightFiles::WeightFiles(const fs::path& path) {
  if (fs::is_regular_file(path)) {
    if (path.extension() != ".safetensors")
      throw Error(
          Exit::file,
          {.what = "not a file of weights this program reads", .where = path.string(), .expected = "*.safetensors"});
    add(std::make_shared<SafetensorsFile>(path));
    return;
  }
  if (!fs::exists(path)) throw Error(Exit::file, {.what = "no such file or folder", .where = path.string()});
  if (fs::exists(path / kWeightsFile)) {
    add(std::make_shared<SafetensorsFile>(path / kWeightsFile));
    return;
  }
  const fs::path index_path = path / kWeightsIndex;
  if (!fs::exists(index_path)) no_weights(path);

  const auto index = parse_json<SortedJson>(read_file(index_path), index_path.string());
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object())
    throw Error(
        Exit::file,
        {.what = "key 'weight_map' is missing", .where = index_path.string(), .expected = "an object: tensor to file"});
  std::map<std::string, std::shared_ptr<const SafetensorsFile>> shards;
  for (const auto& item : map->items()) {
    const std::string shard = item.value().is_string() ? item.value().get<std::string>() : "";
    // A file name only: an index must not make us open files elsewhere.
    if (shard.empty() || fs::path(shard).filename() != shard || shard == "..")
      throw Error(Exit::file, {.what = "tensor '" + item.key() + "' lies in no file of this folder",
                               .where = index_path.string(),
                               .got = item.value().dump(),
                               .expected = "a file's name"});
    auto& file = shards[shard];
    if (!file) {
      if (!fs::exists(path / shard))
        throw Error(Exit::file, {.what = "a shard is missing: " + shard,
                                 .where = index_path.string(),
                                 .hint = "fetch the folder again, whole"});
      file = std::make_shared<SafetensorsFile>(path / shard);
      add(file);
    }
    if (!file->find(item.key()))
      throw Error(Exit::file, {.what = "tensor '" + item.key() + "' is not in " + shard + ", where the index has it",
                               .where = index_path.string()});
  }
  for (const auto& [name, entry] : tensors_)
    if (!map->contains(name))
      throw Error(Exit::file, {.what = "tensor '" + name + "' of " + entry.file->path().filename().string() +
                                       " is not in the index",
                               .where = index_path.string()});
}

void WeightFiles::add(std::shared_ptr<const SafetensorsFile> file) {
  for (const TensorInfo& tensor : file->tensors()) {
    const auto [at, fresh] = tensors_.emplace(tensor.name, Entry{file, &tensor});
    if (!fresh)
      throw Error(Exit::file, {.what = "tensor '" + tensor.name + "' stands in two shards",
                               .where = file->path().string(),
                               .got = "also in " + at->second.file->path().filename().string()});
  }
  files_.push_back(std::move(file));
}

fs::path find_model(const std::string& path_or_name) {
  std::error_code ignored;
  if (fs::is_directory(path_or_name, ignored)) return path_or_name;
  if (fs::exists(path_or_name, ignored)) {
    if (is_gguf_path(path_or_name)) return path_or_name;
    throw Error(Exit::file, {.what = "not a model folder",
                             .where = path_or_name,
                             .expected = "a folder with config.json, or a .gguf file"});
  }
  for (const fs::path& repository : cache_folders(path_or_name))
    if (const fs::path found = snapshot(repository); !found.empty()) return found;
  const bool like_a_path =
      path_or_name.starts_with(".") || path_or_name.starts_with("/") || std::ranges::count(path_or_name, '/') > 1;
  throw Error(
      Exit::file,
      {.what =
           like_a_path ? "no such folder" : "no such folder, and no model of this name in the local Hugging Face cache",
       .where = path_or_name,
       .hint = like_a_path ? "check the path"
                           : "nothing is downloaded here; get it with `hf download " + path_or_name +
                                 "`, or give the path of a model folder (looked in " + hub_cache().string() + ")"});
}

Json read_model_config(const fs::path& folder) {
  if (!fs::exists(folder / "config.json"))
    throw Error(Exit::file,
                {.what = "no config.json in this folder", .where = folder.string(), .expected = "a model folder"});
  return read_json(folder / "config.json");
}

std::vector<fs::path> named_template_files(const fs::path& folder) {
  std::vector<fs::path> files;
  if (const fs::path more = folder / "additional_chat_templates"; fs::is_directory(more))
    for (const auto& entry : fs::directory_iterator(more))
      if (entry.path().extension() == ".jinja") files.push_back(entry.path());
  std::ranges::sort(files);
  return files;
}

void copy_companion_files(const fs::path& from, const fs::path& to, Companions which) {
  // The second line: what makes a sentence encoder of an encoder.
  static constexpr const char* kOthers[] = {
      "generation_config.json",    "preprocessor_config.json",          "modules.json",
      "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json"};
  fs::create_directories(to);
  if (fs::equivalent(from, to)) return;
  const auto copy = [&](const char* name) {
    if (!fs::exists(from / name)) return;
    if (name == std::string_view("generation_config.json") && fs::exists(to / name)) return;
    fs::create_directories((to / name).parent_path());
    write_file_atomic(to / name, read_file(from / name));
  };
  for (const char* name : kOthers) copy(name);
  if (which == Companions::but_tokenizer) return;
  for (const char* name : kTokenizerFiles) copy(name);
  for (const fs::path& path : named_template_files(from)) copy(path.lexically_relative(from).c_str());
}

}  // namespace llmtk::io
