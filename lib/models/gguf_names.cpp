#include "models/gguf_names.h"

#include <algorithm>

namespace llmtk::models {
namespace {

using enum GgufLayout;

constexpr GgufName kLlama[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm"},
    {"output", "lm_head"},
    {"blk.#.attn_norm", "model.layers.#.input_layernorm"},
    {"blk.#.attn_q", "model.layers.#.self_attn.q_proj", query_rows},
    {"blk.#.attn_k", "model.layers.#.self_attn.k_proj", key_rows},
    {"blk.#.attn_v", "model.layers.#.self_attn.v_proj"},
    {"blk.#.attn_output", "model.layers.#.self_attn.o_proj"},
    {"blk.#.ffn_norm", "model.layers.#.post_attention_layernorm"},
    {"blk.#.ffn_gate", "model.layers.#.mlp.gate_proj"},
    {"blk.#.ffn_up", "model.layers.#.mlp.up_proj"},
    {"blk.#.ffn_down", "model.layers.#.mlp.down_proj"},
};

constexpr GgufName kQwen[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm"},
    {"output", "lm_head"},
    {"blk.#.attn_norm", "model.layers.#.input_layernorm"},
    {"blk.#.attn_q", "model.layers.#.self_attn.q_proj"},
    {"blk.#.attn_q_norm", "model.layers.#.self_attn.q_norm"},
    {"blk.#.attn_k", "model.layers.#.self_attn.k_proj"},
    {"blk.#.attn_k_norm", "model.layers.#.self_attn.k_norm"},
    {"blk.#.attn_v", "model.layers.#.self_attn.v_proj"},
    {"blk.#.attn_output", "model.layers.#.self_attn.o_proj"},
    {"blk.#.ffn_norm", "model.layers.#.post_attention_layernorm"},
    {"blk.#.ffn_gate", "model.layers.#.mlp.gate_proj"},
    {"blk.#.ffn_up", "model.layers.#.mlp.up_proj"},
    {"blk.#.ffn_down", "model.layers.#.mlp.down_proj"},
};

/// Gemma 2, and 3 with norms of queries and keys.
constexpr GgufName kGemma[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm", plus_one},
    {"output", "lm_head"},
    {"blk.#.attn_norm", "model.layers.#.input_layernorm", plus_one},
    {"blk.#.attn_q", "model.layers.#.self_attn.q_proj"},
    {"blk.#.attn_q_norm", "model.layers.#.self_attn.q_norm", plus_one},
    {"blk.#.attn_k", "model.layers.#.self_attn.k_proj"},
    {"blk.#.attn_k_norm", "model.layers.#.self_attn.k_norm", plus_one},
    {"blk.#.attn_v", "model.layers.#.self_attn.v_proj"},
    {"blk.#.attn_output", "model.layers.#.self_attn.o_proj"},
    {"blk.#.post_attention_norm", "model.layers.#.post_attention_layernorm", plus_one},
    {"blk.#.ffn_norm", "model.layers.#.pre_feedforward_layernorm", plus_one},
    {"blk.#.ffn_gate", "model.layers.#.mlp.gate_proj"},
    {"blk.#.ffn_up", "model.layers.#.mlp.up_proj"},
    {"blk.#.ffn_down", "model.layers.#.mlp.down_proj"},
    {"blk.#.post_ffw_norm", "model.layers.#.post_feedforward_layernorm", plus_one},
};

constexpr GgufName kGpt2[] = {
    {"token_embd", "transformer.wte"},
    {"position_embd", "transformer.wpe"},
    {"output_norm", "transformer.ln_f"},
    {"output", "lm_head"},
    {"blk.#.attn_norm", "transformer.h.#.ln_1"},
    {"blk.#.attn_qkv", "transformer.h.#.attn.c_attn", transposed},
    {"blk.#.attn_output", "transformer.h.#.attn.c_proj", transposed},
    {"blk.#.ffn_norm", "transformer.h.#.ln_2"},
    {"blk.#.ffn_up", "transformer.h.#.mlp.c_fc", transposed},
    {"blk.#.ffn_down", "transformer.h.#.mlp.c_proj", transposed},
};

constexpr GgufArchitecture kArchitectures[] = {
    {"llama", "llama", kLlama}, {"llama", "mistral", kLlama}, {"qwen2", "qwen2", kQwen},
    {"qwen3", "qwen3", kQwen},  {"gemma2", "gemma2", kGemma}, {"gemma3", "gemma3_text", kGemma},
    {"gpt2", "gpt2", kGpt2},
};

/// The number after `before` in `name`, where the rest is `after`.
std::string_view layer_of(std::string_view name, std::string_view before, std::string_view after) {
  if (!name.starts_with(before) || !name.ends_with(after) || name.size() <= before.size() + after.size()) return {};
  const std::string_view number = name.substr(before.size(), name.size() - before.size() - after.size());
  return std::ranges::all_of(number, [](char c) { return c >= '0' && c <= '9'; }) ? number : std::string_view();
}

}  // namespace

std::span<const GgufArchitecture> gguf_architectures() { return kArchitectures; }

const GgufArchitecture* find_gguf_architecture(std::string_view name) {
  const auto* found = std::ranges::find(kArchitectures, name, &GgufArchitecture::name);
  return found == std::end(kArchitectures) ? nullptr : found;
}

const GgufArchitecture* gguf_architecture_of(std::string_view model_type) {
  const auto* found = std::ranges::find(kArchitectures, model_type, &GgufArchitecture::model_type);
  return found == std::end(kArchitectures) ? nullptr : found;
}

GgufPlace gguf_place(const GgufArchitecture& architecture, std::string_view parameter) {
  const size_t dot = parameter.rfind('.');
  const std::string_view module = parameter.substr(0, dot), suffix = parameter.substr(std::min(dot, parameter.size()));
  for (const GgufName& row : architecture.names) {
    const size_t mark = row.hf.find('#');
    if (mark == row.hf.npos) {
      if (row.hf == module) return {std::string(row.gguf) + std::string(suffix), row.layout};
      continue;
    }
    const std::string_view layer = layer_of(module, row.hf.substr(0, mark), row.hf.substr(mark + 1));
    if (layer.empty()) continue;
    std::string name(row.gguf);
    name.replace(name.find('#'), 1, layer);
    return {name + std::string(suffix), row.layout};
  }
  return {};
}

}  // namespace llmtk::models
