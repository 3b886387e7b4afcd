#include "peft/bottleneck_sites.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "peft/modules.h"

namespace llmtk::peft {
namespace {

struct KnownSite {
  std::string_view end;  ///< of the matrix's path
  bool attention;
  size_t keep;               ///< how much of `end` belongs to the place
  std::string_view hub_end;  ///< what stands in place of the rest
};

/// BERT's places are modules of their own, T5's too; others have two in each layer. The first that fits counts.
constexpr KnownSite kSites[] = {
    {".attention.output.dense", true, 17, ""},                // BERT, RoBERTa
    {".output.dense", false, 7, ""},                          // the same
    {".SelfAttention.o", true, 0, ""},                        // T5
    {".DenseReluDense.wo", false, 0, ""},                     // the same
    {".attn.c_proj", true, 0, ".attention_adapters"},         // GPT, GPT-2
    {".mlp.c_proj", false, 0, ".output_adapters"},            // the same
    {".self_attn.o_proj", true, 0, ".attention_adapters"},    // Llama and its kin, Gemma
    {".mlp.down_proj", false, 0, ".output_adapters"},         // the same
    {".attention.dense", true, 0, ".attention_adapters"},     // GPT-NeoX
    {".mlp.dense_4h_to_h", false, 0, ".output_adapters"},     // the same
    {".self_attn.out_proj", true, 0, ".attention_adapters"},  // OPT
    {".fc2", false, 0, ".output_adapters"},                   // the same
};

/// The first number among the parts of a path; -1 where there is none.
int64_t first_number(std::string_view path) {
  for (size_t at = 0; at != std::string_view::npos;) {
    const std::string_view part = path.substr(at == 0 ? 0 : at + 1);
    int64_t number = 0;
    const size_t length = std::min(part.find('.'), part.size());
    const auto [end, error] = std::from_chars(part.data(), part.data() + length, number);
    if (error == std::errc() && end == part.data() + length) return number;
    at = path.find('.', at + 1);
  }
  return -1;
}

}  // namespace

std::vector<BottleneckSite> bottleneck_sites(const nn::Model& model, bool attention) {
  std::vector<BottleneckSite> sites;
  for (const auto& [path, module] : base_modules(model)) {
    const auto layer = std::dynamic_pointer_cast<nn::Linear>(module);
    if (!layer) continue;
    const auto* known = std::ranges::find_if(kSites, [&](const KnownSite& site) { return path.ends_with(site.end); });
    int64_t number = first_number(path);
    if (known == std::end(kSites) || number < 0 || (known->attention && !attention)) continue;
    if (path.starts_with("decoder.block.") || path.starts_with("transformer.decoder.block."))
      number += model.num_layers();
    const std::string kept = path.substr(0, path.size() - known->end.size() + known->keep);
    sites.push_back({path, kept + std::string(known->hub_end), number, layer});
  }
  if (sites.empty())
    throw Error(Exit::usage, {.what = "it is not known where adapters stand in this family",
                              .where = "adapter",
                              .got = model.config().value("model_type", "")});
  return sites;
}

}  // namespace llmtk::peft
