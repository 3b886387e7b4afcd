#include "peft/lora_init.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/error.h"
#include "nn/init.h"

namespace llmtk::peft {
namespace {

using at::Tensor;

/// torch.nn.Linear's own start: kaiming_uniform(a = sqrt(5)), which is uniform within 1 / sqrt(fan_in).
void init_as_linear(const Tensor& matrix, uint64_t seed, const std::string& name) {
  nn::init_uniform(matrix, 1 / std::sqrt(static_cast<double>(matrix.size(1))), seed, name);
}

void init_linear(Lora& lora, const LoraConfig& config, uint64_t seed, const std::string& path) {
  const std::string a = path + ".lora_A", b = path + ".lora_B";
  if (config.init_lora_weights == "gaussian")
    nn::init_normal(lora.A, 1.0 / static_cast<double>(lora.options().rank), seed, a);
  else
    init_as_linear(lora.A, seed, a);
  if (config.init_lora_weights == "false")
    init_as_linear(lora.B, seed, b);
  else
    nn::init_constant(lora.B, 0);
}

void init_embedding(Lora& lora, const LoraConfig& config, uint64_t seed, const std::string& path) {
  if (config.init_lora_weights == "false")
    nn::init_normal(lora.A, 1, seed, path + ".lora_embedding_A");
  else
    nn::init_constant(lora.A, 0);
  nn::init_normal(lora.B, 1, seed, path + ".lora_embedding_B");
}

struct Singular {
  Tensor left, values, right;  // [O, r], [r], [r, I]
};

/// The largest singular values by subspace iteration from random numbers (Halko et al., Finding Structure with
/// Randomness, 2009, algorithm 4.4), as torch.svd_lowrank.
Singular svd_lowrank(const Tensor& w, int64_t rank, int64_t iterations, uint64_t seed, const std::string& name) {
  Tensor start = at::empty({w.size(1), rank}, at::kFloat);
  nn::init_normal(start, 1, seed, name);
  const auto basis = [](const Tensor& x) { return std::get<0>(at::linalg_qr(x)); };
  Tensor q = basis(at::mm(w, start.to(w.device())));  // [O, r]
  for (int64_t i = 0; i < iterations; ++i) q = basis(at::mm(w, basis(at::mm(w.t(), q))));
  const auto [u, s, vh] = at::linalg_svd(at::mm(q.t(), w), /*full_matrices=*/false);
  return {at::mm(q, u), s, vh};
}

Singular largest(const Tensor& w, int64_t rank, const LoraConfig& config, uint64_t seed, const std::string& path) {
  if (const auto iterations = config.pissa_iterations())
    return svd_lowrank(w, rank, *iterations, seed, path + ".pissa");
  const auto [u, s, vh] = at::linalg_svd(w, /*full_matrices=*/false);
  return {u.narrow(1, 0, rank), s.narrow(0, 0, rank), vh.narrow(0, 0, rank)};
}

/// A = diag(sqrt(s)) V, B = U diag(sqrt(s)), s the largest singular values over the scaling; the base keeps the rest
/// (Meng et al., PiSSA: Principal Singular Values and Singular Vectors Adaptation, 2024, eqs. 2 to 4).
void init_pissa(nn::Linear& layer, Lora& lora, const LoraConfig& config, uint64_t seed, const std::string& path) {
  const int64_t rank = lora.options().rank;
  if (layer.storage())
    throw Error(Exit::usage, {.what = "PiSSA changes the base's matrices, and this one is quantized",
                              .where = path,
                              .hint = "apply PiSSA first and quantize what it leaves, or use init_lora_weights: true"});
  if (rank > std::min(layer.in_features(), layer.out_features()))
    throw Error(Exit::usage,
                {.what = "PiSSA's rank is more than the matrix has singular values",
                 .where = path,
                 .got = std::to_string(rank),
                 .expected = "at most " + std::to_string(std::min(layer.in_features(), layer.out_features()))});
  const Tensor w = layer.base_weight().to(at::kFloat);
  const auto [left, values, right] = largest(w, rank, config, seed, path);
  const Tensor root = (values / lora.options().scaling).sqrt();
  lora.A.copy_(root.unsqueeze(1) * right);
  lora.B.copy_(left * root);
  lora.keep_start();
  const Tensor rest = (w - lora.update()).to(layer.weight.scalar_type());
  layer.weight.set_data(layer.is_conv1d() ? rest.t().contiguous() : rest);
}

}  // namespace

void initialize(LoraTarget& target, const LoraConfig& config, uint64_t seed) {
  const at::NoGradGuard no_grad;
  Lora& lora = *target.lora;
  if (const auto* table = dynamic_cast<const nn::Embedding*>(target.layer.get())) {
    init_embedding(lora, config, seed, target.path);
    if (lora.is_dora()) lora.reset_magnitude(base_matrix(*table));
    return;
  }
  auto& layer = dynamic_cast<nn::Linear&>(*target.layer);
  if (config.is_pissa())
    init_pissa(layer, lora, config, seed, target.path);
  else
    init_linear(lora, config, seed, target.path);
  if (lora.is_dora()) lora.reset_magnitude(base_matrix(layer));
}

}  // namespace llmtk::peft
