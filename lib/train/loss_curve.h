#pragma once
// The loss over the steps of a run, as a picture.

#include <cstdint>
#include <string>
#include <vector>

#include "train/metrics.h"

namespace llmtk::train {

/// A curve of bounded size: once it has kMost points, two neighbours become one, their mean.
class Curve {
 public:
  struct Point {
    double step, value;
  };
  static constexpr size_t kMost = 2000;

  void add(double step, double value);
  /// The values that wait for a point of their own are one more, their mean.
  std::vector<Point> points() const;
  /// The newest value, as it was added.
  double last() const { return last_; }

 private:
  Point mean_of_waiting() const;

  std::vector<Point> points_;
  Point sum_{0, 0};
  double last_ = 0;
  int64_t waiting_ = 0, per_point_ = 1;  // values in sum_, and in a point
};

/// The training and evaluation losses of a run.
class LossCurve {
 public:
  /// A row of metrics.jsonl; one without a finite loss is passed over.
  void add(const Row& row);
  /// An SVG that is readable on light and dark backgrounds.
  std::string svg(const std::string& title) const;

 private:
  Curve train_, eval_;
};

}  // namespace llmtk::train
