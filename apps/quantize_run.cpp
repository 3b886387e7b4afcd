#include "quantize_run.h"

#include <ATen/ATen.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>

#include "calibration_text.h"
#include "core/device.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/runtime.h"
#include "io/model_folder.h"
#include "models/registry.h"
#include "quant/bitsandbytes.h"
#include "quant/calibration.h"
#include "quant/compressed_tensors.h"
#include "quant/gptq.h"
#include "quant/integer_weight.h"
#include "quant/partial_weights.h"
#include "quantize_gguf.h"
#include "quantize_receipt.h"
#include "train/signals.h"

namespace llmtk {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// Of what stays as it is.
c10::ScalarType dtype_of(const QuantizeConfig& config, const nn::Model& model) {
  if (config.model.dtype != "auto") return parse_dtype(config.model.dtype);
  return model.dtype() == c10::kHalf ? c10::kHalf : c10::kBFloat16;
}

/// What tells one run's partial folder from another's.
Json fingerprint(const QuantizeConfig& config, const fs::path& source) {
  Json json = config::to_json(config);
  for (const char* key : {"receipt", "overwrite", "device", "num_threads", "output_dir"}) json.erase(key);
  json["source"] = fs::absolute(source).lexically_normal().string();
  return json;
}

/// |W - Q| / |W| (Frobenius), some rows at a time. rows(ids) gives those of Q, float32.
template <class Rows>
double weight_error(const at::Tensor& weight, const Rows& rows) {
  const int64_t step = std::max<int64_t>(1, (int64_t{1} << 20) / weight.size(1));
  double lost = 0, whole = 0;
  for (int64_t begin = 0; begin < weight.size(0); begin += step) {
    const int64_t end = std::min(weight.size(0), begin + step);
    const at::Tensor was = weight.slice(0, begin, end).to(at::kFloat);
    const at::Tensor is = rows(at::arange(begin, end, at::TensorOptions().dtype(at::kLong).device(weight.device())));
    lost += (is - was).square().sum(at::kDouble).item<double>();
    whole += was.square().sum(at::kDouble).item<double>();
  }
  return whole > 0 ? std::sqrt(lost / whole) : 0;
}

/// Lets go of the pages of a mapped file that were read; other memory stays as it is.
void let_go(const at::Tensor& mapped) {
  if (!mapped.is_cpu()) return;
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(mapped.const_data_ptr()) / page * page;
  ::madvise(reinterpret_cast<void*>(begin), mapped.nbytes(), MADV_PAGEOUT);
}

std::string parameter_of(const quant::PlannedMatrix& m) { return m.path + ".weight"; }

/// The work on a folder. Its pieces are the model's parameters, each as it is or as the tensors of its storage.
class Quantization : quant::Rounder {
 public:
  Quantization(const QuantizeConfig& config, const QuantizeSource& source, const TokenRows& calibration)
      : config_(config),
        source_(source),
        calibration_(calibration),
        output_(fs::path(config.output_dir).lexically_normal()),
        partial_((output_.has_filename() ? output_ : output_.parent_path()).string() + ".partial") {}

  /// What would be done.
  Json plan() {
    prepare();
    Json json = {{"output", output_.string()}, {"parameters", model_->num_parameters()}};
    uint64_t bytes = 0;
    for (const quant::WeightPiece& piece : pieces())
      for (const io::TensorInfo& t : piece.tensors) bytes += static_cast<uint64_t>(t.count()) * io::dtype_size(t.dtype);
    for (const quant::PlannedMatrix& m : plan_.matrices) json["matrices"][m.path] = m.scheme.name;
    json["kept"] = plan_.ignored;
    json["bytes"] = bytes;
    json["disk_free"] = free_disk_bytes(output_);
    return json;
  }

  Json run() {
    prepare();
    weights_.emplace(partial_, pieces(), fingerprint(config_, source_.path));
    {
      const train::StopSignals signals;
      signals_ = &signals;
      if (config_.method == "gptq") calibrate();
      write_the_rest();
      signals_ = nullptr;
    }
    write_others();
    publish();
    return answer();
  }

 private:
  void prepare() {
    model_ = source_.load();
    dtype_ = dtype_of(config_, *model_);
    plan_ = quant::make_plan(*model_, config_.scheme_groups(), config_.ignore);
  }

  const quant::PlannedMatrix* planned(const std::string& parameter) const {
    return parameter.ends_with(".weight") ? plan_.find(parameter.substr(0, parameter.size() - 7)) : nullptr;
  }

  std::vector<quant::WeightPiece> pieces() const {
    std::vector<quant::WeightPiece> pieces;
    for (const auto& item : model_->named_parameters()) {
      const std::string& name = item.key();
      const quant::PlannedMatrix* m = planned(name);
      if (!m)
        pieces.push_back({name, {{name, io::to_dtype(dtype_), item.value().sizes().vec()}}});
      else if (m->scheme.nf4)
        pieces.push_back({name, quant::nf4_infos(m->path, m->rows, m->columns)});
      else
        pieces.push_back({name, quant::integer_infos(m->path, m->scheme.format, m->rows, m->columns, dtype_)});
    }
    return pieces;
  }

  void calibrate() {
    std::vector<at::Tensor> samples;
    for (const auto& row : calibration_)
      samples.push_back(at::tensor(std::vector<int64_t>(row.begin(), row.end())).unsqueeze(0).to(model_->device()));
    progress_.emplace(model_->num_layers(), Progress::Options{.label = "layer", .log_seconds = 10});
    progress_->update(0, {}, false);
    quant::calibrate(*model_, plan_, samples, *this);
    progress_.reset();
  }

  std::shared_ptr<const nn::WeightStorage> rounded(const quant::PlannedMatrix& m) override {
    if (!weights_->has(parameter_of(m))) return nullptr;
    const auto tensors = weights_->read(parameter_of(m));
    const auto part = [&](const char* name) {
      const auto found = tensors.find(m.path + name);
      return found == tensors.end() ? at::Tensor() : found->second.to(model_->device());
    };
    return std::make_shared<quant::IntegerWeight>(
        kernels::IntegerMatrix{.format = m.scheme.format,
                               .rows = m.rows,
                               .columns = m.columns,
                               .codes = part(m.scheme.format.packed ? ".weight_packed" : ".weight"),
                               .scales = part(".weight_scale"),
                               .zero_points = part(".weight_zero_point")});
  }

  std::shared_ptr<const nn::WeightStorage> round(const quant::PlannedMatrix& m, const at::Tensor& hessian) override {
    stop_if_asked();
    try {
      const at::Tensor weight = m.weight();
      const quant::GptqOptions options{config_.gptq.damping, config_.gptq.block_size, config_.gptq.desc_act};
      auto [matrix, error] = quant::gptq(weight, hessian, m.scheme.format, dtype_, options);
      write(m, matrix, weight, error);
      return std::make_shared<quant::IntegerWeight>(std::move(matrix));
    } catch (const Error& error) {
      if (error.exit() != Exit::data && error.exit() != Exit::file) throw;
      Error::Parts parts = error.parts();
      if (parts.where.empty()) parts.where = parameter_of(m);
      throw Error(error.exit(), parts);
    }
  }

  void layer_done(int64_t done, int64_t) override { progress_->update(done, {}, true); }

  void write(const quant::PlannedMatrix& m, const kernels::IntegerMatrix& matrix, const at::Tensor& weight,
             std::optional<double> output_error) {
    Json note = {{"module", m.path},
                 {"scheme", m.scheme.name},
                 {"weight_error", weight_error(weight, [&](const at::Tensor& ids) {
                    return kernels::dequantize_rows(matrix, ids, at::kFloat);
                  })}};
    if (output_error) note["output_error"] = *output_error;
    weights_->write(parameter_of(m), quant::integer_tensors(m.path, matrix), note);
  }

  /// To the nearest, and what stays as it is.
  void write_the_rest() {
    const auto count = [&] { return static_cast<int64_t>(weights_->done()); };
    Progress progress(static_cast<int64_t>(weights_->pieces().size()), {.label = "tensor", .first = count(), .log_seconds = 10});
    progress.update(count(), {}, false);
    for (const quant::WeightPiece& piece : weights_->pieces()) {
      if (weights_->has(piece.name)) continue;
      stop_if_asked();
      try {
        write_piece(piece.name);
      } catch (const Error& error) {
        if (!error.parts().where.empty()) throw;
        throw Error(error.exit(), {.what = error.parts().what, .where = piece.name});
      }
      progress.update(count(), {{"", piece.name}}, true);
    }
  }

  void write_piece(const std::string& name) {
    const quant::PlannedMatrix* m = planned(name);
    if (!m) {
      const at::Tensor kept = model_->named_parameters()[name];
      weights_->write(name, {{name, kept.to(dtype_)}});
      return let_go(kept);
    }
    const at::Tensor weight = m->weight();
    if (m->scheme.nf4)
      write_nf4(*m, weight);
    else
      write(*m, kernels::quantize(weight, m->scheme.format, dtype_), weight, std::nullopt);
    let_go(weight);
  }

  void write_nf4(const quant::PlannedMatrix& m, const at::Tensor& weight) {
    const auto matrix = kernels::quantize(weight, kernels::QuantType::nf4, /*double_quantization=*/true);
    const at::Tensor full = kernels::dequantize(matrix, at::kFloat);
    weights_->write(
        parameter_of(m), quant::nf4_tensors(m.path, matrix, dtype_),
        {{"module", m.path},
         {"scheme", m.scheme.name},
         {"weight_error", weight_error(weight.cpu(), [&](const at::Tensor& ids) { return full.index({ids}); })}});
  }

  void stop_if_asked() const {
    const int signal = signals_->received();
    if (signal == 0) return;
    throw Error(Exit::stopped_saved, {.what = std::string("stopped by ") + train::StopSignals::name(signal) + " with " +
                                              std::to_string(weights_->done()) + " of " +
                                              std::to_string(weights_->pieces().size()) + " tensors kept",
                                      .where = partial_.string(),
                                      .hint = "the same command goes on from there"});
  }

  void write_others() const {
    const Json quantization = plan_.matrices[0].scheme.nf4 ? quant::bitsandbytes_config(plan_.ignored, dtype_)
                                                           : quant::compressed_tensors_config(
                                                                 plan_.groups, plan_.ignored, config_.gptq.desc_act);
    models::SaveOptions options;
    if (fs::is_directory(source_.path)) options.companions = source_.path;
    models::save_config(*model_, partial_, dtype_, options, {{"quantization_config", quantization}});
    if (source_.tokenizer && (!config_.model.tokenizer.empty() || !options.companions))
      source_.tokenizer->save(partial_);
  }

  void publish() {
    weights_->finish();
    sync_folder(partial_);
    if (fs::exists(output_)) fs::remove_all(output_);
    fs::rename(partial_, output_);
    if (output_.has_parent_path()) sync_folder(output_.parent_path());
  }

  Json answer() const {
    Json matrices = Json::array();
    int64_t weights = 0;
    for (const quant::PlannedMatrix& m : plan_.matrices) {
      matrices.push_back(weights_->note(parameter_of(m)));
      weights += m.rows * m.columns;
    }
    return {{"output", output_.string()},  {"scheme", config_.scheme},     {"method", config_.method},
            {"dtype", dtype_name(dtype_)}, {"quantized_weights", weights}, {"kept", plan_.ignored},
            {"matrices", matrices}};
  }

  const QuantizeConfig& config_;
  const QuantizeSource& source_;
  const TokenRows& calibration_;
  fs::path output_, partial_;
  std::shared_ptr<nn::Model> model_;
  c10::ScalarType dtype_ = c10::kBFloat16;
  quant::Plan plan_;
  std::optional<quant::PartialWeights> weights_;
  std::optional<Progress> progress_;
  const train::StopSignals* signals_ = nullptr;
};

void check_output(const QuantizeConfig& config, const fs::path& source) {
  const fs::path output = config.output_dir;
  std::error_code none;
  if (fs::equivalent(output, source, none))
    throw Error(Exit::usage, {.what = "the output is the model itself", .where = output.string()});
  const bool there =
      fs::is_directory(output) ? fs::directory_iterator(output) != fs::directory_iterator() : fs::exists(output);
  if (there && !config.overwrite)
    throw Error(Exit::usage, {.what = "the output is there already", .where = output.string(), .hint = "--overwrite"});
}

}  // namespace

std::shared_ptr<nn::Model> QuantizeSource::load() const {
  auto model = models::load_model(path.string(), {.device = device, .map = true});
  for (at::Tensor parameter : model->parameters()) parameter.requires_grad_(false);
  return model;
}

namespace {

/// What a run needs before it begins.
struct Prepared {
  QuantizeSource source;
  CalibrationText calibration;
  ReceiptRows rows;
};

Prepared prepare(const QuantizeConfig& config) {
  setup_runtime(static_cast<int>(config.num_threads));
  Prepared p;
  p.source.path = io::find_model(config.model.name_or_path);
  p.source.device = resolve_device(config.device);
  check_output(config, p.source.path);
  const fs::path tokenizer = config.model.tokenizer.empty() ? p.source.path : fs::path(config.model.tokenizer);
  if (!config.model.tokenizer.empty() || !fs::is_directory(tokenizer) || text::holds_tokenizer(tokenizer))
    p.source.tokenizer = text::load_tokenizer(tokenizer);
  const bool reads = config.method == "gptq" || !config.receipt.text.empty();
  if (reads && !p.source.tokenizer)
    throw Error(Exit::usage,
                {.what = "a text needs a tokenizer, and the model's folder has none", .hint = "give --tokenizer"});
  if (config.method == "gptq")
    p.calibration = read_calibration(config.calibration, *p.source.tokenizer, config.receipt.max_tokens);
  p.rows = receipt_rows(config.receipt, p.source, p.calibration.held_out);
  return p;
}

}  // namespace

Json plan_quantization(const QuantizeConfig& config) {
  const Prepared p = prepare(config);
  if (!config.to_gguf()) return Quantization(config, p.source, p.calibration.samples).plan();
  return {{"output", config.output_dir}, {"parameters", p.source.load()->num_parameters()}, {"scheme", config.scheme}};
}

Json quantize(const QuantizeConfig& config, int& exit_code) {
  const at::NoGradGuard no_grad;
  const Prepared p = prepare(config);
  Json answer = config.to_gguf() ? quantize_to_gguf(config, p.source)
                                 : Quantization(config, p.source, p.calibration.samples).run();
  add_receipt(answer, config, p.source, p.rows, exit_code);
  return answer;
}

}  // namespace llmtk
