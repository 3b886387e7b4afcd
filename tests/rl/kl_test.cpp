// The KL's controllers, and the edges that no reference has.

#include "rl/kl.h"

#include <ATen/ATen.h>

#include <cmath>

#include "rl/advantages.h"
#include "rl/policy_losses.h"
#include "rl/preference_losses.h"
#include "test.h"

using namespace llmtk;

TEST_CASE("a fixed coefficient stays; an adaptive one follows Ziegler's rule, whose error is bounded") {
  rl::KlController fixed(0.05);
  fixed.update(100, 64);
  CHECK(fixed.coefficient() == 0.05);
  rl::KlController adaptive(0.2, /*target=*/6.0, /*horizon=*/10000);
  adaptive.update(6.6, 256);  // 10 % too far
  CHECK(adaptive.coefficient() == Approx(0.2 * (1 + 0.1 * 256 / 10000)));
  adaptive.set_coefficient(0.2);
  adaptive.update(600, 256);
  CHECK(adaptive.coefficient() == Approx(0.2 * (1 + 0.2 * 256 / 10000)));
  adaptive.set_coefficient(0.2);
  adaptive.update(0, 256);
  CHECK(adaptive.coefficient() == Approx(0.2 * (1 - 0.2 * 256 / 10000)));
}

TEST_CASE("names of estimators and losses are checked") {
  CHECK(rl::parse_kl_estimator("k3") == rl::KlEstimator::k3);
  CHECK(test::says(test::error_of([] { rl::parse_kl_estimator("k2"); }), "k1 or k3"));
  CHECK(rl::parse_grpo_loss("dr_grpo") == rl::GrpoOptions::Mean::dr_grpo);
  CHECK(test::says(test::error_of([] { rl::parse_grpo_loss("ppo"); }), "dapo"));
}

TEST_CASE("what stands at padding never reaches a policy's loss or gradient") {
  const at::Tensor mask = at::tensor({1, 1, 0}, at::kInt).to(at::kBool).view({1, 3});
  at::Tensor log_probs = at::tensor({-1.0f, -2.0f, INFINITY}).view({1, 3}).set_requires_grad(true);
  const at::Tensor old = at::tensor({-1.5f, -1.9f, -3.0f}).view({1, 3}),
                   advantages = at::tensor({1.0f, -1.0f, 7.0f}).view({1, 3});
  rl::ppo_policy_loss(log_probs, old, advantages, mask, 0.2).loss.backward();
  CHECK(log_probs.grad().isfinite().all().item<bool>());
  CHECK(log_probs.grad()[0][2].item<float>() == 0);
  CHECK(log_probs.grad()[0][0].item<float>() == 0);  // clipped: e^0.5 is above 1.2
  CHECK(log_probs.grad()[0][1].item<float>() != 0);
}

TEST_CASE("groups without differences have no advantages") {
  CHECK(rl::group_advantages(at::tensor({3.0f, 3.0f, 1.0f, 1.0f}), 2).equal(at::zeros({4})));
  CHECK(rl::group_advantages(at::tensor({3.0f, 5.0f}), 1).equal(at::zeros({2})));
}

TEST_CASE("whitening fewer than two values is refused") {
  CHECK_THROWS_AS(rl::masked_whiten(at::ones({3}), at::tensor({1, 0, 0}, at::kInt).to(at::kBool)), CheckFailed);
}

TEST_CASE("odds of a certain answer are large, not infinite, and have a gradient") {
  const at::Tensor certain = at::zeros({1}).set_requires_grad(true), other = at::full({1}, -1.0);
  const at::Tensor odds = rl::log_odds_ratio(certain, other);
  odds.sum().backward();
  CHECK(std::isfinite(odds.item<float>()));
  CHECK(certain.grad().isfinite().all().item<bool>());
}
