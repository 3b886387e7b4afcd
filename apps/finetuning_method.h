#pragma once
// How a model is changed so that it learns: not at all (full fine-tuning), by LoRA, ...

#include <filesystem>
#include <string>

#include "nn/model.h"
#include "quant/config.h"
#include "text/tokenizer.h"
#include "train/optimizer.h"

namespace llmtk {

/// What a run began with.
struct ModelOrigin {
  std::filesystem::path weights;  ///< the folder; empty: random weights
  std::string name;               ///< what the user called it
  const text::Tokenizer* tokenizer = nullptr;
};

class Method {
 public:
  virtual ~Method() = default;
  /// Changes the model and says what of it is trained (requires_grad). Called first with the model on the meta device,
  /// then with the model itself. Throws Error(usage) for settings that do not fit the model.
  virtual void apply(nn::Model& model, const ModelOrigin& origin, uint64_t seed) = 0;
  /// Whether every parameter is trained in the run's dtype, from a start in float32. False: the base is loaded in
  /// trainer.dtype and stays as it is.
  virtual bool is_full() const { return false; }
  /// Writes what was learnt, of the model that apply() saw last. Throws Error(file).
  virtual void save(const std::filesystem::path& folder, const ModelOrigin& origin) const = 0;
  /// Reads what save() wrote, strictly; of a full method alone.
  virtual void load(const std::filesystem::path& folder);
  /// Of parameters that learn at a rate of their own.
  virtual train::LearningRates learning_rates([[maybe_unused]] double learning_rate) const { return {}; }
  /// How the base is kept; null: as it is.
  virtual const quant::QuantizationConfig* quantization() const { return nullptr; }
};

}  // namespace llmtk
