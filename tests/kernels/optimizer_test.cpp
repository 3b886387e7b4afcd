// Optimizer steps against their references and torch.optim's formulas; masters; sums of squares.

#include <ATen/Parallel.h>

#include <cmath>

#include "compare.h"
#include "core/error.h"
#include "kernels/optimizer.h"

using namespace llmtk;
using test::difference;

namespace {

kernels::AdamWTensor adamw_tensor(int64_t n, bool narrow_param, bool narrow_grad, c10::Device device) {
  at::manual_seed(static_cast<uint64_t>(n));
  kernels::AdamWTensor t;
  const at::Tensor master = at::randn({n});
  if (narrow_param) {
    std::tie(t.param, t.extra) = kernels::split_master(master);
    t.extra = t.extra.to(device);
  } else {
    t.param = master;
  }
  t.param = t.param.to(device);
  t.grad = at::randn({n}).to(device, narrow_grad ? at::kBFloat16 : at::kFloat);
  t.exp_avg = at::zeros({n}, at::TensorOptions().device(device));
  t.exp_avg_sq = at::zeros({n}, at::TensorOptions().device(device));
  t.weight_decay = 0.1;
  t.lr_scale = n % 2 ? 1.0 : 2.0;
  return t;
}

at::Tensor master_of(const at::Tensor& param, const at::Tensor& extra) {
  return (extra.defined() ? kernels::join_master(param.cpu(), extra.cpu()) : param.cpu()).clone();
}

void adamw(c10::Device device) {
  for (const bool narrow_param : {false, true}) {
    for (const bool narrow_grad : {false, true}) {
      CAPTURE(narrow_param, narrow_grad);
      std::vector<kernels::AdamWTensor> fused, plain;
      for (const int64_t n : {1, 7, 33, 300001, 0}) {
        fused.push_back(adamw_tensor(n, narrow_param, narrow_grad, device));
        plain.push_back(adamw_tensor(n, narrow_param, narrow_grad, c10::kCPU));
      }
      for (int64_t step = 1; step <= 20; ++step) {
        kernels::AdamWOptions options{.lr = 1e-2, .step = step, .grad_scale = 0.5, .zero_grad = step == 20};
        kernels::adamw_step(fused, options);
        kernels::reference::adamw_step(plain, options);
      }
      for (size_t i = 0; i < fused.size(); ++i) {
        const at::Tensor got = master_of(fused[i].param, fused[i].extra);
        CHECK(difference(got, master_of(plain[i].param, plain[i].extra)) < 2e-6);
        CHECK(difference(fused[i].exp_avg.cpu(), plain[i].exp_avg) < 1e-6);
        CHECK(difference(fused[i].exp_avg_sq.cpu(), plain[i].exp_avg_sq) < 1e-6);
        CHECK(fused[i].grad.abs().sum().item<double>() == 0.0);
      }
    }
  }
}

void sgd(c10::Device device) {
  for (const bool narrow : {false, true})
    for (const double momentum : {0.0, 0.9})
      for (const bool nesterov : {false, true}) {
        std::vector<kernels::SgdTensor> fused, plain;
        for (const int64_t n : {5, 200003}) {
          for (auto* list : {&fused, &plain}) {
            const kernels::AdamWTensor t = adamw_tensor(n, narrow, narrow, list == &fused ? device : c10::kCPU);
            list->push_back({t.param, t.grad, momentum == 0.0 ? at::Tensor() : t.exp_avg, t.extra, 0.1, 1.5});
          }
        }
        for (int step = 0; step < 5; ++step) {
          const kernels::SgdOptions options{.lr = 0.1, .momentum = momentum, .nesterov = nesterov, .grad_scale = 2.0};
          kernels::sgd_step(fused, options);
          kernels::reference::sgd_step(plain, options);
        }
        for (size_t i = 0; i < fused.size(); ++i)
          CHECK(difference(master_of(fused[i].param, fused[i].extra), master_of(plain[i].param, plain[i].extra)) < 2e-6);
      }
}

void sums(c10::Device device) {
  at::manual_seed(9);
  std::vector<at::Tensor> list;
  for (const int64_t n : {1, 0, 9, 5000, 400003}) {
    list.push_back(at::randn({n}).to(device));
    list.push_back(at::randn({n}).to(device, at::kBFloat16));
  }
  list.push_back(at::randn({30, 20}).to(device).t());
  list.push_back(at::randn({30, 20}).to(device).narrow(1, 3, 5));
  const double expected = kernels::reference::squared_norm(list);
  CHECK(kernels::squared_norm(list) == Approx(expected).epsilon(1e-7));
  list[0].fill_(std::numeric_limits<float>::infinity());
  CHECK_FALSE(std::isfinite(kernels::squared_norm(list)));

  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    at::Tensor total = at::randn({3, 1000, 7}).to(device);
    const at::Tensor part = at::randn({3, 1000, 7}).to(device, dtype), expected_sum = total + part.to(at::kFloat);
    kernels::accumulate_(total, part);
    CHECK(at::equal(total, expected_sum));
  }
}

}  // namespace

TEST_CASE("AdamW") { adamw(c10::kCPU); }
TEST_CASE("SGD") { sgd(c10::kCPU); }
TEST_CASE("sums") { sums(c10::kCPU); }
TEST_CASE("optimizer steps on a GPU", "[gpu]") {
  if (!test::has_gpu()) LLMTK_SKIP("no GPU here");
  adamw(c10::Device(c10::kCUDA, 0));
  sgd(c10::Device(c10::kCUDA, 0));
  sums(c10::Device(c10::kCUDA, 0));
}

TEST_CASE("AdamW's first step moves by the learning rate against the gradient's sign") {
  kernels::AdamWTensor t{.param = at::full({3}, 2.0), .grad = at::tensor({1e-3f, -5.0f, 0.0f})};
  t.exp_avg = at::zeros({3});
  t.exp_avg_sq = at::zeros({3});
  kernels::adamw_step(std::span(&t, 1), {.lr = 0.01, .eps = 1e-12});
  CHECK(difference(t.param, at::tensor({1.99f, 2.01f, 2.0f})) < 1e-6);
}

TEST_CASE("a bfloat16 weight and its extra bits hold the float32 master exactly") {
  at::manual_seed(10);
  const at::Tensor master = at::cat({at::randn({100000}) * at::exp(at::randn({100000}) * 10.0), at::zeros({1}),
                                     at::full({1}, -0.0), at::full({1}, 3.4028234e38), at::full({1}, 1e-40),
                                     at::full({1}, 1.00390625), at::full({1}, -1.00390625)});
  const auto [weight, extra] = kernels::split_master(master);
  CHECK(at::equal(kernels::join_master(weight, extra).view(at::kInt), master.view(at::kInt)));
  // The weight is the master rounded to nearest.
  const at::Tensor rounded = master.to(at::kBFloat16);
  CHECK((weight != rounded).sum().item<int64_t>() <= 10);  // ties alone differ
  const at::Tensor error = (weight.to(at::kFloat) - master).abs().narrow(0, 0, 100000);
  CHECK((error <= (rounded.to(at::kFloat) - master).abs().narrow(0, 0, 100000)).all().item<bool>());
}

TEST_CASE("updates below bfloat16's resolution add up in the master") {
  kernels::AdamWTensor t{.grad = at::full({64}, 1.0f, at::kBFloat16)};
  std::tie(t.param, t.extra) = kernels::split_master(at::ones({64}));
  t.exp_avg = at::zeros({64});
  t.exp_avg_sq = at::zeros({64});
  for (int64_t step = 1; step <= 1000; ++step) kernels::adamw_step(std::span(&t, 1), {.lr = 1e-5, .step = step});
  CHECK(kernels::join_master(t.param, t.extra)[0].item<float>() == Approx(0.99).epsilon(1e-4));
}

TEST_CASE("steps and sums do not depend on the number of threads") {
  const int threads = at::get_num_threads();
  const at::Tensor x = at::randn({1000003});
  at::set_num_threads(1);
  const double one = kernels::squared_norm(std::span(&x, 1));
  at::set_num_threads(2);
  CHECK(kernels::squared_norm(std::span(&x, 1)) == one);
  at::set_num_threads(threads);
}

TEST_CASE("a bfloat16 parameter without its extra bits is refused") {
  kernels::AdamWTensor t{.param = at::ones({4}, at::kBFloat16), .grad = at::ones({4}, at::kBFloat16)};
  t.exp_avg = at::zeros({4});
  t.exp_avg_sq = at::zeros({4});
  CHECK_THROWS_AS(kernels::adamw_step(std::span(&t, 1), {}), CheckFailed);
}
