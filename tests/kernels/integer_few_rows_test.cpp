// Products of few rows with matrices of integers, against the plain ones.

#include <ATen/ATen.h>

#include "compare.h"
#include "kernels/integer.h"
#include "kernels/plan.h"
#include "test.h"

using namespace llmtk;
using kernels::IntegerFormat;

namespace {

struct Rounded {
  IntegerFormat format;
  int64_t N, K;
};

std::vector<Rounded> rounded() {
  std::vector<Rounded> all;
  for (const bool dynamic : {false, true})
    for (const bool symmetric : {true, false}) {
      for (const int64_t group : {0, 32, 64, 128})
        for (const int64_t K : {64, 96, 128, 576, 1024})
          if (group == 0 || K % group == 0)
            all.push_back({{.bits = 4,
                            .group_size = group,
                            .symmetric = symmetric,
                            .packed = true,
                            .dynamic_activations = dynamic},
                           70,
                           K});
      for (const bool packed : {false, true})
        for (const auto& [group, K] : {std::pair{0, 8}, {0, 100}, {0, 576}, {0, 1030}, {128, 256}, {64, 128}})
          all.push_back({{.bits = 8,
                          .group_size = group,
                          .symmetric = symmetric,
                          .packed = packed,
                          .dynamic_activations = dynamic},
                         37,
                         K});
    }
  return all;
}

}  // namespace

namespace {

void few_integer_rows_agree(c10::Device device) {
  const at::NoGradGuard no_grad;
  at::manual_seed(1);
  for (const Rounded& c : rounded())
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      CAPTURE(c.format.bits, c.format.group_size, c.format.symmetric, c.format.packed, c.format.dynamic_activations,
              c.K, dtype);
      const auto plain = kernels::quantize(at::randn({c.N, c.K}).to(dtype) + 0.3, c.format, dtype).ready(),
                 m = plain.to(device);
      const at::Tensor at_home = at::randn({9, c.K}).to(dtype), shift = at::randn({c.N}).to(dtype);
      const at::Tensor x = at_home.to(device), bias = shift.to(device), all = kernels::linear(x, m, bias);
      const at::Tensor expected = kernels::reference::linear(at_home.to(at::kFloat), plain, shift.to(at::kFloat));
      CHECK(all.scalar_type() == dtype);
      CHECK(test::difference(all.cpu(), expected) < (dtype == at::kFloat ? 5e-6 : 5e-3));
      if (c.format.bits == 8 && c.format.group_size == 64)
        continue;                               // of other sizes; what is left is for those that it takes
      for (int64_t rows = 1; rows < 9; ++rows)  // whatever stands beside a row
        CHECK(kernels::linear(x.narrow(0, 0, rows), m, bias).equal(all.narrow(0, 0, rows)));
      CHECK(kernels::linear(x.narrow(0, 8, 1), m).equal(kernels::linear(x, m).narrow(0, 8, 1)));
    }

}  // namespace

TEST_CASE("few rows times a matrix of integers") { few_integer_rows_agree(at::kCPU); }

TEST_CASE("few rows times a matrix of integers on a GPU", "[gpu]") {
  if (!test::has_gpu()) LLMTK_SKIP("no GPU");
  few_integer_rows_agree(at::kCUDA);
}
}  // namespace

TEST_CASE("rounded rows' sums of integers are exact") {
  const at::NoGradGuard no_grad;
  at::manual_seed(2);
  const auto m = kernels::quantize(at::randn({50, 1500}), {.bits = 8, .dynamic_activations = true}, at::kFloat).ready();
  at::Tensor x = at::randn({3, 1500});
  x[1] = -x[1].abs();  // -128 among the codes
  x[2].zero_();
  const auto rows = kernels::quantize_rows(x);
  CHECK(rows.codes.min().item<int>() == -128);
  const at::Tensor sums = rows.codes.to(at::kLong).matmul(m.codes.to(at::kLong).t());
  const at::Tensor expected = sums.to(at::kFloat) * m.scales.t() * rows.scales.unsqueeze(1);
  CHECK(kernels::linear(x, m).equal(expected));
}

TEST_CASE("products and rows of integers are recorded") {
  const at::NoGradGuard no_grad;
  at::manual_seed(3);
  const auto table = kernels::quantize(at::randn({20, 64}), {.bits = 8, .packed = true}, at::kFloat).ready();
  const auto m =
      kernels::quantize(at::randn({40, 64}),
                        {.bits = 4, .group_size = 32, .symmetric = false, .packed = true, .dynamic_activations = true},
                        at::kFloat)
          .ready();
  const at::Tensor ids = at::tensor({3L, 19L}, at::kLong);
  const auto pass = [&] { return kernels::linear(kernels::dequantize_rows(table, ids, at::kFloat), m); };
  kernels::Recording recording;
  const at::Tensor y = pass();
  const auto plan = recording.finish();
  INFO(recording.refused_by());
  REQUIRE(plan);
  ids.copy_(at::tensor({0L, 7L}, at::kLong));
  plan->run();
  CHECK(y.equal(pass()));
  CHECK(test::difference(kernels::dequantize_rows(table, ids, at::kFloat),
                         kernels::dequantize(table, at::kFloat).index_select(0, ids)) == 0);
}
