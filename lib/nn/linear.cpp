#include "nn/linear.h"

#include <ATen/ops/empty.h>

#include "core/error.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"

namespace llmtk::nn {

namespace {

/// Null removes the one there was; a branch comes in the module's mode.
template <class Branch>
void replace_branch(torch::nn::Module& layer, std::string& old_name, std::shared_ptr<Branch>& old,
                    const std::string& name, std::shared_ptr<Branch> branch) {
  if (old) layer.unregister_module(old_name);
  old_name = name;
  old = std::move(branch);
  if (!old) return;
  layer.register_module(name, old);
  old->train(layer.is_training());
}

}  // namespace

at::Tensor Build::empty(at::IntArrayRef shape) const {
  return at::empty(shape, at::TensorOptions().dtype(dtype).device(device));
}

Linear::Linear(int64_t in_features, int64_t out_features, Options options, const Build& build)
    : in_(in_features), out_(out_features), conv1d_(options.conv1d) {
  weight = register_parameter("weight", conv1d_ ? build.empty({in_, out_}) : build.empty({out_, in_}));
  if (options.bias) bias = register_parameter("bias", build.empty({out_}));
}

std::shared_ptr<Linear> Linear::tied(const at::Tensor& weight) {
  std::shared_ptr<Linear> layer(new Linear());
  layer->out_ = weight.size(0);
  layer->in_ = weight.size(1);
  layer->weight = weight;
  return layer;
}

std::shared_ptr<Linear> Linear::head(const at::Tensor& table, bool is_tied, const Build& build) {
  if (is_tied || !build.lm_head) return tied(table);
  return std::make_shared<Linear>(table.size(1), table.size(0), Options{.bias = false}, build);
}

at::Tensor Linear::forward(const at::Tensor& x) { return branch_ ? branch_->forward(*this, x) : base(x); }

at::Tensor Linear::base(const at::Tensor& x) const {
  return storage_ ? storage_->linear(x, bias) : kernels::linear(x, base_weight(), bias);
}

at::Tensor Linear::product(const at::Tensor& x) const {
  return storage_ ? storage_->linear(x, {}) : kernels::linear(x, base_weight());
}

at::Tensor Linear::base_weight(c10::ScalarType unpacked) const {
  return storage_ ? storage_->dequantize(unpacked) : conv1d_ ? weight.t() : weight;
}

at::Tensor Linear::effective_weight(c10::ScalarType unpacked) const {
  const at::Tensor base = base_weight(unpacked);
  return branch_ ? (base + branch_->weight_delta(*this)).to(base.scalar_type()) : base;
}

bool Linear::is_tied() const { return !storage_ && !named_parameters(/*recurse=*/false).contains("weight"); }

void Linear::untie() {
  LLMTK_CHECK(is_tied(), "this layer has a matrix of its own");
  weight = register_parameter("weight", weight.detach().clone(), weight.requires_grad());
}

void Linear::set_branch(const std::string& name, std::shared_ptr<LinearBranch> branch) {
  replace_branch(*this, branch_name_, branch_, name, std::move(branch));
}

void Linear::set_storage(std::shared_ptr<const WeightStorage> storage) {
  LLMTK_CHECK(storage, "no storage");
  storage_ = std::move(storage);
  if (named_parameters(false).contains("weight")) parameters_.erase("weight");
  weight.reset();
}

at::Tensor WeightStorage::rows(const at::Tensor& ids, c10::ScalarType dtype) const {
  return at::embedding(dequantize(dtype), ids);
}

Embedding::Embedding(int64_t rows, int64_t width, const Build& build, int64_t padding_idx)
    : rows_(rows), width_(width), padding_idx_(padding_idx) {
  weight = register_parameter("weight", build.empty({rows, width}));
}

at::Tensor Embedding::forward(const at::Tensor& ids) const {
  return branch_ ? branch_->forward(*this, ids) : base(ids);
}

at::Tensor Embedding::base(const at::Tensor& ids) const {
  if (storage_) return storage_->rows(ids, dtype_);
  if (weight.is_meta()) {  // LibTorch looks nothing up there without Python
    std::vector<int64_t> shape = ids.sizes().vec();
    shape.push_back(width_);
    return at::empty(shape, weight.options());
  }
  return kernels::lookup(weight, ids, padding_idx_);
}

void Embedding::set_storage(std::shared_ptr<const WeightStorage> storage) {
  LLMTK_CHECK(storage, "no storage");
  if (weight.defined()) dtype_ = weight.scalar_type();
  storage_ = std::move(storage);
  if (named_parameters(false).contains("weight")) parameters_.erase("weight");
  weight.reset();
}

void Embedding::set_branch(const std::string& name, std::shared_ptr<EmbeddingBranch> branch) {
  replace_branch(*this, branch_name_, branch_, name, std::move(branch));
}

std::optional<std::pair<int64_t, int64_t>> storage_shape(const torch::nn::Module& module) {
  if (const auto* layer = dynamic_cast<const Linear*>(&module))
    return std::pair(layer->out_features(), layer->in_features());
  if (const auto* table = dynamic_cast<const Embedding*>(&module)) return std::pair(table->rows(), table->width());
  return std::nullopt;
}

void set_storage(torch::nn::Module& root, torch::nn::Module& module,
                 const std::shared_ptr<const WeightStorage>& storage) {
  if (auto* layer = dynamic_cast<Linear*>(&module)) return layer->set_storage(storage);
  auto& table = dynamic_cast<Embedding&>(module);
  for (const auto& item : root.modules())
    if (auto* head = dynamic_cast<Linear*>(item.get()); head && table.weight.defined() && head->weight.is_same(table.weight))
      head->set_storage(storage);
  table.set_storage(storage);
}

}  // namespace llmtk::nn
