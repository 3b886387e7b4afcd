// llmtk inspect params: every tensor with its shape and size, from a folder's weights or from a config alone.

#include <algorithm>
#include <iostream>
#include <map>

#include "core/device.h"
#include "core/error.h"
#include "inspect/inspect.h"
#include "inspect/table.h"
#include "io/gguf.h"
#include "io/model_folder.h"
#include "models/registry.h"

namespace llmtk {
namespace {

struct Parameter {
  std::string name, dtype;
  std::vector<int64_t> shape;
  int64_t count = 0, bytes = 0;
};

struct Found {
  std::string source;      // what was read
  std::string model_type;  // empty where no config says it
  std::vector<Parameter> parameters;
  std::vector<std::string> buffers;  // in the files, no parameters: masks, rotary frequencies
};

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

Found from_weights(const fs::path& path, const std::string& model_type) {
  const io::WeightFiles weights(path);
  Found found{.model_type = model_type};
  for (const auto& [name, entry] : weights.tensors()) {
    if (models::is_buffer(model_type, name)) {
      found.buffers.push_back(name);
      continue;
    }
    const int64_t count = entry.tensor->count();
    found.parameters.push_back({.name = name,
                                .dtype = dtype_name(io::to_scalar_type(entry.tensor->dtype)),
                                .shape = entry.tensor->shape,
                                .count = count,
                                .bytes = count * static_cast<int64_t>(io::dtype_size(entry.tensor->dtype))});
  }
  found.source = weights.files().size() == 1 ? weights.files()[0]->path().string()
                                             : std::to_string(weights.files().size()) + " files in " + path.string();
  return found;
}

/// With the names and types that the file has.
Found from_gguf(const fs::path& path) {
  const io::GgufFile file(path);
  Found found{.source = path.string(), .model_type = file.string("general.architecture")};
  for (const io::GgufTensor& tensor : file.tensors())
    found.parameters.push_back({.name = tensor.name,
                                .dtype = std::string(io::gguf_type_name(tensor.type)),
                                .shape = tensor.shape,
                                .count = tensor.count(),
                                .bytes = static_cast<int64_t>(tensor.end - tensor.begin)});
  return found;
}

/// On the meta device: shapes without memory.
Found from_config(const io::Json& config, const std::string& where) {
  auto dtype = c10::kFloat;
  for (const char* key : {"dtype", "torch_dtype"})
    if (const auto it = config.find(key); it != config.end() && it->is_string())
      dtype = parse_dtype(it->get<std::string>());
  const auto model = models::make_model(config, where, {dtype, c10::kMeta});
  Found found{.source = where, .model_type = model->config()["model_type"]};
  for (const auto& item : model->named_parameters()) {
    const at::Tensor& tensor = item.value();
    found.parameters.push_back({.name = item.key(),
                                .dtype = dtype_name(tensor.scalar_type()),
                                .shape = tensor.sizes().vec(),
                                .count = tensor.numel(),
                                .bytes = tensor.numel() * static_cast<int64_t>(tensor.element_size())});
  }
  return found;
}

Found read(const std::string& path) {
  if (path.ends_with(".safetensors")) return from_weights(path, "");
  if (io::is_gguf_path(path)) return from_gguf(path);
  if (path.ends_with(".json")) return from_config(io::read_json(path), path);
  fs::path folder;
  try {
    folder = io::find_model(path);
  } catch (const Error&) {
    const auto names = models::preset_names();
    if (std::ranges::find(names, path) == names.end()) throw;
    return from_config(models::preset(path), "the shape named " + path);
  }
  const std::string where = (folder / "config.json").string();
  const bool has_weights = fs::exists(folder / io::kWeightsFile) || fs::exists(folder / io::kWeightsIndex);
  if (!has_weights) return from_config(io::read_model_config(folder), where);
  // The tensors stand in the files whatever the config says, or whether there is one.
  const io::Json config = fs::exists(where) ? io::read_json(where) : io::Json::object();
  return from_weights(folder, io::ObjectReader(config, where).string_or("model_type", ""));
}

/// "transformer.h.3.attn.bias" -> "transformer.h.*.attn.bias"; the first number only.
std::string without_layer(const std::string& name) {
  size_t begin = 0;
  while (begin < name.size()) {
    const size_t end = std::min(name.find('.', begin), name.size());
    const auto part = name.substr(begin, end - begin);
    if (!part.empty() && part.find_first_not_of("0123456789") == std::string::npos)
      return name.substr(0, begin) + "*" + name.substr(end);
    begin = end + 1;
  }
  return name;
}

struct Group {
  Parameter first;
  int64_t times = 0, count = 0, bytes = 0;
};

/// Tensors that differ only in their layer stand in one line.
std::vector<Group> grouped(const std::vector<Parameter>& parameters, bool all) {
  std::vector<Group> groups;
  std::map<std::string, size_t> places;
  for (const Parameter& parameter : parameters) {
    Parameter shown = parameter;
    if (!all) shown.name = without_layer(parameter.name);
    const auto key = all ? shown.name : shown.name + shape_text(shown.shape) + shown.dtype;
    const auto [place, fresh] = places.emplace(key, groups.size());
    if (fresh) groups.push_back({.first = std::move(shown)});
    Group& group = groups[place->second];
    ++group.times;
    group.count += parameter.count;
    group.bytes += parameter.bytes;
  }
  return groups;
}

int run(const std::string& path, bool all, bool json) {
  const Found found = read(path);
  int64_t total = 0, bytes = 0;
  for (const Parameter& p : found.parameters) total += p.count, bytes += p.bytes;
  if (json) {
    Json list = Json::array();
    for (const Parameter& p : found.parameters)
      list.push_back(
          {{"name", p.name}, {"shape", p.shape}, {"dtype", p.dtype}, {"parameters", p.count}, {"bytes", p.bytes}});
    print_json({{"source", found.source},
                {"model_type", found.model_type},
                {"parameters", total},
                {"bytes", bytes},
                {"tensors", std::move(list)},
                {"buffers", found.buffers}});
    return 0;
  }
  Table table({"tensor", "shape", "dtype", "times", "parameters", "share"}, {3, 4, 5});
  for (const Group& group : grouped(found.parameters, all))
    table.add({group.first.name, shape_text(group.first.shape), group.first.dtype, std::to_string(group.times),
               with_commas(group.count),
               fixed(total > 0 ? 100.0 * static_cast<double>(group.count) / static_cast<double>(total) : 0, 1) + "%"});
  table.print();
  std::cout << '\n'
            << (found.model_type.empty() ? "" : found.model_type + ", ") << with_commas(total) << " parameters in "
            << found.parameters.size() << " tensors, " << readable_bytes(static_cast<double>(bytes)) << "; from "
            << found.source << '\n';
  if (!found.buffers.empty())
    std::cout << "buffers in the files, not counted: " << found.buffers.size() << " (" << found.buffers.front()
              << (found.buffers.size() > 1 ? ", ...)" : ")") << '\n';
  return 0;
}

}  // namespace

void add_params_command(CLI::App& app, InspectContext& context) {
  struct Options {
    std::string path;
    bool all = false;
  };
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("params", "Every tensor: shape, type, number of parameters");
  command
      ->add_option(
          "model", options->path,
          "Model folder, name in the local Hugging Face cache, config.json, .safetensors or .gguf file, or the name of "
          "a shape such as gpt2-medium")
      ->required();
  command->add_flag("--all", options->all, "One line per tensor; otherwise the layers stand in one line");
  command->footer(
      "Examples:\n  llmtk inspect params runs/poems\n  llmtk inspect params config.json --all\n"
      "  llmtk inspect params gpt2-xl --json");
  command->callback([&context, options, command] {
    context.run = [&context, options, command] {
      if (context.common.json) refuse_idle(*command, {"--all"}, "with --json, which lists every tensor");
      return run(options->path, options->all, context.common.json);
    };
  });
}

}  // namespace llmtk
