#include "nn/linear.h"

#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>

#include "core/error.h"
#include "kernels/linear.h"

namespace llmtk::nn {

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
  if (is_tied) return tied(table);
  return std::make_shared<Linear>(table.size(1), table.size(0), Options{.bias = false}, build);
}

at::Tensor Linear::forward(const at::Tensor& x) { return branch_ ? branch_->forward(*this, x) : base(x); }

at::Tensor Linear::base(const at::Tensor& x) const {
  return storage_ ? storage_->linear(x, bias) : kernels::linear(x, conv1d_ ? weight.t() : weight, bias);
}

at::Tensor Linear::effective_weight() const {
  const at::Tensor base = storage_ ? storage_->dequantize(c10::kFloat) : conv1d_ ? weight.t() : weight;
  return branch_ ? base + branch_->weight_delta(*this) : base;
}

void Linear::set_branch(const std::string& name, std::shared_ptr<LinearBranch> branch) {
  if (branch_) unregister_module(branch_name_);
  branch_name_ = name;
  branch_ = std::move(branch);
  if (branch_) register_module(name, branch_);
}

void Linear::set_storage(std::shared_ptr<const WeightStorage> storage) {
  LLMTK_CHECK(storage, "no storage");
  storage_ = std::move(storage);
  if (named_parameters(false).contains("weight")) parameters_.erase("weight");
  weight.reset();
}

Embedding::Embedding(int64_t rows, int64_t width, const Build& build, int64_t padding_idx) : padding_idx_(padding_idx) {
  weight = register_parameter("weight", build.empty({rows, width}));
}

at::Tensor Embedding::forward(const at::Tensor& ids) const { return at::embedding(weight, ids, padding_idx_); }

}  // namespace llmtk::nn
