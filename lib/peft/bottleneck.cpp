#include "peft/bottleneck.h"

#include <algorithm>
#include <charconv>

#include "core/error.h"
#include "kernels/linear.h"
#include "nn/init.h"
#include "peft/bottleneck_sites.h"
#include "peft/head.h"

namespace llmtk::peft {

void BottleneckConfig::validate(config::Problems& problems) const {
  if (bottleneck_size && reduction_factor != BottleneckConfig().reduction_factor)
    problems.add("bottleneck_size",
                 {.what = "the adapter's width is given twice", .hint = "leave reduction_factor out"});
}

const char* BottleneckConfig::activation() const {
  if (non_linearity) return non_linearity->c_str();
  return type == "houlsby" ? "swish" : "relu";
}

int64_t BottleneckConfig::width(int64_t hidden_size) const {
  if (bottleneck_size) return *bottleneck_size;
  return std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(hidden_size) / reduction_factor));
}

Bottleneck::Bottleneck(int64_t hidden_size, const BottleneckConfig& config, c10::Device device)
    : activation_(nn::parse_activation(config.activation()).value()), scaling_(config.scaling) {
  const nn::Build build{at::kFloat, device};
  const int64_t width = config.width(hidden_size);
  down_ = std::make_shared<nn::Linear>(hidden_size, width, nn::Linear::Options{}, build);
  register_module("adapter_down", std::make_shared<torch::nn::Module>())->register_module("0", down_);
  up_ = register_module("adapter_up", std::make_shared<nn::Linear>(width, hidden_size, nn::Linear::Options{}, build));
}

at::Tensor Bottleneck::forward(const nn::Linear& layer, const at::Tensor& x) {
  const at::Tensor y = layer.base(x);
  const auto product = [&](const nn::Linear& l, const at::Tensor& in) {
    return kernels::linear(in, l.weight.to(in.scalar_type()), l.bias.to(in.scalar_type()));
  };
  const at::Tensor change = product(*up_, nn::activate(activation_, product(*down_, y)));
  return y + (scaling_ == 1 ? change : change * scaling_);
}

at::Tensor Bottleneck::weight_delta(const nn::Linear&) const {
  throw Error(Exit::usage, {.what = "a bottleneck adapter cannot be merged into a matrix",
                            .hint = "it has a non-linearity; keep it beside the model"});
}

void Bottleneck::initialize(uint64_t seed, const std::string& path) {
  for (const auto& [layer, name] : {std::pair{down_, ".adapter_down.0.weight"}, {up_, ".adapter_up.weight"}}) {
    nn::init_normal(layer->weight, 0.02, seed, path + name);
    nn::init_constant(layer->bias, 0);
  }
}

void apply(nn::Model& model, const BottleneckConfig& config, uint64_t seed) {
  const auto sites = bottleneck_sites(model, config.type == "houlsby");
  for (const int64_t layer : config.leave_out)
    if (std::ranges::none_of(sites, [&](const BottleneckSite& site) { return site.number == layer; }))
      throw Error(Exit::usage, {.what = "there is no such layer to leave out",
                                .where = "adapter.leave_out",
                                .got = std::to_string(layer),
                                .expected = "less than " + std::to_string(model.num_layers())});
  train_head_alone(model);
  for (const BottleneckSite& site : sites) {
    if (std::ranges::find(config.leave_out, site.number) != config.leave_out.end()) continue;
    if (site.layer->branch())
      throw Error(Exit::usage, {.what = "the layer has a branch of another method already", .where = site.path});
    const auto adapter = std::make_shared<Bottleneck>(site.layer->out_features(), config, model.device());
    adapter->initialize(seed, site.path);
    site.layer->set_branch("adapter", adapter);
  }
}

}  // namespace llmtk::peft
