#include "lora_method.h"

#include "peft/adapter.h"

namespace llmtk {
namespace {

namespace fs = std::filesystem;

class LoraMethod final : public Method {
 public:
  LoraMethod(peft::LoraConfig config, std::optional<quant::QuantizationConfig> quantization)
      : config_(std::move(config)), quantization_(std::move(quantization)) {}

  void apply(nn::Model& model, const ModelOrigin&, uint64_t seed) override {
    peft::LoraConfig config = config_;
    if (model.device().is_meta()) config.init_lora_weights = "true";  // there is nothing to take apart yet
    adapter_.emplace(peft::apply(model, config, seed));
  }
  void save(const fs::path& folder, const ModelOrigin& origin) const override {
    peft::save_adapter(*adapter_, folder, origin.name);
  }
  train::LearningRates learning_rates(double learning_rate) const override {
    return adapter_->loraplus_learning_rates(learning_rate);
  }
  const quant::QuantizationConfig* quantization() const override {
    return quantization_ && quantization_->enabled() ? &*quantization_ : nullptr;
  }

 private:
  peft::LoraConfig config_;
  std::optional<quant::QuantizationConfig> quantization_;
  std::optional<peft::Adapter> adapter_;
};

}  // namespace

std::unique_ptr<Method> lora_method(peft::LoraConfig config, std::optional<quant::QuantizationConfig> quantization) {
  return std::make_unique<LoraMethod>(std::move(config), std::move(quantization));
}

}  // namespace llmtk
