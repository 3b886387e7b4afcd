#include "quant/quantize_linears.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <regex>

#include "core/error.h"
#include "nn/linear.h"
#include "quant/packed_weight.h"

namespace llmtk::quant {
namespace {

/// Heads by the names that Hugging Face's classes give them.
constexpr const char* kHeads[] = {"lm_head", "embed_out", "score", "classifier", "qa_outputs", "cls"};

std::vector<std::string> default_skips(const nn::Model& model) {
  std::vector<std::string> names(std::begin(kHeads), std::end(kHeads));
  if (model.config().value("model_type", "") == "t5") names.emplace_back("wo");  // T5's _keep_in_fp32_modules
  return names;
}

/// A layer to skip, as transformers decides it (quantizers_utils.should_convert_module).
struct Skip {
  explicit Skip(const std::string& name) : name(name) {
    try {
      beginning = std::regex(name, std::regex::ECMAScript);
    } catch (const std::regex_error& error) {
      throw Error(Exit::usage,
                  {.what = "quantization.llm_int8_skip_modules has a regular expression that cannot be read",
                   .got = "'" + name + "'",
                   .expected = error.what()});
    }
  }
  bool means(const std::string& path) const {
    return path.ends_with(name) || std::regex_search(path, beginning, std::regex_constants::match_continuous);
  }

  std::string name;
  std::regex beginning;
  bool used = false;
};

bool is_skipped(std::vector<Skip>& skips, const std::string& path) {
  bool skipped = false;
  for (Skip& skip : skips)
    if (skip.means(path)) skipped = skip.used = true;
  return skipped;
}

bool owns_weight(const nn::Linear& layer) { return layer.named_parameters(/*recurse=*/false).contains("weight"); }

void quantize_layer(nn::Linear& layer, const std::string& path, const QuantizationConfig& config, c10::Device device,
                    QuantizationReport& report) {
  const at::Tensor weight = (layer.is_conv1d() ? layer.weight.t() : layer.weight).detach();
  try {
    auto matrix = kernels::quantize(weight, config.type(), config.bnb_4bit_use_double_quant);
    const auto storage = std::make_shared<PackedWeight>(matrix.to(device), config.compute_dtype());
    ++report.matrices;
    report.weights += weight.numel();
    report.bytes_before += static_cast<int64_t>(weight.nbytes());
    report.bytes_after += storage->bytes();
    layer.set_storage(storage);
  } catch (const Error& error) {
    throw Error(error.exit(), {.what = error.parts().what, .where = path + ".weight"});
  }
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

}  // namespace

std::string QuantizationReport::text() const {
  char line[160];
  std::snprintf(line, sizeof(line),
                "%lld matrices quantized, %.1f million weights: %.1f MB became %.1f MB (%.2f bits per weight)",
                static_cast<long long>(matrices), static_cast<double>(weights) / 1e6,
                static_cast<double>(bytes_before) / 1e6, static_cast<double>(bytes_after) / 1e6,
                8.0 * static_cast<double>(bytes_after) / static_cast<double>(weights));
  return line;
}

QuantizationReport quantize_linears(nn::Model& model, const QuantizationConfig& config, c10::Device device) {
  LLMTK_CHECK(config.enabled(), "neither load_in_4bit nor load_in_8bit");
  const at::NoGradGuard no_grad;
  std::vector<Skip> skips;
  for (const std::string& name : config.llm_int8_skip_modules.value_or(default_skips(model))) skips.emplace_back(name);
  std::vector<std::pair<std::string, nn::Linear*>> chosen;
  std::vector<std::string> paths;
  QuantizationReport report;
  for (const auto& item : model.named_modules()) {
    auto* layer = dynamic_cast<nn::Linear*>(item.value().get());
    if (!layer) continue;
    LLMTK_CHECK(!layer->storage(), item.key(), " is quantized already");
    paths.push_back(item.key());
    if (is_skipped(skips, item.key()) || !owns_weight(*layer))
      report.skipped.push_back(item.key());
    else
      chosen.emplace_back(item.key(), layer);
  }
  const auto unused = std::ranges::find(skips, false, &Skip::used);
  if (config.llm_int8_skip_modules && unused != skips.end())
    throw Error(Exit::usage, {.what = "quantization.llm_int8_skip_modules names a module that is no linear layer",
                              .got = "'" + unused->name + "'",
                              .expected = joined(paths)});
  if (chosen.empty())
    throw Error(Exit::usage, {.what = "quantization.llm_int8_skip_modules leaves no linear layer to quantize"});
  for (const auto& [path, layer] : chosen) quantize_layer(*layer, path, config, device, report);
  return report;
}

void own_parameters(nn::Model& model, c10::ScalarType dtype, c10::Device device) {
  const at::NoGradGuard no_grad;
  const auto own = [&](at::Tensor t) {
    const auto type = t.is_floating_point() ? dtype : t.scalar_type();
    t.set_data(at::empty(t.sizes(), t.options().dtype(type).device(device)).copy_(t));
  };
  for (const at::Tensor& parameter : model.parameters()) own(parameter);
  for (const at::Tensor& buffer : model.buffers()) own(buffer);
}

}  // namespace llmtk::quant
