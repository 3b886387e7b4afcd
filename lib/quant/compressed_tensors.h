#pragma once
// Matrices of integers in model folders, in the layout of the package compressed-tensors (0.20), which transformers and
// vLLM open: quantization_config of config.json, and of each matrix PATH.weight:
//
//   int-quantized:   PATH.weight int8 [N, K], PATH.weight_scale [N, G], PATH.weight_zero_point int8 [N, G]
//   pack-quantized:  PATH.weight_packed int32 [N, ceil(K * bits / 32)], PATH.weight_scale [N, G], PATH.weight_shape
//   int64 [2],
//                    PATH.weight_zero_point int32 [ceil(N * bits / 32), G]
//
// zero points only where not symmetric. GPT-2's matrices, which its files have as [in, out], are [out, in] here.

#include <memory>

#include "io/tensors.h"
#include "nn/storage_reader.h"
#include "quant/scheme.h"

namespace llmtk::quant {

/// The tensors of a matrix as files name them.
io::NamedTensors integer_tensors(const std::string& path, const kernels::IntegerMatrix& matrix);
/// The same before they are made: names, types and shapes, in that order.
std::vector<io::TensorInfo> integer_infos(const std::string& path, const kernels::IntegerFormat& format, int64_t rows,
                                          int64_t columns, c10::ScalarType scale_dtype);

/// quantization_config. ignore: the linear layers that stay as they are, by path. actorder: the columns were rounded in
/// the order of their inputs' size (GPTQ).
io::Json compressed_tensors_config(const std::vector<SchemeGroup>& groups, const std::vector<std::string>& ignore,
                                   bool actorder = false);

/// Reads such folders. Throws Error(file) for schemes that are not known here (fp8, static activations, ...), by name.
std::unique_ptr<nn::StorageReader> open_compressed_tensors(const io::Json& config, const io::WeightFiles& weights,
                                                           const std::string& where);

}  // namespace llmtk::quant
