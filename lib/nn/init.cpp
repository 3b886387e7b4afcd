#include "nn/init.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <numbers>

namespace llmtk::nn {
namespace {

/// SplitMix64's output function (Steele et al., Fast Splittable Pseudorandom Number Generators, 2014): here a counter
/// goes in, so any element can be made without those before it.
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

uint64_t key_of(uint64_t seed, std::string_view name) {
  uint64_t key = mix(seed + 0x9E3779B97F4A7C15u);
  for (const char c : name) key = mix(key ^ static_cast<unsigned char>(c));
  return key;
}

uint64_t bits_of_pair(uint64_t key, uint64_t i) { return mix(key + i * 0x9E3779B97F4A7C15u); }

/// Elements 2i and 2i + 1 of the stream (Box and Muller 1958).
void normal_pair(uint64_t key, uint64_t i, float standard_deviation, float* pair) {
  const uint64_t bits = bits_of_pair(key, i);
  const float u = (static_cast<float>(bits >> 40) + 1.0f) * 0x1p-24f;  // (0, 1]
  const float v = static_cast<float>(bits & 0xFFFFFF) * 0x1p-24f;      // [0, 1)
  const float radius = standard_deviation * std::sqrt(-2.0f * std::log(u));
  const float angle = 2.0f * std::numbers::pi_v<float> * v;
  pair[0] = radius * std::cos(angle);
  pair[1] = radius * std::sin(angle);
}

void uniform_pair(uint64_t key, uint64_t i, float bound, float* pair) {
  const uint64_t bits = bits_of_pair(key, i);
  const auto number = [&](uint64_t of) { return (static_cast<float>(of) + 0.5f) * 0x1p-23f * bound - bound; };
  pair[0] = number(bits >> 40);
  pair[1] = number(bits & 0xFFFFFF);
}

/// Fills the tensor with the stream that pair(key, i, parameter, two floats) makes.
template <class Pair>
void fill_stream(const at::Tensor& tensor, double parameter, uint64_t key, Pair pair_of) {
  const at::NoGradGuard no_grad;
  const auto number = static_cast<float>(parameter);
  const int64_t count = tensor.numel();
  const at::Tensor flat = tensor.view(-1);
  // In pieces, so that a large table on a GPU or in bfloat16 does not stand twice.
  constexpr int64_t kPiece = 1 << 24;
  for (int64_t start = 0; start < count; start += kPiece) {
    const int64_t n = std::min(kPiece, count - start);
    const bool in_place = tensor.is_cpu() && tensor.scalar_type() == c10::kFloat;
    const at::Tensor piece = in_place ? flat.narrow(0, start, n) : at::empty({n}, c10::kFloat);
    float* out = piece.data_ptr<float>();
    at::parallel_for(0, (n + 1) / 2, 1 << 14, [&](int64_t from, int64_t to) {
      float pair[2];
      for (int64_t i = from; i < to; ++i) {
        pair_of(key, static_cast<uint64_t>(start / 2 + i), number, pair);
        out[2 * i] = pair[0];
        if (2 * i + 1 < n) out[2 * i + 1] = pair[1];
      }
    });
    if (!in_place) flat.narrow(0, start, n).copy_(piece);
  }
}

}  // namespace

void init_normal(const at::Tensor& tensor, double standard_deviation, uint64_t seed, std::string_view name) {
  fill_stream(tensor, standard_deviation, key_of(seed, name), normal_pair);
}

void init_uniform(const at::Tensor& tensor, double bound, uint64_t seed, std::string_view name) {
  fill_stream(tensor, bound, key_of(seed, name), uniform_pair);
}

void init_constant(const at::Tensor& tensor, double value) {
  const at::NoGradGuard no_grad;
  at::Tensor target = tensor;
  target.fill_(value);
}

void init_parameters(const torch::nn::Module& module, uint64_t seed,
                     const std::function<double(std::string_view name)>& deviation) {
  for (const auto& parameter : module.named_parameters()) {
    const std::string& name = parameter.key();
    if (name.ends_with(".bias"))
      init_constant(parameter.value(), 0);
    else if (parameter.value().dim() == 1)
      init_constant(parameter.value(), 1);
    else
      init_normal(parameter.value(), deviation(name), seed, name);
  }
}

void init_parameters(const torch::nn::Module& module, uint64_t seed, double deviation) {
  init_parameters(module, seed, [=](std::string_view) { return deviation; });
}

}  // namespace llmtk::nn
