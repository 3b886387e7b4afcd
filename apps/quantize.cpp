// llmtk quantize: a model's matrices in 8 or 4 bits, with a receipt of what it cost.

#include <iostream>

#include "app.h"
#include "core/error.h"
#include "quantize_config.h"
#include "quantize_receipt.h"
#include "quantize_run.h"

using namespace llmtk;

namespace {

constexpr const char* kExamples =
    "  llmtk quantize smollm2 smollm2-int8                                    W8A8: 8-bit integers, inputs rounded per "
    "token\n"
    "  llmtk quantize smollm2 smollm2-int4 --scheme W4A16 --group-size 64 --text book.txt\n"
    "  llmtk quantize smollm2 smollm2-int4 --scheme W4A16 --group-size 64 --method gptq --calibration book.txt\n"
    "  llmtk quantize smollm2 smollm2-nf4 --scheme NF4                        as bitsandbytes keeps it\n"
    "  llmtk quantize smollm2 smollm2.gguf --scheme Q4_0                      a file that llama.cpp runs\n"
    "  llmtk quantize configs/quantize/smollm2-int4.yaml receipt.max_ppl_increase=0.05\n"
    "  llmtk quantize --config-help                                           every key of a config";

/// Flags, each another way of writing a key of the config.
struct Options {
  CommonOptions common;
  std::vector<std::string> words;     // MODEL OUT, or CONFIG and overrides
  std::vector<std::string> settings;  // of flags: key=value
  bool dry_run = false, config_help = false, schema = false;
};

std::string quoted(const std::string& text) { return nlohmann::json(text).dump(); }

std::string schemes_help() {
  std::string help;
  const auto add = [&](const char* name, const char* what) {
    help += (help.empty() ? "" : "; ") + std::string(name) + ": " + what;
  };
  for (const auto& scheme : quant::scheme_names()) add(scheme.name, scheme.help);
  for (const auto& scheme : gguf_schemes()) add(scheme.name, scheme.help);
  return help;
}

void add_options(CLI::App& app, Options& o) {
  app.add_option("words", o.words, "MODEL OUT; or CONFIG.yaml and key=value over what it says");
  const auto text = [&](const char* flag, const char* key, const std::string& help) {
    app.add_option_function<std::string>(
        flag, [&o, key](const std::string& value) { o.settings.push_back(std::string(key) + "=" + quoted(value)); },
        help);
  };
  const auto number = [&](const char* flag, const char* key, const std::string& help) {
    app.add_option_function<std::string>(
           flag, [&o, key](const std::string& value) { o.settings.push_back(std::string(key) + "=" + value); }, help)
        ->check(CLI::Number);
  };
  const auto list = [&](const char* flag, const char* key, const std::string& help) {
    app.add_option_function<std::vector<std::string>>(
        flag,
        [&o, key](const std::vector<std::string>& values) {
          o.settings.push_back(std::string(key) + "=" + nlohmann::json(values).dump());
        },
        help);
  };
  const auto flag = [&](const char* name, const char* setting, const std::string& help) {
    app.add_flag_function(
        name,
        [&o, setting](int64_t count) {
          if (count > 0) o.settings.emplace_back(setting);
        },
        help);
  };
  text("--scheme", "scheme", schemes_help());
  number("--group-size", "group_size",
         "32, 64 or 128 columns that share a scale; default: 128 of 4 bits, whole rows of 8");
  text("--method", "method", "rtn: to the nearest (default); gptq: with --calibration, so that outputs stay near");
  list("--calibration", "calibration.files", "Texts that gptq reads");
  number("--num-samples", "calibration.num_samples", "Pieces of them; default: 128");
  number("--max-length", "calibration.max_length", "Tokens of each; default: 512");
  flag("--desc-act", "gptq.desc_act=true", "gptq: the columns with the largest inputs first");
  list("--ignore", "ignore", "Modules that stay: names, or re: and a regular expression; default: the head");
  text("--dtype", "model.dtype",
       "Of what stays: auto (bfloat16, or float16 where the model is), float32, bfloat16, float16");
  text("--tokenizer", "model.tokenizer", "Folder or file of the tokenizer, where it is not the model's own");
  text("--text", "receipt.text", "A text to compare on, with its perplexity");
  number("--max-tokens", "receipt.max_tokens", "Tokens of it; default: 4096");
  number("--max-ppl-increase", "receipt.max_ppl_increase",
         "Exit with 7 where perplexity grows by a larger share (0.01: 1 %)");
  number("--max-kl", "receipt.max_kl", "Exit with 7 where the mean KL, in nats, is above");
  number("--max-logit-difference", "receipt.max_logit_difference", "Exit with 7 where a logit differs by more");
  flag("--no-speed", "receipt.speed=false", "Do not measure tokens per second");
  text("--device", "device", "auto (a GPU where there is one), cpu, cuda or cuda:N");
  number("--threads", "num_threads", "Compute threads on the CPU; 0: as many as the process may use");
  flag("--overwrite", "overwrite=true", "Write over what is there");
  app.add_flag("--dry-run", o.dry_run, "Check config, model, texts and disk, say what would happen, and stop");
  app.add_flag("--config-help", o.config_help, "Print every key of the config");
  app.add_flag("--config-schema", o.schema, "Print the config's JSON Schema, for editors");
  add_common_options(app, o.common, kExamples);
}

bool is_config(const std::string& word) { return word.ends_with(".yaml") || word.ends_with(".yml"); }

QuantizeConfig read_config(const Options& o) {
  if (o.words.empty())
    throw Error(Exit::usage, {.what = "which model?", .hint = "llmtk quantize MODEL OUT, or CONFIG.yaml"});
  std::vector<std::string> settings(o.words.begin() + 1, o.words.end());
  if (!is_config(o.words[0])) {
    if (o.words.size() != 2)
      throw Error(Exit::usage, {.what = "two words are needed: a model and where it goes",
                                .got = std::to_string(o.words.size()),
                                .hint = "llmtk quantize MODEL OUT --scheme W4A16"});
    settings = {"model.name_or_path=" + quoted(o.words[0]), "output_dir=" + quoted(o.words[1])};
  }
  settings.insert(settings.end(), o.settings.begin(), o.settings.end());
  return is_config(o.words[0]) ? config::load<QuantizeConfig>(o.words[0], settings)
                               : config::parse<QuantizeConfig>("", "command line", settings);
}

int run(const Options& o) {
  if (o.config_help || o.schema) {
    std::cout << (o.schema ? config::json_schema<QuantizeConfig>("llmtk quantize") : config::help<QuantizeConfig>());
    return 0;
  }
  if (o.dry_run) {
    std::cout << plan_quantization(read_config(o)).dump(o.common.json ? -1 : 2) << std::endl;
    return 0;
  }
  int exit_code = 0;
  const auto answer = quantize(read_config(o), exit_code);
  if (o.common.json)
    std::cout << answer.dump() << std::endl;
  else
    print_receipt(answer);
  return exit_code;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Quantizes a model: matrices in 8 or 4 bits, and a receipt of what it cost", "llmtk quantize");
  Options options;
  add_options(app, options);
  return run_app(app, options.common, argc, argv, [&] { return run(options); });
}
