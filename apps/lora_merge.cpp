#include "lora_merge.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>

#include "comparison.h"
#include "core/device.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/runtime.h"
#include "io/json.h"
#include "io/model_folder.h"
#include "models/registry.h"
#include "nn/causal_model.h"
#include "open_model.h"
#include "peft/adapter.h"
#include "peft/adapter_folder.h"
#include "peft/methods.h"

namespace llmtk {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kLongestRow = 512;

struct MergeOptions {
  ModelOptions model;
  std::string output, text;
  int64_t max_tokens = 4096;
  std::optional<double> max_kl;
  bool overwrite = false;
};

/// The base: what is named, else what the adapter's config names.
std::string base_of(const MergeOptions& o) {
  if (!o.model.model.empty()) return o.model.model;
  const std::filesystem::path file = adapter_folder(o.model.adapters.front()) / peft::kConfigFile;
  const Json config = io::read_json(file);
  io::ObjectReader reader(config, file.string());
  const std::string base = reader.string_or("base_model_name_or_path", "");
  if (base.empty())
    throw Error(Exit::usage, {.what = "the adapter does not say what it belongs to",
                              .where = file.string(),
                              .hint = "give the base with --model"});
  return base;
}

std::shared_ptr<nn::Model> open_base(const MergeOptions& o, const std::filesystem::path& folder) {
  models::LoadOptions load{.map = true};
  if (o.model.dtype != "auto") load.dtype = parse_dtype(o.model.dtype);
  load.device = resolve_device(o.model.device);
  expect_adapters(load, folder, o.model.adapters);
  auto model = models::load_model(folder.string(), load);
  for (at::Tensor parameter : model->parameters()) parameter.requires_grad_(false);
  return model;
}

/// The text in rows that the model can see, at most max_tokens of it.
TokenRows rows_of(const MergeOptions& o, const std::filesystem::path& folder, int64_t longest) {
  return text_rows(*open_tokenizer(o.model, folder), read_file(o.text), o.text, o.max_tokens, longest);
}

Json receipt_of(const Comparison& compared, nn::Model* base, const TokenRows& rows) {
  Json json = {{"tokens", compared.tokens},
               {"largest_logit_difference", compared.largest_logit_difference},
               {"largest_logit", compared.largest_logit},
               {"mean_kl", compared.mean_kl}};
  if (base)
    json["perplexity"] = {{"base", compared.perplexity(negative_log_likelihood(*base, rows))},
                          {"adapter", compared.perplexity(compared.nll_before)},
                          {"merged", compared.perplexity(compared.nll_after)}};
  return json;
}

/// What config.json says once a head has got a matrix of its own.
void write_untied(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "config.json";
  Json config = io::read_json(file);
  if (config.value("model_type", "") == "t5" && !config.contains("scale_decoder_outputs"))
    config["scale_decoder_outputs"] = config.value("tie_word_embeddings", true);
  config["tie_word_embeddings"] = false;
  io::write_json(file, config);
}

void check_output(const MergeOptions& o, const std::filesystem::path& base) {
  const std::filesystem::path output = o.output;
  std::error_code none;
  if (std::filesystem::equivalent(output, base, none))
    throw Error(Exit::usage, {.what = "--output is the base itself", .where = o.output});
  if (!o.overwrite && std::filesystem::exists(output / "config.json"))
    throw Error(
        Exit::usage,
        {.what = "a model stands there already", .where = o.output, .hint = "give --overwrite to write over it"});
}

void print(const Json& receipt) {
  char line[256];
  std::snprintf(line, sizeof line,
                "merged and as an adapter, over %lld tokens%s: largest logit difference %.3g (of %.3g), "
                "mean KL %.3g nats",
                receipt["tokens"].get<long long>(), receipt["text"].is_null() ? " at random" : "",
                receipt["largest_logit_difference"].get<double>(), receipt["largest_logit"].get<double>(),
                receipt["mean_kl"].get<double>());
  std::cout << line << "\n";
  if (receipt.contains("perplexity")) {
    const Json& p = receipt["perplexity"];
    std::snprintf(line, sizeof line, "perplexity: base %.4f, with the adapter %.4f, merged %.4f",
                  p["base"].get<double>(), p["adapter"].get<double>(), p["merged"].get<double>());
    std::cout << line << "\n";
  }
  std::cout << "written: " << receipt["output"].get<std::string>() << std::endl;
}

/// Other methods' folders: what they add is not always a matrix.
void check_methods(const std::vector<std::string>& adapters) {
  for (const std::string& adapter : adapters)
    if (peft::is_method_folder(adapter_folder(adapter)))
      throw Error(Exit::usage, {.what = "only LoRA and its kin are merged here",
                                .where = adapter,
                                .hint = "generate, eval, embed and inspect take it with --adapter"});
}

int merge(const MergeOptions& o, bool json) {
  check_methods(o.model.adapters);
  setup_runtime(o.model.threads);
  const std::filesystem::path folder = io::find_model(base_of(o));
  check_output(o, folder);
  const auto adapted = open_base(o, folder), merged = open_base(o, folder);
  add_adapters(*adapted, o.model.adapters);
  add_adapters(*merged, o.model.adapters);
  const auto untied = peft::merge_adapters(*merged);

  const int64_t longest = std::min(kLongestRow, merged->max_positions());
  const bool has_text = !o.text.empty();
  const TokenRows rows = has_text ? rows_of(o, folder, longest) : random_rows(merged->vocab_size(), longest);
  const Comparison compared = compare(*adapted, *merged, rows);
  const auto base = has_text && compared.scored > 0 ? open_base(o, folder) : nullptr;
  if (!std::isfinite(compared.largest_logit_difference))
    throw Error(Exit::diverged, {.what = "the merged model's logits are not finite", .where = o.output});
  if (o.max_kl && compared.mean_kl > *o.max_kl)
    throw Error(Exit::bound, {.what = "merging costs more than --max-kl allows; nothing was written",
                              .where = o.output,
                              .got = "a mean KL of " + Json(compared.mean_kl).dump(),
                              .expected = "at most " + Json(*o.max_kl).dump(),
                              .hint = "the rounding of the base's dtype? Try --dtype float32"});
  models::save(*merged, o.output,
               {.companions = std::filesystem::is_directory(folder) ? folder : folder.parent_path()});
  if (!untied.empty()) {
    write_untied(o.output);
    log::info("the head and the token table are two matrices now: an adapter changed one of them");
  }
  Json receipt = receipt_of(compared, base.get(), rows);
  receipt["text"] = has_text ? Json(o.text) : Json(nullptr);
  receipt["dtype"] = dtype_name(merged->dtype());
  receipt["untied"] = untied;
  receipt["output"] = o.output;
  if (json)
    std::cout << receipt.dump() << std::endl;
  else
    print(receipt);
  return 0;
}

}  // namespace

void add_merge_command(CLI::App& app, const CommonOptions& common, std::function<int()>& run) {
  const auto o = std::make_shared<MergeOptions>();
  CLI::App* command = app.add_subcommand("merge", "Multiplies adapters into their base and says what that cost");
  command->add_option("--model", o->model.model, "The base; default: the one that the adapter names");
  command->add_option("--adapter", o->model.adapters, "The adapter's folder, or FOLDER=WEIGHT; several are summed")
      ->required()
      ->allow_extra_args(false);
  command->add_option("-o,--output", o->output, "Folder of the merged model")->required();
  auto* text = command->add_option("--text", o->text,
                                   "A text to compare on, with its perplexity; default: 256 tokens at random");
  command->add_option("--max-tokens", o->max_tokens, "Tokens of the text that are compared")
      ->needs(text)
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 30))
      ->capture_default_str();
  command
      ->add_option("--tokenizer", o->model.tokenizer, "Folder or file of the tokenizer, where it is not the base's own")
      ->needs(text);
  command->add_option("--max-kl", o->max_kl, "Write nothing and exit with 7 where the mean KL, in nats, is above")
      ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--dtype", o->model.dtype, "Of the merged model: auto (as the base), float32, bfloat16 or float16")
      ->capture_default_str();
  command->add_option("--device", o->model.device, "auto (a GPU where there is one), cpu, cuda or cuda:N")
      ->capture_default_str();
  command->add_option("--threads", o->model.threads, "Compute threads on the CPU; 0: as many as the process may use")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  command->add_flag("--overwrite", o->overwrite, "Write over a model that is there");
  command->callback([o, &common, &run] { run = [o, &common] { return merge(*o, common.json); }; });
}

}  // namespace llmtk
