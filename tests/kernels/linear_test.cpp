// The product of few rows, as decoding needs it, against the same product in float64.

#include "kernels/linear.h"

#include <ATen/ATen.h>

#include "compare.h"
#include "kernels/backend.h"
#include "test.h"

using namespace llmtk;

TEST_CASE("few rows times a large matrix, row by row or column by column in memory") {
  const at::NoGradGuard no_grad;
  at::manual_seed(3);
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const auto& [K, N] : {std::pair{1, 1}, {7, 5}, {64, 130}, {577, 1001}, {96, 4500}})
      for (const int64_t M : {1, 2, 3, 4, 5, 7, 8, 9, 32, 33})
        for (const bool transposed : {false, true})
          for (const bool with_bias : {false, true}) {
            CAPTURE(dtype, K, N, M, transposed, with_bias);
            const auto options = at::TensorOptions().dtype(dtype);
            const at::Tensor x = at::randn({M, K}).to(dtype);
            const at::Tensor weight = transposed ? at::randn({K, N}).to(options).t() : at::randn({N, K}).to(options);
            const at::Tensor bias = with_bias ? at::randn({N}).to(options) : at::Tensor();
            at::Tensor expected = x.to(at::kDouble).mm(weight.to(at::kDouble).t());
            if (with_bias) expected += bias.to(at::kDouble);
            const at::Tensor got = kernels::linear(x, weight, bias);
            CHECK(got.scalar_type() == dtype);
            CHECK(test::difference(got.to(at::kDouble), expected) < (dtype == at::kFloat ? 2e-6 : 5e-3));
          }
}

TEST_CASE("a row's product does not depend on the rows beside it") {
  const at::NoGradGuard no_grad;
  at::manual_seed(4);
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const at::Tensor& of : {at::randn({259, 333}), at::randn({333, 259}).t()}) {
      const at::Tensor x = at::randn({32, 333}).to(dtype), weight = of.to(dtype);
      const at::Tensor all = kernels::linear(x, weight);
      for (int64_t m = 1; m < 32; ++m) {
        CHECK(kernels::linear(x.narrow(0, 0, m), weight).equal(all.narrow(0, 0, m)));
        CHECK(kernels::linear(x[m].view({1, 1, 333}), weight).view({259}).equal(all[m]));
      }
    }
}

TEST_CASE("views and what is not finite go through the product of few rows") {
  const at::NoGradGuard no_grad;
  const at::Tensor weight = at::randn({30, 40}), x = at::randn({40, 3}).t();  // x is not contiguous
  CHECK(test::difference(kernels::linear(x, weight), x.mm(weight.t())) < 2e-6);
  const at::Tensor part = at::randn({30, 80}).narrow(1, 10, 40);  // neither layout
  CHECK(test::difference(kernels::linear(x, part), x.mm(part.t())) < 2e-6);
  at::Tensor broken = at::randn({2, 40});
  broken[1][39] = std::numeric_limits<float>::quiet_NaN();
  const at::Tensor y = kernels::linear(broken, weight);
  CHECK(y[0].isfinite().all().item<bool>());
  CHECK(y[1].isnan().all().item<bool>());
}
