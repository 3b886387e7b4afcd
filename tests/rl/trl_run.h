#pragma once
// What a trainer of TRL made of fixed responses: the folder that ppo_reference.py or grpo_reference.py leaves.

#include <ATen/ATen.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "io/tensors.h"
#include "models/registry.h"
#include "rl/rewards.h"

namespace llmtk {

/// LLMTK_REFERENCE, where such a run lies there; else empty.
inline std::filesystem::path trl_folder() {
  const char* folder = std::getenv("LLMTK_REFERENCE");
  return folder && std::filesystem::exists(std::filesystem::path(folder) / "figures.json") ? folder : "";
}

struct TrlRun {
  explicit TrlRun(const std::filesystem::path& folder) : folder(folder) {
    for (const auto& [name, tensor] : io::load_tensors(folder / "trl.safetensors")) all[name] = tensor.clone();
    std::ifstream(folder / "figures.json") >> figures;
    for (int64_t i = 0; i < all["lengths"].size(0); ++i) {
      const auto ids = [&](const char* name, const char* length) {
        const at::Tensor row = all[name][i].narrow(0, 0, all[length][i].item<int64_t>()).to(at::kInt).contiguous();
        return std::vector<text::TokenId>(row.data_ptr<int32_t>(), row.data_ptr<int32_t>() + row.numel());
      };
      constexpr text::TokenId kEos = 35;
      prompts.push_back({.ids = ids("prompts", "prompt_lengths"), .where = "row " + std::to_string(i)});
      responses.push_back({.ids = ids("responses", "lengths")});
      responses.back().ended = responses.back().ids.back() == kEos;
    }
    for (size_t i = 0; i < prompts.size(); ++i) responses[i].prompt = &prompts[i];
  }
  /// One of the models that it began with.
  template <class M>
  std::shared_ptr<M> model(const char* name) const {
    return std::dynamic_pointer_cast<M>(models::load_model((folder / name).string(), {.dtype = at::kFloat}));
  }

  std::filesystem::path folder;
  std::map<std::string, at::Tensor> all;
  nlohmann::ordered_json figures;  ///< figures.json
  std::vector<rl::Prompt> prompts;
  std::vector<rl::Response> responses;
};

}  // namespace llmtk
