#pragma once
// LoRA (Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021) and DoRA (Liu et al., DoRA:
// Weight-Decomposed Low-Rank Adaptation, 2024) as branches of a layer, as peft's lora.Linear and lora.Embedding.
//
// Shapes: r rank, I in_features (of a table: its rows), O out_features (its width).

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "nn/linear.h"

namespace llmtk::peft {

/// A layer's matrix W [O, I] as DoRA looks at it.
struct BaseMatrix {
  const void* key;                                         ///< changes when the matrix does
  std::function<at::Tensor()> weight;                      ///< [O, I]
  std::function<at::Tensor(const at::Tensor& x)> product;  ///< x [r, I] -> x W^T
};

/// What one adapter adds to one layer: scaling * B A, and with DoRA each row of W + scaling * B A stretched to the
/// length `magnitude`. float32 whatever the layer's type, as peft has it (autocast_adapter_dtype): the matrices are
/// small and their updates smaller than bfloat16 resolves.
class Lora : public torch::nn::Module {
 public:
  struct Options {
    int64_t in, out, rank;
    double scaling, dropout = 0;
    bool dora = false;
    c10::Device device = c10::kCPU;
  };
  explicit Lora(const Options& options);

  /// scaling * B A, [O, I], differentiable.
  at::Tensor update() const;
  /// What this adapter adds to a matrix [O, I]: update(), or with DoRA m (W + update()) - W, m as in stretch().
  /// Differentiable in A, B and magnitude; the length is a constant, as section 4.3 of the paper proposes.
  at::Tensor delta(const at::Tensor& base_weight) const;
  /// magnitude / |W + scaling * B A|, row by row: [O].
  at::Tensor stretch(const BaseMatrix& base) const;

  /// DoRA's start: magnitude = |W + scaling * B A|.
  void reset_magnitude(const BaseMatrix& base);
  /// To be called when A, B or the layer's matrix got other values: what was computed of them is forgotten.
  void values_changed();

  const Options& options() const { return options_; }
  bool is_dora() const { return options_.dora; }
  /// PiSSA: A and B of the start, whose product was taken out of the base's matrix.
  void keep_start();
  bool has_start() const { return start_A.defined(); }

  at::Tensor A;                 ///< [r, I]
  at::Tensor B;                 ///< [O, r]
  at::Tensor magnitude;         ///< [O]; DoRA alone
  at::Tensor start_A, start_B;  ///< PiSSA alone; never trained
  double weight = 1;            ///< with which the adapter counts; 0: not at all

 private:
  at::Tensor row_lengths(const BaseMatrix& base) const;

  Options options_;
  mutable at::Tensor base_squares_, lengths_;  // |W|^2 of each row; lengths where nothing is trained
  mutable const void* squares_of_ = nullptr;
};

/// The adapters of one layer, each a child under its name. Their deltas add up.
class Adapters {
 public:
  const std::vector<std::pair<std::string, std::shared_ptr<Lora>>>& all() const { return all_; }
  std::shared_ptr<Lora> find(const std::string& name) const;

 protected:
  /// The one that counts, where it is one and wholly; else null.
  const Lora* only() const;

  std::vector<std::pair<std::string, std::shared_ptr<Lora>>> all_;
};

/// How DoRA looks at a layer's matrix; the layer outlives it.
BaseMatrix base_matrix(const nn::Linear& layer);
BaseMatrix base_matrix(const nn::Embedding& table);

class LoraLinear : public nn::LinearBranch, public Adapters {
 public:
  void add(const std::string& name, std::shared_ptr<Lora> lora);
  at::Tensor forward(const nn::Linear& layer, const at::Tensor& x) override;
  at::Tensor weight_delta(const nn::Linear& layer) const override;
};

class LoraEmbedding : public nn::EmbeddingBranch, public Adapters {
 public:
  void add(const std::string& name, std::shared_ptr<Lora> lora);
  at::Tensor forward(const nn::Embedding& table, const at::Tensor& ids) override;
  at::Tensor weight_delta(const nn::Embedding& table) const override;
};

}  // namespace llmtk::peft
