#pragma once
// A batch of responses and what is learnt from them.

#include <ATen/ops/empty.h>

#include <functional>
#include <span>
#include <vector>

#include "io/tensors.h"
#include "rl/policy.h"
#include "rl/rewards.h"

namespace llmtk::rl {

/// B responses, R tokens of the longest. What a method does not use is undefined; [B, R] are float32, 0 at padding.
struct Rollout {
  ResponseBatch batch;
  at::Tensor scores;  ///< [B] float32: what each response is worth, penalties included
  at::Tensor ended;   ///< [B] bool: by a stop token

  at::Tensor log_probs;   ///< [B, R] of the policy that wrote them
  at::Tensor reference;   ///< [B, R] of the reference
  at::Tensor values;      ///< [B, R] at batch.value_mask()
  at::Tensor advantages;  ///< [B, R]; of GRPO [B]
  at::Tensor returns;     ///< [B, R]
  at::Tensor counted;     ///< [B] bool: responses that are learnt from; undefined: all

  /// [B, R] bool: tokens that the policy learns from.
  at::Tensor mask() const { return counted.defined() ? batch.mask() & counted.unsqueeze(1) : batch.mask(); }
  int64_t size() const { return batch.ids.size(0); }
  /// For a checkpoint in the middle of it.
  io::NamedTensors tensors() const;
  /// Throws Error(file) naming `where` where one that every method has is missing.
  static Rollout from_tensors(const io::NamedTensors& tensors, c10::Device device, const std::string& where);
};

/// Texts as one batch.
ResponseBatch make_batch(std::span<const Response> responses, c10::Device device);

/// The model without what it has learnt: under a disabled adapter, or another one.
using ReferenceLogProbs = std::function<at::Tensor(const ResponseBatch& batch)>;

/// How much an optimizer step is a mean over.
struct StepSize {
  double responses = 0;
  double tokens = 0;  ///< Rollout::mask()
  double values = 0;  ///< ResponseBatch::value_mask()
  double batch_tokens = 0;  ///< of the whole rollout
};
StepSize size_of(const Rollout& rollout, const at::Tensor& rows);

/// Calls read(part), which gives [rows of the part, ...], for each of `parts` (int64 rows, each row in one), and puts what
/// it gives into the order of the rows.
template <class Read>
at::Tensor read_in_parts(const ResponseBatch& batch, const std::vector<at::Tensor>& parts, Read&& read) {
  at::Tensor all;
  for (const at::Tensor& rows : parts) {
    const at::Tensor found = read(batch.rows(rows));
    if (!all.defined()) {
      std::vector<int64_t> sizes = found.sizes().vec();
      sizes[0] = batch.ids.size(0);
      all = at::empty(sizes, found.options());
    }
    all.index_copy_(0, rows, found);
  }
  return all;
}

}  // namespace llmtk::rl
