#include "peft/lora.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "kernels/linear.h"
#include "kernels/lora.h"
#include "nn/norm.h"

namespace llmtk::peft {

using at::Tensor;

Lora::Lora(const Options& options) : options_(options) {
  const auto made = at::TensorOptions().dtype(at::kFloat).device(options.device);
  A = register_parameter("A", at::empty({options.rank, options.in}, made));
  B = register_parameter("B", at::empty({options.out, options.rank}, made));
  if (options.dora) magnitude = register_parameter("magnitude", at::empty({options.out}, made));
}

void Lora::keep_start() {
  start_A = register_buffer("start_A", A.detach().clone());
  start_B = register_buffer("start_B", B.detach().clone());
}

Tensor Lora::update() const { return at::mm(B.to(at::kFloat), A.to(at::kFloat)) * options_.scaling; }

Tensor Lora::delta(const Tensor& base_weight) const {
  if (!is_dora()) return update();
  const Tensor base = base_weight.to(at::kFloat);
  const Tensor m = stretch(
      {base_weight.const_data_ptr(), [&] { return base; }, [&](const Tensor& x) { return at::mm(x, base.t()); }});
  return m.unsqueeze(1) * (base + update()) - base;
}

Tensor Lora::stretch(const BaseMatrix& base) const { return magnitude / row_lengths(base); }

/// |W + s B A|^2 = |W|^2 + 2 s B (A W^T) + s^2 B (A A^T) B^T, row by row: W + s B A itself is never made.
Tensor Lora::row_lengths(const BaseMatrix& base) const {
  // Optimizers write past autograd's version counters, so nothing is kept while something may learn.
  const bool learns = at::GradMode::is_enabled() || is_training();
  if (!learns && lengths_.defined()) return lengths_;
  const at::NoGradGuard no_grad;
  if (!base_squares_.defined() || squares_of_ != base.key) {  // no address tells meta tensors apart
    base_squares_ = base.weight().to(at::kFloat).square().sum(1);
    squares_of_ = base.key;
  }
  const Tensor a = A.to(at::kFloat), b = B.to(at::kFloat);
  const double s = options_.scaling;
  const Tensor cross = base.product(a).to(at::kFloat).t();  // [O, r]
  const Tensor mixed = cross * (2 * s) + at::mm(b, at::mm(a, a.t())) * (s * s);
  const Tensor lengths = (base_squares_ + (b * mixed).sum(1)).clamp_min_(0).sqrt_();
  lengths_ = learns ? Tensor() : lengths;
  return lengths;
}

void Lora::reset_magnitude(const BaseMatrix& base) {
  const at::NoGradGuard no_grad;
  values_changed();
  magnitude.copy_(row_lengths(base));
  values_changed();
}

void Lora::values_changed() {
  lengths_ = Tensor();
  squares_of_ = nullptr;
}

BaseMatrix base_matrix(const nn::Linear& layer) {
  const bool stored = layer.storage() != nullptr;
  return {stored ? layer.storage().get() : layer.weight.const_data_ptr(), [&layer] { return layer.base_weight(); },
          [&layer, stored](const Tensor& x) { return layer.product(stored ? x : x.to(layer.weight.scalar_type())); }};
}

BaseMatrix base_matrix(const nn::Embedding& table) {
  const Tensor weight = table.weight.detach().t();  // [width, rows]
  return {weight.const_data_ptr(), [=] { return weight; },
          [=](const Tensor& x) { return at::mm(x.to(weight.scalar_type()), weight.t()); }};
}

std::shared_ptr<Lora> Adapters::find(const std::string& name) const {
  for (const auto& [known, lora] : all_)
    if (known == name) return lora;
  return nullptr;
}

const Lora* Adapters::only() const {
  const Lora* found = nullptr;
  for (const auto& [name, lora] : all_) {
    if (lora->weight == 0) continue;
    if (found || lora->weight != 1) return nullptr;
    found = lora.get();
  }
  return found;
}

void LoraLinear::add(const std::string& name, std::shared_ptr<Lora> lora) {
  all_.emplace_back(name, register_module(name, std::move(lora)));
}

void LoraEmbedding::add(const std::string& name, std::shared_ptr<Lora> lora) {
  all_.emplace_back(name, register_module(name, std::move(lora)));
}

namespace {

/// What DoRA adds to y: (m - 1) x W^T + m * scaling * x A^T B^T, x with dropout (peft's DoraLinearLayer.forward).
Tensor dora_branch(const Lora& lora, const nn::Linear& layer, const Tensor& x) {
  const Tensor m = lora.stretch(base_matrix(layer)).to(x.scalar_type());
  const Tensor base = layer.product(x);
  return (base + kernels::lora_linear(x, {}, {}, lora.A, lora.B, lora.options().scaling)) * m - base;
}

/// The same together with the product it is added to, where dropout changes nothing: m (x (W + s B A)^T) + bias.
Tensor dora_alone(const Lora& lora, const nn::Linear& layer, const Tensor& x) {
  const Tensor m = lora.stretch(base_matrix(layer)).to(x.scalar_type());
  const double s = lora.options().scaling;
  const Tensor y = layer.storage() ? layer.product(x) + kernels::lora_linear(x, {}, {}, lora.A, lora.B, s)
                                   : kernels::lora_linear(x, layer.base_weight(), {}, lora.A, lora.B, s);
  return layer.bias.defined() ? at::addcmul(layer.bias, y, m) : y * m;
}

double dropout_of(const Lora& lora) { return lora.is_training() ? lora.options().dropout : 0; }

}  // namespace

Tensor LoraLinear::forward(const nn::Linear& layer, const Tensor& x) {
  if (const Lora* one = only()) {
    const Lora& lora = *one;
    const double p = dropout_of(lora);
    if (lora.is_dora() && p == 0) return dora_alone(lora, layer, x);
    if (!lora.is_dora() && !layer.storage())
      return kernels::lora_linear(x, layer.base_weight(), layer.bias, lora.A, lora.B, lora.options().scaling, p);
  }
  Tensor y = layer.base(x);
  for (const auto& [name, lora] : all_) {
    if (lora->weight == 0) continue;
    const double p = dropout_of(*lora);
    y = y + (lora->is_dora()
                 ? dora_branch(*lora, layer, nn::dropout(x, p, true)) * lora->weight
                 : kernels::lora_linear(x, {}, {}, lora->A, lora->B, lora->options().scaling * lora->weight, p));
  }
  return y;
}

Tensor LoraLinear::weight_delta(const nn::Linear& layer) const {
  const Tensor base = layer.base_weight();
  Tensor sum = at::zeros({}, base.options().dtype(at::kFloat));
  for (const auto& [name, lora] : all_)
    if (lora->weight != 0) sum = sum + lora->delta(base) * lora->weight;
  return sum;
}

Tensor LoraEmbedding::forward(const nn::Embedding& table, const Tensor& ids) {
  const Tensor base = table.base(ids);
  Tensor y = base;
  for (const auto& [name, lora] : all_) {
    if (lora->weight == 0) continue;
    const Tensor looked_up = at::embedding(lora->A.t(), ids, table.padding_idx());  // [..., r]
    Tensor added = kernels::linear(looked_up, lora->B) * lora->options().scaling;
    if (lora->is_dora()) {
      const Tensor m = lora->stretch(base_matrix(table)).to(base.scalar_type());
      added = (base + added) * m - base;
    }
    y = y + (added * lora->weight).to(base.scalar_type());
  }
  return y;
}

Tensor LoraEmbedding::weight_delta(const nn::Embedding& table) const {
  const Tensor base = table.weight.t();
  Tensor sum = at::zeros({}, base.options().dtype(at::kFloat));
  for (const auto& [name, lora] : all_)
    if (lora->weight != 0) sum = sum + lora->delta(base) * lora->weight;
  return sum.dim() ? sum.t() : sum;
}

}  // namespace llmtk::peft
