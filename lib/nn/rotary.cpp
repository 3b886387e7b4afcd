#include "nn/rotary.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numbers>

#include "core/error.h"
#include "kernels/elementwise.h"
#include "nn/attention.h"

namespace llmtk::nn {
namespace {

/// theta^(-2i / dim), in float32 as the reference computes it: at long positions the last bit shows.
at::Tensor plain_frequencies(double theta, int64_t dim) {
  const at::Tensor exponents = at::arange(0, dim, 2, c10::kLong).to(c10::kFloat) / dim;  // [dim / 2]
  return at::pow(theta, exponents).reciprocal();
}

/// Wavelengths beyond original / low_freq_factor are stretched, those under original / high_freq_factor stay.
at::Tensor llama3_frequencies(const RopeConfig& c, const at::Tensor& plain) {
  const auto original = static_cast<double>(c.original_max_position_embeddings);
  const at::Tensor wavelengths = 2 * std::numbers::pi / plain;
  const at::Tensor stretched = at::where(wavelengths > original / c.low_freq_factor, plain / c.factor, plain);
  const at::Tensor blend = (original / wavelengths - c.low_freq_factor) / (c.high_freq_factor - c.low_freq_factor);
  const at::Tensor blended = (1 - blend) * stretched / c.factor + blend * stretched;
  const at::Tensor between =
      (wavelengths >= original / c.high_freq_factor).logical_and(wavelengths <= original / c.low_freq_factor);
  return at::where(between, blended, stretched);
}

/// YaRN, section 3.2: dimensions that turn often over the original length stay, those that turn seldom are divided by
/// the factor, with a ramp between.
at::Tensor yarn_frequencies(const RopeConfig& c, int64_t dim) {
  const auto dimension_of = [&](double rotations) {
    const auto original = static_cast<double>(c.original_max_position_embeddings);
    return dim * std::log(original / (rotations * 2 * std::numbers::pi)) / (2 * std::log(c.theta));
  };
  double low = dimension_of(c.beta_fast), high = dimension_of(c.beta_slow);
  if (c.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dim - 1));
  if (low == high) high += 0.001;
  const at::Tensor ramp = ((at::arange(dim / 2, c10::kFloat) - low) / (high - low)).clamp(0, 1);
  const at::Tensor plain = plain_frequencies(c.theta, dim);
  return plain / c.factor * ramp + plain * (1 - ramp);
}

/// YaRN, section 3.4: the temperature, applied to cos and sin.
double yarn_attention_factor(const RopeConfig& c) {
  const auto scale = [&](double mscale) { return c.factor <= 1 ? 1.0 : 0.1 * mscale * std::log(c.factor) + 1.0; };
  if (c.attention_factor) return *c.attention_factor;
  if (c.mscale.value_or(0) != 0 && c.mscale_all_dim.value_or(0) != 0)
    return scale(*c.mscale) / scale(*c.mscale_all_dim);
  return scale(1);
}

/// LongRoPE, section 3: the model's own factor for each frequency; one set up to the original length, one beyond.
at::Tensor longrope_frequencies(const RopeConfig& c, int64_t dim, int64_t sequence_length) {
  const auto& factors = sequence_length > c.original_max_position_embeddings ? c.long_factor : c.short_factor;
  const at::Tensor exponents = at::arange(0, dim, 2, c10::kLong).to(c10::kFloat) / dim;  // [dim / 2]
  return (at::tensor(factors, c10::kFloat) * at::pow(c.theta, exponents)).reciprocal();
}

/// LongRoPE's temperature, applied to cos and sin.
double longrope_attention_factor(const RopeConfig& c) {
  if (c.attention_factor) return *c.attention_factor;
  if (c.factor <= 1) return 1;
  return std::sqrt(1 + std::log(c.factor) / std::log(static_cast<double>(c.original_max_position_embeddings)));
}

at::Tensor proportional_frequencies(const RopeConfig& c, int64_t dim) {
  const auto turning = static_cast<int64_t>(c.partial_rotary_factor * static_cast<double>(dim) / 2);
  const at::Tensor still = at::arange(dim / 2, c10::kLong) >= turning;
  return plain_frequencies(c.theta, dim).masked_fill(still, 0) / c.factor;
}

}  // namespace

int64_t rotated_dimensions(const RopeConfig& config, int64_t head_dim) {
  if (config.type == RopeType::proportional) return head_dim;
  return static_cast<int64_t>(static_cast<double>(head_dim) * config.partial_rotary_factor);
}

double attention_factor(const RopeConfig& config) {
  if (config.type == RopeType::yarn) return yarn_attention_factor(config);
  if (config.type == RopeType::longrope) return longrope_attention_factor(config);
  return 1;
}

Rotary::Rotary(const RopeConfig& config, int64_t head_dim, int64_t max_positions)
    : config_(config),
      dim_(rotated_dimensions(config, head_dim)),
      max_positions_(max_positions),
      attention_factor_(attention_factor(config)) {
  LLMTK_CHECK(dim_ % 2 == 0, dim_, " dimensions do not make pairs");
}

at::Tensor Rotary::inverse_frequencies(int64_t sequence_length) const {
  switch (config_.type) {
    case RopeType::plain:
      return plain_frequencies(config_.theta, dim_);
    case RopeType::linear:
      return plain_frequencies(config_.theta, dim_) / config_.factor;
    case RopeType::llama3:
      return llama3_frequencies(config_, plain_frequencies(config_.theta, dim_));
    case RopeType::yarn:
      return yarn_frequencies(config_, dim_);
    case RopeType::longrope:
      return longrope_frequencies(config_, dim_, sequence_length);
    case RopeType::proportional:
      return proportional_frequencies(config_, dim_);
    case RopeType::dynamic: {
      const double length = static_cast<double>(std::max(sequence_length, max_positions_));
      const double stretch = config_.factor * length / static_cast<double>(max_positions_) - (config_.factor - 1);
      const double exponent = static_cast<double>(dim_) / static_cast<double>(dim_ - 2);
      return plain_frequencies(config_.theta * std::pow(stretch, exponent), dim_);
    }
  }
  LLMTK_CHECK(false, "unknown rope type");
}

at::Tensor Rotary::angles_to_table(const at::Tensor& positions, const at::Tensor& frequencies) const {
  const at::Tensor half = positions.to(c10::kFloat).unsqueeze(-1) * frequencies.to(positions.device());  // [..., D / 2]
  return at::cat({half, half}, -1);                                                                      // [..., D]
}

void Rotary::grow_tables(int64_t positions, c10::Device device) {
  if (cos_.defined() && cos_.size(0) >= positions && cos_.device() == device) return;
  const at::Tensor all = at::arange(std::max<int64_t>(2 * positions, 256), at::TensorOptions().device(device));
  const at::Tensor angles = angles_to_table(all, inverse_frequencies(positions));
  cos_ = angles.cos() * attention_factor_;
  sin_ = angles.sin() * attention_factor_;
}

void Rotary::prepare(LayerContext& context) {
  const at::NoGradGuard no_grad;
  int64_t needed = context.past + context.length;
  if (context.step && !config_.depends_on_length()) {
    grow_tables(context.cache->room(), context.position_ids.device());  // as far as the cache goes without growing itself
    context.cos = kernels::lookup(cos_, context.position_ids);          // [B, T, D]
    context.sin = kernels::lookup(sin_, context.position_ids);
    return;
  }
  if (!context.default_positions) {
    if (!config_.depends_on_length()) {
      const at::Tensor angles = angles_to_table(context.position_ids, inverse_frequencies(needed));
      context.cos = angles.cos() * attention_factor_;  // [B, T, D]
      context.sin = angles.sin() * attention_factor_;
      return;
    }
    needed = context.position_ids.max().item<int64_t>() + 1;
  }
  if (config_.depends_on_length()) {
    needed = std::max(needed, context.sequence_length);
    const at::Tensor angles = angles_to_table(context.position_ids, inverse_frequencies(needed));
    context.cos = angles.cos() * attention_factor_;
    context.sin = angles.sin() * attention_factor_;
    return;
  }
  grow_tables(needed, context.position_ids.device());
  context.cos = cos_.narrow(0, context.past, context.length).unsqueeze(0);  // [1, T, D]
  context.sin = sin_.narrow(0, context.past, context.length).unsqueeze(0);
}

}  // namespace llmtk::nn
