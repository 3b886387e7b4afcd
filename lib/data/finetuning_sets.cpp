#include "data/finetuning_sets.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/log.h"
#include "data/loader.h"
#include "data/permutation.h"

namespace llmtk::data {
namespace {

enum class Part { train, validation };
const char* name_of(Part part) { return part == Part::train ? "train" : "validation"; }

class SetMaker {
 public:
  SetMaker(const FinetuneDataConfig& config, const FinetuneContext& context, FinetuningData& out)
      : config_(config), context_(context), out_(out) {}

  void run(std::vector<OpenSource>& train, std::vector<OpenSource>& validation) {
    std::vector<MixtureSource> sets[2];
    for (size_t s = 0; s < train.size(); ++s) {
      OpenSource& source = train[s];
      if (config_.validation_fraction == 0) {
        add_part(source, Part::train, {}, sets[0]);
        continue;
      }
      require_rows(source, 2);
      const auto out = held_out(source.rows->rows(), s);
      std::vector<uint64_t> kept;
      for (uint64_t row = 0; row < source.rows->rows(); ++row)
        if (!std::ranges::binary_search(out, row)) kept.push_back(row);
      add_part(source, Part::train, kept, sets[0]);
      add_part(source, Part::validation, out, sets[1]);
    }
    for (OpenSource& source : validation) add_part(source, Part::validation, {}, sets[1]);
    warn(out_.train_statistics, Part::train);
    if (!sets[1].empty()) warn(out_.validation_statistics, Part::validation);
    out_.description = {{"sources", description_}, {"max_length", out_.max_length}, {"packing", config_.packing}};
    if (!out_.label_names.empty()) out_.description["label_names"] = out_.label_names;
    make_loaders(std::move(sets[0]), std::move(sets[1]));
  }

 private:
  /// Rows to hold out: one of each of so many equal stretches.
  std::vector<uint64_t> held_out(uint64_t rows, size_t source) const {
    const auto count =
        static_cast<uint64_t>(std::clamp(std::llround(config_.validation_fraction * static_cast<double>(rows)), 1LL,
                                         std::max(1LL, static_cast<long long>(rows) - 1)));
    std::vector<uint64_t> chosen;
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t begin = i * rows / count, end = (i + 1) * rows / count;
      chosen.push_back(begin + mix(mix(mix(context_.loader.seed) ^ source) ^ i) % (end - begin));
    }
    return chosen;
  }

  void require_rows(const OpenSource& source, uint64_t least) const {
    if (source.rows->rows() >= least) return;
    const bool untrained = source.read.untrained > 0;
    throw Error(
        Exit::data,
        {.what = untrained ? "no row has anything to train on" : "there are not enough rows",
         .where = source.config->path,
         .got = untrained
                    ? std::to_string(source.read.untrained) + " rows without, the first at " + source.first_untrained
                    : std::to_string(source.rows->rows()) + " rows, " + std::to_string(source.read.dropped) +
                          " dropped as too long, " + std::to_string(source.read.skipped) + " skipped as bad",
         .expected = std::to_string(least) + " or more",
         .hint = untrained ? "are the answers cut off by data.max_length, or does the template mark nothing?" : ""});
  }

  /// chosen: the rows of the source that belong to the part; empty: all.
  void add_part(OpenSource& source, Part part, const std::vector<uint64_t>& chosen, std::vector<MixtureSource>& out) {
    require_rows(source, 1);
    auto rows = source.rows;
    if (!chosen.empty()) rows = std::make_shared<ChosenRows>(source.rows, chosen);
    FinetuneStatistics own;
    if (part == Part::train || config_.validation_fraction == 0) own = source.read;
    Example example;
    for (uint64_t i = 0; i < rows->rows(); ++i) {
      rows->read(i, example);
      own.count(example);
      if (source.encoded) own.count(source.encoded->notes(chosen.empty() ? i : chosen[i]));
    }
    rows = preference_rows(std::move(rows));
    description_.push_back({{"path", source.config->path},
                            {"role", name_of(part)},
                            {"format", source.format},
                            {"rows", own.rows},
                            {"tokens", own.tokens},
                            {"trained_tokens", own.trained_tokens},
                            {"identity", rows->identity()}});
    if (first_untrained_[static_cast<size_t>(part)].empty() && own.untrained > 0)
      first_untrained_[static_cast<size_t>(part)] = source.first_untrained;
    (part == Part::train ? out_.train_statistics : out_.validation_statistics) += own;
    if (config_.packing && part == Part::train)
      rows = std::make_shared<PackedRows>(rows, static_cast<uint64_t>(out_.max_length));
    const bool mixed = part == Part::train;
    out.push_back({std::move(rows), mixed ? source.config->weight : 0, mixed ? source.config->max_epochs : 0,
                   source.config->path});
  }

  /// Pairs as they are or taken apart; each rated answer beside one that is not its prompt's.
  std::shared_ptr<RowSource> preference_rows(std::shared_ptr<RowSource> rows) {
    if (context_.objective == Objective::unpaired_preference) {
      rows = std::make_shared<RatedRows>(std::move(rows));
      rows = std::make_shared<MismatchedRows>(std::move(rows), static_cast<uint64_t>(context_.loader.batch_size),
                                              static_cast<size_t>(out_.max_length));
    }
    if (!context_.annotated) return rows;
    out_.annotated.push_back(std::make_shared<AnnotatedRows>(std::move(rows)));
    return out_.annotated.back();
  }

  void warn(const FinetuneStatistics& found, Part part) const {
    const auto say = [&](uint64_t rows, const std::string& what) {
      if (rows > 0)
        log::warn(std::string(name_of(part)) + ": " + std::to_string(rows) + " of " +
                  std::to_string(found.rows + found.dropped + found.untrained) + " rows " + what);
    };
    const bool targets = context_.objective == Objective::seq2seq;
    const std::string limit = "longer than data.max_length " + std::to_string(out_.max_length) +
                              (targets ? ", or their targets than max_target_length," : "");
    say(found.cut, "are " + limit + " and were cut (" + std::to_string(found.cut_tokens) + " tokens)");
    say(found.answers_cut, targets ? "lost the end of their targets: the model learns to end too early"
                                   : "lost tokens to train on: an answer without its end does not teach to end");
    say(found.dropped, "are " + limit + " and were left out");
    say(found.untrained,
        "have nothing to train on and were left out; the first: " + first_untrained_[static_cast<size_t>(part)]);
    say(found.doubled_bos, "begin with two bos tokens: the template or the text writes one already");
    say(found.untrained_eos, "train no end of text (" + end_token() +
                                 "): generation would not stop there. Does the template end answers otherwise?");
    if (found.words_cut > 0)
      log::warn(std::string(name_of(part)) + ": " + std::to_string(found.words_cut) +
                " words do not count: they were cut away, or have no token of their own");
  }

  std::string end_token() const {
    const auto end = context_.tokenizer ? context_.tokenizer->special_tokens().eos : -1;
    return end < 0 ? "none" : context_.tokenizer->id_to_token(end);
  }

  void make_loaders(std::vector<MixtureSource> train, std::vector<MixtureSource> validation) {
    RowLoaderOptions options{.batch_size = context_.loader.batch_size,
                             .length = out_.max_length,
                             .shuffle = config_.shuffle,
                             .group_by_length = config_.group_by_length,
                             .seed = context_.loader.seed,
                             .epochs = context_.loader.epochs,
                             .rank = context_.loader.rank,
                             .world_size = context_.loader.world_size,
                             .vocab_size = context_.loader.vocab_size,
                             .labels_are_ids = out_.label_names.empty(),
                             .rows_are_targets = is_preference(context_.objective),
                             .transform = context_.transform};
    out_.train_rows = join_sources(train, options).rows;
    out_.train = make_loader(std::move(train), options, config_.dataloader_prefetch_factor);
    options.batch_size = context_.loader.eval_batch_size;
    options.shuffle = options.group_by_length = false;
    options.epochs = 1;
    if (validation.empty()) return;
    out_.validation_rows = join_sources(validation, options).rows;
    out_.validation = make_loader(std::move(validation), options, config_.dataloader_prefetch_factor);
  }

  const FinetuneDataConfig& config_;
  const FinetuneContext& context_;
  FinetuningData& out_;
  std::string first_untrained_[2];  // of each part
  nlohmann::ordered_json description_ = nlohmann::ordered_json::array();
};

}  // namespace

void make_sets(const FinetuneDataConfig& config, const FinetuneContext& context, std::vector<OpenSource>& train,
               std::vector<OpenSource>& validation, FinetuningData& out) {
  SetMaker(config, context, out).run(train, validation);
}

}  // namespace llmtk::data
