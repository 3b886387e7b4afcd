#include "data/pretraining.h"

#include <algorithm>
#include <cstdlib>

#include "core/error.h"
#include "core/log.h"
#include "data/checksums.h"
#include "data/loader.h"
#include "data/shard_writer.h"

namespace llmtk::data {

using nlohmann::ordered_json;

namespace {

enum class Role { train, validation };

std::string megabytes(uint64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f MB", static_cast<double>(bytes) * 1e-6);
  return text;
}

class Opener {
 public:
  Opener(const DataConfig& config, const text::Tokenizer* tokenizer, const std::string& tokenizer_path,
         const LoaderContext& context)
      : config_(config), tokenizer_(tokenizer), tokenizer_path_(tokenizer_path), context_(context) {
    if (tokenizer_) tokenizer_hash_ = data::tokenizer_hash(*tokenizer_);
    if (tokenizer_ && context.vocab_size > 0 && tokenizer_->vocab_size() > static_cast<size_t>(context.vocab_size))
      throw Error(Exit::data, {.what = "the tokenizer has more tokens than the model's vocabulary",
                               .where = tokenizer_path,
                               .got = std::to_string(tokenizer_->vocab_size()),
                               .expected = "at most " + std::to_string(context.vocab_size),
                               .hint = "set the model's vocab_size, or take the model's own tokenizer"});
  }

  PretrainingData run() {
    choose_rows();
    std::vector<MixtureSource> train, held_out, validation;
    for (const auto& source : config_.train) open(source, Role::train, train, held_out);
    for (const auto& source : config_.validation) open(source, Role::validation, validation, validation);
    for (auto& source : held_out) validation.push_back(std::move(source));

    refuse_idle_settings();
    PretrainingData out;
    out.description = {{"sources", description_}, {"tokenizer_hash", tokenizer_hash_}};
    for (const auto& source : train) out.train_tokens += source.rows->tokens();
    for (const auto& source : validation) out.validation_tokens += source.rows->tokens();
    RowLoaderOptions options{.batch_size = context_.batch_size,
                             .length = rows_.length,
                             .shuffle = config_.shuffle,
                             .seed = context_.seed,
                             .epochs = context_.epochs,
                             .rank = context_.rank,
                             .world_size = context_.world_size,
                             .vocab_size = context_.vocab_size};
    options.transform = transform_;
    if (document_end_)
      options.transform = [end = *document_end_](Example& example, uint64_t) { separate_documents(example, end); };
    out.train = make_loader(std::move(train), options, config_.dataloader_prefetch_factor);
    options.batch_size = context_.eval_batch_size;
    options.shuffle = false;
    options.epochs = 1;
    if (!validation.empty())
      out.validation =
          make_loader({join_sources(std::move(validation), options)}, options, config_.dataloader_prefetch_factor);
    return out;
  }

 private:
  bool is_causal() const { return context_.objective == PretrainingObjective::causal_lm; }

  /// How long the rows of a stream are, and what becomes of them.
  void choose_rows() {
    rows_.length = config_.max_length;
    rows_.next_as_label = is_causal();
    const bool masked = context_.objective == PretrainingObjective::masked_lm;
    if (!masked && config_.masked_lm) refuse_idle("data.masked_lm", "a model that is no encoder", "");
    if ((masked || is_causal()) && config_.span_corruption)
      refuse_idle("data.span_corruption", "a model that is no encoder-decoder", "");
    if (is_causal()) return;
    if (config_.document_mask) refuse_idle("data.document_mask", "a model that is no decoder", "");
    if (config_.prepend_bos != DataConfig().prepend_bos)
      refuse_idle("data.prepend_bos", "a model that is no decoder", "");
    labels_ = masked ? TokenizedLabels::aligned : TokenizedLabels::separate;
    if (!tokenizer_) {
      transform_ = [](Example& example, uint64_t) {
        if (example.labels.empty())
          throw Error(Exit::usage, {.what = "rows without labels need a tokenizer, which says what hides a token",
                                    .hint = "set tokenizer.name_or_path"});
      };
    } else if (masked) {
      mask_rows();
    } else {
      const SpanCorruptor corruptor(config_.span_corruption.value_or(SpanCorruptionConfig()), *tokenizer_,
                                    tokenizer_path_);
      rows_.length = corruptor.text_length(config_.max_length);
      transform_ = corruptor;
    }
  }

  /// Each row of a stream stands between what the tokenizer puts around a text ([CLS] and [SEP]).
  void mask_rows() {
    rows_.before = tokenizer_->prefix();
    rows_.after = tokenizer_->post_process({}, nullptr).ids;
    const auto around = static_cast<int64_t>(rows_.after.size());
    LLMTK_CHECK(std::equal(rows_.before.begin(), rows_.before.end(), rows_.after.begin()));
    rows_.after.erase(rows_.after.begin(), rows_.after.begin() + static_cast<int64_t>(rows_.before.size()));
    rows_.length -= around;
    if (rows_.length < 1)
      throw Error(Exit::usage, {.what = "data.max_length leaves no room beside the tokenizer's special tokens",
                                .got = std::to_string(config_.max_length),
                                .expected = std::to_string(around + 1) + " or more"});
    transform_ = TokenMasker(config_.masked_lm.value_or(MaskedLmConfig()), *tokenizer_, tokenizer_path_);
  }

  void open(const SourceConfig& source, Role role, std::vector<MixtureSource>& out,
            std::vector<MixtureSource>& held_out) {
    if (TokenizedRows::is_tokenized(source.path)) {
      if (role == Role::train && config_.validation_fraction > 0)
        throw Error(Exit::usage,
                    {.what = "data.validation_fraction does not work with rows that are tokenized already",
                     .where = source.path,
                     .hint = "put the rows to hold out into a file of their own and name it in data.validation"});
      if (config_.document_mask)
        throw Error(Exit::usage, {.what = "data.document_mask does not work with rows that are tokenized already",
                                  .where = source.path,
                                  .hint = "each of them is one text: leave document_mask out"});
      refuse_idle_options(source, "rows that are tokenized already");
      paths_.add(source.path, "", role == Role::train);
      add(source, role, std::make_shared<TokenizedRows>(source.path, config_.max_length, labels_), out);
      return;
    }
    const auto shards = std::make_shared<const TokenShards>(open_shards(source, role));
    check_vocabulary(*shards, source.path);
    if (!is_causal() && !shards->bos_ids().empty())
      throw Error(Exit::data, {.what = "these shards have a beginning before every document, which a decoder wants",
                               .where = source.path,
                               .hint = "shard the text again with `llmtk tokenize shard --no-bos`"});
    if (!is_causal() && !tokenizer_)
      throw Error(Exit::usage, {.what = "hiding tokens of shards needs their tokenizer",
                                .where = source.path,
                                .hint = "set tokenizer.name_or_path"});
    if (config_.document_mask) learn_document_end(*shards, source.path);
    const bool keep_tail = role == Role::validation;
    if (role == Role::validation || config_.validation_fraction == 0) {
      add(source, role,
          std::make_shared<StreamRows>(shards, std::vector<TokenRange>{{0, shards->size()}}, rows_, keep_tail), out);
      return;
    }
    HeldOut parts = hold_out(*shards, config_.validation_fraction, rows_.length);
    add(source, Role::train, std::make_shared<StreamRows>(shards, std::move(parts.train), rows_, false), out);
    add(source, Role::validation, std::make_shared<StreamRows>(shards, std::move(parts.validation), rows_, true),
        held_out);
  }

  void add(const SourceConfig& source, Role role, std::shared_ptr<RowSource> rows, std::vector<MixtureSource>& out) {
    description_.push_back({{"path", source.path},
                            {"role", role == Role::train ? "train" : "validation"},
                            {"rows", rows->rows()},
                            {"tokens", rows->tokens()},
                            {"identity", rows->identity()}});
    out.push_back({std::move(rows), source.weight, role == Role::train ? source.max_epochs : 0, source.path});
  }

  TokenShards open_shards(const SourceConfig& source, Role role) {
    if (!TokenShards::is_shards(source.path)) {
      if (!source.split.empty()) refuse_idle("split", "raw text", source.path);
      for (const auto& file : find_text_files({source.path})) paths_.add(file.path, "", role == Role::train);
      reads_text_ = true;
      return TokenShards::open(tokenize(source).string());
    }
    const bool folder = fs::is_directory(source.path);
    refuse_idle_options(source, folder ? "token shards" : "a file of token ids", /*has_splits=*/folder);
    std::string split = source.split;
    if (split.empty()) split = "train";
    if (source.split.empty() && role == Role::validation && folder) {
      const auto names = TokenShards::splits(source.path);
      if (std::find(names.begin(), names.end(), "validation") != names.end()) split = "validation";
    }
    paths_.add(source.path, split, role == Role::train);
    return TokenShards::open(source.path, split);
  }

  /// What is set to something else than its default and would have no influence is a mistake of its user.
  [[noreturn]] static void refuse_idle(const std::string& key, const std::string& kind, const std::string& path) {
    throw Error(Exit::usage, {.what = key + " has no effect on " + kind, .where = path, .hint = "leave it out"});
  }

  static void refuse_idle_options(const SourceConfig& source, const std::string& kind, bool has_splits = false) {
    const SourceConfig defaults;
    if (source.text_field != defaults.text_field) refuse_idle("text_field", kind, source.path);
    if (source.document != defaults.document) refuse_idle("document", kind, source.path);
    if (source.split != defaults.split && !has_splits) refuse_idle("split", kind, source.path);
  }

  void refuse_idle_settings() const {
    if (reads_text_) return;
    const DataConfig defaults;
    const std::string kind = "data that is tokenized already";
    if (config_.prepend_bos != defaults.prepend_bos) refuse_idle("data.prepend_bos", kind, config_.train[0].path);
    if (config_.append_eos != defaults.append_eos) refuse_idle("data.append_eos", kind, config_.train[0].path);
    if (config_.on_bad_line != defaults.on_bad_line) refuse_idle("data.on_bad_line", kind, config_.train[0].path);
  }

  /// The token that ends a document must be known, the same everywhere, and found nowhere else.
  void learn_document_end(const TokenShards& shards, const std::string& path) {
    const auto end = shards.eos_id();
    if (!end || (document_end_ && *end != *document_end_))
      throw Error(
          Exit::data,
          {.what = end ? "sources whose documents end with different tokens"
                       : "data.document_mask, but no token ends the documents of these shards",
           .where = path,
           .got = end ? std::to_string(*end) : "",
           .expected = document_end_ ? std::to_string(*document_end_) : "",
           .hint = "shard the text again with one tokenizer and its end-of-text token, or leave document_mask out"});
    if (std::ranges::find(shards.bos_ids(), *end) != shards.bos_ids().end())
      throw Error(Exit::data, {.what = "data.document_mask, but the token that ends documents stands before them too",
                               .where = path,
                               .got = std::to_string(*end),
                               .hint = "set data.prepend_bos: false (for shards: llmtk tokenize shard --no-bos), or "
                                       "leave document_mask out"});
    document_end_ = end;
  }

  void check_vocabulary(const TokenShards& shards, const std::string& path) const {
    if (context_.vocab_size > 0 && shards.vocab_size() > static_cast<uint64_t>(context_.vocab_size))
      throw Error(Exit::data, {.what = "the shards were made with a larger vocabulary than the model's",
                               .where = path,
                               .got = std::to_string(shards.vocab_size()),
                               .expected = "at most " + std::to_string(context_.vocab_size),
                               .hint = "their tokenizer was " + shards.tokenizer_path()});
    if (tokenizer_ && !shards.tokenizer_hash().empty() && shards.tokenizer_hash() != tokenizer_hash_)
      throw Error(Exit::data, {.what = "the shards were made with another tokenizer",
                               .where = path,
                               .got = shards.tokenizer_path(),
                               .expected = tokenizer_path_,
                               .hint = "use that tokenizer, or shard the text again with this one"});
  }

  /// Token shards of raw text: in the cache under a name made of all that they depend on.
  fs::path tokenize(const SourceConfig& source) const {
    if (!tokenizer_) throw Error(Exit::usage, {.what = "raw text needs a tokenizer", .where = source.path});
    ShardOptions options;
    options.read.text_field = source.text_field;
    options.read.document = parse_document_unit(source.document);
    options.read.on_bad_line = parse_bad_line(config_.on_bad_line);
    options.prepend_bos = prepends_bos();
    options.append_eos = config_.append_eos;
    options.threads = static_cast<int>(config_.preprocessing_num_workers);
    options.wait = true;
    options.check_sources = false;  // the name holds their checksums
    options.on_progress = progress_lines();

    const auto files = find_text_files({source.path});
    uint64_t bytes = 0;
    Checksum key;
    const auto add = [&](const std::string& text) {
      key.update(std::as_bytes(std::span(text.data(), text.size() + 1)));
    };
    for (const auto& file : files) {
      bytes += file.bytes;
      add(fs::absolute(file.path).string());
      add(remembered_checksum(file.path, config_.cache_folder()));
    }
    for (const auto& text : {tokenizer_hash_, source.text_field, source.document, config_.on_bad_line,
                             std::string(config_.append_eos ? "eos" : ""), std::to_string(kShardVersion)})
      add(text);
    if (prepends_bos())
      for (const auto id : tokenizer_->prefix()) add(std::to_string(id));
    const fs::path folder = config_.cache_folder() / key.hex();
    if (!fs::exists(folder / kManifestName))
      log::info("tokenizing " + megabytes(bytes) + " of " + source.path + " into " + folder.string());
    // Absolute, because the cache is shared by runs from all folders.
    const ShardSummary summary =
        write_shards({fs::absolute(source.path).string()}, *tokenizer_, tokenizer_path_, folder, options);
    if (!summary.was_complete && summary.skipped + summary.replaced > 0)
      log::warn(source.path + ": " + std::to_string(summary.skipped) + " bad lines left out, " +
                std::to_string(summary.replaced) + " mended");
    return folder;
  }

  /// Before every document; an encoder's beginning stands before every row instead.
  bool prepends_bos() const { return is_causal() && config_.prepend_bos; }

  const DataConfig& config_;
  const text::Tokenizer* tokenizer_;
  const std::string& tokenizer_path_;
  const LoaderContext& context_;
  StreamOptions rows_;  // cut from a stream
  TokenizedLabels labels_ = TokenizedLabels::shifted;
  std::function<void(Example&, uint64_t)> transform_;
  std::string tokenizer_hash_;
  SetPaths paths_;
  bool reads_text_ = false;  // at least one source is raw text
  std::optional<int32_t> document_end_;
  ordered_json description_ = ordered_json::array();
};

}  // namespace

void DataConfig::validate(config::Problems& problems) const {
  if (!validation.empty() && validation_fraction > 0)
    problems.add("validation_fraction", {.what = "given together with data.validation", .expected = "one of the two"});
  if (document_mask && !append_eos)
    problems.add("document_mask", {.what = "given together with append_eos: false",
                                   .expected = "documents that end with a token",
                                   .hint = "leave one of the two out"});
  for (size_t i = 0; i < validation.size(); ++i)
    for (const auto& [key, given] :
         {std::pair("weight", validation[i].weight != 0), std::pair("max_epochs", validation[i].max_epochs != 0)})
      if (given)
        problems.add("validation." + std::to_string(i) + "." + key,
                     {.what = "has no effect: an evaluation sees every token once", .hint = "leave it out"});
  const auto weighted = std::count_if(train.begin(), train.end(), [](const auto& s) { return s.weight > 0; });
  if (weighted > 0 && weighted < static_cast<int64_t>(train.size())) {
    for (size_t i = 0; i < train.size(); ++i)
      if (train[i].weight == 0)
        problems.add("train." + std::to_string(i) + ".weight",
                     {.what = "0, while other sources have weights",
                      .expected = "a weight above 0 for every source, or for none"});
  }
}

fs::path DataConfig::cache_folder() const { return cache_dir.empty() ? default_cache_folder() : fs::path(cache_dir); }

fs::path default_cache_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache && *cache) return fs::path(cache) / "llmtk" / "data";
  const char* home = std::getenv("HOME");
  if (home && *home) return fs::path(home) / ".cache" / "llmtk" / "data";
  throw Error(Exit::usage, {.what = "no place for tokenized text: HOME is not set", .hint = "set data.cache_dir"});
}

PretrainingData open_pretraining_data(const DataConfig& config, const text::Tokenizer* tokenizer,
                                      const std::string& tokenizer_path, const LoaderContext& context) {
  return Opener(config, tokenizer, tokenizer_path, context).run();
}

}  // namespace llmtk::data
