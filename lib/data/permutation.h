#pragma once
// Shuffling without a list: a keyed bijection of [0, n), computed where it is asked for.

#include <cstdint>

namespace llmtk::data {

/// A well-mixed 64-bit hash (splitmix64's finalizer) of x.
uint64_t mix(uint64_t x);

/// The permutation of [0, n) that belongs to `key`. A Feistel network over the next even power of two, walked along its
/// cycle until it comes back into [0, n) (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). The same on
/// every machine.
class Permutation {
 public:
  Permutation(uint64_t n, uint64_t key);
  uint64_t operator()(uint64_t i) const;
  uint64_t size() const { return n_; }

 private:
  static constexpr int kRounds = 6;
  uint64_t n_;
  int half_bits_;
  uint64_t keys_[kRounds];
};

}  // namespace llmtk::data
