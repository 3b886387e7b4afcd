// Which layers are quantized, what that takes, and what is refused.

#include <ATen/ATen.h>

#include <set>

#include "config/config.h"
#include "models/registry.h"
#include "nn/linear.h"
#include "nn/seq2seq_model.h"
#include "quant/quantize_linears.h"
#include "test.h"

using namespace llmtk;

namespace {

io::Json llama() {
  return {{"model_type", "llama"},    {"vocab_size", 96},
          {"hidden_size", 64},        {"intermediate_size", 128},
          {"num_hidden_layers", 2},   {"num_attention_heads", 4},
          {"num_key_value_heads", 2}, {"max_position_embeddings", 64},
          {"rms_norm_eps", 1e-5},     {"tie_word_embeddings", false}};
}

io::Json t5() {
  return {{"model_type", "t5"},
          {"vocab_size", 96},
          {"d_model", 64},
          {"d_kv", 16},
          {"d_ff", 128},
          {"num_layers", 1},
          {"num_heads", 4},
          {"num_decoder_layers", 1},
          {"feed_forward_proj", "relu"}};
}

quant::QuantizationConfig parse(const std::string& yaml) {
  return config::parse<quant::QuantizationConfig>(yaml, "q.yaml");
}

std::set<std::string> quantized(const nn::Model& model) {
  std::set<std::string> found;
  for (const auto& item : model.named_modules())
    if (const auto layer = std::dynamic_pointer_cast<nn::Linear>(item.value()); layer && layer->storage())
      found.insert(item.key());
  return found;
}

}  // namespace

TEST_CASE("all matrices but the head are quantized, or all but those named") {
  const auto with = [](const std::string& yaml) {
    const auto model = models::create(llama(), {}, 1);
    const auto report = quant::quantize_linears(*model, parse(yaml));
    const auto found = quantized(*model);
    CHECK(report.matrices == static_cast<int64_t>(found.size()));
    CHECK(report.matrices + report.skipped.size() == 15);
    return found;
  };
  const auto all = with("load_in_4bit: true");
  CHECK(all.size() == 14);
  CHECK(!all.contains("lm_head"));
  CHECK(with("{load_in_8bit: true, llm_int8_skip_modules: []}").contains("lm_head"));
  // A whole path, an end, and a regular expression for the beginning.
  const auto some = with(R"({load_in_4bit: true, llm_int8_skip_modules: [model.layers.1, q_proj, '.*\.up_']})");
  CHECK(some == std::set<std::string>{"lm_head", "model.layers.0.self_attn.k_proj", "model.layers.0.self_attn.v_proj",
                                      "model.layers.0.self_attn.o_proj", "model.layers.0.mlp.gate_proj",
                                      "model.layers.0.mlp.down_proj"});
}

TEST_CASE("a head tied to a table stays, and so does T5's wo") {
  io::Json tied = llama();
  tied["tie_word_embeddings"] = true;
  const auto decoder = models::create(tied, {}, 1);
  CHECK(quant::quantize_linears(*decoder, parse("{load_in_4bit: true, llm_int8_skip_modules: []}")).matrices == 14);
  CHECK(decoder->lm_head().weight.defined());
  const auto model = models::create<nn::Seq2SeqModel>(t5(), {}, 1);
  quant::quantize_linears(*model, parse("load_in_8bit: true"));
  for (const std::string& path : quantized(*model)) CHECK(!path.ends_with("wo"));
  CHECK(quantized(*model).size() == 14);  // 4 + 4 + 4 of attention, 2 wi
}

TEST_CASE("a model is quantized out of its mapped files") {
  const test::TemporaryFolder folder;
  const auto saved = models::create(llama(), {}, 1);
  models::save(*saved, folder.path());
  const auto model = models::load(folder.path().string(), {.map = true});
  const auto report = quant::quantize_linears(*model, parse("{load_in_4bit: true, bnb_4bit_use_double_quant: true}"));
  quant::own_parameters(*model, at::kBFloat16);
  // Codes, and of each block of 64 a code, a scale per 256 of those.
  int64_t expected = 0;
  for (const auto& [rows, columns] :
       {std::pair{64, 64}, {32, 64}, {32, 64}, {64, 64}, {128, 64}, {128, 64}, {64, 128}}) {
    const int64_t n = rows * columns, blocks = n / 64;
    expected += 2 * (n / 2 + blocks + 4 * ((blocks + 255) / 256));
  }
  CHECK(report.bytes_after == expected);
  CHECK(report.bytes_before == 4 * report.weights);
  CHECK(test::says(report.text(),
                   "14 matrices quantized, 0.1 million weights: 0.3 MB became 0.0 MB (4.13 bits per weight)"));
  for (at::Tensor parameter : model->parameters()) {
    CHECK(parameter.scalar_type() == at::kBFloat16);
    parameter.detach().add_(1);  // no longer the file
  }
  const test::TemporaryFolder other;
  Exit exit{};
  CHECK(test::says(test::error_of([&] { models::save(*model, other.path()); }, &exit), "is quantized"));
  CHECK(exit == Exit::usage);
}

TEST_CASE("settings that would do nothing and weights that are no numbers are refused") {
  const auto refused = [](const std::string& yaml, const std::string& why) {
    Exit exit{};
    CHECK(test::says(test::error_of([&] { parse(yaml); }, &exit), why));
    CHECK(exit == Exit::usage);
  };
  refused("{load_in_4bit: true, load_in_8bit: true}", "load_in_8bit");
  refused("{load_in_8bit: true, bnb_4bit_use_double_quant: true}", "no effect without load_in_4bit");
  refused("{load_in_8bit: true, bnb_4bit_quant_type: fp4}", "no effect without load_in_4bit");
  refused("bnb_4bit_compute_dtype: bfloat16", "no effect without load_in_4bit");
  refused("llm_int8_skip_modules: [q_proj]", "no effect without load_in_4bit or load_in_8bit");
  refused("{load_in_4bit: true, bnb_4bit_quant_type: int4}", "nf4");
  const auto model = models::create(llama(), {}, 1);
  const auto failed = [&](const std::string& yaml, const std::string& why) {
    CHECK(test::says(test::error_of([&] { quant::quantize_linears(*model, parse(yaml)); }), why));
  };
  failed("{load_in_4bit: true, llm_int8_skip_modules: [qproj]}", "'qproj'");
  failed("{load_in_4bit: true, llm_int8_skip_modules: ['(']}", "regular expression");
  failed("{load_in_4bit: true, llm_int8_skip_modules: ['.*']}", "no linear layer");
  const at::NoGradGuard no_grad;
  model->named_parameters()["model.layers.1.mlp.up_proj.weight"].fill_(INFINITY);
  failed("load_in_4bit: true", "model.layers.1.mlp.up_proj.weight");
}
