// Packed weights against plain ATen: unpacking bit by bit, products and gradients.

#include "kernels/quantized.h"

#include <ATen/ATen.h>

#include "compare.h"
#include "kernels/backend.h"
#include "kernels/plan.h"
#include "test.h"

using namespace llmtk;
using kernels::QuantizedMatrix;
using kernels::QuantType;

namespace {

constexpr QuantType kTypes[] = {QuantType::nf4, QuantType::fp4, QuantType::int8};

/// Sizes with blocks that end with a row, blocks that do not, an odd number of elements, and several tiles.
constexpr std::pair<int64_t, int64_t> kShapes[] = {{1, 1},    {3, 64},    {70, 7},    {65, 130},
                                                   {33, 192}, {19, 1001}, {1900, 576}};

at::Tensor weight_of(int64_t rows, int64_t columns) { return at::randn({rows, columns}) * 0.02; }

std::string name_of(QuantType type, bool doubly) {
  return std::string(type == QuantType::int8  ? "int8"
                     : type == QuantType::nf4 ? "nf4"
                                              : "fp4") +
         (doubly ? " doubly" : "");
}

template <class F>
void for_each_matrix(const F& f) {
  at::manual_seed(5);
  for (const QuantType type : kTypes)
    for (const bool doubly : {false, true})
      for (const auto& [rows, columns] : kShapes) {
        if (type == QuantType::int8 && doubly) continue;
        CAPTURE(name_of(type, doubly), rows, columns);
        const at::Tensor weight = weight_of(rows, columns);
        f(weight, kernels::quantize(weight, type, doubly));
      }
}

/// The product of x with what the reference unpacks, in float32 with gradients for x and bias.
test::Operation reference_product(const QuantizedMatrix& q, at::ScalarType compute) {
  return [&q, compute](const test::Tensors& in) -> test::Tensors {
    const at::Tensor w = kernels::reference::dequantize(q, compute).to(at::kFloat);
    return {at::linear(in[0], w, in[1])};
  };
}

void products_agree(c10::Device device) {
  for_each_matrix([&](const at::Tensor&, const QuantizedMatrix& cpu) {
    const QuantizedMatrix q = cpu.to(device);
    for (const at::ScalarType compute : {at::kFloat, at::kBFloat16})
      for (const bool with_bias : {false, true}) {
        CAPTURE(compute, with_bias);
        const test::Tensors leaves = {at::randn({2, 9, q.columns}), with_bias ? at::randn({q.rows}) : at::Tensor()};
        const test::Tensors expected = test::run_with_gradients(
            [&](const test::Tensors& in) -> test::Tensors {
              return {in[1].defined() ? reference_product(cpu, compute)(in)[0]
                                      : at::linear(in[0], kernels::reference::dequantize(cpu, compute).to(at::kFloat))};
            },
            leaves, at::kFloat, at::kCPU);
        const test::Tensors got = test::run_with_gradients(
            [&](const test::Tensors& in) -> test::Tensors { return {kernels::linear(in[0], q, in[1], compute)}; },
            leaves, at::kFloat, device);
        for (size_t i = 0; i < got.size(); ++i)
          if (expected[i].defined())
            CHECK(test::difference(got[i], expected[i]) < (compute == at::kFloat ? 4e-6 : 1.6e-2));
      }
  });
}

}  // namespace

TEST_CASE("packed weights are unpacked to the reference's last bit") {
  for_each_matrix([](const at::Tensor& weight, const QuantizedMatrix& q) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf})
      CHECK(kernels::dequantize(q, dtype).equal(kernels::reference::dequantize(q, dtype)));
    const double bound = q.type == QuantType::int8 ? 0.5 / 127 + 1.0 / 2048 : 0.2;  // half of the largest step; float16
    CHECK((kernels::dequantize(q, at::kFloat) - weight).abs().max().item<double>() <=
          bound * 1.05 * weight.abs().max().item<double>());
  });
}

TEST_CASE("a weight is packed the same whatever its layout and however its rows are cut") {
  at::manual_seed(6);
  const at::Tensor weight = weight_of(4200, 520);  // several pieces
  for (const QuantType type : kTypes) {
    const QuantizedMatrix whole = kernels::quantize(weight, type);
    CHECK(kernels::quantize(weight.t().contiguous().t(), type).codes.equal(whole.codes));
    const QuantizedMatrix rows = kernels::quantize(weight.narrow(0, 128, 64), type);  // of whole blocks
    CHECK(kernels::dequantize(rows, at::kFloat).equal(kernels::dequantize(whole, at::kFloat).narrow(0, 128, 64)));
  }
}

TEST_CASE("products with packed weights and their gradients") { products_agree(at::kCPU); }

TEST_CASE("products with packed weights on a GPU", "[gpu]") {
  if (!test::has_gpu()) LLMTK_SKIP("no GPU");
  products_agree(at::kCUDA);
}

TEST_CASE("products of few rows with packed weights are recorded") {
  const at::NoGradGuard no_grad;
  const QuantizedMatrix q = kernels::quantize(at::randn({40, 64}), kernels::QuantType::nf4, true);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = at::randn({3, 64}).to(dtype), bias = at::randn({40}).to(dtype);
    kernels::Recording recording;
    const at::Tensor y = kernels::linear(x, q, bias, dtype);
    const auto plan = recording.finish();
    INFO(recording.refused_by());
    REQUIRE(plan);
    x.neg_();
    plan->run();
    CHECK(y.equal(kernels::linear(x, q, bias, dtype)));
  }
}

TEST_CASE("few rows times a packed weight") {
  const at::NoGradGuard no_grad;
  for_each_matrix([](const at::Tensor&, const QuantizedMatrix& q) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
      for (const int64_t M : {1, 2, 3, 4, 5, 6, 7, 8}) {
        CAPTURE(dtype, M);
        const at::Tensor x = at::randn({M, q.columns}).to(dtype), bias = at::randn({q.rows}).to(dtype);
        const at::Tensor w = kernels::reference::dequantize(q, at::kFloat).to(at::kDouble);
        const at::Tensor expected = at::linear(x.to(at::kDouble), w, bias.to(at::kDouble));
        const at::Tensor got = kernels::linear(x, q, bias, dtype);
        CHECK(test::difference(got.to(at::kDouble), expected) < (dtype == at::kFloat ? 2e-6 : 1e-2));
      }
  });
}

TEST_CASE("what is not finite is not packed; zeros and nothing are") {
  const at::Tensor zeros = at::zeros({70, 64});
  for (const QuantType type : kTypes) {
    at::Tensor broken = at::randn({70, 64});
    broken[69][63] = std::numeric_limits<float>::quiet_NaN();
    CHECK(test::says(test::error_of([&] { kernels::quantize(broken, type); }), "NaN or infinity"));
    const QuantizedMatrix q = kernels::quantize(zeros, type);
    CHECK(kernels::dequantize(q, at::kFloat).equal(zeros));
    const at::Tensor x = at::zeros({0, 64}).set_requires_grad(true);
    const at::Tensor y = kernels::linear(x, q, {});
    CHECK(y.sizes() == at::IntArrayRef({0, 70}));
    y.sum().backward();
    CHECK(x.grad().sizes() == x.sizes());
  }
  CHECK(kernels::dequantize(kernels::quantize(zeros, QuantType::nf4, true), at::kFloat).equal(zeros));
}
