#include "data/finetuning.h"

#include <algorithm>
#include <optional>

#include "core/error.h"
#include "core/log.h"
#include "data/finetuning_sets.h"
#include "data/row_labels.h"
#include "data/row_reading.h"

namespace llmtk::data {
namespace {

constexpr int64_t kMaxLength = 1024;
constexpr size_t kPeekBytes = 64u << 10;

[[noreturn]] void refuse_setting(const std::string& key, const std::string& because, const std::string& where = {}) {
  throw Error(Exit::usage, {.what = key + " has no effect " + because, .where = where, .hint = "leave it out"});
}

class FinetuneOpener {
 public:
  FinetuneOpener(const FinetuneDataConfig& config, const FinetuneContext& context)
      : config_(config), context_(context), objective_(context.objective), labels_(config, context) {}

  FinetuningData run() {
    check_settings();
    out_.max_length = resolved_max_length();
    std::vector<OpenSource> train, validation;
    for (const auto& source : config_.train) train.push_back(open(source, /*trains=*/true));
    if (const auto map = labels_.finish(config_.train[0].path))  // the classes of validation rows are among these
      for (auto& source : train) source.encoded->map_labels(*map);
    for (const auto& source : config_.validation) validation.push_back(open(source, /*trains=*/false));
    out_.label_names = labels_.names();
    for (auto* sources : {&train, &validation})
      for (auto& source : *sources)
        if (source.encoded) source.encoded->set_classes(out_.label_names.size());
    if (!dialogues_used_) refuse_dialogue_settings("on rows that are no conversations");
    if (objective_ == Objective::sequence_classification) out_.problem_type = to_string(labels_.task());
    make_sets(config_, context_, train, validation, out_);
    return std::move(out_);
  }

 private:
  // --- settings ---

  void check_settings() const {
    const std::string because = "with the objective " + to_string(objective_);
    const bool causal = objective_ == Objective::causal_lm || is_preference(objective_);
    if (config_.packing && objective_ != Objective::causal_lm) refuse_setting("data.packing", because);
    if (is_preference(objective_) && config_.train_on == "all")
      throw Error(
          Exit::usage,
          {.what = "data.train_on: a preference is one of answers", .got = "all", .expected = "answers or generation"});
    if (config_.truncation_side != "right" && !causal) refuse_setting("data.truncation_side", because);
    if (!causal) refuse_dialogue_settings(because);
    if (objective_ != Objective::seq2seq) {
      if (config_.max_target_length > 0) refuse_setting("data.max_target_length", because);
      if (!config_.source_prefix.empty()) refuse_setting("data.source_prefix", because);
    }
    if (objective_ != Objective::sequence_classification && config_.problem_type != "auto")
      refuse_setting("data.problem_type", because);
    if (context_.tokenizer && context_.loader.vocab_size > 0 &&
        context_.tokenizer->vocab_size() > static_cast<size_t>(context_.loader.vocab_size))
      throw Error(Exit::data, {.what = "the tokenizer has more tokens than the model's vocabulary",
                               .where = context_.tokenizer_path,
                               .got = std::to_string(context_.tokenizer->vocab_size()),
                               .expected = "at most " + std::to_string(context_.loader.vocab_size),
                               .hint = "take the model's own tokenizer"});
  }

  void refuse_dialogue_settings(const std::string& because) const {
    if (config_.train_on != "answers") refuse_setting("data.train_on", because);
    if (config_.chat_template != "auto") refuse_setting("data.chat_template", because);
    if (!config_.chat_template_kwargs.empty()) refuse_setting("data.chat_template_kwargs", because);
  }

  int64_t resolved_max_length() const {
    const int64_t most = context_.max_positions;
    if (config_.max_length == 0) return most > 0 ? std::min(most, kMaxLength) : kMaxLength;
    if (most > 0 && config_.max_length > most)
      throw Error(Exit::usage, {.what = "data.max_length is more than the model can see",
                                .got = std::to_string(config_.max_length),
                                .expected = "at most " + std::to_string(most)});
    return config_.max_length;
  }

  // --- sources ---

  OpenSource open(const FinetuneSourceConfig& source, bool trains) {
    const auto files = find_text_files({source.path});
    for (const auto& file : files) paths_.add(file.path, "", trains);
    if (TokenizedRows::is_tokenized(source.path)) return open_tokenized(source);
    if (!context_.tokenizer) throw Error(Exit::usage, {.what = "rows of text need a tokenizer", .where = source.path});
    return open_rows(source, files);
  }

  OpenSource open_tokenized(const FinetuneSourceConfig& source) {
    const FinetuneSourceConfig defaults;
    const std::string kind = "on rows that are tokenized already";
    if (source.format != defaults.format) refuse_setting("format", kind, source.path);
    if (!source.columns.empty()) refuse_setting("columns", kind, source.path);
    if (source.document != defaults.document) refuse_setting("document", kind, source.path);
    if (is_preference(objective_))
      throw Error(Exit::data, {.what = "preferences are no rows that are tokenized already",
                               .where = source.path,
                               .expected = R"({"prompt", "chosen", "rejected"})"});
    if (objective_ == Objective::sequence_classification || objective_ == Objective::token_classification)
      throw Error(Exit::data, {.what = "classification takes no rows that are tokenized already",
                               .where = source.path,
                               .expected = objective_ == Objective::token_classification ? R"({"tokens", "tags"})"
                                                                                         : R"({"text", "label"})"});
    const TokenizedLabels kind_of[] = {TokenizedLabels::shifted, TokenizedLabels::aligned, TokenizedLabels::separate};
    OpenSource opened{.config = &source, .format = "input_ids"};
    opened.rows = std::make_shared<TokenizedRows>(source.path, out_.max_length, kind_of[static_cast<int>(objective_)]);
    const auto most = static_cast<uint64_t>(source.max_samples);
    if (most > 0 && most < opened.rows->rows()) {
      std::vector<uint64_t> first(most);
      for (uint64_t row = 0; row < most; ++row) first[row] = row;
      opened.rows = std::make_shared<ChosenRows>(opened.rows, std::move(first));
    }
    return opened;
  }

  ReadOptions read_options(const FinetuneSourceConfig& source, const std::vector<SourceFile>& files) const {
    const bool plain = std::ranges::any_of(files, [](const auto& file) { return file.kind == FileKind::text; });
    if (!plain && source.document != FinetuneSourceConfig().document)
      refuse_setting("document", "on files that are no plain text", source.path);
    return row_options(source, config_.on_bad_line);
  }

  /// The first row of the source that can be read, for what its fields and labels look like.
  JsonRow peek(const std::vector<SourceFile>& files, ReadOptions options, std::string& where) const {
    options.block_bytes = kPeekBytes;
    BlockReader reader(files, options);
    for (Block block; reader.next(block);) {
      ParsedRows parsed = parse_rows(block, files[block.begin.file], options);
      if (parsed.rows.empty() && parsed.error) std::rethrow_exception(parsed.error);
      if (parsed.rows.empty()) continue;
      where = place(files[block.begin.file], parsed.rows[0].line);
      return std::move(parsed.rows[0]);
    }
    throw Error(Exit::data, {.what = "no rows", .where = files.empty() ? "" : files[0].path.string()});
  }

  static void check_columns(const FinetuneSourceConfig& source, Format format) {
    const auto keys = keys_of(format);
    std::string expected;
    for (const auto& key : keys) expected += (expected.empty() ? "" : ", ") + key;
    for (const auto& [key, name] : source.columns)
      if (std::ranges::find(keys, key) == keys.end())
        throw Error(Exit::usage, {.what = "columns: the format " + to_string(format) + " has no such key",
                                  .where = source.path,
                                  .got = "'" + key + "'",
                                  .expected = expected});
  }

  static bool speaks(Format format) {
    return format == Format::alpaca || format == Format::sharegpt || format == Format::messages;
  }

  OpenSource open_rows(const FinetuneSourceConfig& source, const std::vector<SourceFile>& files) {
    const ReadOptions options = read_options(source, files);
    std::string where;
    const JsonRow first = peek(files, options, where);
    const Fields fields(first.json, source.columns, where);
    const Format format = format_of(source, objective_, fields);
    check_columns(source, format);
    const bool of_table = !files.empty() && delimiter_of(files[0].kind) != 0;
    if (objective_ == Objective::causal_lm || is_preference(objective_)) prepare_dialogues(format, fields, source.path);
    labels_.see_first(fields, of_table);

    const RowEncoder encoder({.objective = objective_,
                              .format = format,
                              .columns = source.columns,
                              .of_table = of_table,
                              .train_on = train_on(),
                              .max_length = static_cast<size_t>(out_.max_length),
                              .max_target_length = static_cast<size_t>(
                                  config_.max_target_length > 0 ? config_.max_target_length : out_.max_length),
                              .truncation = config_.truncation,
                              .cut_left = config_.truncation_side == "left",
                              .source_prefix = config_.source_prefix,
                              .token_types = context_.token_types,
                              .margins = context_.margins},
                             *context_.tokenizer, dialogues_ ? &*dialogues_ : nullptr);
    OpenSource opened{.config = &source, .format = to_string(format)};
    std::vector<std::string> names;
    for (const auto& file : files) names.push_back(file.path.string());
    opened.encoded = std::make_shared<EncodedRows>(labels_.kind(), names);
    opened.rows = opened.encoded;
    const auto work = [&](JsonRow& row, size_t file, const std::string& place) {
      Draft draft = encoder.encode(row.json, place);
      draft.row.file = static_cast<uint32_t>(file);
      draft.row.line = row.line;
      return draft;
    };
    uint64_t taken = 0;
    BadRows unlabelled;
    const auto take = [&](Draft& draft) {
      try {
        add(draft, names[draft.row.file] + ":" + std::to_string(draft.row.line), opened);
      } catch (const Error& error) {
        if (options.on_bad_line == BadLine::stop) throw;
        ++unlabelled.skipped;
        unlabelled.complaints.emplace_back(error.what());
      }
      return source.max_samples == 0 || ++taken < static_cast<uint64_t>(source.max_samples);
    };
    BadRows bad = read_rows<Draft>(files, options, row_threads(config_), work, take);
    bad.skipped += unlabelled.skipped;
    bad.complaints.insert(bad.complaints.end(), unlabelled.complaints.begin(), unlabelled.complaints.end());
    opened.read.skipped = bad.skipped;
    if (bad.skipped + bad.replaced > 0)
      log::warn(source.path + ": " + std::to_string(bad.skipped) + " bad rows left out, " +
                std::to_string(bad.replaced) + " mended; the first: " + bad.complaints.at(0));
    return opened;
  }

  TrainOn train_on() const {
    return config_.train_on == "all"          ? TrainOn::all
           : config_.train_on == "generation" ? TrainOn::generation
                                              : TrainOn::answers;
  }

  // --- conversations ---

  void prepare_dialogues(Format format, const Fields& first, const std::string& path) {
    const bool prompted = format == Format::prompt_completion || format == Format::unpaired_preference;
    const bool chats = speaks(format) || (prompted && is_conversational(first)) ||
                       (format == Format::preference && first.need("chosen").is_array());
    const bool answers = format != Format::text;
    if (chats && !template_opened_) open_template();
    if (answers) dialogues_used_ = true;
    const bool templated = chats && template_;
    if (train_on() == TrainOn::generation && answers && !templated)
      throw Error(Exit::usage, {.what = "data.train_on: generation wants rows that a chat template renders",
                                .where = path,
                                .got = chats ? "a model without one" : to_string(format),
                                .hint = chats ? "give one by data.chat_template" : "train on answers, or on all"});
    if (answers && !templated && context_.tokenizer->special_tokens().eos < 0)
      throw Error(Exit::usage, {.what = "the tokenizer has no end-of-text token, so no answer would end",
                                .where = context_.tokenizer_path});
    std::map<std::string, text::ChatInput::Json> variables;
    for (const auto& [name, value] : config_.chat_template_kwargs.items()) variables[name] = value;
    dialogues_.emplace(*context_.tokenizer, template_ ? &*template_ : nullptr, train_on(), std::move(variables));
  }

  void open_template() {
    template_opened_ = true;
    if (config_.chat_template == "alpaca") return;
    const bool own = config_.chat_template == "auto";
    if (own && (context_.tokenizer_path.empty() || !text::holds_chat_template(context_.tokenizer_path))) {
      log::info("no chat template beside the tokenizer: conversations take Alpaca's form (data.chat_template)");
      return;
    }
    template_.emplace(
        text::open_chat_template(context_.tokenizer_path, own ? "" : config_.chat_template, context_.tokenizer));
  }

  void add(Draft& draft, const std::string& where, OpenSource& source) {
    if (draft.dropped) {
      ++source.read.dropped;
      return;
    }
    labels_.assign(draft, where);
    // A masked model's labels are made where a row is drawn.
    if (objective_ != Objective::masked_lm && draft.row.num_trained(labels_.kind()) == 0) {
      if (source.read.untrained++ == 0) source.first_untrained = where;
      return;
    }
    source.encoded->add(draft.row);
  }

  const FinetuneDataConfig& config_;
  const FinetuneContext& context_;
  Objective objective_;
  FinetuningData out_;
  SetPaths paths_;
  std::optional<text::ChatTemplate> template_;
  std::optional<DialogueEncoder> dialogues_;
  bool template_opened_ = false, dialogues_used_ = false;
  RowLabels labels_;
};

}  // namespace

FinetuningData open_finetuning_data(const FinetuneDataConfig& config, const FinetuneContext& context) {
  return FinetuneOpener(config, context).run();
}

}  // namespace llmtk::data
