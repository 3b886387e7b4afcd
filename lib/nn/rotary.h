#pragma once
// Rotary position embedding and its scalings (HF's modeling_rope_utils).

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace llmtk::nn {

struct LayerContext;

/// How the angles grow with the position.
enum class RopeType {
  plain,         ///< "default": Su et al., RoFormer (2021)
  linear,        ///< positions divided by `factor`
  dynamic,       ///< NTK-aware: theta grows with the length beyond max_position_embeddings
  llama3,        ///< low frequencies divided by `factor`, high ones kept, those between blended
  yarn,          ///< Peng et al., YaRN (2023)
  longrope,      ///< Ding et al., LongRoPE (2024): every frequency has a factor of its own, others beyond the original
                 ///< length
  proportional,  ///< only the first share of the dimensions turns; the others stay
};

struct RopeConfig {
  RopeType type = RopeType::plain;
  double theta = 10000;
  double factor = 1;
  int64_t original_max_position_embeddings = 0;
  double low_freq_factor = 1, high_freq_factor = 4;                ///< llama3
  double beta_fast = 32, beta_slow = 1;                            ///< yarn
  bool truncate = true;                                            ///< yarn
  std::optional<double> attention_factor, mscale, mscale_all_dim;  ///< yarn; attention_factor: longrope too
  std::vector<double> short_factor, long_factor;                   ///< longrope, [head_dim / 2] each
  double partial_rotary_factor = 1;                                ///< the share of the dimensions that turns

  /// Whether a token's angles are other ones in a longer text.
  bool depends_on_length() const { return type == RopeType::dynamic || type == RopeType::longrope; }
};

/// How many of a head's dimensions are rotated: its first ones. With the type proportional all are, some by no angle.
int64_t rotated_dimensions(const RopeConfig& config, int64_t head_dim);

/// What cosines and sines are multiplied with: as given, or as the papers of yarn and longrope infer it; else 1.
double attention_factor(const RopeConfig& config);

/// The cosines and sines of the positions that occur.
class Rotary {
 public:
  /// max_positions: the model's max_position_embeddings.
  Rotary(const RopeConfig& config, int64_t head_dim, int64_t max_positions);

  /// Sets context.cos and context.sin, [1 or B, T, rotated_dimensions] float32, for context.position_ids.
  void prepare(LayerContext& context);

 private:
  at::Tensor inverse_frequencies(int64_t sequence_length) const;
  at::Tensor angles_to_table(const at::Tensor& positions, const at::Tensor& frequencies) const;

  /// cos_ and sin_ for at least so many positions.
  void grow_tables(int64_t positions, c10::Device device);

  RopeConfig config_;
  int64_t dim_, max_positions_;
  double attention_factor_;
  at::Tensor cos_, sin_;  // [positions, rotated_dimensions]: made once, grown when needed
};

}  // namespace llmtk::nn
