#include "models/bert.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cumsum.h>

namespace llmtk::models {

using at::Tensor;
using nn::Build;
using nn::Head;
using nn::Linear;

namespace {

constexpr const char* kHeadTensors[] = {
    "pooler.dense.weight",
    "pooler.dense.bias",
    "cls.predictions.bias",
    "cls.predictions.transform.dense.weight",
    "cls.predictions.transform.dense.bias",
    "cls.predictions.transform.LayerNorm.weight",
    "cls.predictions.transform.LayerNorm.bias",
    "cls.predictions.decoder.weight",
    "cls.predictions.decoder.bias",
    "cls.seq_relationship.weight",
    "cls.seq_relationship.bias",
    "classifier.weight",
    "classifier.bias",
    "qa_outputs.weight",
    "qa_outputs.bias",
};

}  // namespace

const EncoderNames kBertNames = {"bert", "Bert", "bert.", kHeadTensors};

namespace {

/// dense -> activation -> LayerNorm
struct Transform : torch::nn::Module {
  Transform(const BertConfig& c, const Build& build) : hidden_act(c.hidden_act) {
    dense = register_module("dense", std::make_shared<Linear>(c.hidden_size, c.hidden_size, Linear::Options{}, build));
    LayerNorm = register_module("LayerNorm", std::make_shared<nn::LayerNorm>(c.hidden_size, c.layer_norm_eps, build));
  }
  Tensor forward(const Tensor& x) { return LayerNorm->forward(nn::activate(hidden_act, dense->forward(x))); }

  nn::Activation hidden_act;
  std::shared_ptr<Linear> dense;
  std::shared_ptr<nn::LayerNorm> LayerNorm;
};

/// The masked LM's head; its matrix is the token table.
struct Predictions : torch::nn::Module {
  Predictions(const BertConfig& c, const Tensor& word_table, const Build& build) {
    bias = register_parameter("bias", build.empty({c.vocab_size}));
    transform = register_module("transform", std::make_shared<Transform>(c, build));
    decoder = register_module("decoder", Linear::tied(word_table));
    decoder->bias = bias;
  }

  Tensor bias;  // [V]
  std::shared_ptr<Transform> transform;
  std::shared_ptr<Linear> decoder;
};

class Bert final : public BertBase {
 public:
  Bert(BertConfig config, const Build& build)
      : BertBase(config, kBertNames, /*pooler=*/config.head == Head::sequence_classification,
                 /*position_padding=*/-1, build) {
    if (config_.head == Head::masked_lm) {
      predictions_ = std::make_shared<Predictions>(config_, word_table(), build);
      register_module("cls", std::make_shared<torch::nn::Module>())->register_module("predictions", predictions_);
    } else if (config_.head == Head::sequence_classification) {
      classifier_ = register_module(
          "classifier", std::make_shared<Linear>(config_.hidden_size, config_.num_labels, Linear::Options{}, build));
    }
  }

  std::map<std::string, Tensor> tied_names() override {
    if (!predictions_) return {};
    return {{"cls.predictions.decoder.weight", word_table()}, {"cls.predictions.decoder.bias", predictions_->bias}};
  }

  int64_t num_positions() const override { return config_.max_position_embeddings; }

 private:
  Tensor default_positions(const Tensor& input_ids, const Tensor& real) const override {
    if (real.defined()) return (real.cumsum(1) - 1).clamp_min(0);            // [B, T]
    return at::arange(input_ids.size(1), input_ids.options()).unsqueeze(0);  // [1, T]
  }
  Tensor masked_lm_transform(const Tensor& hidden) override { return predictions_->transform->forward(hidden); }
  Linear& masked_lm_decoder() override { return *predictions_->decoder; }
  Tensor sequence_logits(const Tensor& hidden, const Tensor& attention_mask) override {
    return classifier_->forward(head_dropout(pooled(hidden, attention_mask)));
  }

  std::shared_ptr<Predictions> predictions_;
  std::shared_ptr<Linear> classifier_;
};

}  // namespace

std::shared_ptr<nn::Model> make_bert(const io::Json& config, const std::string& where, const Build& build) {
  return std::make_shared<Bert>(BertConfig::from_hf(config, where, build.typed_keys, kBertNames, 0), build);
}

std::optional<std::string> bert_parameter_name(const std::string& name) { return bert_encoder_parameter_name(name); }

std::map<std::string, io::Json> bert_presets() {
  struct Shape {
    const char* name;
    int64_t vocab_size, layers, width, heads;
  };
  // Section 3 of the paper; the vocabularies are those of the published models.
  static constexpr Shape kShapes[] = {
      {"bert-base-uncased", 30522, 12, 768, 12},   {"bert-base-cased", 28996, 12, 768, 12},
      {"bert-large-uncased", 30522, 24, 1024, 16}, {"bert-large-cased", 28996, 24, 1024, 16},
      {"bert-base-chinese", 21128, 12, 768, 12},   {"bert-base-multilingual-cased", 119547, 12, 768, 12},
  };
  std::map<std::string, io::Json> presets;
  for (const Shape& shape : kShapes)
    presets[shape.name] = {{"model_type", "bert"},
                           {"architectures", {"BertForMaskedLM"}},
                           {"vocab_size", shape.vocab_size},
                           {"hidden_size", shape.width},
                           {"num_hidden_layers", shape.layers},
                           {"num_attention_heads", shape.heads},
                           {"intermediate_size", 4 * shape.width},
                           {"hidden_act", "gelu"},
                           {"hidden_dropout_prob", 0.1},
                           {"attention_probs_dropout_prob", 0.1},
                           {"max_position_embeddings", 512},
                           {"type_vocab_size", 2},
                           {"initializer_range", 0.02},
                           {"layer_norm_eps", 1e-12},
                           {"pad_token_id", 0}};
  return presets;
}

}  // namespace llmtk::models
