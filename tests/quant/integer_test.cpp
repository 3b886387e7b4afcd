// Matrices of integers against the package compressed-tensors: tensors bit by bit, products with and without rounded
// inputs; and against plain ATen: gradients, rows of a table, other dtypes.

#include "kernels/integer.h"

#include <ATen/ATen.h>

#include "core/device.h"
#include "kernels/backend.h"
#include "models/parity.h"
#include "quant/compressed_tensors.h"
#include "quant/gptq.h"
#include "quant/integer_weight.h"
#include "test.h"

namespace llmtk {
namespace {

using at::Tensor;
using kernels::IntegerFormat;
using kernels::IntegerMatrix;

struct Kind {
  const char* name;
  IntegerFormat format;
};
const Kind kKinds[] = {
    {"w8", {}},
    {"w8_asym", {.symmetric = false}},
    {"w8_packed", {.packed = true}},
    {"w8_packed_asym", {.group_size = 32, .symmetric = false, .packed = true}},
    {"w4", {.bits = 4, .group_size = 32, .packed = true}},
    {"w4_asym", {.bits = 4, .group_size = 32, .symmetric = false, .packed = true}},
    {"w4_bytes", {.bits = 4, .group_size = 64}},
    {"w4_rows_asym", {.bits = 4, .symmetric = false, .packed = true}},
};
constexpr int kWeights = 3;
constexpr c10::ScalarType kDtypes[] = {at::kFloat, at::kBFloat16, at::kHalf};

std::map<std::string, Tensor> read_reference() {
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, tensor] : io::load_tensors(reference_folder())) tensors[name] = tensor;
  return tensors;
}

#define LLMTK_NEEDS_REFERENCE          \
  if (!fs::exists(reference_folder())) \
  LLMTK_SKIP("no reference: it is made by integer_reference.py, with the Python peers")

/// body(weight, what the package's tensors are called, the matrix, the kind).
template <class Body>
void for_each_integer_matrix(const std::map<std::string, Tensor>& reference, const Body& body) {
  for (int i = 0; i < kWeights; ++i)
    for (const c10::ScalarType dtype : kDtypes)
      for (const Kind& kind : kKinds) {
        const std::string number = std::to_string(i), key = number + "." + kind.name + "." + dtype_name(dtype);
        INFO(key);
        body(number, key, kernels::quantize(reference.at(number + ".weight"), kind.format, dtype));
      }
}

TEST_CASE("integers, scales and zero points are compressed-tensors' to the last bit") {
  LLMTK_NEEDS_REFERENCE;
  const auto reference = read_reference();
  for_each_integer_matrix(reference, [&](const std::string&, const std::string& key, const IntegerMatrix& m) {
    const auto tensors = quant::integer_tensors(key, m);
    const auto infos = quant::integer_infos(key, m.format, m.rows, m.columns, m.scales.scalar_type());
    REQUIRE(tensors.size() == infos.size());
    for (size_t i = 0; i < tensors.size(); ++i) {
      const auto& [name, tensor] = tensors[i];
      INFO(name);
      const Tensor& expected = reference.at(name);
      CHECK((tensor.scalar_type() == expected.scalar_type() && tensor.equal(expected)));
      CHECK((infos[i].name == name && infos[i].shape == tensor.sizes() &&
             infos[i].dtype == io::to_dtype(tensor.scalar_type())));
    }
    CHECK(kernels::dequantize(m, m.scales.scalar_type()).equal(reference.at(key + ".full")));
    CHECK(kernels::reference::dequantize(m, m.scales.scalar_type()).equal(reference.at(key + ".full")));
  });
}

TEST_CASE("products with integers are the package's, inputs rounded or not") {
  LLMTK_NEEDS_REFERENCE;
  const auto reference = read_reference();
  for_each_integer_matrix(reference, [&](const std::string& number, const std::string& key, IntegerMatrix m) {
    if (m.scales.scalar_type() != at::kFloat) return;
    const Tensor &x = reference.at(number + ".x"), &bias = reference.at(number + ".bias");
    CHECK(difference(kernels::linear(x, m, bias), reference.at(key + ".y")) < kTolerance);
    CHECK(difference(kernels::reference::linear(x, m, bias), reference.at(key + ".y")) < kTolerance);
    m.format.dynamic_activations = true;
    CHECK(difference(kernels::linear(x, m, bias), reference.at(key + ".dynamic")) < kTolerance);
    CHECK(difference(kernels::reference::linear(x, m, bias), reference.at(key + ".dynamic")) < kTolerance);
    CHECK(difference(kernels::linear(x, m, bias), reference.at(key + ".y")) > kTolerance);
    const auto rows = kernels::quantize_rows(x[0]);
    CHECK((rows.codes.to(at::kFloat) * rows.scales.unsqueeze(1)).equal(reference.at(number + ".rounded")[0]));
  });
}

TEST_CASE("sums of 8-bit products are exact beyond what a float holds") {
  const int64_t K = 4096;
  IntegerMatrix m{.format = {.dynamic_activations = true}, .rows = 2, .columns = K};
  m.codes = at::full({2, K}, 127, at::kChar);
  m.codes[1][0] = 126;
  m.scales = at::ones({2, 1});
  Tensor x = at::full({1, K}, -127.5);  // becomes -128 with a scale of 1
  const Tensor y = kernels::linear(x, m);
  CHECK(y[0][0].item<double>() == -128.0 * 127 * K);
  CHECK(y[0][1].item<double>() == -128.0 * 127 * K + 128);
}

TEST_CASE("rows of a table, half precision, empty inputs and gradients") {
  at::manual_seed(3);
  for (const Kind& kind : kKinds) {
    INFO(kind.name);
    const Tensor weight = at::randn({600, 192}) * 0.05, ids = at::tensor({5, 0, 599, 7, 7, 8}).view({2, 3});
    const quant::IntegerWeight storage(kernels::quantize(weight, kind.format, at::kBFloat16));
    const Tensor full = storage.dequantize(at::kFloat);
    CHECK(storage.rows(ids, at::kFloat).equal(full.index({ids})));
    CHECK(storage.rows(ids, at::kBFloat16).equal(full.index({ids}).to(at::kBFloat16)));
    const Tensor empty = kernels::linear(at::empty({2, 0, 192}), storage.matrix());
    CHECK(empty.sizes() == at::IntArrayRef({2, 0, 600}));
    const Tensor half = at::randn({4, 192}, at::kBFloat16), bias = at::randn({600}, at::kBFloat16);
    const Tensor expected = at::linear(half.to(at::kFloat), full.to(at::kBFloat16).to(at::kFloat), bias.to(at::kFloat));
    const Tensor y = storage.linear(half, bias);
    CHECK(y.scalar_type() == at::kBFloat16);
    CHECK(difference(y, expected) < 5e-3);

    Tensor x = at::randn({2, 3, 192}).requires_grad_(), shift = at::randn({600}).requires_grad_();
    const Tensor dy = at::randn({2, 3, 600});
    storage.linear(x, shift).backward(dy);
    CHECK(difference(x.grad(), at::matmul(dy, full)) < kTolerance);
    CHECK(difference(shift.grad(), dy.flatten(0, 1).sum(0)) < kTolerance);

    IntegerMatrix rounding = storage.matrix();
    rounding.format.dynamic_activations = true;
    Exit exit{};
    CHECK(test::says(test::error_of([&] { kernels::linear(x, rounding); }, &exit), "no gradient"));
    CHECK(exit == Exit::usage);
  }
}

TEST_CASE("GPTQ rounds as a plain PyTorch program of the paper's algorithm") {
  LLMTK_NEEDS_REFERENCE;
  const auto reference = read_reference();
  for (const std::string number : {"gptq.0", "gptq.1"})
    for (const Kind& kind : {kKinds[0], kKinds[4], kKinds[5]})
      for (const bool desc_act : {false, true}) {
        const std::string key = number + "." + kind.name + (desc_act ? ".desc_act" : "");
        INFO(key);
        const Tensor &weight = reference.at(number + ".weight"), &hessian = reference.at(number + ".hessian");
        const auto result = quant::gptq(weight, hessian, kind.format, at::kBFloat16, {.desc_act = desc_act});
        const Tensor values = kernels::dequantize(result.matrix, at::kFloat), &expected = reference.at(key + ".values");
        // A code at the edge of two may fall either way, and moves those after it a little.
        CHECK((values - expected).abs().gt(1e-6).to(at::kFloat).mean().item<double>() < 0.002);
        CHECK(difference(result.matrix.scales, reference.at(key + ".scale").to(at::kFloat)) < 1e-2);
        const auto error = reference.at(key + ".error").item<double>();
        CHECK(std::abs(result.output_error - error) < 1e-3 * error);
        const Tensor nearest = kernels::dequantize(kernels::quantize(weight, kind.format, at::kBFloat16), at::kFloat);
        CHECK(error < 0.9 * quant::output_error(weight, nearest, hessian));
      }
}

TEST_CASE("a weight that is no number is not quantized") {
  Tensor weight = at::ones({4, 32});
  weight[2][5] = NAN;
  Exit exit{};
  CHECK(test::says(test::error_of([&] { kernels::quantize(weight, IntegerFormat(), at::kFloat); }, &exit), "NaN"));
  CHECK(exit == Exit::file);
}

}  // namespace
}  // namespace llmtk
