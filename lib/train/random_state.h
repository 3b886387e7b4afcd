#pragma once
// The state of LibTorch's random generators, which dropout draws from.

#include <c10/core/Device.h>

#include <string>

#include "io/tensors.h"

namespace llmtk::train {

/// From now on only operations that give the same bits every time (TrainerConfig::deterministic).
void be_deterministic();

/// Seeds the generators of the CPU and, where `device` is a GPU, of that GPU.
void seed_generators(uint64_t seed, c10::Device device);

/// Their states, as byte tensors: "cpu", and "cuda" where `device` is a GPU.
io::NamedTensors random_state(c10::Device device);
/// Throws Error(file) that names `where` when a state is missing (a CPU's checkpoint going on on a GPU starts the GPU's
/// generator from `seed` instead, and says so).
void load_random_state(const io::NamedTensors& state, c10::Device device, uint64_t seed, const std::string& where);

/// Puts the generators back as they were, at the end of the scope: samples and evaluations do not disturb a run.
class KeepRandomState {
 public:
  explicit KeepRandomState(c10::Device device) : device_(device), state_(random_state(device)) {}
  ~KeepRandomState();
  KeepRandomState(const KeepRandomState&) = delete;
  KeepRandomState& operator=(const KeepRandomState&) = delete;

 private:
  c10::Device device_;
  io::NamedTensors state_;
};

}  // namespace llmtk::train
