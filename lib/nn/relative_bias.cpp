#include "nn/relative_bias.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/where.h>

#include <cmath>

#include "core/error.h"

namespace llmtk::nn {
namespace {

/// Bucket of each distance key - query, as T5Attention._relative_position_bucket rounds in float32: half of the buckets
/// hold one distance each, the others ever more. distances: int64 [R].
at::Tensor buckets_of(at::Tensor distances, const RelativeBias::Options& options) {
  int64_t buckets = options.buckets;
  at::Tensor first;  // bucket of the half that a distance belongs to
  if (options.bidirectional) {
    buckets /= 2;
    first = distances.gt(0).to(at::kLong) * buckets;
    distances = distances.abs();
  } else {
    distances = distances.clamp_max(0).neg();
  }
  const int64_t exact = buckets / 2;
  const double range = std::log(static_cast<double>(options.max_distance) / static_cast<double>(exact));
  const at::Tensor ratio = distances.clamp_min(exact).to(at::kFloat) / exact;
  const at::Tensor wide = ((ratio.log() / range * (buckets - exact)).to(at::kLong) + exact).clamp_max(buckets - 1);
  const at::Tensor bucket = at::where(distances.lt(exact), distances, wide);
  return first.defined() ? first + bucket : bucket;
}

}  // namespace

RelativeBias::RelativeBias(Options options, int64_t heads, const Build& build) : options_(options) {
  LLMTK_CHECK(options.buckets >= 4 && options.max_distance > options.buckets / 2, options.buckets, " buckets up to ",
              options.max_distance);
  weight = register_parameter("weight", build.empty({options.buckets, heads}));
}

at::Tensor RelativeBias::forward(int64_t queries, int64_t keys, int64_t past) const {
  // On the CPU, so that all devices round the logarithms alike.
  const at::Tensor distances = at::arange(1 - past - queries, keys - past, at::kLong);
  const at::Tensor buckets = buckets_of(distances, options_).to(weight.device());
  const at::Tensor by_distance = at::embedding(weight, buckets).t();  // [heads, queries + keys - 1]
  // The last query's row begins at the first distance, the row of the one before it at the second.
  return by_distance.unfold(1, keys, 1).flip(1).unsqueeze(0);  // [1, heads, queries, keys]
}

}  // namespace llmtk::nn
