#include "inspect/attention_svg.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/utf8.h"
#include "inspect/table.h"

namespace llmtk {
namespace {

constexpr int kTitle = 24, kGap = 16;
constexpr double kCharacter = 7;      // pixels a column of text takes at 12 px
constexpr float kFaintest = 0.0005f;  // a cell below this is not drawn

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string text_at(double x, double y, const std::string& text, const std::string& more = {}) {
  return "<text x=\"" + fixed(x, 1) + "\" y=\"" + fixed(y, 1) + "\"" + more + ">" + escaped(text) + "</text>\n";
}

/// The cells of one map, its upper left corner at (0, 0).
std::string cells(const AttentionMap& map, const std::vector<std::string>& labels, int cell) {
  std::string out;
  const size_t T = map.weights.size();
  const std::string side = std::to_string(T * static_cast<size_t>(cell));
  out += "<rect width=\"" + side + "\" height=\"" + side + "\" fill=\"#f4f5f7\"/>\n";
  for (size_t t = 0; t < T; ++t)
    for (size_t s = 0; s < map.weights[t].size(); ++s) {
      const float weight = map.weights[t][s];
      if (!(weight >= kFaintest)) continue;
      out += "<rect x=\"" + std::to_string(s * cell) + "\" y=\"" + std::to_string(t * cell) + "\" width=\"" +
             std::to_string(cell) + "\" height=\"" + std::to_string(cell) + "\" fill-opacity=\"" + fixed(weight, 3) +
             "\"><title>" + escaped(labels[t]) + " → " + escaped(labels[s]) + ": " + fixed(weight, 3) +
             "</title></rect>\n";
    }
  return out;
}

}  // namespace

std::string attention_svg(const std::vector<AttentionMap>& maps, const std::vector<std::string>& labels,
                          size_t columns) {
  const bool one = maps.size() == 1;
  const auto T = static_cast<int>(labels.size());
  const int cell =
      one ? std::max(6, std::min(22, 1600 / std::max(T, 1))) : std::max(1, std::min(8, 240 / std::max(T, 1)));
  int margin = 0;  // of labels, at the left and on top
  if (one && cell >= 10)
    for (const auto& label : labels) margin = std::max(margin, static_cast<int>(kCharacter * display_width(label)) + 8);
  if (columns == 0) columns = one ? 1 : static_cast<size_t>(std::ceil(std::sqrt(static_cast<double>(maps.size()))));
  const size_t lines = (maps.size() + columns - 1) / columns;
  // A title must fit above its map.
  int wide = T * cell;
  for (const auto& map : maps) wide = std::max(wide, static_cast<int>(kCharacter * display_width(map.title)));
  const int step_x = wide + kGap, step_y = T * cell + kTitle + kGap;
  const int width = margin + static_cast<int>(columns) * step_x + kGap;
  const int height = margin + static_cast<int>(lines) * step_y + kGap;

  std::string svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + std::to_string(width) + "\" height=\"" +
                    std::to_string(height) + "\" viewBox=\"0 0 " + std::to_string(width) + " " +
                    std::to_string(height) +
                    "\" font-family=\"'Noto Sans CJK SC', 'PingFang SC', 'Microsoft YaHei', sans-serif\" "
                    "font-size=\"12\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n";
  for (size_t i = 0; i < maps.size(); ++i) {
    const int x = margin + kGap + static_cast<int>(i % columns) * step_x;
    const int y = margin + kTitle + static_cast<int>(i / columns) * step_y;
    svg += text_at(x, y - 6 - margin, maps[i].title, " font-weight=\"bold\"");
    svg += "<g transform=\"translate(" + std::to_string(x) + " " + std::to_string(y) + ")\" fill=\"#1f4e9c\">\n" +
           cells(maps[i], labels, cell) + "</g>\n";
    if (margin == 0) continue;
    for (int t = 0; t < T; ++t) {
      const double middle = (t + 0.5) * cell;
      svg += text_at(x - 4, y + middle + 4, labels[t], " text-anchor=\"end\"");
      svg += "<text transform=\"translate(" + fixed(x + middle + 4, 1) + " " + std::to_string(y - 4) +
             ") rotate(-90)\">" + escaped(labels[t]) + "</text>\n";
    }
  }
  return svg + "</svg>\n";
}

}  // namespace llmtk
