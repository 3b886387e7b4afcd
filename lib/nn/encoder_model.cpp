#include "nn/encoder_model.h"

#include <nlohmann/json.hpp>

namespace llmtk::nn {

std::vector<std::string> EncoderModel::label_names() const {
  const auto json = config();
  const auto names = json.find("id2label");
  std::vector<std::string> found;
  for (int64_t i = 0; i < num_labels(); ++i) {
    const std::string number = std::to_string(i);
    const bool named = names != json.end() && names->is_object() && names->contains(number);
    const auto& name = named ? names->at(number) : nlohmann::ordered_json();
    found.push_back(name.is_string() ? name.get<std::string>() : "LABEL_" + number);
  }
  return found;
}

}  // namespace llmtk::nn
