#pragma once
// What `llmtk quantize` reads: a YAML file, or flags that mean the same keys.

#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "quant/scheme.h"

namespace llmtk {

struct QuantizedModelConfig {
  std::string name_or_path, tokenizer;
  std::string dtype = "auto";

  template <class V>
  void fields(V& v) {
    v("name_or_path", name_or_path, "A model folder, a GGUF file, or a name in the local Hugging Face cache",
      config::required, config::not_empty);
    v("tokenizer", tokenizer, "Folder or file of the tokenizer, where it is not the model's own");
    v("dtype", dtype, "Of what stays as it is, and of scales; auto: bfloat16, or float16 where the model is stored so",
      config::one_of({"auto", "float32", "bfloat16", "float16"}));
  }
};

struct QuantizeGroupConfig {
  std::vector<std::string> targets;
  std::string scheme;
  int64_t group_size = 0;

  template <class V>
  void fields(V& v) {
    v("targets", targets,
      "Modules by path, by re: and a regular expression for its beginning, or by class (Linear, Embedding)",
      config::required, config::not_empty);
    v("scheme", scheme, "What they become", config::required, config::not_empty);
    v("group_size", group_size, "Columns that share a scale; 0: the scheme's own", config::at_least(0));
  }
};

struct CalibrationConfig {
  std::vector<std::string> files;
  int64_t num_samples = 128, max_length = 512;

  template <class V>
  void fields(V& v) {
    v("files", files, "Texts (.txt, .jsonl ...) that the model reads while gptq rounds");
    v("num_samples", num_samples, "Pieces of text that are read", config::at_least(1));
    v("max_length", max_length, "Tokens of each", config::at_least(2));
  }
};

struct GptqConfig {
  double damping = 0.01;
  int64_t block_size = 128;
  bool desc_act = false;

  template <class V>
  void fields(V& v) {
    v("damping", damping, "Added to the Hessian's diagonal, as a share of its mean", config::above(0),
      config::below(1));
    v("block_size", block_size, "Columns that are rounded before the others are updated", config::at_least(1));
    v("desc_act", desc_act,
      "Round the columns with the largest inputs first; scales are then those of the matrix as it was "
      "(compressed-tensors' "
      "actorder: weight)");
  }
};

struct ReceiptConfig {
  std::string text;
  int64_t max_tokens = 4096;
  bool speed = true;
  std::optional<double> max_ppl_increase, max_kl, max_logit_difference;

  template <class V>
  void fields(V& v) {
    v("text", text, "A text to compare on; empty: what is left of the calibration's, or 256 tokens at random");
    v("max_tokens", max_tokens, "Tokens of it", config::at_least(2));
    v("speed", speed, "Measure tokens per second before and after");
    v("max_ppl_increase", max_ppl_increase, "Exit with 7 where perplexity grows by a larger share (0.01: one percent)",
      config::at_least(0));
    v("max_kl", max_kl, "Exit with 7 where the mean KL, in nats, is above", config::at_least(0));
    v("max_logit_difference", max_logit_difference, "Exit with 7 where a logit differs by more", config::at_least(0));
  }
};

struct QuantizeConfig {
  QuantizedModelConfig model;
  std::string output_dir, scheme = "W8A8", method = "rtn";
  int64_t group_size = 0;
  std::optional<std::vector<std::string>> ignore;
  std::vector<QuantizeGroupConfig> groups;
  CalibrationConfig calibration;
  GptqConfig gptq;
  ReceiptConfig receipt;
  bool overwrite = false;
  std::string device = "auto";
  int64_t num_threads = 0;

  template <class V>
  void fields(V& v) {
    v("model", model, "What is quantized");
    v("output_dir", output_dir, "Where the quantized model goes: a folder, or a .gguf file for GGUF's types",
      config::required, config::not_empty);
    v("scheme", scheme, "What the matrices become: " + all_schemes(), config::not_empty);
    v("group_size", group_size, "Columns that share a scale; 0: the scheme's own (128 of 4 bits, whole rows of 8)",
      config::at_least(0));
    v("method", method, "rtn: to the nearest; gptq: so that each layer's output stays near, on calibration text",
      config::one_of({"rtn", "gptq"}));
    v("ignore", ignore, "Modules that stay as they are, as in groups.targets; default: the head");
    v("groups", groups, "Other schemes for some modules");
    v("calibration", calibration, "What gptq reads");
    v("gptq", gptq, "How gptq rounds");
    v("receipt", receipt, "What it cost");
    v("overwrite", overwrite, "Write over what stands at output_dir");
    v("device", device, "auto (a GPU where there is one), cpu, cuda or cuda:N");
    v("num_threads", num_threads, "Compute threads on the CPU; 0: as many as the process may use",
      config::between(0, 4096));
  }
  /// Settings that have no effect with the others are refused.
  void validate(config::Problems& problems) const;

  bool to_gguf() const;  ///< scheme is one of GGUF's types
  static std::string all_schemes();
  /// The main scheme's group, then the others.
  std::vector<quant::SchemeGroup> scheme_groups() const;
};

struct GgufScheme {
  const char* name;
  const char* help;
};
const std::vector<GgufScheme>& gguf_schemes();

}  // namespace llmtk
