// Every fused operation against its plain reference: results and gradients, both dtypes, odd sizes, empty tensors, views.
// The same cases run on the CPU and, tagged [gpu], on a GPU.

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>

#include <limits>
#include <mutex>
#include <set>
#include <thread>

#include "compare.h"
#include "core/error.h"
#include "kernels/activation.h"
#include "kernels/cross_entropy.h"
#include "kernels/linear.h"
#include "kernels/norm.h"
#include "kernels/rotary.h"
#include "kernels/tensors.h"

using namespace llmtk;
using test::Tensors;

namespace {

at::Tensor random(at::IntArrayRef shape, double scale = 1.0) { return at::randn(shape) * scale; }

void norms(c10::Device device) {
  at::manual_seed(1);
  for (const auto& [rows, H] : {std::pair<int64_t, int64_t>{5, 7}, {1, 768}, {67, 100}, {300, 33}, {3, 3}, {0, 16}}) {
    CAPTURE(rows, H);
    const at::Tensor x = random({rows, H}) + 0.5, residual = random({rows, H}), weight = random({H}) + 1.0,
                     bias = random({H});
    test::compare(
        "layer_norm", [](const Tensors& t) { return Tensors{kernels::layer_norm(t[0], t[1], t[2], 1e-5)}; },
        [](const Tensors& t) { return Tensors{kernels::reference::layer_norm(t[0], t[1], t[2], 1e-5)}; },
        {x, weight, bias}, device);
    test::compare(
        "layer_norm without bias", [](const Tensors& t) { return Tensors{kernels::layer_norm(t[0], t[1], {}, 1e-5)}; },
        [](const Tensors& t) { return Tensors{kernels::reference::layer_norm(t[0], t[1], {}, 1e-5)}; }, {x, weight},
        device);
    test::compare(
        "rms_norm", [](const Tensors& t) { return Tensors{kernels::rms_norm(t[0], t[1], 1e-6)}; },
        [](const Tensors& t) { return Tensors{kernels::reference::rms_norm(t[0], t[1], 1e-6)}; }, {x, weight}, device);
    test::compare(
        "rms_norm with unit offset", [](const Tensors& t) { return Tensors{kernels::rms_norm(t[0], t[1], 1e-6, true)}; },
        [](const Tensors& t) { return Tensors{kernels::reference::rms_norm(t[0], t[1], 1e-6, true)}; }, {x, bias},
        device);
    test::compare(
        "add_layer_norm",
        [](const Tensors& t) {
          const auto [sum, y] = kernels::add_layer_norm(t[0], t[1], t[2], t[3], 1e-5);
          return Tensors{sum, y};
        },
        [](const Tensors& t) {
          const at::Tensor sum = t[0] + t[1];
          return Tensors{sum, kernels::reference::layer_norm(sum, t[2], t[3], 1e-5)};
        },
        {x, residual, weight, bias}, device);
    test::compare(
        "add_rms_norm",
        [](const Tensors& t) {
          const auto [sum, y] = kernels::add_rms_norm(t[0], t[1], t[2], 1e-6);
          return Tensors{sum, y};
        },
        [](const Tensors& t) {
          const at::Tensor sum = t[0] + t[1];
          return Tensors{sum, kernels::reference::rms_norm(sum, t[2], 1e-6)};
        },
        {x, residual, weight}, device);
    test::compare(
        "add_rms_norm with unit offset",
        [](const Tensors& t) {
          const auto [sum, y] = kernels::add_rms_norm(t[0], t[1], t[2], 1e-6, true);
          return Tensors{sum, y};
        },
        [](const Tensors& t) {
          const at::Tensor sum = t[0] + t[1];
          return Tensors{sum, kernels::reference::rms_norm(sum, t[2], 1e-6, true)};
        },
        {x, residual, bias}, device);
  }
  // Three dimensions that do not lie in order, and only one of the two outputs used.
  const at::Tensor x = random({4, 3, 40}).transpose(0, 1), residual = random({3, 4, 40}), weight = random({40});
  test::compare(
      "add_rms_norm of a view",
      [](const Tensors& t) { return Tensors{std::get<1>(kernels::add_rms_norm(t[0], t[1], t[2], 1e-6))}; },
      [](const Tensors& t) { return Tensors{kernels::reference::rms_norm(t[0] + t[1], t[2], 1e-6)}; },
      {x, residual, weight}, device);
  test::compare(
      "the sum of add_layer_norm alone",
      [](const Tensors& t) {
        return Tensors{std::get<0>(kernels::add_layer_norm(t[0], t[1], t[2].detach(), {}, 1e-6)) * t[2]};
      },
      [](const Tensors& t) { return Tensors{(t[0] + t[1]) * t[2]}; }, {x, residual, weight}, device);
}

void activations(c10::Device device) {
  at::manual_seed(2);
  for (const auto& shape : std::vector<std::vector<int64_t>>{{1}, {7}, {3, 33}, {2, 5, 256}, {0, 4}, {40, 1000}}) {
    const at::Tensor x = random(shape, 3.0), up = random(shape);
    for (const bool tanh : {false, true}) {
      test::compare(
          "gelu", [=](const Tensors& t) { return Tensors{kernels::gelu(t[0], tanh)}; },
          [=](const Tensors& t) { return Tensors{kernels::reference::gelu(t[0], tanh)}; }, {x}, device);
      test::compare(
          "geglu", [=](const Tensors& t) { return Tensors{kernels::geglu(t[0], t[1], tanh)}; },
          [=](const Tensors& t) { return Tensors{kernels::reference::geglu(t[0], t[1], tanh)}; }, {x, up}, device);
    }
    test::compare(
        "swiglu", [](const Tensors& t) { return Tensors{kernels::swiglu(t[0], t[1])}; },
        [](const Tensors& t) { return Tensors{kernels::reference::swiglu(t[0], t[1])}; }, {x, up}, device);
  }
  test::compare(
      "swiglu of the halves of one tensor",
      [](const Tensors& t) { return Tensors{kernels::swiglu(t[0].narrow(-1, 0, 37), t[0].narrow(-1, 37, 37))}; },
      [](const Tensors& t) {
        return Tensors{kernels::reference::swiglu(t[0].narrow(-1, 0, 37), t[0].narrow(-1, 37, 37))};
      },
      {random({2, 3, 74})}, device);
}

void rotaries(c10::Device device) {
  at::manual_seed(3);
  struct Case {
    int64_t B, H, K, T, D, R;
    bool per_sequence;
  };
  for (const Case& c : {Case{2, 4, 2, 5, 64, 64, false}, Case{3, 2, 1, 7, 20, 12, true}, Case{1, 1, 1, 1, 2, 2, false},
                        Case{0, 2, 2, 3, 8, 8, false}, Case{2, 9, 3, 33, 64, 64, true}}) {
    const at::Tensor angles = at::rand(c.per_sequence ? std::vector<int64_t>{c.B, c.T, c.R} : std::vector<int64_t>{c.T, c.R});
    const at::Tensor cos = at::cos(angles * 6.0), sin = at::sin(angles * 5.0);
    for (const bool angles_rounded : {false, true}) {
      const auto at_device = [&](const at::Tensor& a, const at::Tensor& like) {
        const at::Tensor same = a.to(at::kBFloat16);
        return same.to(like.device(), angles_rounded ? like.scalar_type() : at::kFloat);
      };
      const auto flat = [&](const at::Tensor& t, int64_t heads) {  // [B, T, heads * D] -> [B, heads, T, D]
        return t.view({c.B, c.T, heads, c.D}).transpose(1, 2);
      };
      test::compare(
          "rotary",
          [&](const Tensors& t) {
            const auto [q, k] = kernels::rotary(flat(t[0], c.H), t[1], at_device(cos, t[0]), at_device(sin, t[0]));
            return Tensors{q, k};
          },
          [&](const Tensors& t) {
            const auto [q, k] =
                kernels::reference::rotary(flat(t[0], c.H), t[1], at_device(cos, t[0]), at_device(sin, t[0]));
            return Tensors{q, k};
          },
          {random({c.B, c.T, c.H * c.D}), random({c.B, c.K, c.T, c.D})}, device);
    }
  }
}

/// leaves: hidden, weight, targets, bias.
void log_probs_of(const Tensors& leaves, double softcap, c10::Device device) {
  for (const bool entropy : {false, true}) {
    const kernels::LogProbOptions options{.temperature = entropy ? 0.7 : 1.0, .softcap = softcap, .entropy = entropy};
    const auto outputs = [&](const kernels::LogProbs& found) {
      return entropy ? Tensors{found.log_probs, found.entropies} : Tensors{found.log_probs};
    };
    const at::Tensor bias = entropy ? leaves[3] : at::Tensor();
    test::compare(
        "linear_log_prob",
        [&](const Tensors& t) { return outputs(kernels::linear_log_prob(t[0], t[1], t[2], options, t[3])); },
        [&](const Tensors& t) { return outputs(kernels::reference::linear_log_prob(t[0], t[1], t[2], options, t[3])); },
        {leaves[0], leaves[1], leaves[2], bias}, device, /*bfloat16_tolerance=*/4e-2);  // entropies cancel
    const auto on_device = [&](size_t i) { return leaves[i].to(device); };
    const auto values = [&](const auto& function, auto&& leaf) {
      return function(leaf(0), leaf(1), leaf(2), options, at::Tensor()).log_probs.cpu();
    };
    const auto plain = [&](size_t i) { return leaves[i]; };
    CHECK(test::difference(values(kernels::linear_log_prob, on_device),
                           values(kernels::reference::linear_log_prob, plain)) < 4e-6);
  }
}

void cross_entropies(c10::Device device) {
  at::manual_seed(4);
  struct Case {
    int64_t N, H, V;
    double ignored;
  };
  for (const Case& c : {Case{9, 16, 31, 0.0}, Case{40, 24, 1000, 0.5}, Case{6, 8, 5, 1.0}, Case{0, 8, 5, 0.0},
                        Case{1, 8, 1, 0.0}, Case{70, 4, 300007, 0.1}}) {
    CAPTURE(c.N, c.H, c.V);
    at::Tensor targets = at::randint(c.V, {c.N}, at::kLong);
    targets.masked_fill_(at::rand({c.N}) < c.ignored, -100);
    const at::Tensor hidden = random({c.N, c.H}), weight = random({c.V, c.H}, 0.5);
    for (const double softcap : {0.0, 1.5}) {
      const kernels::LinearCrossEntropyOptions options{.scale = 0.25, .softcap = softcap};
      test::compare(
          "linear_cross_entropy",
          [&](const Tensors& t) { return Tensors{kernels::linear_cross_entropy(t[0], t[1], t[2], options)}; },
          [&](const Tensors& t) { return Tensors{kernels::reference::linear_cross_entropy(t[0], t[1], t[2], options)}; },
          {hidden, weight, targets}, device);
      test::compare(
          "linear_cross_entropy with a bias",
          [&](const Tensors& t) { return Tensors{kernels::linear_cross_entropy(t[0], t[1], t[2], options, t[3])}; },
          [&](const Tensors& t) {
            return Tensors{kernels::reference::linear_cross_entropy(t[0], t[1], t[2], options, t[3])};
          },
          {hidden, weight, targets, random({c.V})}, device);
      log_probs_of({hidden, weight, targets, random({c.V})}, softcap, device);
    }
  }
}

void linears(c10::Device device) {
  at::manual_seed(5);
  for (const auto& [N, I, O] : {std::tuple<int64_t, int64_t, int64_t>{3, 5, 7}, {64, 100, 33}, {2, 300, 4}}) {
    test::compare(
        "linear", [](const Tensors& t) { return Tensors{kernels::linear(t[0], t[1], t[2])}; },
        [](const Tensors& t) { return Tensors{at::linear(t[0], t[1], t[2])}; },
        {random({2, N, I}), random({O, I}), random({O})}, device);
    for (const int64_t rows : {int64_t{1}, N}) {  // without a gradient, few rows go another way than many
      const at::NoGradGuard no_gradient;
      const auto narrow = [&](const at::Tensor& t) { return t.to(device, at::kBFloat16); };
      const auto wide = [&](const at::Tensor& t) { return narrow(t).cpu().to(at::kFloat); };
      const at::Tensor x = random({1, rows, I}), weight = random({O, I}), bias = random({O});
      const at::Tensor got = kernels::linear(narrow(x), narrow(weight), narrow(bias)).cpu().to(at::kFloat);
      CHECK(test::difference(got, at::linear(wide(x), wide(weight), wide(bias))) < 1e-2);
    }
    for (const bool accumulate : {false, true}) {
      const at::Tensor a = random({N, I}).to(device, at::kBFloat16), b = random({O, I}).to(device, at::kBFloat16);
      at::Tensor out = at::ones({N, O}, a.options());
      kernels::mm_out(out, a, b.t(), accumulate);
      const at::Tensor expected = at::mm(a.cpu().to(at::kFloat), b.cpu().to(at::kFloat).t()) + (accumulate ? 1.0 : 0.0);
      CHECK(test::difference(out.cpu().to(at::kFloat), expected) < 1e-2);
    }
  }
}

}  // namespace

TEST_CASE("norms") { norms(c10::kCPU); }
TEST_CASE("activations") { activations(c10::kCPU); }
TEST_CASE("rotary embeddings") { rotaries(c10::kCPU); }
TEST_CASE("linear + cross-entropy") { cross_entropies(c10::kCPU); }
TEST_CASE("linear") { linears(c10::kCPU); }

TEST_CASE("norms on a GPU", "[gpu]") {
  if (!test::has_gpu()) LLMTK_SKIP("no GPU here");
  norms(c10::Device(c10::kCUDA, 0));
}
TEST_CASE("activations on a GPU", "[gpu]") {
  if (!test::has_gpu()) LLMTK_SKIP("no GPU here");
  activations(c10::Device(c10::kCUDA, 0));
}
TEST_CASE("rotary embeddings on a GPU", "[gpu]") {
  if (!test::has_gpu()) LLMTK_SKIP("no GPU here");
  rotaries(c10::Device(c10::kCUDA, 0));
}
TEST_CASE("linear + cross-entropy on a GPU", "[gpu]") {
  if (!test::has_gpu()) LLMTK_SKIP("no GPU here");
  cross_entropies(c10::Device(c10::kCUDA, 0));
}
TEST_CASE("linear on a GPU", "[gpu]") {
  if (!test::has_gpu()) LLMTK_SKIP("no GPU here");
  linears(c10::Device(c10::kCUDA, 0));
}

TEST_CASE("the fused kernels run, and can be switched off") {
  CHECK((std::string(kernels::cpu_target()) == "AVX2" || std::string(kernels::cpu_target()) == "AVX3"));
  CHECK(kernels::use_fused(at::ones({2})));
  CHECK_FALSE(kernels::use_fused(at::ones({2}, at::kDouble)));
  kernels::set_backend(kernels::Backend::reference);
  CHECK_FALSE(kernels::use_fused(at::ones({2})));
  kernels::set_backend(kernels::Backend::automatic);
  // The fused operation is one node of the graph.
  const at::Tensor x = at::ones({2, 8}).set_requires_grad(true);
  CHECK(kernels::rms_norm(x, at::ones({8}), 1e-6).grad_fn()->name().find("NormFunction") != std::string::npos);
  CHECK_FALSE(kernels::rms_norm(x.detach(), at::ones({8}), 1e-6).requires_grad());
}

TEST_CASE("a NaN or an infinity among the logits shows in the loss") {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()})
      for (const int64_t place : {0, 5, 16, 36}) {
        at::Tensor hidden = at::ones({3, 1}, dtype), weight = at::zeros({37, 1}, dtype);
        weight[place][0] = bad;
        const at::Tensor targets = at::tensor({place, place, place}, at::kLong);
        for (const bool gradient : {false, true}) {
          hidden.set_requires_grad(gradient);
          CHECK_FALSE(std::isfinite(kernels::linear_cross_entropy(hidden, weight, targets).item<float>()));
        }
        hidden.set_requires_grad(false);
      }
}

TEST_CASE("a softcap bounds the logits before the loss, by the formula") {
  const at::Tensor hidden = at::tensor({100.0f}).view({1, 1}), weight = at::tensor({1.0f, -1.0f}).view({2, 1});
  const at::Tensor targets = at::tensor({1}, at::kLong);
  // Logits of 100 and -100 become 2 and -2.
  const double expected = std::log1p(std::exp(4.0));
  CHECK(kernels::linear_cross_entropy(hidden, weight, targets, {.softcap = 2}).item<double>() == Approx(expected));
  CHECK(kernels::linear_log_prob(hidden, weight, targets, {.softcap = 2}).log_probs.item<double>() ==
        Approx(-expected));
  CHECK(kernels::linear_cross_entropy(hidden, weight, targets).item<double>() == Approx(200));
}

TEST_CASE("tokens that cannot come have no share in the entropy, and backward may run again") {
  const at::Tensor hidden = at::ones({1, 1}).set_requires_grad(true);
  const at::Tensor weight = at::tensor({1.0f, -INFINITY, 1.0f}).view({3, 1}), targets = at::tensor({0}, at::kLong);
  const auto found = kernels::linear_log_prob(hidden, weight, targets, {.entropy = true});
  CHECK(found.log_probs.item<double>() == Approx(-std::log(2.0)));
  CHECK(found.entropies.item<double>() == Approx(std::log(2.0)));
  const auto gradient = [&] {
    return torch::autograd::grad({found.log_probs.sum()}, {hidden}, {}, /*retain_graph=*/true)[0];
  };
  CHECK(gradient().equal(gradient()));
}

TEST_CASE("a target outside the vocabulary is refused") {
  const at::Tensor hidden = at::ones({2, 4}), weight = at::ones({3, 4});
  CHECK_THROWS_AS(kernels::linear_cross_entropy(hidden, weight, at::tensor({0, 3}, at::kLong)), CheckFailed);
  CHECK_THROWS_AS(kernels::linear_cross_entropy(hidden, weight, at::tensor({-1, 1}, at::kLong)), CheckFailed);
}

TEST_CASE("tied weights receive the head's gradient and the embedding's") {
  at::manual_seed(6);
  const at::Tensor ids = at::randint(11, {6}, at::kLong), targets = at::randint(11, {6}, at::kLong);
  const auto gradient = [&](bool fused) {
    at::manual_seed(7);
    const at::Tensor weight = at::randn({11, 8}).set_requires_grad(true);
    const at::Tensor hidden = at::embedding(weight, ids);
    const at::Tensor loss = fused ? kernels::linear_cross_entropy(hidden, weight, targets)
                                  : kernels::reference::linear_cross_entropy(hidden, weight, targets);
    (loss * 2.0).backward();
    return weight.grad();
  };
  CHECK(test::difference(gradient(true), gradient(false)) < 4e-6);
}

TEST_CASE("loops over rows run on all threads") {
  const int threads = at::get_num_threads();
  at::set_num_threads(2);
  std::set<std::thread::id> seen;
  std::mutex mutex;
  kernels::parallel_rows(64, 1 << 20, [&](int64_t, int64_t) {
    const std::scoped_lock lock(mutex);
    seen.insert(std::this_thread::get_id());
  });
  at::set_num_threads(threads);
  REQUIRE(seen.size() == 2);
}

TEST_CASE("gradients do not depend on the number of threads") {
  at::manual_seed(8);
  const at::Tensor x = at::randn({1000, 96}), weight = at::randn({96}), head = at::randn({501, 96});
  const at::Tensor targets = at::randint(501, {1000}, at::kLong);
  const int threads = at::get_num_threads();
  const auto gradients = [&](int count) {
    at::set_num_threads(count);
    const at::Tensor w = weight.clone().set_requires_grad(true), input = x.clone().set_requires_grad(true);
    kernels::swiglu(kernels::layer_norm(input, w, {}, 1e-5), x).sum().backward();
    return Tensors{w.grad(), input.grad()};
  };
  const Tensors one = gradients(1), two = gradients(2);
  at::set_num_threads(threads);
  CHECK(at::equal(one[0], two[0]));
  CHECK(at::equal(one[1], two[1]));
}
