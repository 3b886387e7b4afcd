#include "evaluators.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "generate/generate.h"
#include "metrics/classification.h"
#include "metrics/written.h"
#include "nn/seq2seq_model.h"

namespace llmtk {
namespace {

using Json = nlohmann::ordered_json;
using data::Batch;

/// Numbers of the whole set; those of each class are for `llmtk eval classify`.
Json overall(const metrics::ClassificationMetrics& metrics) {
  Json all = metrics.summary();
  for (const char* key : {"classes", "outputs", "rows"}) all.erase(key);
  for (auto& [name, value] : all.items())
    if (value.is_number() && !std::isfinite(value.get<double>())) value = nullptr;
  return all;
}

data::ClassificationTask task_of(train::ProblemType problem) {
  if (problem == train::ProblemType::regression) return data::ClassificationTask::regression;
  return problem == train::ProblemType::multi_label_classification ? data::ClassificationTask::multi_label
                                                                   : data::ClassificationTask::single_label;
}

class TextClassEvaluator final : public train::Evaluator {
 public:
  TextClassEvaluator(std::shared_ptr<nn::Model> model, train::ProblemType problem,
                     std::vector<std::string> names)
      : model_(std::move(model)), problem_(problem), names_(std::move(names)) {}

  void begin() override { metrics_ = metrics::make_classification_metrics(task_of(problem_), names_); }
  bool has_perplexity() const override { return false; }
  Json metrics() override { return overall(*metrics_); }

  at::Tensor loss(const Batch& batch) override {
    const at::Tensor logits = train::class_logits(*model_, batch);  // [B, K]
    const at::Tensor host = logits.to(at::kFloat).cpu().contiguous();
    const auto K = static_cast<size_t>(host.size(1));
    for (int64_t row = 0; row < batch.rows; ++row)
      note(batch, static_cast<size_t>(row), std::span(host.const_data_ptr<float>() + row * host.size(1), K));
    return train::sequence_classification_loss(logits, batch, 1.0, problem_);
  }

 private:
  void note(const Batch& batch, size_t row, std::span<const float> logits) {
    if (problem_ == train::ProblemType::single_label_classification) {
      if (batch.labels[row] == data::kIgnore) return;
      const auto best = std::ranges::max_element(logits) - logits.begin();
      return metrics_->add({{"label", batch.labels[row]}, {"prediction", best}});
    }
    const std::span<const float> values(batch.values.data() + row * logits.size(), logits.size());
    if (std::ranges::any_of(values, [](float value) { return std::isnan(value); })) return;
    if (problem_ == train::ProblemType::regression)
      return metrics_->add({{"label", std::vector(values.begin(), values.end())},
                            {"prediction", std::vector(logits.begin(), logits.end())}});
    Json labels = Json::array(), predictions = Json::array();
    for (size_t c = 0; c < logits.size(); ++c) {
      if (values[c] > 0.5f) labels.push_back(c);
      if (logits[c] > 0) predictions.push_back(c);  // more probable than not
    }
    metrics_->add({{"labels", std::move(labels)}, {"predictions", std::move(predictions)}});
  }

  std::shared_ptr<nn::Model> model_;
  train::ProblemType problem_;
  std::vector<std::string> names_;
  std::unique_ptr<metrics::ClassificationMetrics> metrics_;
};

class TokenClassEvaluator final : public train::Evaluator {
 public:
  TokenClassEvaluator(std::shared_ptr<nn::Model> model, std::vector<std::string> names)
      : model_(std::move(model)), names_(std::move(names)) {}

  void begin() override {
    metrics_ = metrics::make_classification_metrics(data::ClassificationTask::tokens, names_);
  }
  bool has_perplexity() const override { return false; }
  Json metrics() override { return overall(*metrics_); }

  at::Tensor loss(const Batch& batch) override {
    const at::Tensor logits = train::class_logits(*model_, batch);  // [B, T, K]
    const at::Tensor best = logits.argmax(-1).cpu();                // [B, T]
    const int64_t* classes = best.const_data_ptr<int64_t>();
    for (int64_t row = 0; row < batch.rows; ++row) {
      Json labels = Json::array(), predictions = Json::array();
      for (int64_t t = row * batch.length; t < (row + 1) * batch.length; ++t) {
        const int32_t label = batch.labels[static_cast<size_t>(t)];
        if (label == data::kIgnore) continue;
        labels.push_back(label);
        predictions.push_back(classes[t]);
      }
      if (!labels.empty()) metrics_->add({{"labels", std::move(labels)}, {"predictions", std::move(predictions)}});
    }
    return train::token_classification_loss(logits, batch, 1.0);
  }

 private:
  std::shared_ptr<nn::Model> model_;
  std::vector<std::string> names_;
  std::unique_ptr<metrics::ClassificationMetrics> metrics_;
};

class WritingEvaluator final : public train::Evaluator {
 public:
  WritingEvaluator(nn::Model& model, const text::Tokenizer& tokenizer, train::LossFunction loss,
                   generate::GenerationConfig config)
      : model_(model),
        is_seq2seq_(dynamic_cast<nn::Seq2SeqModel*>(&model) != nullptr),
        tokenizer_(tokenizer),
        loss_(std::move(loss)),
        config_(std::move(config)) {}

  void begin() override { written_ = {}; }
  Json metrics() override {
    Json all = written_.summary();
    return {{"rouge_l", all.at("rouge_l")}, {"exact_match", all.at("exact_match")}};
  }

  at::Tensor loss(const Batch& batch) override {
    std::vector<std::vector<text::TokenId>> prompts;
    std::vector<std::string> references;
    for (int64_t row = 0; row < batch.rows; ++row) {
      auto [prompt, answer] = cut(batch, static_cast<size_t>(row));
      if (answer.empty() || prompt.empty()) continue;
      prompts.push_back(std::move(prompt));
      references.push_back(tokenizer_.decode(answer, /*skip_special_tokens=*/true));
    }
    const auto completions = generate::generate(model_, tokenizer_, prompts, config_, {.batch_size = batch.rows});
    for (const auto& completion : completions) written_.add(references[completion.prompt], completion.text);
    return loss_(batch, 1.0);
  }

 private:
  struct Row {
    std::vector<text::TokenId> prompt, answer;
  };
  /// What the model reads, and what it should write then: of a decoder's row the last stretch that is trained on.
  Row cut(const Batch& batch, size_t row) const {
    const auto length = static_cast<size_t>(batch.length), own = batch.lengths.empty() ? length : batch.lengths[row];
    const auto ids = batch.input_ids.begin() + static_cast<int64_t>(row * length);
    const auto width = static_cast<size_t>(batch.label_length());
    const std::vector<int32_t> labels(batch.labels.begin() + static_cast<int64_t>(row * width),
                                      batch.labels.begin() + static_cast<int64_t>((row + 1) * width));
    size_t end = labels.size();
    while (end > 0 && labels[end - 1] == data::kIgnore) --end;
    size_t begin = end;
    while (begin > 0 && labels[begin - 1] != data::kIgnore) --begin;
    const size_t read = is_seq2seq_ ? own : begin + 1;  // labels[t] follows ids[t]
    return {std::vector(ids, ids + static_cast<int64_t>(std::min(read, own))),
            std::vector(labels.begin() + static_cast<int64_t>(begin), labels.begin() + static_cast<int64_t>(end))};
  }

  nn::Model& model_;
  bool is_seq2seq_;
  const text::Tokenizer& tokenizer_;
  train::LossFunction loss_;
  generate::GenerationConfig config_;
  metrics::WrittenMetrics written_;
};

}  // namespace

std::unique_ptr<train::Evaluator> make_text_class_evaluator(std::shared_ptr<nn::Model> model,
                                                            train::ProblemType problem,
                                                            std::vector<std::string> names) {
  return std::make_unique<TextClassEvaluator>(std::move(model), problem, std::move(names));
}

std::unique_ptr<train::Evaluator> make_token_class_evaluator(std::shared_ptr<nn::Model> model,
                                                             std::vector<std::string> names) {
  return std::make_unique<TokenClassEvaluator>(std::move(model), std::move(names));
}

std::unique_ptr<train::Evaluator> make_writing_evaluator(nn::Model& model, const text::Tokenizer& tokenizer,
                                                         train::LossFunction loss, generate::GenerationConfig config) {
  return std::make_unique<WritingEvaluator>(model, tokenizer, std::move(loss), std::move(config));
}

}  // namespace llmtk
