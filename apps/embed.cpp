// llmtk embed: texts -> tokens -> encoder -> one vector each.

#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app.h"
#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "data/encoder_input.h"
#include "embed_input.h"
#include "embed_output.h"
#include "io/model_folder.h"
#include "models/sentence_encoder.h"
#include "open_encoder.h"

using namespace llmtk;
using Clock = std::chrono::steady_clock;

namespace {

constexpr const char* kExamples =
    "  llmtk embed all-MiniLM-L6-v2 --text \"How old are you?\" --text 你多大了？\n"
    "  llmtk embed all-MiniLM-L6-v2 --file corpus.jsonl --text-field body --output corpus.safetensors\n"
    "  llmtk embed bert-base-uncased --pooling mean --normalize < sentences.txt > vectors.jsonl\n"
    "  llmtk embed e5-small --prefix \"query: \" --text \"how to boil an egg\"";

/// Texts that are sorted by length together, in batches: enough that little is padding, few enough to stay in memory.
constexpr int64_t kBatchesSorted = 64;

struct Options {
  CommonOptions common;
  ModelOptions model;
  EmbedInputOptions input;
  std::string pooling, output;
  std::optional<std::string> prefix, prompt_name;
  std::optional<bool> normalize;
  std::optional<int64_t> max_length;
  int64_t batch_size = 32;
};

void add_options(CLI::App& app, Options& o) {
  add_model_options(app, o.model);
  auto* text =
      app.add_option("-t,--text", o.input.texts, "A text; may be given several times")->allow_extra_args(false);
  app.add_option("-f,--file", o.input.files,
                 "Files, folders or patterns: a line of .txt, a row of .jsonl, .json, .csv or .tsv is a text. Without "
                 "texts and files, the lines of standard input are (one that begins with { is a row of JSON)")
      ->excludes(text);
  o.input.read.add_to(app);
  app.add_option("-o,--output", o.output,
                 "Write into this .jsonl or .safetensors file (tensor `embeddings`) instead of JSON lines on stdout");
  app.add_option("--batch-size", o.batch_size, "Texts that run together")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  const char* how = "From tokens to a vector (default: what the model's sentence-transformers files say)";
  app.add_option("--pooling", o.pooling, std::string(models::kPoolingNames) + "; several with commas are concatenated")
      ->group(how);
  app.add_flag_function(
         "--normalize,!--no-normalize", [&o](int64_t count) { o.normalize = count > 0; },
         "Scale each vector to length 1")
      ->group(how);
  app.add_option("--max-length", o.max_length, "Longer texts are cut, in tokens, special ones counted")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->group(how);
  auto* prefix = app.add_option("--prefix", o.prefix,
                                "Put this before every text; \"\": nothing, whatever the model's default prompt")
                     ->group(how);
  app.add_option("--prompt-name", o.prompt_name, "Put this prompt of the model's before every text")
      ->group(how)
      ->excludes(prefix);
  add_common_options(app, o.common, kExamples);
}

/// The folder's own settings under the user's.
models::SentenceEncoder resolve(const Options& o) {
  models::SentenceEncoder encoder = models::read_sentence_encoder(io::find_model(o.model.model));
  if (!o.pooling.empty()) {
    encoder.pooling.clear();
    for (const std::string& name : CLI::detail::split(o.pooling, ',')) {
      const auto pooling = models::parse_pooling(name);
      if (!pooling)
        throw Error(Exit::usage,
                    {.what = "unknown --pooling", .got = "'" + name + "'", .expected = models::kPoolingNames});
      encoder.pooling.push_back(*pooling);
    }
  }
  if (encoder.pooling.empty())
    throw Error(Exit::usage,
                {.what = "the model does not say how its tokens become one vector",
                 .where = encoder.transformer.string(),
                 .expected = "modules.json, or --pooling",
                 .hint = "--pooling mean is what most sentence encoders were trained with; cls is BERT's own"});
  if (o.normalize) encoder.normalize = *o.normalize;
  return encoder;
}

/// What stands before every text.
std::string prefix_of(const Options& o, const models::SentenceEncoder& encoder) {
  if (o.prefix) return *o.prefix;
  const std::string name = o.prompt_name.value_or(encoder.default_prompt_name);
  if (name.empty()) return "";
  const auto found = encoder.prompts.find(name);
  if (found == encoder.prompts.end()) {
    std::string names;
    for (const auto& [known, prompt] : encoder.prompts) names += (names.empty() ? "" : ", ") + known;
    throw Error(Exit::usage, {.what = "the model has no such prompt",
                              .where = encoder.transformer.string(),
                              .got = "'" + name + "'",
                              .expected = names.empty() ? "no --prompt-name: it has none" : names});
  }
  return found->second;
}

/// Ids of texts, cut to a length with the tokenizer's own special tokens kept around them.
class Cutter {
 public:
  Cutter(const OpenEncoder& open, const std::optional<int64_t>& max_length, const models::SentenceEncoder& encoder)
      : open_(open) {
    const auto special = open.tokenizer->post_process({}, nullptr).ids.size();
    const int64_t most = open.model->max_positions(), least = static_cast<int64_t>(special) + 1;
    if (max_length && (*max_length > most || *max_length < least))
      throw Error(Exit::usage,
                  {.what = "--max-length is out of range",
                   .got = std::to_string(*max_length),
                   .expected = std::to_string(least) + " to " + std::to_string(most) + ", what the model can see"});
    longest_ = static_cast<size_t>(max_length.value_or(std::min(encoder.max_seq_length.value_or(most), most)));
  }

  std::vector<text::TokenId> ids(const InputText& input, const std::string& prefix, bool& truncated) const {
    auto [encoding, cut] = data::encoder_input(
        *open_.tokenizer, encode_text(*open_.tokenizer, prefix + input.text, /*add_special_tokens=*/false, input.where),
        /*pair=*/nullptr, /*add_special_tokens=*/true, longest_);
    auto& ids = encoding.ids;
    check_ids(*open_.model, ids, input.where);
    truncated = cut;
    if (ids.empty()) throw Error(Exit::data, {.what = "the text has no tokens", .where = input.where});
    return std::move(ids);
  }
  size_t longest() const { return longest_; }

 private:
  const OpenEncoder& open_;
  size_t longest_;
};

class Embedder {
 public:
  Embedder(const Options& options, const models::SentenceEncoder& encoder, const OpenEncoder& open)
      : options_(options),
        encoder_(encoder),
        open_(open),
        cutter_(open, options.max_length, encoder),
        prefix_(prefix_of(options, encoder)),
        output_(open_output(options.output)) {
    if (!prefix_.empty() && !encoder.include_prompt)
      throw Error(Exit::usage, {.what = "this model leaves its prompts out of the pooling, which is not supported",
                                .where = encoder.transformer.string(),
                                .hint = "embed without --prefix and --prompt-name"});
  }

  void run(TextInput& input) {
    const auto start = Clock::now();
    for (bool more = true; more;) {
      while (static_cast<int64_t>(window_.size()) < options_.batch_size * kBatchesSorted && (more = take(input))) {
      }
      embed_window();
      write_window(start);
    }
    if (texts_ == 0) throw Error(Exit::data, {.what = "there are no texts to embed"});
    output_->finish();
    report(start);
  }

 private:
  bool take(TextInput& input) {
    auto text = input.next();
    if (!text) return false;
    Embedded embedded{.index = texts_++};
    ids_.push_back(cutter_.ids(*text, prefix_, embedded.truncated));
    embedded.text = std::move(text->text);
    embedded.tokens = static_cast<int64_t>(ids_.back().size());
    tokens_ += embedded.tokens;
    truncated_ += embedded.truncated;
    window_.push_back(std::move(embedded));
    return true;
  }

  /// Texts of like length run together; the longest first, so that too large a batch fails at once.
  void embed_window() {
    std::vector<size_t> order(window_.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::ranges::stable_sort(order, std::greater(), [&](size_t i) { return ids_[i].size(); });
    const c10::NoGradGuard no_gradients;
    const auto step = static_cast<size_t>(options_.batch_size);
    for (size_t first = 0; first < order.size(); first += step) {
      const auto members = std::span(order).subspan(first, std::min(step, order.size() - first));
      std::vector<const std::vector<text::TokenId>*> rows;
      for (const size_t i : members) rows.push_back(&ids_[i]);
      const at::Tensor vectors = embed(encoder_batch(rows, *open_.model, *open_.tokenizer));
      for (size_t row = 0; row < members.size(); ++row)
        window_[members[row]].embedding = vectors[static_cast<int64_t>(row)];
    }
  }

  /// Returns [B, H] float32 on the CPU.
  at::Tensor embed(const EncoderBatch& batch) {
    const at::Tensor hidden = open_.model->forward(batch.input_ids, {.attention_mask = batch.attention_mask});
    at::Tensor vectors = models::pool(hidden, batch.attention_mask, encoder_.pooling);
    if (encoder_.normalize) vectors = models::normalized(vectors);
    vectors = vectors.cpu().contiguous();
    if (!vectors.isfinite().all().item<bool>())
      throw Error(Exit::diverged, {.what = "the model gives numbers that are not finite",
                                   .where = encoder_.transformer.string(),
                                   .hint = "--dtype float32 has the widest range"});
    return vectors;
  }

  void write_window(Clock::time_point start) {
    for (const Embedded& embedded : window_) output_->write(embedded);
    window_.clear();
    ids_.clear();
    if (log::on_terminal()) log::set_status(progress(start));
  }

  std::string progress(Clock::time_point start) const {
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    return format_count(static_cast<double>(texts_)) + " texts, " +
           format_count(static_cast<double>(texts_) / seconds) + " texts/s, " +
           format_count(static_cast<double>(tokens_) / seconds) + " tokens/s";
  }

  void report(Clock::time_point start) {
    if (log::on_terminal()) log::set_status("");
    if (truncated_ > 0)
      log::warn(std::to_string(truncated_) + " of " + std::to_string(texts_) + " texts were cut to " +
                std::to_string(cutter_.longest()) + " tokens");
    log::info(progress(start) + (options_.output.empty() ? "" : "; wrote " + options_.output));
    if (options_.common.json && !options_.output.empty())
      std::cout << nlohmann::ordered_json{{"output", options_.output},
                                          {"texts", texts_},
                                          {"tokens", tokens_},
                                          {"truncated", truncated_}}
                       .dump()
                << std::endl;
  }

  const Options& options_;
  const models::SentenceEncoder& encoder_;
  const OpenEncoder& open_;
  Cutter cutter_;
  std::string prefix_;
  std::unique_ptr<EmbedOutput> output_;
  std::vector<Embedded> window_;
  std::vector<std::vector<text::TokenId>> ids_;
  uint64_t texts_ = 0, truncated_ = 0;
  int64_t tokens_ = 0;
};

int run(const Options& o) {
  const models::SentenceEncoder encoder = resolve(o);
  const OpenEncoder open = open_encoder(o.model, encoder.transformer, nn::Head::none);
  const auto input = open_input(o.input);
  try {
    Embedder(o, encoder, open).run(*input);
  } catch (const c10::OutOfMemoryError&) {
    throw Error(Exit::runtime,
                {.what = "out of memory on " + o.model.device, .hint = "lower --batch-size, or use --dtype bfloat16"});
  }
  input->finish();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Turns texts into vectors with an encoder", "llmtk embed");
  Options options;
  add_options(app, options);
  return run_app(app, options.common, argc, argv, [&] {
    if (!options.input.texts.empty()) refuse_idle(app, {"--text-field", "--document"}, "with --text");
    if (options.input.files.empty()) refuse_idle(app, {"--document"}, "on standard input, where a line is a text");
    return run(options);
  });
}
