#pragma once
// A decoder's step: one new token in every row, or a few.

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "kernels/cuda_graph.h"
#include "kernels/plan.h"
#include "nn/causal_model.h"
#include "nn/kv_cache.h"
#include "text/tokenizer.h"

namespace llmtk::generate {

/// Takes steps with a model and a cache. What a step of a shape computes is recorded the second time and repeated from
/// then on (kernels/plan.h, kernels/cuda_graph.h), as long as the cache lies where it lay; where a model computes
/// something that cannot be recorded, every step is a pass of its own.
class Stepper {
 public:
  explicit Stepper(nn::CausalModel& model);

  /// From now on with this cache.
  void begin(nn::KVCache& cache);

  /// ids: [rows * T], row by row, of as many rows as the cache has. Returns the logits behind each, float32
  /// [rows, T, V], which the next step overwrites. The cache holds T tokens more.
  at::Tensor step(const std::vector<text::TokenId>& ids, int64_t tokens);
  /// With one token per row: [rows, V].
  at::Tensor step(const std::vector<text::TokenId>& ids);

  /// The operation because of which steps cannot be repeated from a recording; empty: none so far.
  const std::string& refused_by() const { return refused_by_; }

 private:
  struct Shape {
    at::Tensor ids;                           // [rows, T] int64, where the plan reads them
    at::Tensor logits;                        // [rows, T, V]
    std::optional<kernels::Plan> plan;        // on a CPU
    std::optional<kernels::CudaGraph> graph;  // on a GPU
    bool warm = false;
  };
  at::Tensor pass(const at::Tensor& ids);
  void put_ids(Shape& shape, const std::vector<text::TokenId>& ids, int64_t rows, int64_t tokens);
  void record(Shape& shape);
  void capture(Shape& shape);
  void refuse(const std::string& because);

  nn::CausalModel& model_;
  c10::Device device_;
  nn::KVCache* cache_ = nullptr;
  int64_t epoch_ = -1;
  std::map<int64_t, Shape> shapes_;  // by T
  std::string refused_by_;
};

}  // namespace llmtk::generate
