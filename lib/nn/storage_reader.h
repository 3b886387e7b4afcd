#pragma once
// What a folder of quantized weights holds instead of matrices. Filled in by lib/quant, asked by models::load_model:
// neither knows the other.

#include <c10/core/Device.h>

#include <map>
#include <memory>
#include <set>
#include <string>

#include "nn/linear.h"

namespace llmtk::nn {

class StorageReader {
 public:
  virtual ~StorageReader() = default;
  /// The modules whose matrices are quantized, as the files name them, each with the tensors that are its storage's.
  virtual const std::map<std::string, std::set<std::string>>& modules() const = 0;
  /// The storage of one of them, [rows, columns], whose tensors lie in the mapped files on a CPU. is_table: of an
  /// Embedding. Throws Error(file) naming what is missing or misshapen, or a scheme that is not known.
  virtual std::shared_ptr<const WeightStorage> read(const std::string& module, int64_t rows, int64_t columns,
                                                    bool is_table, c10::Device device) const = 0;
};

}  // namespace llmtk::nn
