// Which modules a config means, and what is refused.

#include "peft/targets.h"

#include "io/tensors.h"
#include "models/registry.h"
#include "nn/seq2seq_model.h"
#include "peft/adapter.h"
#include "peft/adapter_folder.h"
#include "peft/modules.h"
#include "test.h"

namespace llmtk {
namespace {

using peft::LoraConfig;
using peft::ModuleNames;
using test::error_of;
using test::says;

io::Json tiny_llama() {
  io::Json config = models::preset("smollm2-135m");
  for (const auto& [key, value] : std::map<std::string, int64_t>{{"vocab_size", 31},
                                                                 {"hidden_size", 16},
                                                                 {"intermediate_size", 24},
                                                                 {"num_hidden_layers", 2},
                                                                 {"num_attention_heads", 4},
                                                                 {"num_key_value_heads", 2},
                                                                 {"head_dim", 4}})
    config[key] = value;
  return config;
}

std::shared_ptr<nn::CausalModel> tiny() { return models::create(tiny_llama(), {}, 1); }

LoraConfig with_targets(io::Json targets) {
  LoraConfig config;
  config.target_modules = std::move(targets);
  return config;
}

std::vector<std::string> paths(const LoraConfig& config) {
  const auto model = tiny();
  std::vector<std::string> found;
  const auto adapter = peft::apply(*model, config, 1);
  for (const auto& target : adapter.targets()) found.push_back(target.path);
  return found;
}

TEST_CASE("names match whole paths and their ends, an expression whole paths alone") {
  CHECK(paths({}).size() == 4);  // q_proj and v_proj of two layers
  CHECK(paths(with_targets({"q_proj"})).size() == 2);
  CHECK(paths(with_targets({"model.layers.1.self_attn.q_proj"})).size() == 1);
  CHECK(paths(with_targets("all-linear")).size() == 14);
  CHECK(paths(with_targets("ALL-linear")).size() == 14);
  CHECK(paths(with_targets(".*\\.0\\..*_proj")).size() == 7);
  CHECK(paths(with_targets("(?P<any>.*)(?<!q|v)_proj")).size() == 10);  // what std::regex does not know
  CHECK(says(error_of([] { paths(with_targets({"proj"})); }), "got [\"proj\"], expected embed_tokens, q_proj"));
  CHECK(says(error_of([] { paths(with_targets("q_proj")); }), "means no layer"));
  CHECK(says(error_of([] { paths(with_targets({"mlp"})); }),
             "needs a matrix or a token table: got 'model.layers.0.mlp'"));
  CHECK(says(error_of([] { paths(with_targets("(")); }), "not a regular expression"));
}

TEST_CASE("exclusions, layers and modules_to_save narrow the targets") {
  LoraConfig config = with_targets("all-linear");
  config.exclude_modules = {"mlp.up_proj"};
  CHECK(paths(config).size() == 12);
  config.exclude_modules = ".*mlp.*";
  CHECK(paths(config).size() == 8);
  config = with_targets({"q_proj", "k_proj"});
  config.layers_to_transform = {1};
  CHECK(paths(config) ==
        std::vector<std::string>{"model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.k_proj"});
  config.layers_pattern = {"h"};
  CHECK(says(error_of([&] { paths(config); }), "means no layer"));
  config = with_targets({"q_proj", "k_proj"});
  config.modules_to_save = {"k_proj"};
  CHECK(paths(config).size() == 2);
  config.modules_to_save = {"scor"};
  CHECK(says(error_of([&] { paths(config); }), "modules_to_save: no module of the model is called so: got 'scor'"));
}

TEST_CASE("ranks and scalings follow their patterns") {
  LoraConfig config = config::parse<LoraConfig>(
      "r: 4\nlora_alpha: 8\nrank_pattern: {q_proj: 2, 'layers.1.*': 6}\nalpha_pattern: {'.*k_proj': 3}", "x");
  CHECK(config.rank_of("model.layers.0.self_attn.q_proj") == 2);
  CHECK(config.rank_of("model.layers.1.self_attn.v_proj") == 6);
  CHECK(config.rank_of("model.layers.0.self_attn.xq_proj") == 4);
  CHECK(config.scaling_of("model.layers.0.self_attn.k_proj") == 0.75);
  config.use_rslora = true;
  CHECK(config.scaling_of("model.layers.0.self_attn.v_proj") == 4);
}

TEST_CASE("configs that mean nothing are refused") {
  const auto wrong = [](const std::string& yaml) {
    return error_of([&] { config::parse<LoraConfig>(yaml, "x.yaml"); });
  };
  CHECK(wrong("target_modules: [q_proj]\ninit_lora_weights: pissa_niter_4\nlora_alpha: 0.5").empty());
  CHECK(wrong("init_lora_weights: false").empty());
  CHECK(says(wrong("init_lora_weights: pissa_niter_x"), "x.yaml:1:20"));
  CHECK(says(wrong("target_modules: 3"), "target_modules"));
  CHECK(says(wrong("target_modules: []"), "no modules"));
  CHECK(says(wrong("exclude_modules: {a: b}"), "exclude_modules"));
  CHECK(says(wrong("target_modules: .*q\nlayers_to_transform: [1]"), "has no influence"));
  CHECK(says(wrong("layers_pattern: [h]"), "has no influence without layers_to_transform"));
  CHECK(says(wrong("loraplus_lr_embedding: 1e-5"), "has no influence without loraplus_lr_ratio"));
  CHECK(says(wrong("r: 0"), "r"));
  CHECK(says(wrong("bias: some"), "none"));
}

TEST_CASE("an adapter_config.json that computes something else is refused by name") {
  const io::Json good = peft::to_adapter_config(with_targets({"q_proj"}), {.task_type = "CAUSAL_LM"});
  const auto read = [](io::Json config, const char* key, io::Json value) {
    config[key] = std::move(value);
    return error_of([&] { peft::lora_config_from(config, "adapter_config.json"); });
  };
  CHECK(read(good, "r", 4).empty());
  CHECK(read(good, "eva_config", {{"rho", 2.0}}).empty());  // how it began
  CHECK(read(good, "unknown_of_a_later_release", nullptr).empty());
  CHECK(says(read(good, "unknown_of_a_later_release", true), "'unknown_of_a_later_release' of peft changes"));
  for (const char* key : {"lora_bias", "use_qalora", "ensure_weight_tying"}) CHECK(says(read(good, key, true), key));
  for (const char* key :
       {"layer_replication", "trainable_token_indices", "target_parameters", "alora_invocation_tokens"})
    CHECK(says(read(good, key, {1}), key));
  CHECK(says(read(good, "init_lora_weights", "pissa_niter_4"), "path_initial_model_for_weight_conversion"));
  CHECK(says(read(good, "init_lora_weights", "olora"), "path_initial_model_for_weight_conversion"));
  CHECK(says(read(good, "peft_type", "IA3"), "expected LORA"));
  CHECK(says(read(good, "r", 0), "'r'"));
  CHECK(says(read(good, "rank_pattern", {{"q", -1}}), "rank_pattern"));
}

TEST_CASE("what belongs to another model is refused") {
  test::TemporaryFolder folder;
  const auto model = tiny();
  peft::save_adapter(peft::apply(*model, with_targets({"q_proj"}), 1), folder / "q", "");
  io::Json wide = tiny_llama();
  wide["hidden_size"] = 20;
  auto other = models::create(wide, {}, 1);
  CHECK(says(error_of([&] { peft::load_adapter(*other, folder / "q"); }), "has another shape than the model's"));
  wide = tiny_llama();
  wide["num_hidden_layers"] = 1;
  other = models::create(wide, {}, 1);
  CHECK(says(error_of([&] { peft::load_adapter(*other, folder / "q"); }), "an adapter for another model?"));
  wide["num_hidden_layers"] = 3;
  other = models::create(wide, {}, 1);
  CHECK(says(error_of([&] { peft::load_adapter(*other, folder / "q"); }),
             "layers.2.self_attn.q_proj.lora_A.weight' is missing"));
  CHECK(says(error_of([&] { peft::load_adapter(*other, folder / "none"); }), "no adapter there"));
  const auto twice = tiny();
  peft::load_adapter(*twice, folder / "q", "a");
  CHECK(says(error_of([&] { peft::load_adapter(*twice, folder / "q", "a"); }), "of this name is on the model already"));
}

TEST_CASE("adapters that cannot stand beside each other are refused") {
  test::TemporaryFolder folder;
  LoraConfig config = with_targets({"q_proj"});
  config.modules_to_save = {"norm"};
  const auto model = tiny(), other = tiny();
  peft::save_adapter(peft::apply(*model, config, 1), folder / "norm", "");
  const auto loads = [&](std::vector<peft::AdapterSource> sources) {
    const auto fresh = tiny();
    return error_of([&] { peft::load_adapters(*fresh, sources); });
  };
  CHECK(loads({{folder / "norm"}}).empty());
  CHECK(says(loads({{folder / "norm"}, {folder / "norm"}}), "hold the same parameter of the model itself"));
  CHECK(says(loads({{folder / "norm", 0.5}}), "cannot be weighted"));

  config = with_targets({"q_proj"});
  config.init_lora_weights = "pissa";
  config.r = 2;
  const auto adapter = peft::apply(*other, config, 1);
  peft::save_adapter(adapter, folder / "converted", "");
  CHECK(loads({{folder / "norm"}, {folder / "converted"}}).empty());
  io::NamedTensors tensors;  // as peft writes it without path_initial_model_for_weight_conversion
  for (const auto& target : adapter.targets()) {
    tensors.emplace_back(peft::kKeyPrefix + target.path + ".lora_A.weight", target.lora->A);
    tensors.emplace_back(peft::kKeyPrefix + target.path + ".lora_B.weight", target.lora->B);
  }
  peft::write_adapter_folder(folder / "pissa", peft::to_adapter_config(adapter.config(), {}), tensors);
  CHECK(loads({{folder / "pissa"}}).empty());
  CHECK(says(loads({{folder / "norm"}, {folder / "pissa"}}), "changes the base that the others were made for"));
}

TEST_CASE("what peft would not change is refused: a table that encoder and decoder share, BERT's tied head") {
  const io::Json t5 = {{"model_type", "t5"}, {"vocab_size", 13}, {"d_model", 8},   {"d_kv", 4},
                       {"d_ff", 8},          {"num_layers", 1},  {"num_heads", 2}, {"decoder_start_token_id", 0}};
  const auto seq2seq = models::create<nn::Seq2SeqModel>(t5, {}, 1);
  CHECK(says(error_of([&] { peft::apply(*seq2seq, with_targets({"shared"}), 1); }), "share this token table"));
  io::Json bert = models::preset("bert-base-uncased");
  for (const auto& [key, value] : std::map<std::string, int64_t>{{"vocab_size", 13},
                                                                 {"hidden_size", 8},
                                                                 {"intermediate_size", 8},
                                                                 {"num_hidden_layers", 1},
                                                                 {"num_attention_heads", 2}})
    bert[key] = value;
  bert["architectures"] = {"BertForMaskedLM"};
  const auto encoder = models::create<nn::EncoderModel>(bert, {}, 1);
  LoraConfig config = with_targets({"query"});
  config.modules_to_save = {"word_embeddings"};
  CHECK(says(error_of([&] { peft::apply(*encoder, config, 1); }), "always its token table"));
}

}  // namespace
}  // namespace llmtk
