#include "quant/calibration.h"

#include <ATen/ATen.h>

#include <map>

#include "core/error.h"
#include "nn/causal_model.h"
#include "nn/checkpoint.h"
#include "nn/encoder_model.h"
#include "nn/linear.h"
#include "nn/seq2seq_model.h"

namespace llmtk::quant {
namespace {

using at::Tensor;
using Samples = std::vector<Tensor>;

constexpr const char* kObserver = "calibration_observer";

/// X^T X of what goes into some linear layers. Layers that are given the same tensor (q, k and v) share one.
class Hessians {
 public:
  /// Called with the input of a layer, in the order in which the layers are called, the same for every sample.
  void add(const nn::Linear& layer, const Tensor& x) {
    auto [place, is_new] = of_.try_emplace(&layer, sums_.size());
    if (is_new) {
      if (last_.defined() && last_.is_same(x)) {
        place->second = last_index_;
        return;
      }
      owners_.push_back(&layer);
      sums_.push_back(at::zeros({layer.in_features(), layer.in_features()}, x.options().dtype(at::kFloat)));
    }
    if (owners_[place->second] != &layer) return;
    last_ = x;
    last_index_ = place->second;
    const Tensor rows = x.reshape({-1, x.size(-1)}).to(at::kFloat);
    sums_[place->second].addmm_(rows.t(), rows);
  }
  /// Undefined where the layer was never called.
  Tensor of(const nn::Linear& layer) const {
    const auto found = of_.find(&layer);
    return found == of_.end() ? Tensor() : sums_[found->second];
  }

 private:
  std::map<const nn::Linear*, size_t> of_;
  std::vector<const nn::Linear*> owners_;
  std::vector<Tensor> sums_;
  Tensor last_;
  size_t last_index_ = 0;
};

class Observer : public nn::LinearBranch {
 public:
  explicit Observer(Hessians& hessians) : hessians_(hessians) {}
  Tensor forward(const nn::Linear& layer, const Tensor& x) override {
    hessians_.add(layer, x);
    return layer.base(x);
  }
  Tensor weight_delta(const nn::Linear& layer) const override { return at::zeros({}, layer.base_weight().options()); }

 private:
  Hessians& hessians_;
};

using Matrices = std::vector<const PlannedMatrix*>;

nn::Linear& linear_of(const PlannedMatrix& m) { return dynamic_cast<nn::Linear&>(*m.module); }

class Calibration {
 public:
  Calibration(nn::Model& model, const Plan& plan, const Samples& samples, Rounder& rounder)
      : model_(model), samples_(samples), rounder_(rounder) {
    for (const PlannedMatrix& m : plan.matrices)
      if (!m.is_table) left_.push_back(&m);
  }

  void run() {
    LLMTK_CHECK(!model_.is_training(), "a model in training");
    total_ = model_.num_layers();
    if (auto* both = dynamic_cast<nn::Seq2SeqModel*>(&model_)) {
      through_layers([&](size_t s) { both->encode(samples_[s]); });
      Samples encoded;
      for (const Tensor& ids : samples_) encoded.push_back(both->encode(ids));
      through_layers([&](size_t s) { both->decode(samples_[s], {.encoder_hidden = encoded[s]}); });
    } else {
      through_layers([&](size_t s) { pass(s); });
    }
    round_others();
  }

 private:
  /// The layers of one stack. pass(s) runs the model on sample s.
  void through_layers(const std::function<void(size_t)>& pass) {
    std::vector<std::vector<nn::LayerCall>> calls;
    model_.set_gradient_checkpointing(true);
    for (size_t s = 0; s < samples_.size(); ++s) {
      nn::RecordLayers record;
      pass(s);
      calls.push_back(std::move(record.calls));
    }
    model_.set_gradient_checkpointing(false);
    Samples activations;
    for (const auto& sample : calls) activations.push_back(sample.at(0).inputs[0]);
    const size_t layers = calls[0].size();
    total_ = std::max(total_, done_ + static_cast<int64_t>(layers));
    for (size_t layer = 0; layer < layers; ++layer) {
      const auto run = [&](size_t s) {
        nn::LayerCall& call = calls[s][layer];
        nn::Tensors inputs = call.inputs;
        inputs[0] = activations[s];
        const nn::Tensors outputs = call.function(inputs);
        return outputs.size() > 1 && outputs[1].defined() ? outputs[0] + outputs[1] : outputs[0];
      };
      round(take([&](const PlannedMatrix& m) { return is_below(*calls[0][layer].layer, *m.module); }), [&] {
        for (size_t s = 0; s < samples_.size(); ++s) run(s);
      });
      for (size_t s = 0; s < samples_.size(); ++s) {
        activations[s] = run(s);
        calls[s][layer] = {};
      }
      rounder_.layer_done(++done_, total_);
    }
  }

  /// Those outside of layers: projections around the stack, heads.
  void round_others() {
    const Matrices others = take([](const PlannedMatrix&) { return true; });
    round(others, [&] {
      for (size_t s = 0; s < samples_.size(); ++s) pass_with_head(s);
    });
  }

  Tensor pass(size_t s) {
    if (auto* causal = dynamic_cast<nn::CausalModel*>(&model_)) return causal->forward(samples_[s]);
    if (auto* encoder = dynamic_cast<nn::EncoderModel*>(&model_)) return encoder->forward(samples_[s]);
    model_.class_logits({.input_ids = samples_[s]});
    return {};
  }

  void pass_with_head(size_t s) {
    if (auto* both = dynamic_cast<nn::Seq2SeqModel*>(&model_))
      both->logits(both->decode(samples_[s], {.encoder_hidden = both->encode(samples_[s])}));
    else if (auto* causal = dynamic_cast<nn::CausalModel*>(&model_))
      causal->logits(causal->forward(samples_[s]));
    else if (auto* encoder = dynamic_cast<nn::EncoderModel*>(&model_))
      encoder->logits(encoder->forward(samples_[s]));
    else
      model_.class_logits({.input_ids = samples_[s]});
  }

  static bool is_below(const torch::nn::Module& layer, const torch::nn::Module& module) {
    for (const auto& item : layer.modules())
      if (item.get() == &module) return true;
    return false;
  }

  template <class Wanted>
  Matrices take(const Wanted& wanted) {
    Matrices taken, left;
    for (const PlannedMatrix* m : left_) (wanted(*m) ? taken : left).push_back(m);
    left_ = std::move(left);
    return taken;
  }

  void round(const Matrices& matrices, const std::function<void()>& observed) {
    Matrices open;
    for (const PlannedMatrix* m : matrices) {
      if (const auto storage = rounder_.rounded(*m))
        linear_of(*m).set_storage(storage);
      else
        open.push_back(m);
    }
    if (open.empty()) return;
    Hessians hessians;
    for (const PlannedMatrix* m : open) linear_of(*m).set_branch(kObserver, std::make_shared<Observer>(hessians));
    observed();
    for (const PlannedMatrix* m : open) linear_of(*m).set_branch("", nullptr);
    for (const PlannedMatrix* m : open) {
      const Tensor hessian = hessians.of(linear_of(*m));
      if (!hessian.defined())
        throw Error(Exit::usage, {.what = "calibration text never comes through '" + m->path + "'",
                                  .hint = "leave it as it is with --ignore " + m->path});
      linear_of(*m).set_storage(rounder_.round(*m, hessian));
    }
  }

  nn::Model& model_;
  const Samples& samples_;
  Rounder& rounder_;
  Matrices left_;
  int64_t done_ = 0, total_ = 0;
};

}  // namespace

void calibrate(nn::Model& model, const Plan& plan, const Samples& samples, Rounder& rounder) {
  const at::NoGradGuard no_grad;
  LLMTK_CHECK(!samples.empty(), "no samples");
  Calibration(model, plan, samples, rounder).run();
}

}  // namespace llmtk::quant
