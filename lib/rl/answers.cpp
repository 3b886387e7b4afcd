#include "rl/answers.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "kernels/cross_entropy.h"

namespace llmtk::rl {

at::Tensor Answers::asked() const { return targets != data::kIgnore; }
at::Tensor Answers::answer_lengths() const { return asked().sum(1).to(at::kFloat); }

at::Tensor Answers::all_targets() const {
  at::Tensor next = at::full_like(input_ids, data::kIgnore);
  next.narrow(1, 0, next.size(1) - 1).copy_(input_ids.narrow(1, 1, next.size(1) - 1));
  const at::Tensor places = at::arange(next.size(1), lengths.options()).unsqueeze(0);  // [1, T]
  return next.masked_fill(places >= lengths.unsqueeze(1) - 1, data::kIgnore);
}

Answers Answers::part(int64_t first, int64_t count) const {
  const int64_t longest = std::max<int64_t>(1, lengths.narrow(0, first, count).max().item<int64_t>());
  const auto cut = [&](const at::Tensor& x) { return x.narrow(0, first, count).narrow(1, 0, longest); };
  return {cut(input_ids), cut(targets), lengths.narrow(0, first, count), count};
}

Answers split_answers(const data::Batch& batch, c10::Device device) {
  struct Text {
    int64_t row, begin, end;
  };
  std::vector<Text> texts[2];
  int64_t longest = 1;
  for (int64_t row = 0; row < batch.rows; ++row) {
    const int64_t length = batch.lengths.empty() ? batch.length : batch.lengths[static_cast<size_t>(row)];
    const auto position = [&](int64_t t) {  // without any, rows are one text each
      return batch.position_ids.empty() ? t : batch.position_ids[static_cast<size_t>(row * batch.length + t)];
    };
    int64_t begin = 0, place = 0;
    for (int64_t t = 1; t <= length; ++t) {
      if (t < length && position(t) != 0) continue;
      LLMTK_CHECK(place < 2, "a row of more than two texts");
      texts[place++].push_back({row, begin, t});
      longest = std::max(longest, t - begin);
      begin = t;
    }
  }
  LLMTK_CHECK(texts[1].empty() || texts[1].size() == texts[0].size(), "rows of one text beside rows of two");
  texts[0].insert(texts[0].end(), texts[1].begin(), texts[1].end());
  const auto M = static_cast<int64_t>(texts[0].size());
  at::Tensor ids = at::zeros({M, longest}, at::kInt), targets = at::full({M, longest}, data::kIgnore, at::kInt);
  at::Tensor lengths = at::empty({M}, at::kLong);
  for (int64_t i = 0; i < M; ++i) {
    const auto& [row, begin, end] = texts[0][static_cast<size_t>(i)];
    const int64_t from = row * batch.length + begin;
    std::copy_n(batch.input_ids.data() + from, end - begin, ids.mutable_data_ptr<int32_t>() + i * longest);
    std::copy_n(batch.labels.data() + from, end - begin, targets.mutable_data_ptr<int32_t>() + i * longest);
    lengths.mutable_data_ptr<int64_t>()[i] = end - begin;
  }
  return {ids.to(device, at::kLong), targets.to(device, at::kLong), lengths.to(device), batch.rows};
}

at::Tensor AnswerLogProbs::sums() const { return tokens.sum(1); }

AnswerLogProbs answer_log_probs(nn::CausalModel& model, const Answers& answers, const at::Tensor& targets,
                                bool entropy) {
  const at::Tensor hidden = model.forward(answers.input_ids);  // [M, T, H]
  const auto found =
      model.log_probs(hidden.flatten(0, 1), targets.flatten(), {.ignore_index = data::kIgnore, .entropy = entropy});
  return {found.log_probs.view_as(targets), entropy ? found.entropies.view_as(targets) : at::Tensor()};
}

}  // namespace llmtk::rl
