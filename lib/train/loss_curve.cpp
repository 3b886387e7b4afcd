#include "train/loss_curve.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace llmtk::train {
namespace {

using Point = Curve::Point;

constexpr double kWidth = 800, kHeight = 450, kLeft = 64, kRight = 24, kTop = 48, kBottom = 48;

/// 1, 2 or 5 times a power of ten, so that about `count` of them cover `range`.
double tick_distance(double range, int count) {
  const double rough = std::max(range, 1e-12) / count, power = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (rough <= factor * power) return factor * power;
  return 10 * power;
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.10g", value);
  return text;
}

std::string pixel(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
  return text;
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
  return out;
}

std::string label(double x, double y, const char* anchor, const std::string& text) {
  return "<text x=\"" + pixel(x) + "\" y=\"" + pixel(y) + "\" text-anchor=\"" + anchor + "\">" + escaped(text) +
         "</text>\n";
}

std::string line(double x1, double y1, double x2, double y2) {
  return "<line class=\"grid\" x1=\"" + pixel(x1) + "\" y1=\"" + pixel(y1) + "\" x2=\"" + pixel(x2) + "\" y2=\"" +
         pixel(y2) + "\"/>\n";
}

}  // namespace

Curve::Point Curve::mean_of_waiting() const {
  const auto n = static_cast<double>(waiting_);
  return {sum_.step / n, sum_.value / n};
}

std::vector<Point> Curve::points() const {
  std::vector<Point> all = points_;
  if (waiting_ > 0) all.push_back(mean_of_waiting());
  return all;
}

void Curve::add(double step, double value) {
  last_ = value;
  sum_.step += step;
  sum_.value += value;
  if (++waiting_ < per_point_) return;
  points_.push_back(mean_of_waiting());
  sum_ = {0, 0};
  waiting_ = 0;
  if (points_.size() < kMost) return;
  for (size_t i = 0; i < kMost / 2; ++i) {
    const Point &a = points_[2 * i], &b = points_[2 * i + 1];
    points_[i] = {(a.step + b.step) / 2, (a.value + b.value) / 2};
  }
  points_.resize(kMost / 2);
  per_point_ *= 2;
}

void LossCurve::add(const Row& row) {
  const auto take = [&](const char* key, Curve& curve) {
    const auto found = row.find(key);
    if (found != row.end() && found->is_number() && std::isfinite(found->get<double>()))
      curve.add(row["step"].get<double>(), found->get<double>());
  };
  take("loss", train_);
  take("eval_loss", eval_);
}

std::string LossCurve::svg(const std::string& title) const {
  const std::vector<Point> train = train_.points(), eval = eval_.points();
  double last = 1, low = 1e300, high = -1e300;
  for (const auto* points : {&train, &eval})
    for (const Point& p : *points)
      last = std::max(last, p.step), low = std::min(low, p.value), high = std::max(high, p.value);
  if (low > high) low = 0, high = 1;
  // A range that ticks can divide, also where all losses are the same.
  high = std::max(high, low + 1e-6 * std::max(std::abs(low), 1.0));
  const double y_tick = tick_distance(high - low, 6), x_tick = std::max(1.0, tick_distance(last, 8));
  low = std::floor(low / y_tick) * y_tick;
  high = std::max(std::ceil(high / y_tick) * y_tick, low + y_tick);

  const auto x = [&](double step) { return kLeft + step / last * (kWidth - kLeft - kRight); };
  const auto y = [&](double loss) {
    return kHeight - kBottom - (loss - low) / (high - low) * (kHeight - kTop - kBottom);
  };
  std::string svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + number(kWidth) + " " +
                    number(kHeight) +
                    "\" font-family=\"sans-serif\" font-size=\"13\">\n<style>\n"
                    "text { fill: #444 } .grid { stroke: #8884 } .line { fill: none; stroke-width: 2 }\n"
                    ".train { stroke: #1f77b4 } .eval { stroke: #d95f02 } .dot { fill: #d95f02 }\n"
                    "@media (prefers-color-scheme: dark) { text { fill: #ccc } }\n</style>\n";
  svg += "<title>" + escaped(title) + "</title>\n" + label(kLeft, 28, "start", title);
  for (double tick = low; tick <= high + y_tick / 2; tick += y_tick) {
    svg += line(kLeft, y(tick), kWidth - kRight, y(tick));
    svg += label(kLeft - 8, y(tick) + 4, "end", number(std::round(tick / y_tick) * y_tick));
  }
  for (double tick = 0; tick <= last + x_tick / 1e6; tick += x_tick) {
    svg += line(x(tick), kTop, x(tick), kHeight - kBottom);
    svg += label(x(tick), kHeight - kBottom + 20, "middle", number(tick));
  }
  svg +=
      label((kLeft + kWidth - kRight) / 2, kHeight - 8, "middle", "step") + label(kLeft - 8, kTop - 12, "end", "loss");
  const auto curve = [&](const std::vector<Point>& points, const char* name) {
    if (points.empty()) return;
    svg += "<polyline class=\"line " + std::string(name) + "\" points=\"";
    for (const Point& p : points) svg += pixel(x(p.step)) + "," + pixel(y(p.value)) + " ";
    svg += "\"/>\n";
  };
  curve(train, "train");
  curve(eval, "eval");
  for (const Point& p : eval)
    svg += "<circle class=\"dot\" cx=\"" + pixel(x(p.step)) + "\" cy=\"" + pixel(y(p.value)) + "\" r=\"3\"/>\n";
  const auto legend = [&](double at, const char* name, const Curve& of) {
    if (of.points().empty()) return;
    svg += "<polyline class=\"line " + std::string(name) + "\" points=\"" + pixel(at) + ",24 " + pixel(at + 24) +
           ",24\"/>\n";
    svg += label(at + 30, 28, "start", std::string(name) + " " + number(std::round(of.last() * 1000) / 1000));
  };
  legend(kWidth - kRight - 250, "train", train_);
  legend(kWidth - kRight - 120, "eval", eval_);
  return svg + "</svg>\n";
}

}  // namespace llmtk::train
