#include "rl/figures.h"

#include <ATen/ATen.h>

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

}  // namespace llmtk::rl
