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

/// What the tokens of the rows and columns are called: two texts where a decoder looks at an encoder's.
struct AttentionLabels {
  std::vector<std::string> rows, columns;
};

/// Several maps of one text as an SVG document. One map has a label on every row and column; several stand in a grid,
/// `maps_in_line` wide (0: chosen here), and the tokens show when the pointer rests on a cell.
std::string attention_svg(const std::vector<AttentionMap>& maps, const AttentionLabels& labels,
                          size_t maps_in_line = 0);

}  // namespace llmtk
