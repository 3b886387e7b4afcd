#include "train/schedule.h"

#include <cmath>
#include <vector>

#include "core/error.h"
#include "test.h"

using namespace llmtk;
using namespace llmtk::train;

namespace {

void check(const Schedule& schedule, const std::vector<double>& expected) {
  for (size_t step = 0; step < expected.size(); ++step) {
    INFO("step " << step);
    CHECK(schedule.factor(static_cast<int64_t>(step)) == Approx(expected[step]).margin(1e-12));
  }
}

}  // namespace

// The numbers are what transformers 5's get_*_schedule gives for 4 warm-up steps of 12.
TEST_CASE("schedules follow transformers' formulas") {
  SECTION("constant") {
    check({.type = ScheduleType::constant, .total_steps = 12, .warmup_steps = 4}, {0, 0.25, 0.5, 0.75, 1, 1, 1, 1});
  }
  SECTION("linear") {
    check({.type = ScheduleType::linear, .total_steps = 12, .warmup_steps = 4},
          {0, 0.25, 0.5, 0.75, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0, 0});
  }
  SECTION("cosine, with a floor") {
    const double c = std::cos(M_PI / 4);
    check({.type = ScheduleType::cosine, .total_steps = 8, .warmup_steps = 4, .min_lr_ratio = 0.1},
          {0, 0.25, 0.5, 0.75, 1, 0.1 + 0.45 * (1 + c), 0.55, 0.1 + 0.45 * (1 - c), 0.1, 0.1});
  }
  SECTION("WSD: the warm-up is lifted off the floor too") {
    check({.type = ScheduleType::wsd,
           .total_steps = 10,
           .warmup_steps = 2,
           .decay_steps = 4,
           .decay_shape = DecayShape::linear,
           .min_lr_ratio = 0.2},
          {0.2, 0.6, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0.2});
    check({.type = ScheduleType::wsd, .total_steps = 4, .decay_steps = 4, .decay_shape = DecayShape::one_minus_sqrt},
          {1, 0.5, 1 - std::sqrt(0.5), 1 - std::sqrt(0.75), 0});
  }
}

TEST_CASE("a schedule of another name is refused with the choices") {
  CHECK(parse_schedule("warmup_stable_decay") == ScheduleType::wsd);
  CHECK_THROWS_WITH(parse_schedule("cosin"),
                    Catch::Contains("'cosin'") && Catch::Contains("constant, linear, cosine or wsd"));
}
