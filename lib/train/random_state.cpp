#include "train/random_state.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>

#include <cstdlib>
#include <mutex>

#include "core/error.h"
#include "core/log.h"

namespace llmtk::train {
namespace {

at::Generator generator(c10::Device device) { return at::globalContext().defaultGenerator(device); }

template <class Use>
auto locked(c10::Device device, Use&& use) {
  at::Generator of_device = generator(device);
  const std::scoped_lock lock(of_device.mutex());
  return use(of_device);
}

}  // namespace

void be_deterministic() {
  ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);  // cuBLAS reads it at its first product
  at::globalContext().setDeterministicAlgorithms(true, false);
}

void seed_generators(uint64_t seed, c10::Device device) {
  locked(c10::kCPU, [&](at::Generator& g) { g.set_current_seed(seed); });
  if (device.is_cuda()) locked(device, [&](at::Generator& g) { g.set_current_seed(seed); });
}

io::NamedTensors random_state(c10::Device device) {
  io::NamedTensors state;
  state.emplace_back("cpu", locked(c10::kCPU, [](at::Generator& g) { return g.get_state(); }));
  if (device.is_cuda()) state.emplace_back("cuda", locked(device, [](at::Generator& g) { return g.get_state(); }));
  return state;
}

void load_random_state(const io::NamedTensors& state, c10::Device device, uint64_t seed, const std::string& where) {
  seed_generators(seed, device);
  bool cpu = false, cuda = !device.is_cuda();
  for (const auto& [name, tensor] : state) {
    // A copy: the tensor may be a view of a mapped file.
    if (name == "cpu") locked(c10::kCPU, [&](at::Generator& g) { g.set_state(tensor.clone()); });
    if (name == "cuda" && device.is_cuda()) locked(device, [&](at::Generator& g) { g.set_state(tensor.clone()); });
    cpu |= name == "cpu";
    cuda |= name == "cuda";
  }
  if (!cpu) throw Error(Exit::file, {.what = "the state 'cpu' is missing", .where = where});
  if (!cuda) log::warn(where + ": no state of a GPU's random numbers; the GPU's start from trainer.seed");
}

KeepRandomState::~KeepRandomState() {
  for (const auto& [name, tensor] : state_)
    locked(name == "cpu" ? c10::Device(c10::kCPU) : device_, [&](at::Generator& g) { g.set_state(tensor); });
}

}  // namespace llmtk::train
