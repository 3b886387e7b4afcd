#include "dist/parallel.h"

namespace llmtk::dist {
namespace {

class SingleProcess final : public Parallel {
 public:
  int rank() const override { return 0; }
  int world_size() const override { return 1; }
  int64_t sum(int64_t value) override { return value; }
  void sum(at::Tensor&) override {}
  void sum_gradients(const std::vector<at::Tensor>&) override {}
  void broadcast_parameters(const std::vector<at::Tensor>&) override {}
  void barrier() override {}
};

}  // namespace

std::unique_ptr<Parallel> single_process() { return std::make_unique<SingleProcess>(); }

}  // namespace llmtk::dist
