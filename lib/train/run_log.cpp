#include "train/run_log.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "core/file.h"
#include "core/log.h"
#include "core/utf8.h"

namespace llmtk::train {
namespace {

namespace fs = std::filesystem;

double unix_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string print(const char* format, double value) {
  char text[48];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

/// Where TensorBoard shows a key; empty: nowhere.
std::string tag_of(const std::string& key) {
  constexpr std::string_view kNotDrawn[] = {"step", "tokens", "target_tokens",     "seconds",
                                            "time", "best",   "eval_target_tokens",
                                            "sample_reward"};
  if (std::ranges::find(kNotDrawn, key) != std::end(kNotDrawn)) return {};
  if (key == "tokens_per_second") return "speed/tokens_per_second";
  if (key == "share_of_peak") return "speed/share_of_peak";
  return key.starts_with("eval_") ? "eval/" + key.substr(5) : "train/" + key;
}

}  // namespace

RunLog::RunLog(fs::path output_dir, std::string title, std::string resolved_config)
    : output_dir_(std::move(output_dir)), title_(std::move(title)), resolved_config_(std::move(resolved_config)) {}

RunLog::~RunLog() = default;

void RunLog::began(int64_t step, int64_t total_steps) {
  if (!resolved_config_.empty()) write_file_atomic(output_dir_ / "config.resolved.yaml", resolved_config_);
  // The event file is made anew from the metrics that stay: no step stands in it twice.
  for (const auto& entry : fs::directory_iterator(output_dir_))
    if (entry.path().filename().string().ends_with(kEventFileEnd)) fs::remove(entry.path());
  events_ = std::make_unique<EventFile>(output_dir_);
  const auto keep = [this](const Row& row) { draw(row); };
  metrics_ = std::make_unique<MetricsFile>(output_dir_ / "metrics.jsonl", step, keep);
  progress_ = std::make_unique<Progress>(total_steps, Progress::Options{.first = step});
}

void RunLog::show(const StepReport& report, double loss, bool logging_step) {
  std::vector<Progress::Field> fields = {{"loss", print("%.4f", loss)},
                                         {"lr", print("%.2e", report.learning_rate)},
                                         {"norm", print("%.2f", report.grad_norm)},
                                         {"", format_count(report.tokens_per_second) + " tok/s"}};
  if (report.share_of_peak > 0) fields.push_back({"", print("%.0f%% of peak", 100 * report.share_of_peak)});
  progress_->update(report.step, fields, logging_step);
}

void RunLog::stepped(const StepReport& report) {
  if (std::isfinite(report.loss)) {
    shown_loss_ = any_loss_ ? 0.9 * shown_loss_ + 0.1 * report.loss : report.loss;
    any_loss_ = true;
  }
  if (log::on_terminal()) show(report, shown_loss_, false);
}

void RunLog::logged(const StepReport& report) {
  if (!log::on_terminal()) show(report, report.loss, true);
  Row row = {{"step", report.step},
             {"loss", report.loss},
             {"learning_rate", report.learning_rate},
             {"grad_norm", report.grad_norm},
             {"tokens_per_second", report.tokens_per_second},
             {"share_of_peak", report.share_of_peak > 0 ? Row(report.share_of_peak) : Row()},
             {"tokens", report.tokens},
             {"target_tokens", report.target_tokens},
             {"seconds", report.seconds}};
  for (const auto& [name, value] : report.metrics.items()) row[name] = value;
  add(std::move(row));
}

void RunLog::evaluated(const EvalReport& report) {
  std::string text = "step " + std::to_string(report.step) + ": evaluation loss " + print("%.4f", report.loss);
  Row row = {{"step", report.step}, {"eval_loss", report.loss}};
  if (report.perplexity > 0) {
    text += ", perplexity " + print("%.2f", report.perplexity);
    row["eval_perplexity"] = report.perplexity;
  }
  for (const auto& [name, value] : report.metrics.items()) {
    if (value.is_number_float()) text += ", " + name + " " + print("%.4f", value.get<double>());
    row["eval_" + name] = value;
  }
  log::info(text + (report.best ? ", the best so far" : ""));
  row["eval_target_tokens"] = report.target_tokens;
  row["best"] = report.best;
  add(std::move(row));
}

void RunLog::sampled(int64_t step, const std::string& prompt, const std::string& text) {
  log::info("step " + std::to_string(step) + ", a sample:\n" + printable(text));
  add({{"step", step}, {"prompt", prompt}, {"sample", text}});
}

void RunLog::rated(int64_t step, int64_t slot, const std::string& prompt, const std::string& text, double reward) {
  log::info("step " + std::to_string(step) + ", a sample of reward " + print("%.4g", reward) + ":\n" + printable(text));
  add({{"step", step}, {"prompt", prompt}, {"sample", text}, {"sample_reward", reward}, {"slot", slot}});
}

void RunLog::add(Row row) {
  row["time"] = unix_seconds();
  draw(row);
  metrics_->add(row);
}

void RunLog::draw(const Row& row) {
  to_tensorboard(row);
  curve_.add(row);
}

void RunLog::to_tensorboard(const Row& row) {
  const auto step = row["step"].get<int64_t>();
  const double time = row.value("time", 0.0);
  for (const auto& [key, value] : row.items())
    if (const std::string tag = tag_of(key); !tag.empty() && value.is_number() && std::isfinite(value.get<double>()))
      events_->scalar(tag, step, value.get<double>(), time);
  if (row.contains("sample") && row["sample"].is_string())
    events_->text("sample/" + (row.contains("slot") ? row["slot"].dump() : row.value("prompt", "")), step, row["sample"].get_ref<const std::string&>(), time);
}

void RunLog::sync() { metrics_->sync(); }

void RunLog::finished() {
  progress_->finish();
  metrics_->sync();
  write_file_atomic(output_dir_ / "loss.svg", curve_.svg(title_));
}

}  // namespace llmtk::train
