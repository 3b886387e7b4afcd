#pragma once
// What quantization cost: sizes, what the model says, speed.

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "comparison.h"
#include "quantize_config.h"

namespace llmtk {

/// The model as it was.
struct QuantizeSource {
  std::filesystem::path path;  ///< a folder or a GGUF file
  c10::Device device = c10::kCPU;
  std::unique_ptr<text::Tokenizer> tokenizer;  ///< null where there is none

  std::shared_ptr<nn::Model> load() const;  ///< mapped, without gradients
};

/// What is compared on.
struct ReceiptRows {
  TokenRows rows;
  std::string text;  ///< what it is, for the receipt; empty: tokens at random
};
/// receipt.text, else what calibration left over, else tokens at random. Throws what reading the text throws.
ReceiptRows receipt_rows(const ReceiptConfig& config, const QuantizeSource& source, const TokenRows& held_out);

/// Opens what was written beside the source, compares them and adds to the answer. exit_code: 7 where a bound is
/// missed, said as an error. Throws Error(usage) for a bound on perplexity where there is none.
void add_receipt(nlohmann::ordered_json& answer, const QuantizeConfig& config, const QuantizeSource& source,
                 const ReceiptRows& rows, int& exit_code);

/// The answer for people.
void print_receipt(const nlohmann::ordered_json& answer);

}  // namespace llmtk
