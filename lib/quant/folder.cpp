#include "quant/folder.h"

#include "core/error.h"
#include "quant/bitsandbytes.h"
#include "quant/compressed_tensors.h"

namespace llmtk::quant {

std::unique_ptr<nn::StorageReader> open_storages(const io::Json& config, const io::WeightFiles& weights,
                                                 const std::string& where) {
  io::ObjectReader reader(config, where + ": quantization_config");
  const std::string method = reader.string_or("quant_method", "none");
  if (method == "compressed-tensors") return open_compressed_tensors(config, weights, where);
  if (method == "bitsandbytes") return open_bitsandbytes(config, weights, where);
  throw Error(Exit::file,
              {.what = "the folder is quantized by a method that is not known here",
               .where = where,
               .got = method,
               .expected = "compressed-tensors (integers of 4 or 8 bits) or bitsandbytes (nf4)",
               .hint = "load the weights as they were before quantization; llmtk quantize makes a folder of them"});
}

}  // namespace llmtk::quant
