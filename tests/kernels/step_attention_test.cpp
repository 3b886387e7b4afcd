// Attention of newest tokens, against the formula; and what a decoder's kernels do when they are recorded and repeated.

#include "kernels/step_attention.h"

#include <ATen/ATen.h>

#include "compare.h"
#include "kernels/activation.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "kernels/norm.h"
#include "kernels/plan.h"
#include "kernels/rotary.h"
#include "test.h"

using namespace llmtk;
using kernels::KeyValueBlocks;

namespace {

struct Shapes {
  int64_t B, H, K, T, D, room;
  std::vector<int64_t> lengths;
};

const std::vector<Shapes> kSteps = {
    {1, 1, 1, 1, 8, 4, {0}},
    {2, 4, 4, 1, 16, 40, {17, 3}},
    {3, 9, 3, 1, 64, 700, {600, 1, 333}},
    {1, 8, 2, 5, 20, 30, {11}},
    {2, 6, 2, 3, 33, 64, {61, 0}},
    {1, 14, 2, 1, 128, 300, {255}},
    {8, 4, 1, 4, 64, 90, {1, 2, 3, 4, 50, 60, 70, 80}},
};

KeyValueBlocks make_blocks(const Shapes& c, c10::ScalarType dtype, bool quantized) {
  const std::vector<int64_t> sizes = {c.B, c.K, c.room, c.D};
  if (!quantized) return {at::randn(sizes).to(dtype), at::randn(sizes).to(dtype), {}, {}};
  const auto [keys, key_scales] = kernels::quantize_tokens(at::randn(sizes));
  const auto [values, value_scales] = kernels::quantize_tokens(at::randn(sizes));
  return {keys, values, key_scales, value_scales};
}

KeyValueBlocks copy(const KeyValueBlocks& b, c10::Device device = at::kCPU) {
  const auto clone = [&](const at::Tensor& x) { return x.defined() ? x.to(device, x.scalar_type(), false, true) : x; };
  return {clone(b.keys), clone(b.values), clone(b.key_scales), clone(b.value_scales)};
}

/// [B, heads, T, D] as models hand it over: a view of [B, T, heads, D].
at::Tensor heads(int64_t B, int64_t H, int64_t T, int64_t D, c10::ScalarType dtype) {
  return at::randn({B, T, H, D}).to(dtype).transpose(1, 2);
}

}  // namespace

namespace {

void attention_agrees(c10::Device device) {
  const at::NoGradGuard no_grad;
  at::manual_seed(1);
  for (const Shapes& c : kSteps)
    for (const auto dtype : {at::kFloat, at::kBFloat16})
      for (const bool quantized : {false, true})
        for (const auto& [softcap, window] : {std::pair{0.0, 0}, {0.0, 5}, {3.0, 0}, {2.0, 100}}) {
          CAPTURE(c.H, c.T, c.D, dtype, quantized, softcap, window);
          const at::Tensor q = heads(c.B, c.H, c.T, c.D, dtype), k = heads(c.B, c.K, c.T, c.D, dtype),
                           v = heads(c.B, c.K, c.T, c.D, dtype);
          const KeyValueBlocks plain = make_blocks(c, dtype, quantized), ours = copy(plain, device);
          const at::Tensor lengths = at::tensor(c.lengths, at::kLong);
          const kernels::StepAttentionOptions options{.scale = 0.3, .softcap = softcap, .window = window};
          const at::Tensor y =
              kernels::step_attention(q.to(device), k.to(device), v.to(device), ours, lengths.to(device), options);
          const at::Tensor expected = kernels::reference::step_attention(q, k, v, plain, lengths, options);
          CHECK(y.sizes() == at::IntArrayRef({c.B, c.T, c.H * c.D}));
          CHECK(test::difference(y.cpu(), expected) < (dtype == at::kFloat ? 5e-6 : 1e-2));
          CHECK(ours.keys.cpu().equal(plain.keys));
          CHECK(ours.values.cpu().equal(plain.values));
          if (quantized) CHECK(test::difference(ours.key_scales.cpu(), plain.key_scales) < 1e-6);
        }
}

}  // namespace

TEST_CASE("new tokens see what their row holds and each other") { attention_agrees(at::kCPU); }

TEST_CASE("new tokens see what their row holds and each other, on a GPU", "[gpu]") {
  if (!test::has_gpu()) LLMTK_SKIP("no GPU");
  attention_agrees(at::kCUDA);
}

TEST_CASE("a token's attention does not depend on the tokens and rows beside it") {
  const at::NoGradGuard no_grad;
  at::manual_seed(2);
  const Shapes c{3, 6, 2, 4, 40, 90, {50, 3, 77}};
  for (const bool quantized : {false, true}) {
    const at::Tensor q = heads(c.B, c.H, c.T, c.D, at::kFloat), k = heads(c.B, c.K, c.T, c.D, at::kFloat),
                     v = heads(c.B, c.K, c.T, c.D, at::kFloat);
    const KeyValueBlocks together = make_blocks(c, at::kFloat, quantized), apart = copy(together);
    const at::Tensor all = kernels::step_attention(q, k, v, together, at::tensor(c.lengths, at::kLong), {.scale = 0.2});
    for (int64_t b = 0; b < c.B; ++b) {
      const auto row = [b](const at::Tensor& x) { return x.defined() ? x.narrow(0, b, 1) : x; };
      const KeyValueBlocks own{row(apart.keys), row(apart.values), row(apart.key_scales), row(apart.value_scales)};
      for (int64_t t = 0; t < c.T; ++t) {
        const auto token = [&](const at::Tensor& x) { return row(x).narrow(2, t, 1); };
        const at::Tensor y = kernels::step_attention(token(q), token(k), token(v), own,
                                                     at::tensor({c.lengths[b] + t}, at::kLong), {.scale = 0.2});
        CHECK(y[0][0].equal(all[b][t]));
      }
    }
  }
}

TEST_CASE("what a step computes is recorded and repeated with what then stands in the same memory") {
  const at::NoGradGuard no_grad;
  at::manual_seed(3);
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const int64_t B = 2, H = 4, D = 16, W = H * D;
    const at::Tensor table = at::randn({30, W}).to(dtype), norm = at::rand({W}).to(dtype);
    const at::Tensor up = at::randn({40, W}).to(dtype), down = at::randn({W, 40}).to(dtype);
    const at::Tensor cos = at::randn({20, D}), sin = at::randn({20, D});
    const at::Tensor ids = at::tensor({3L, 29L}, at::kLong).view({B, 1}), lengths = at::tensor({0L, 7L}, at::kLong);
    const at::Tensor places = lengths.clone().view({B, 1});
    const KeyValueBlocks blocks = make_blocks({B, H, H, 1, D, 20, {}}, dtype, false), again = copy(blocks);
    const auto pass = [&](const KeyValueBlocks& held) {
      const at::Tensor x = kernels::lookup(table, ids);
      const auto split = [&](const at::Tensor& y) { return y.unflatten(2, {H, D}).transpose(1, 2); };
      const auto [q, k] =
          kernels::rotary(split(x), split(x), kernels::lookup(cos, places), kernels::lookup(sin, places));
      const at::Tensor y = kernels::step_attention(q, k, split(x), held, lengths, {.scale = 0.25});
      const auto [sum, normed] = kernels::add_rms_norm(y, x, norm, 1e-5);
      const at::Tensor hidden = kernels::linear(normed, up);
      const at::Tensor z = kernels::linear(kernels::swiglu(hidden, kernels::relu(hidden)), down);
      return kernels::widen(kernels::softcap(kernels::scale(kernels::add(sum, z), 0.7), 5.0));
    };
    kernels::Recording recording;
    const at::Tensor result = pass(blocks);
    const auto plan = recording.finish();
    INFO(recording.refused_by());
    REQUIRE(plan);
    CHECK(plan->size() > 10);
    for (int64_t step = 0; step < 5; ++step) {
      const at::Tensor got = result.clone();
      CHECK(test::difference(got, pass(again)) < (dtype == at::kFloat ? 1e-6 : 2e-2));
      ids.copy_((ids + 11) % 30);
      lengths.add_(1);
      places.add_(1);
      result.zero_();
      plan->run();
    }
  }
}

TEST_CASE("a recording says what cannot be repeated") {
  const at::NoGradGuard no_grad;
  const at::Tensor x = at::randn({2, 8}), w = at::randn({4, 8});
  const auto refused_by = [](const auto& f) {
    kernels::Recording recording;
    f();
    const bool refused = !recording.finish();
    CHECK(refused == !recording.refused_by().empty());
    return recording.refused_by();
  };
  CHECK(refused_by([&] { kernels::linear(x, w).view({8}).unsqueeze(0); }).empty());
  CHECK(refused_by([&] { at::tanh(kernels::linear(x, w)); }) == "aten::tanh");
  CHECK(refused_by([&] { kernels::linear(at::randn({40, 8}), w); }) == "aten::randn");
  CHECK(!refused_by([&] { kernels::linear(x.to(at::kDouble), w.to(at::kDouble)); }).empty());
  CHECK(!kernels::Recording::current());
}
