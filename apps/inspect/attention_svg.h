#pragma once
// Attention maps as a picture.

#include <string>
#include <vector>

namespace llmtk {

/// One map: weights[t][s], how much token t looks at token s.
struct AttentionMap {
  std::string title;  ///< "layer 0, head 3"
  std::vector<std::vector<float>> weights;
};

/// Several maps of one text as an SVG document. One map has a label on every row and column; several stand in a grid,
/// `columns` wide (0: chosen here), and the tokens show when the pointer rests on a cell.
std::string attention_svg(const std::vector<AttentionMap>& maps, const std::vector<std::string>& labels,
                          size_t columns = 0);

}  // namespace llmtk
