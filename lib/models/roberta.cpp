#include "models/roberta.h"

#include <ATen/ops/cumsum.h>
#include <ATen/ops/tanh.h>

namespace llmtk::models {

using at::Tensor;
using nn::Build;
using nn::Head;
using nn::Linear;

namespace {

constexpr const char* kHeadTensors[] = {
    "pooler.dense.weight",      "pooler.dense.bias",      "lm_head.bias",
    "lm_head.dense.weight",     "lm_head.dense.bias",     "lm_head.layer_norm.weight",
    "lm_head.layer_norm.bias",  "lm_head.decoder.weight", "lm_head.decoder.bias",
    "classifier.dense.weight",  "classifier.dense.bias",  "classifier.out_proj.weight",
    "classifier.out_proj.bias", "classifier.weight",      "classifier.bias",
    "qa_outputs.weight",        "qa_outputs.bias",
};

}  // namespace

const EncoderNames kRobertaNames = {"roberta", "Roberta", "roberta.", kHeadTensors};
const EncoderNames kXlmRobertaNames = {"xlm-roberta", "XLMRoberta", "roberta.", kHeadTensors};

namespace {

/// The masked LM's head; its matrix is the token table. Its activation is always gelu.
struct LMHead : torch::nn::Module {
  LMHead(const BertConfig& c, const Tensor& word_table, const Build& build) {
    bias = register_parameter("bias", build.empty({c.vocab_size}));
    dense = register_module("dense", std::make_shared<Linear>(c.hidden_size, c.hidden_size, Linear::Options{}, build));
    layer_norm = register_module("layer_norm", std::make_shared<nn::LayerNorm>(c.hidden_size, c.layer_norm_eps, build));
    decoder = register_module("decoder", Linear::tied(word_table));
    decoder->bias = bias;
  }
  Tensor transform(const Tensor& x) {
    return layer_norm->forward(nn::activate(nn::Activation::gelu, dense->forward(x)));
  }

  Tensor bias;  // [V]
  std::shared_ptr<Linear> dense, decoder;
  std::shared_ptr<nn::LayerNorm> layer_norm;
};

/// dropout -> dense -> tanh -> dropout -> out_proj
struct ClassificationHead : torch::nn::Module {
  ClassificationHead(const BertConfig& c, const Build& build) : classifier_dropout(c.classifier_dropout) {
    dense = register_module("dense", std::make_shared<Linear>(c.hidden_size, c.hidden_size, Linear::Options{}, build));
    out_proj =
        register_module("out_proj", std::make_shared<Linear>(c.hidden_size, c.num_labels, Linear::Options{}, build));
  }
  Tensor forward(const Tensor& x) {
    const Tensor y = dense->forward(nn::dropout(x, classifier_dropout, is_training())).tanh();
    return out_proj->forward(nn::dropout(y, classifier_dropout, is_training()));
  }

  double classifier_dropout;
  std::shared_ptr<Linear> dense, out_proj;
};

class Roberta final : public BertBase {
 public:
  Roberta(BertConfig config, const EncoderNames& names, const Build& build)
      : BertBase(config, names, /*pooler=*/false, /*position_padding=*/config.pad_token_id, build) {
    if (config_.head == Head::masked_lm)
      lm_head_ = register_module("lm_head", std::make_shared<LMHead>(config_, word_table(), build));
    if (config_.head == Head::sequence_classification)
      classifier_ = register_module("classifier", std::make_shared<ClassificationHead>(config_, build));
  }

  std::map<std::string, Tensor> tied_names() override {
    if (!lm_head_) return {};
    return {{"lm_head.decoder.weight", word_table()}, {"lm_head.decoder.bias", lm_head_->bias}};
  }

  /// The first pad_token_id + 1 rows of the table stand for no place in a text.
  int64_t num_positions() const override { return config_.max_position_embeddings - config_.pad_token_id - 1; }

 private:
  Tensor default_positions(const Tensor& input_ids, const Tensor& real) const override {
    Tensor counted = input_ids.ne(config_.pad_token_id);
    if (real.defined()) counted = counted.logical_and(real);
    return counted.cumsum(1) * counted + config_.pad_token_id;  // [B, T]
  }
  Tensor masked_lm_transform(const Tensor& hidden) override { return lm_head_->transform(hidden); }
  Linear& masked_lm_decoder() override { return *lm_head_->decoder; }
  Tensor sequence_logits(const Tensor& hidden, const Tensor& attention_mask) override {
    return classifier_->forward(first_token(hidden, attention_mask));
  }

  std::shared_ptr<LMHead> lm_head_;
  std::shared_ptr<ClassificationHead> classifier_;
};

std::shared_ptr<nn::Model> make_family(const io::Json& json, const std::string& where, const Build& build,
                                       const EncoderNames& names) {
  BertConfig config = BertConfig::from_hf(json, where, build.typed_keys, names, 1);
  const io::ObjectReader reader(json, where, build.typed_keys);
  if (config.pad_token_id < 0) reader.fail("pad_token_id", "an id: positions are counted from it");
  if (config.max_position_embeddings < config.pad_token_id + 2)
    reader.fail("max_position_embeddings", "at least pad_token_id + 2");
  return std::make_shared<Roberta>(std::move(config), names, build);
}

std::map<std::string, io::Json> presets_of(const EncoderNames& names, int64_t vocab_size) {
  struct Shape {
    const char* name;
    int64_t layers, width, heads;
  };
  std::map<std::string, io::Json> presets;
  for (const Shape& shape : {Shape{"-base", 12, 768, 12}, Shape{"-large", 24, 1024, 16}})
    presets[std::string(names.model_type) + shape.name] = {{"model_type", names.model_type},
                                                           {"architectures", {names.class_name(Head::masked_lm)}},
                                                           {"vocab_size", vocab_size},
                                                           {"hidden_size", shape.width},
                                                           {"num_hidden_layers", shape.layers},
                                                           {"num_attention_heads", shape.heads},
                                                           {"intermediate_size", 4 * shape.width},
                                                           {"hidden_act", "gelu"},
                                                           {"hidden_dropout_prob", 0.1},
                                                           {"attention_probs_dropout_prob", 0.1},
                                                           {"max_position_embeddings", 514},
                                                           {"type_vocab_size", 1},
                                                           {"initializer_range", 0.02},
                                                           {"layer_norm_eps", 1e-5},
                                                           {"bos_token_id", 0},
                                                           {"pad_token_id", 1},
                                                           {"eos_token_id", 2}};
  return presets;
}

}  // namespace

std::shared_ptr<nn::Model> make_roberta(const io::Json& config, const std::string& where, const Build& build) {
  return make_family(config, where, build, kRobertaNames);
}

std::shared_ptr<nn::Model> make_xlm_roberta(const io::Json& config, const std::string& where, const Build& build) {
  return make_family(config, where, build, kXlmRobertaNames);
}

std::optional<std::string> roberta_parameter_name(const std::string& name) { return bert_encoder_parameter_name(name); }

std::map<std::string, io::Json> roberta_presets() { return presets_of(kRobertaNames, 50265); }

std::map<std::string, io::Json> xlm_roberta_presets() { return presets_of(kXlmRobertaNames, 250002); }

}  // namespace llmtk::models
