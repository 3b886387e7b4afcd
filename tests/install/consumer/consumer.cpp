// A program of somebody else on the installed libraries: makes a small GPT-2 and runs it.
#include <ATen/ops/arange.h>

#include <cstdio>

#include <llmtk/core/runtime.h>
#include <llmtk/models/registry.h>

int main() {
  llmtk::setup_runtime(1);
  const llmtk::io::Json config = {{"model_type", "gpt2"}, {"vocab_size", 64}, {"n_embd", 16},
                                  {"n_layer", 2},         {"n_head", 2},      {"n_positions", 8}};
  const auto model = llmtk::models::create(config, {at::kFloat, c10::kCPU}, 1);
  model->eval();
  const at::Tensor ids = at::arange(8).view({1, 8});
  const at::Tensor logits = model->logits(model->forward(ids));
  std::printf("%ld parameters, logits [%ld, %ld, %ld], finite: %d\n", static_cast<long>(model->num_parameters()),
              static_cast<long>(logits.size(0)), static_cast<long>(logits.size(1)), static_cast<long>(logits.size(2)),
              logits.isfinite().all().item<bool>());
}
