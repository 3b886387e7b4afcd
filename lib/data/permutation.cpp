#include "data/permutation.h"

#include <algorithm>
#include <bit>

#include "core/error.h"

namespace llmtk::data {

uint64_t mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

Permutation::Permutation(uint64_t n, uint64_t key) : n_(n) {
  LLMTK_CHECK(n >= 1 && n <= (uint64_t{1} << 60), "n is ", n);
  // Not fewer than three bits a half: with fewer a network knows only few permutations.
  half_bits_ = std::max(3, (static_cast<int>(std::bit_width(n - 1)) + 1) / 2);
  for (uint64_t& round_key : keys_) round_key = key = mix(key);
}

uint64_t Permutation::operator()(uint64_t i) const {
  LLMTK_CHECK(i < n_, i, " >= ", n_);
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  do {
    uint64_t left = i >> half_bits_, right = i & mask;
    for (const uint64_t key : keys_) {
      const uint64_t next = left ^ (mix(right ^ key) & mask);
      left = right;
      right = next;
    }
    i = left << half_bits_ | right;
  } while (i >= n_);
  return i;
}

}  // namespace llmtk::data
