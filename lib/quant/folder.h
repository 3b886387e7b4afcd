#pragma once
// Opening a folder whose matrices are quantized: what models::LoadOptions::storages asks for.

#include <memory>

#include "io/model_folder.h"
#include "nn/storage_reader.h"

namespace llmtk::quant {

/// The reader for what config.json's `quantization_config` says: compressed-tensors' integers, or bitsandbytes' nf4.
/// Throws Error(file) for any other, naming it and what can be done.
std::unique_ptr<nn::StorageReader> open_storages(const io::Json& quantization_config, const io::WeightFiles& weights,
                                                 const std::string& where);

}  // namespace llmtk::quant
