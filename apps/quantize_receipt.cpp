#include "quantize_receipt.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <map>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/progress.h"
#include "generate/decoder.h"
#include "io/model_folder.h"
#include "models/registry.h"
#include "nn/causal_model.h"
#include "quant/folder.h"

namespace llmtk {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kLongestRow = 512;
constexpr int64_t kPrompt = 16, kWritten = 24;  // tokens that speed is measured on

uint64_t weight_bytes(const fs::path& path) {
  if (!fs::is_directory(path)) return fs::file_size(path);
  uint64_t bytes = 0;
  const io::WeightFiles weights(path);
  for (const auto& file : weights.files()) bytes += fs::file_size(file->path());
  return bytes;
}

/// Tokens per second that a decoder writes one after the other; the best of two tries.
double writing_speed(nn::CausalModel& model) {
  const generate::GenerationConfig config;
  const generate::GenerateOptions options;
  std::vector<text::TokenId> prompt;
  for (int64_t i = 0; i < kPrompt; ++i) prompt.push_back(static_cast<text::TokenId>(i % model.vocab_size()));
  double best = 0;
  for (int round = 0; round < 2; ++round) {
    const auto decoder = generate::make_decoder(model, config, options);
    at::Tensor logits = decoder->start({&prompt}, kWritten + 1);
    const auto next = [&] { logits = decoder->step({static_cast<text::TokenId>(logits.argmax().item<int64_t>())}); };
    next();
    const auto begin = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < kWritten; ++i) next();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::max(best, static_cast<double>(kWritten) / seconds.count());
  }
  return best;
}

/// Says what is above its bound. Returns whether something is.
bool misses(const Json& answer, const ReceiptConfig& config) {
  bool missed = false;
  const auto check = [&](const char* what, const std::optional<double>& bound, double got) {
    if (!bound || got <= *bound) return;
    missed = true;
    log::error(std::string(what) + " of " + Json(got).dump() + " is above the bound, " + Json(*bound).dump());
  };
  const Json& receipt = answer.at("receipt");
  check("a mean KL", config.max_kl, receipt.at("mean_kl").get<double>());
  check("a logit difference", config.max_logit_difference, receipt.at("largest_logit_difference").get<double>());
  if (config.max_ppl_increase)
    check("a growth of perplexity", config.max_ppl_increase, receipt.at("perplexity").at("increase").get<double>());
  return missed;
}

Json receipt_json(const Comparison& compared, const std::string& text) {
  Json json = {{"text", text.empty() ? Json() : Json(text)},
               {"tokens", compared.tokens},
               {"largest_logit_difference", compared.largest_logit_difference},
               {"largest_logit", compared.largest_logit},
               {"mean_kl", compared.mean_kl}};
  if (text.empty() || compared.scored == 0) return json;
  const double before = compared.perplexity(compared.nll_before), after = compared.perplexity(compared.nll_after);
  json["perplexity"] = {{"before", before}, {"after", after}, {"increase", after / before - 1}};
  return json;
}

template <class... Args>
void print_line(const char* format, Args... args) {
  char line[256];
  std::snprintf(line, sizeof line, format, args...);
  std::cout << line << "\n";
}

std::string megabytes(const Json& bytes) { return format_count(bytes.get<double>()) + "B"; }

/// "model.layers.3.mlp.up_proj" -> "mlp.up_proj": what the layers have alike.
std::string kind_of(const std::string& path) {
  const size_t digit = path.find_last_of("0123456789");
  const size_t dot = digit == path.npos ? path.npos : path.find('.', digit);
  return dot == path.npos ? path : path.substr(dot + 1);
}

/// Per kind of matrix: how many, the mean and the worst error.
void print_matrices(const Json& matrices) {
  struct Row {
    std::string kind, scheme;
    int64_t count = 0;
    double sum = 0, worst = 0, output = 0;
    std::string worst_path;
  };
  std::vector<Row> rows;
  bool outputs = false;
  for (const Json& m : matrices) {
    const std::string path = m["module"], scheme = m["scheme"];
    auto found =
        std::ranges::find_if(rows, [&](const Row& r) { return r.kind == kind_of(path) && r.scheme == scheme; });
    if (found == rows.end()) found = rows.insert(rows.end(), {kind_of(path), scheme});
    const double error = m["weight_error"];
    ++found->count;
    found->sum += error;
    if (m.contains("output_error")) {
      outputs = true;
      found->output += m["output_error"].get<double>();
    }
    if (error >= found->worst) {
      found->worst = error;
      found->worst_path = path;
    }
  }
  print_line("%-28s %5s  %-10s %9s%s  %9s", "matrices", "", "scheme", "error", outputs ? "    output" : "", "worst");
  for (const Row& row : rows) {
    const auto count = static_cast<double>(row.count);
    char output[32] = "";
    if (outputs) std::snprintf(output, sizeof output, " %8.3f%%", 100 * row.output / count);
    print_line("%-28s %5lld  %-10s %8.3f%%%s  %8.3f%%  %s", row.kind.c_str(), static_cast<long long>(row.count),
               row.scheme.c_str(), 100 * row.sum / count, output, 100 * row.worst, row.worst_path.c_str());
  }
}

}  // namespace

ReceiptRows receipt_rows(const ReceiptConfig& config, const QuantizeSource& source, const TokenRows& held_out) {
  if (!config.text.empty())
    return {text_rows(*source.tokenizer, read_file(config.text), config.text, config.max_tokens, kLongestRow),
            config.text};
  if (!held_out.empty()) return {held_out, "what the calibration left over"};
  if (config.max_ppl_increase)
    throw Error(Exit::usage, {.what = "nothing of the calibration text is left over to measure perplexity on",
                              .hint = "give --text FILE, or fewer --num-samples"});
  return {};
}

void add_receipt(Json& answer, const QuantizeConfig& config, const QuantizeSource& source, const ReceiptRows& given,
                 int& exit_code) {
  const auto before = source.load();
  const auto after =
      models::load_model(config.output_dir, {.device = source.device, .map = true, .storages = quant::open_storages});
  const int64_t longest = std::min(kLongestRow, before->max_positions());
  TokenRows rows = given.rows.empty() ? random_rows(before->vocab_size(), longest) : given.rows;
  for (auto& row : rows) row.resize(std::min(row.size(), static_cast<size_t>(longest)));
  if (given.text.empty()) log::info("no text is given: compared on 256 tokens at random, without perplexity");
  const Comparison compared = compare(*before, *after, rows);
  answer["bytes"] = {{"before", weight_bytes(source.path)}, {"after", weight_bytes(config.output_dir)}};
  answer["receipt"] = receipt_json(compared, given.text);
  if (config.receipt.max_ppl_increase && !answer["receipt"].contains("perplexity"))
    throw Error(Exit::usage, {.what = "receipt.max_ppl_increase: a model of this kind has no perplexity",
                              .got = before->kind(),
                              .hint = "set a bound on mean_kl: --max-kl"});
  auto* writer_before = dynamic_cast<nn::CausalModel*>(before.get());
  auto* writer_after = dynamic_cast<nn::CausalModel*>(after.get());
  if (config.receipt.speed && writer_before && writer_after && before->max_positions() >= kPrompt + kWritten)
    answer["tokens_per_second"] = {{"before", writing_speed(*writer_before)}, {"after", writing_speed(*writer_after)}};
  exit_code = misses(answer, config.receipt) ? static_cast<int>(Exit::bound) : 0;
}

void print_receipt(const Json& answer) {
  if (answer.contains("matrices")) print_matrices(answer["matrices"]);
  const Json &bytes = answer["bytes"], &receipt = answer["receipt"];
  print_line("size: %s became %s (%.1f %%)", megabytes(bytes["before"]).c_str(), megabytes(bytes["after"]).c_str(),
             100 * bytes["after"].get<double>() / bytes["before"].get<double>());
  print_line("over %lld tokens%s: largest logit difference %.3g (of %.3g), mean KL %.3g nats",
             receipt["tokens"].get<long long>(), receipt["text"].is_null() ? " at random" : "",
             receipt["largest_logit_difference"].get<double>(), receipt["largest_logit"].get<double>(),
             receipt["mean_kl"].get<double>());
  if (receipt.contains("perplexity")) {
    const Json& p = receipt["perplexity"];
    print_line("perplexity: %.4f became %.4f (%+.2f %%)", p["before"].get<double>(), p["after"].get<double>(),
               100 * p["increase"].get<double>());
  }
  if (answer.contains("tokens_per_second")) {
    const Json& speed = answer["tokens_per_second"];
    print_line("writing: %.1f tokens/s became %.1f", speed["before"].get<double>(), speed["after"].get<double>());
  }
  std::cout << "written: " << answer["output"].get<std::string>() << std::endl;
}

}  // namespace llmtk
