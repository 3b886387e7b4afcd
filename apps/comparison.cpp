#include "comparison.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "core/error.h"
#include "nn/causal_model.h"
#include "nn/encoder_model.h"
#include "nn/seq2seq_model.h"
#include "nn/sequence_classifier.h"
#include "open_model.h"

namespace llmtk {
namespace {

constexpr int64_t kRandomRows = 4, kRandomLength = 64;
constexpr int64_t kPositions = 64;  // whose distributions stand side by side in double precision

/// What the model's head says of one row: [T, V], or a classifier's [1, labels]. An encoder-decoder reads the row on
/// both sides.
at::Tensor logits_of(nn::Model& model, const at::Tensor& ids) {
  if (dynamic_cast<nn::Seq2SeqClassifier*>(&model)) {
    const at::Tensor end = at::full({1, 1}, model.config().value("eos_token_id", int64_t{1}), ids.options());
    return model.class_logits({.input_ids = at::cat({ids, end}, 1)});
  }
  if (model.head() == nn::Head::sequence_classification) return model.class_logits({.input_ids = ids});
  if (auto* causal = dynamic_cast<nn::CausalModel*>(&model)) return causal->logits(causal->forward(ids))[0];
  if (auto* encoder = dynamic_cast<nn::EncoderModel*>(&model))
    return encoder->logits(encoder->forward(ids)).flatten(0, -2);
  auto& seq2seq = dynamic_cast<nn::Seq2SeqModel&>(model);
  return seq2seq.logits(seq2seq.decode(ids, {.encoder_hidden = seq2seq.encode(ids)}))[0];
}

at::Tensor ids_of(const std::vector<text::TokenId>& row, const nn::Model& model) {
  const std::vector<int64_t> wide(row.begin(), row.end());
  return at::tensor(wide).unsqueeze(0).to(model.device());
}

double nll(const at::Tensor& logits, const at::Tensor& ids) {
  return -at::log_softmax(logits.slice(0, 0, -1), -1).gather(1, ids[0].slice(0, 1).unsqueeze(1)).sum().item<double>();
}

/// The sum over positions.
double kl_of(const at::Tensor& before, const at::Tensor& after) {
  double sum = 0;
  for (int64_t at = 0; at < before.size(0); at += kPositions) {
    const int64_t end = std::min(before.size(0), at + kPositions);
    const at::Tensor p = at::log_softmax(before.slice(0, at, end), -1, at::kDouble);
    const at::Tensor q = at::log_softmax(after.slice(0, at, end), -1, at::kDouble);
    sum += (p.exp() * (p - q)).sum().item<double>();
  }
  return sum;
}

}  // namespace

double Comparison::perplexity(double nll) const { return std::exp(nll / static_cast<double>(scored)); }

Comparison compare(nn::Model& before, nn::Model& after, const TokenRows& rows) {
  const at::NoGradGuard no_grad;
  const bool scores = dynamic_cast<nn::CausalModel*>(&after);
  Comparison found;
  double kl = 0;
  int64_t positions = 0;
  for (const auto& row : rows) {
    const at::Tensor ids = ids_of(row, before);
    const at::Tensor was = logits_of(before, ids).to(at::kFloat), is = logits_of(after, ids).to(at::kFloat);
    found.tokens += ids.numel();
    found.largest_logit_difference = std::max(found.largest_logit_difference, (was - is).abs().max().item<double>());
    found.largest_logit = std::max(found.largest_logit, was.abs().max().item<double>());
    kl += kl_of(was, is);
    positions += was.size(0);
    if (!scores || row.size() < 2) continue;
    found.scored += ids.numel() - 1;
    found.nll_before += nll(was, ids);
    found.nll_after += nll(is, ids);
  }
  found.mean_kl = positions ? std::max(0.0, kl / static_cast<double>(positions)) : 0;
  return found;
}

double negative_log_likelihood(nn::Model& model, const TokenRows& rows) {
  const at::NoGradGuard no_grad;
  double sum = 0;
  for (const auto& row : rows) {
    if (row.size() < 2) continue;
    const at::Tensor ids = ids_of(row, model);
    sum += nll(logits_of(model, ids).to(at::kFloat), ids);
  }
  return sum;
}

TokenRows text_rows(const text::Tokenizer& tokenizer, const std::string& text, const std::string& where,
                    int64_t max_tokens, int64_t longest) {
  auto ids = encode_text(tokenizer, text, /*add_special_tokens=*/true, where);
  ids.resize(std::min(ids.size(), static_cast<size_t>(max_tokens)));
  if (ids.size() < 2) throw Error(Exit::data, {.what = "the text has less than two tokens", .where = where});
  TokenRows rows;
  for (size_t begin = 0; begin < ids.size(); begin += static_cast<size_t>(longest))
    rows.emplace_back(ids.begin() + static_cast<ptrdiff_t>(begin),
                      ids.begin() + static_cast<ptrdiff_t>(std::min(ids.size(), begin + static_cast<size_t>(longest))));
  return rows;
}

TokenRows random_rows(int64_t vocab_size, int64_t longest) {
  std::mt19937_64 random(0);
  TokenRows rows(kRandomRows);
  for (auto& row : rows)
    for (int64_t t = 0; t < std::min(kRandomLength, longest); ++t)
      row.push_back(static_cast<text::TokenId>(random() % static_cast<uint64_t>(vocab_size)));
  return rows;
}

}  // namespace llmtk
