// llmtk convert: a model from one kind of files into another, with a receipt of what was written and lost.

#include <algorithm>
#include <cctype>
#include <charconv>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app.h"
#include "core/device.h"
#include "core/error.h"
#include "core/file.h"
#include "core/runtime.h"
#include "gguf_target.h"
#include "io/model_folder.h"
#include "io/tensors.h"
#include "models/registry.h"
#include "text/tokenizer.h"

using namespace llmtk;
using Json = nlohmann::ordered_json;

namespace {

constexpr const char* kExamples =
    "  llmtk convert SmolLM2.gguf smollm2                      a folder that transformers opens\n"
    "  llmtk convert SmolLM2.gguf smollm2 --dtype bfloat16\n"
    "  llmtk convert runs/poems poems.gguf --type Q8_0         a file that llama.cpp runs\n"
    "  llmtk convert llama-3-8b one-file                       shards into one file\n"
    "  llmtk convert one-file shards --max-shard-size 5GB      and back";

struct Options {
  CommonOptions common;
  std::string source, target, tokenizer, name;
  std::string dtype = "auto", type = "auto", max_shard_size;
  bool no_tokenizer = false, overwrite = false;
};

void add_options(CLI::App& app, Options& o) {
  app.add_option("source", o.source, "A model folder, a .gguf file, or a name in the local Hugging Face cache")
      ->required();
  app.add_option("target", o.target, "What to write: a .gguf file, or a folder")->required();
  app.add_option("--dtype", o.dtype,
                 "Of a folder's weights: auto (as stored; float32 for quantized ones), float32, bfloat16 or float16")
      ->capture_default_str();
  app.add_option("--type", o.type, "Of a .gguf file's matrices: auto (as stored), F32, F16, BF16, Q8_0, Q4_0 or Q4_1")
      ->capture_default_str();
  app.add_option("--max-shard-size", o.max_shard_size,
                 "Of a folder's files of weights, such as 500MB or 5GB; default: 50GB");
  app.add_option("--tokenizer", o.tokenizer, "Folder or file of the tokenizer, where it is not the source's own");
  app.add_flag("--no-tokenizer", o.no_tokenizer, "Write the weights without a tokenizer")->excludes("--tokenizer");
  app.add_option("--name", o.name, "A .gguf file's general.name; default: the source's name");
  app.add_flag("--overwrite", o.overwrite, "Write over a target that is there");
  add_common_options(app, o.common, kExamples);
}

std::string upper(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

bool has_files(const fs::path& path) {
  return fs::is_directory(path) ? fs::directory_iterator(path) != fs::directory_iterator() : fs::exists(path);
}

[[noreturn]] void idle_option(const char* option, const char* only_for) {
  throw Error(Exit::usage, {.what = std::string(option) + " has no effect here", .expected = only_for});
}

/// "5GB", "500MB": as transformers spells sizes, in powers of ten.
uint64_t parse_size(const std::string& text) {
  static constexpr std::pair<std::string_view, uint64_t> kUnits[] = {
      {"TB", 1'000'000'000'000}, {"GB", 1'000'000'000}, {"MB", 1'000'000}, {"KB", 1'000}, {"", 1}};
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string unit = upper({end, text.data() + text.size()});
  const auto* found = std::ranges::find(kUnits, unit, &std::pair<std::string_view, uint64_t>::first);
  uint64_t bytes = 0;
  if (error != std::errc() || found == std::end(kUnits) || number == 0 ||
      __builtin_mul_overflow(number, found->second, &bytes))
    throw Error(Exit::usage,
                {.what = "--max-shard-size is no size", .got = "'" + text + "'", .expected = "such as 500MB"});
  return bytes;
}

Json file_rows(const std::vector<fs::path>& files) {
  Json rows = Json::array();
  for (const fs::path& file : files)
    rows.push_back({{"name", file.filename().string()}, {"bytes", fs::file_size(file)}});
  return rows;
}

/// Null with --no-tokenizer.
std::unique_ptr<text::Tokenizer> open_tokenizer(const Options& o, const fs::path& source) {
  if (o.no_tokenizer) return nullptr;
  return text::load_tokenizer(o.tokenizer.empty() ? source : fs::path(o.tokenizer));
}

Json to_gguf(const Options& o, const fs::path& source, const fs::path& target) {
  if (o.dtype != "auto") idle_option("--dtype", "--type for a .gguf file");
  if (!o.max_shard_size.empty()) idle_option("--max-shard-size", "a folder to write");
  parse_gguf_type(o.type, c10::kFloat);  // before a large model is read
  const auto tokenizer = open_tokenizer(o, source);
  const auto model = models::load_model(source.string(), {.map = true});
  const Json written = write_gguf(*model, {.source = source,
                                           .target = target,
                                           .type = parse_gguf_type(o.type, model->dtype()),
                                           .name = o.name,
                                           .tokenizer = tokenizer.get()});
  Json receipt = {{"format", "gguf"}};
  receipt.update(written);
  receipt["files"] = file_rows({target});
  return receipt;
}

Json folder_receipt(const fs::path& target, const std::vector<io::WrittenFile>& weights, size_t tensors,
                    int64_t parameters, const std::string& dtype) {
  std::vector<fs::path> files;
  uint64_t bytes = 0;
  for (const auto& file : weights) {
    files.push_back(target / file.name);
    bytes += fs::file_size(files.back());
  }
  return {{"format", "safetensors"},  {"dtype", dtype}, {"tensors", tensors},
          {"parameters", parameters}, {"bytes", bytes}, {"files", file_rows(files)}};
}

models::SaveOptions save_options(const Options& o) {
  models::SaveOptions save;
  if (!o.max_shard_size.empty()) save.max_shard_bytes = parse_size(o.max_shard_size);
  return save;
}

Json gguf_to_folder(const Options& o, const fs::path& source, const fs::path& target) {
  const auto save = save_options(o);
  models::LoadOptions load{.map = true};
  if (o.dtype != "auto") load.dtype = parse_dtype(o.dtype);
  const auto tokenizer = open_tokenizer(o, source);
  const auto model = models::load_model(source.string(), load);
  const auto weights = models::save(*model, target, save);
  if (tokenizer) tokenizer->save(target);
  return folder_receipt(target, weights, model->named_parameters().size(), model->num_parameters(),
                        dtype_name(model->dtype()));
}

/// The tensors as they are, whatever the family; only their files and perhaps their type change.
Json folder_to_folder(const Options& o, const fs::path& source, const fs::path& target) {
  const auto save = save_options(o);
  const bool another_type = o.dtype != "auto";
  const c10::ScalarType dtype = another_type ? parse_dtype(o.dtype) : c10::kFloat;
  Json config = io::read_model_config(source);
  const io::WeightFiles files(source);
  io::NamedTensors tensors;
  int64_t parameters = 0;
  for (const auto& [name, entry] : files.tensors()) {
    const at::Tensor stored = io::tensor_view(entry);
    tensors.emplace_back(name, another_type && stored.is_floating_point() ? stored.to(dtype) : stored);
    parameters += stored.numel();
  }
  const auto weights = io::save_weights(target, tensors, save.max_shard_bytes);
  if (another_type) {
    config.erase("torch_dtype");
    config["dtype"] = dtype_name(dtype);
  }
  io::write_json(target / "config.json", config);
  const bool own_tokenizer = o.tokenizer.empty() && !o.no_tokenizer;
  io::copy_companion_files(source, target, own_tokenizer ? io::Companions::all : io::Companions::but_tokenizer);
  if (!o.tokenizer.empty()) text::load_tokenizer(o.tokenizer)->save(target);
  return folder_receipt(target, weights, tensors.size(), parameters, another_type ? dtype_name(dtype) : "as stored");
}

std::string size_text(double bytes) {
  char text[32];
  const bool large = bytes >= 1e9;
  std::snprintf(text, sizeof text, "%.1f %s", bytes / (large ? 1e9 : 1e6), large ? "GB" : "MB");
  return text;
}

void print(const Json& receipt) {
  const std::string type = receipt.contains("type") ? receipt["type"] : receipt["dtype"];
  std::cout << "wrote " << receipt["target"].get<std::string>() << ": " << receipt["tensors"] << " tensors, "
            << receipt["parameters"] << " numbers, " << type << ", " << size_text(receipt["bytes"]) << "\n";
  for (const Json& file : receipt["files"])
    std::cout << "  " << file["name"].get<std::string>() << "  " << size_text(file["bytes"]) << "\n";
  if (!receipt.contains("largest_error")) return;
  const std::string worst = receipt["worst_tensor"];
  char text[128];
  std::snprintf(text, sizeof text, "largest error %.3g, %.3g %% of the largest number in ",
                receipt["largest_error"].get<double>(), 100 * receipt["relative_error"].get<double>());
  std::cout << (worst.empty() ? "every number is exactly the model's" : text + worst) << "\n";
}

int run(const Options& o) {
  setup_runtime(0);
  const fs::path source = io::find_model(o.source), target = o.target;
  const bool from_gguf = !fs::is_directory(source), to_file = io::is_gguf_path(target);
  if (!to_file && o.type != "auto") idle_option("--type", "--dtype for a folder");
  if (!to_file && !o.name.empty()) idle_option("--name", "a .gguf file to write");
  std::error_code ignored;
  if (from_gguf && to_file && fs::equivalent(source, target, ignored))
    throw Error(Exit::usage, {.what = "source and target are the same file", .where = target.string()});
  if (has_files(target) && !o.overwrite)
    throw Error(Exit::usage, {.what = "the target is there already", .where = target.string(), .hint = "--overwrite"});
  Json receipt = to_file     ? to_gguf(o, source, target)
                 : from_gguf ? gguf_to_folder(o, source, target)
                             : folder_to_folder(o, source, target);
  receipt["source"] = source.string();
  receipt["target"] = target.string();
  if (o.common.json)
    std::cout << receipt.dump() << std::endl;
  else
    print(receipt);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Converts a model: Hugging Face folder to GGUF and back, shards to one file and back", "llmtk convert");
  Options options;
  add_options(app, options);
  return run_app(app, options.common, argc, argv, [&] { return run(options); });
}
