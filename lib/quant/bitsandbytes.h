#pragma once
// NF4 in model folders, in the layout that transformers writes of bitsandbytes' Linear4bit: quantization_config with
// quant_method bitsandbytes, and of each matrix PATH.weight:
//
//   PATH.weight uint8 [N * K / 2, 1]           codes of the flat matrix, the first in the high bits
//   PATH.weight.absmax uint8 or float32        scales of blocks of 64; uint8: codes of the doubly quantized ones
//   PATH.weight.quant_map float32 [16]         what the codes stand for
//   PATH.weight.nested_absmax, .nested_quant_map   doubly quantized: scales of 256 scales, and what their codes stand
//   for PATH.weight.quant_state.bitsandbytes__nf4  JSON as uint8: block sizes, shape, dtype, the offset of the scales
//
// Matrices lie [out, in], GPT-2's too.

#include <memory>

#include "io/tensors.h"
#include "kernels/quantized.h"
#include "nn/storage_reader.h"

namespace llmtk::quant {

/// The tensors of a doubly quantized NF4 matrix as files name them. dtype: what bitsandbytes shall unpack to.
io::NamedTensors nf4_tensors(const std::string& path, const kernels::QuantizedMatrix& matrix, c10::ScalarType dtype);
/// The same before they are made: names, types and shapes, in that order.
std::vector<io::TensorInfo> nf4_infos(const std::string& path, int64_t rows, int64_t columns);

/// quantization_config. skipped: the linear layers that stay as they are, by path. dtype: what is computed in.
io::Json bitsandbytes_config(const std::vector<std::string>& skipped, c10::ScalarType dtype);

/// Reads such folders, of nf4 or fp4, doubly quantized or not. Throws Error(file) for 8 bits (LLM.int8()).
std::unique_ptr<nn::StorageReader> open_bitsandbytes(const io::Json& config, const io::WeightFiles& weights,
                                                     const std::string& where);

}  // namespace llmtk::quant
