#pragma once
// The adapters that a command line names: put on a model, weighted, switched.

#include <filesystem>
#include <string>
#include <vector>

#include "models/registry.h"
#include "nn/model.h"
#include "peft/adapter.h"

namespace llmtk {

/// Where an adapter of `specs` brings the head of a classifier, the base is opened with that head.
void expect_adapters(models::LoadOptions& load, const std::filesystem::path& base,
                     const std::vector<std::string>& specs);
/// Puts the adapters of `specs` (DIR, or DIR=WEIGHT) on the model. Throws Error(file, usage).
void add_adapters(nn::Model& model, const std::vector<std::string>& specs);
/// The folder of DIR or DIR=WEIGHT.
std::filesystem::path adapter_folder(const std::string& spec);

/// Adapters on a model that stay loaded while others of them count: what `generate` switches between.
class AdapterSwitch {
 public:
  AdapterSwitch() = default;
  /// As add_adapters(). An adapter is called by the name of its folder, or by the whole path where two share that name.
  AdapterSwitch(nn::Model& model, const std::vector<std::string>& specs);

  /// From now on those of `choice` alone count: NAME (with the weight of the command line) or NAME=WEIGHT; an empty
  /// choice: the base. True where that changed something. Throws Error(usage) naming `where`: a name that is not
  /// loaded, or an adapter that cannot be weighted or taken away.
  bool choose(const std::vector<std::string>& choice, const std::string& where);
  /// All of them, as the command line has them.
  bool choose_all();
  /// One line each: whether it counts, its name and weight.
  std::string listing() const;

 private:
  struct Loaded {
    std::string name;
    peft::Adapter adapter;
    double given = 1, weight = 1;  // of the command line, and now
  };
  size_t find(const std::string& name, const std::string& where) const;
  bool set_weights(const std::vector<double>& weights, const std::string& where);

  std::vector<Loaded> loaded_;
  std::string fixed_;  // the folder of a method whose adapter is a part of the model once it is there
};

}  // namespace llmtk
