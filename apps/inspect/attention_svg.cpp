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
std::string cells(const AttentionMap& map, const AttentionLabels& labels, int cell) {
  std::string out;
  out += "<rect width=\"" + std::to_string(labels.columns.size() * cell) + "\" height=\"" +
         std::to_string(labels.rows.size() * cell) + "\" fill=\"#f4f5f7\"/>\n";
  for (size_t t = 0; t < map.weights.size(); ++t)
    for (size_t s = 0; s < map.weights[t].size(); ++s) {
      const float weight = map.weights[t][s];
      if (!(weight >= kFaintest)) continue;
      out += "<rect x=\"" + std::to_string(s * cell) + "\" y=\"" + std::to_string(t * cell) + "\" width=\"" +
             std::to_string(cell) + "\" height=\"" + std::to_string(cell) + "\" fill-opacity=\"" + fixed(weight, 3) +
             "\"><title>" + escaped(labels.rows[t]) + " → " + escaped(labels.columns[s]) + ": " + fixed(weight, 3) +
             "</title></rect>\n";
    }
  return out;
}

int widest(const std::vector<std::string>& labels) {
  int width = 0;
  for (const auto& label : labels) width = std::max(width, static_cast<int>(kCharacter * display_width(label)) + 8);
  return width;
}

}  // namespace

std::string attention_svg(const std::vector<AttentionMap>& maps, const AttentionLabels& labels, size_t maps_in_line) {
  const bool one = maps.size() == 1;
  const auto T = static_cast<int>(labels.rows.size()), S = static_cast<int>(labels.columns.size());
  const int longest = std::max({T, S, 1});
  const int cell = one ? std::max(6, std::min(22, 1600 / longest)) : std::max(1, std::min(8, 240 / longest));
  const bool labelled = one && cell >= 10;
  const int left = labelled ? widest(labels.rows) : 0, top = labelled ? widest(labels.columns) : 0;
  if (maps_in_line == 0)
    maps_in_line = one ? 1 : static_cast<size_t>(std::ceil(std::sqrt(static_cast<double>(maps.size()))));
  const size_t lines = (maps.size() + maps_in_line - 1) / maps_in_line;
  // A title must fit above its map.
  int wide = S * cell;
  for (const auto& map : maps) wide = std::max(wide, static_cast<int>(kCharacter * display_width(map.title)));
  const int step_x = wide + kGap, step_y = T * cell + kTitle + kGap;
  const int width = left + static_cast<int>(maps_in_line) * step_x + kGap;
  const int height = top + static_cast<int>(lines) * step_y + kGap;

  std::string svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + std::to_string(width) + "\" height=\"" +
                    std::to_string(height) + "\" viewBox=\"0 0 " + std::to_string(width) + " " +
                    std::to_string(height) +
                    "\" font-family=\"'Noto Sans CJK SC', 'PingFang SC', 'Microsoft YaHei', sans-serif\" "
                    "font-size=\"12\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n";
  for (size_t i = 0; i < maps.size(); ++i) {
    const int x = left + kGap + static_cast<int>(i % maps_in_line) * step_x;
    const int y = top + kTitle + static_cast<int>(i / maps_in_line) * step_y;
    svg += text_at(x, y - 6 - top, maps[i].title, " font-weight=\"bold\"");
    svg += "<g transform=\"translate(" + std::to_string(x) + " " + std::to_string(y) + ")\" fill=\"#1f4e9c\">\n" +
           cells(maps[i], labels, cell) + "</g>\n";
    if (!labelled) continue;
    for (int t = 0; t < T; ++t) svg += text_at(x - 4, y + (t + 0.5) * cell + 4, labels.rows[t], " text-anchor=\"end\"");
    for (int s = 0; s < S; ++s)
      svg += "<text transform=\"translate(" + fixed(x + (s + 0.5) * cell + 4, 1) + " " + std::to_string(y - 4) +
             ") rotate(-90)\">" + escaped(labels.columns[s]) + "</text>\n";
  }
  return svg + "</svg>\n";
}

}  // namespace llmtk
