#pragma once
// The one linear layer through which every matrix product with a weight passes, and the token table.

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace llmtk::nn {

class Linear;

/// Where and in which type a module's parameters are made. They are made empty: initialize() or loading fills them.
struct Build {
  c10::ScalarType dtype = c10::kFloat;
  c10::Device device = c10::kCPU;
  /// Keys of the model's config that the user typed, each with its place: one that the family doesn't know is an error,
  /// not a warning.
  const std::map<std::string, std::string>* typed_keys = nullptr;
  bool lm_head = true;  ///< false: a language model's head gets no matrix of its own, as another head takes its place

  at::Tensor empty(at::IntArrayRef shape) const;
};

/// What LoRA and its kin add to a product. A module of its own, so that its parameters are named, trained and saved.
class LinearBranch : public torch::nn::Module {
 public:
  /// x: [..., in]. Returns the layer's output, [..., out]; layer.base(x) is what it would be without the branch.
  virtual at::Tensor forward(const Linear& layer, const at::Tensor& x) = 0;
  /// What the branch adds to the weight, [out, in] (for merging, and for operations that fuse with the weight).
  virtual at::Tensor weight_delta(const Linear& layer) const = 0;
};

class Embedding;

/// The same for a token table.
class EmbeddingBranch : public torch::nn::Module {
 public:
  /// ids: int64 [...]. Returns the table's output, [..., width]; table.base(ids) is what it would be without the
  /// branch.
  virtual at::Tensor forward(const Embedding& table, const at::Tensor& ids) = 0;
  /// What the branch adds to the table, [rows, width].
  virtual at::Tensor weight_delta(const Embedding& table) const = 0;
};

/// What quantization keeps instead of a matrix.
class WeightStorage {
 public:
  virtual ~WeightStorage() = default;
  /// x: [..., in] -> [..., out], differentiable in x. bias: [out] or undefined.
  virtual at::Tensor linear(const at::Tensor& x, const at::Tensor& bias) const = 0;
  /// The matrix in full, [out, in].
  virtual at::Tensor dequantize(c10::ScalarType dtype) const = 0;
  /// Some of its rows, for a token table. ids: int64 [...] -> [..., in].
  virtual at::Tensor rows(const at::Tensor& ids, c10::ScalarType dtype) const;
  virtual int64_t bytes() const = 0;
};

/// y = x W^T + b. As torch.nn.Linear, or with the weight lying [in, out] as HF's Conv1D has it (GPT-2).
class Linear : public torch::nn::Module {
 public:
  struct Options {
    bool bias = true;
    bool conv1d = false;  ///< the weight lies [in, out]
  };
  Linear(int64_t in_features, int64_t out_features, Options options, const Build& build);
  /// A head tied to a table: uses `weight` ([out, in]) without owning it, so it is saved and trained once.
  static std::shared_ptr<Linear> tied(const at::Tensor& weight);
  /// A language model's head over its token table [V, H]: tied to it, or a matrix of its own of that shape, no bias.
  static std::shared_ptr<Linear> head(const at::Tensor& table, bool is_tied, const Build& build);

  at::Tensor forward(const at::Tensor& x);        ///< [..., in] -> [..., out]
  at::Tensor base(const at::Tensor& x) const;     ///< the same without the branch
  at::Tensor product(const at::Tensor& x) const;  ///< the same without branch and bias
  /// The matrix that forward multiplies with, [out, in], branch included: for operations that fuse with it. A view of
  /// the parameter where there is nothing to add. unpacked: what a storage is unpacked to.
  at::Tensor effective_weight(c10::ScalarType unpacked = c10::kFloat) const;
  /// The matrix without the branch, [out, in]: a view of the parameter, or what the storage holds.
  at::Tensor base_weight(c10::ScalarType unpacked = c10::kFloat) const;
  /// Whether the matrix is another module's (Linear::tied).
  bool is_tied() const;
  /// Gives a tied layer a copy of the matrix as a parameter of its own.
  void untie();
  /// Whether effective_weight() is the parameter itself.
  bool is_plain() const { return !storage_ && !branch_; }

  /// At most one branch; registered under `name`. Null removes it.
  void set_branch(const std::string& name, std::shared_ptr<LinearBranch> branch);
  const std::shared_ptr<LinearBranch>& branch() const { return branch_; }
  /// From now on the storage is multiplied with, and the parameter `weight` is gone.
  void set_storage(std::shared_ptr<const WeightStorage> storage);
  const std::shared_ptr<const WeightStorage>& storage() const { return storage_; }

  int64_t in_features() const { return in_; }
  int64_t out_features() const { return out_; }
  bool is_conv1d() const { return conv1d_; }

  at::Tensor weight;  ///< [out, in], or [in, out] with conv1d; undefined with a storage
  at::Tensor bias;    ///< [out] or undefined

 private:
  Linear() = default;
  int64_t in_ = 0, out_ = 0;
  bool conv1d_ = false;
  std::string branch_name_;
  std::shared_ptr<LinearBranch> branch_;
  std::shared_ptr<const WeightStorage> storage_;
};

/// A table of vectors, as torch.nn.Embedding.
class Embedding : public torch::nn::Module {
 public:
  /// padding_idx: the row that gets no gradient from looking it up; -1: none.
  Embedding(int64_t rows, int64_t width, const Build& build, int64_t padding_idx = -1);
  at::Tensor forward(const at::Tensor& ids) const;  ///< int64 [...] -> [..., width]
  at::Tensor base(const at::Tensor& ids) const;     ///< the same without the branch

  /// As Linear::set_branch.
  void set_branch(const std::string& name, std::shared_ptr<EmbeddingBranch> branch);
  const std::shared_ptr<EmbeddingBranch>& branch() const { return branch_; }
  int64_t padding_idx() const { return padding_idx_; }
  /// As Linear::set_storage: only the rows that are looked up are unpacked, to the dtype that `weight` had. A head that is
  /// tied to the table has to be given the same storage (nn::set_storage).
  void set_storage(std::shared_ptr<const WeightStorage> storage);
  const std::shared_ptr<const WeightStorage>& storage() const { return storage_; }
  int64_t rows() const { return rows_; }
  int64_t width() const { return width_; }

  at::Tensor weight;  ///< [rows, width]; undefined with a storage

 private:
  int64_t rows_, width_, padding_idx_;
  c10::ScalarType dtype_ = c10::kFloat;  // of what a storage's rows become
  std::string branch_name_;
  std::shared_ptr<EmbeddingBranch> branch_;
  std::shared_ptr<const WeightStorage> storage_;
};

/// The shape, [out, in], that a storage of the module has; nullopt where it is no Linear and no Embedding.
std::optional<std::pair<int64_t, int64_t>> storage_shape(const torch::nn::Module& module);
/// Linear::set_storage or Embedding::set_storage of a module of `root`; of a table also of the heads tied to it.
void set_storage(torch::nn::Module& root, torch::nn::Module& module,
                 const std::shared_ptr<const WeightStorage>& storage);

/// A list of modules named 0, 1, 2, ... as torch.nn.ModuleList names them.
template <class Block>
class Layers : public torch::nn::Module {
 public:
  void append(std::shared_ptr<Block> block) {
    register_module(std::to_string(blocks_.size()), block);
    blocks_.push_back(std::move(block));
  }
  auto begin() const { return blocks_.begin(); }
  auto end() const { return blocks_.end(); }
  size_t size() const { return blocks_.size(); }
  const std::shared_ptr<Block>& operator[](size_t i) const { return blocks_[i]; }

 private:
  std::vector<std::shared_ptr<Block>> blocks_;
};

}  // namespace llmtk::nn
