#pragma once
// Where bottleneck adapters stand, and what AdapterHub calls the places.

#include <memory>
#include <string>
#include <vector>

#include "nn/linear.h"
#include "nn/model.h"

namespace llmtk::peft {

/// A matrix that writes into the residual stream.
struct BottleneckSite {
  std::string path;      ///< of the matrix
  std::string hub_path;  ///< of what holds the adapters in AdapterHub's models, up to ".adapters"
  int64_t number = 0;    ///< of the layer, as leave_out counts: an encoder-decoder's decoder after its encoder
  std::shared_ptr<nn::Linear> layer;
};

/// Behind the feed-forwards and, with `attention`, behind the attention of tokens to their own text. Throws
/// Error(usage) for a family in which no such matrices are known.
std::vector<BottleneckSite> bottleneck_sites(const nn::Model& model, bool attention);

}  // namespace llmtk::peft
