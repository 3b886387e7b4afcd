#include "rl/figures.h"

#include <ATen/ATen.h>

#include <numeric>
#include <vector>

namespace llmtk::rl {

void add_figures(train::MetricSums& sums, std::span<const Figure> figures) {
  std::vector<at::Tensor> numbers;
  for (const Figure& figure : figures) {
    numbers.push_back(at::where(figure.counted, figure.values.detach(), 0).sum().to(at::kDouble));
    numbers.push_back(figure.counted.sum().to(at::kDouble));
  }
  const at::Tensor host = at::stack(numbers).cpu();
  const double* number = host.const_data_ptr<double>();
  for (const Figure& figure : figures) {
    sums.add(figure.name, number[0], number[1]);
    number += 2;
  }
}

double mean_of(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double variance_of(std::span<const double> values) {
  if (values.size() < 2) return 0;
  const double mean = mean_of(values);
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return squares / static_cast<double>(values.size() - 1);
}

}  // namespace llmtk::rl
