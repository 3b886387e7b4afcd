#include "data/loader.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <exception>
#include <limits>
#include <mutex>
#include <numeric>
#include <thread>

#include "core/error.h"
#include "data/permutation.h"

namespace llmtk::data {

using nlohmann::ordered_json;

namespace {

constexpr uint64_t kChoice = 1, kOrder = 2, kTransform = 3;  // what a random number is for

uint64_t random_of(uint64_t seed, uint64_t purpose, uint64_t a, uint64_t b) {
  return mix(mix(mix(mix(seed) ^ purpose) ^ a) ^ b);
}

uint64_t sum(const std::vector<uint64_t>& values) {
  uint64_t total = 0;
  for (const uint64_t value : values) total += value;
  return total;
}

/// First id outside [0, vocab_size), or the size.
size_t find_outside(std::span<const int32_t> ids, int64_t vocab_size) {
  uint32_t largest = 0;  // negative ids are large ones here
  for (const int32_t id : ids) largest = std::max(largest, static_cast<uint32_t>(id));
  if (largest < vocab_size) return ids.size();
  const auto outside = [&](int32_t id) { return id < 0 || id >= vocab_size; };
  return static_cast<size_t>(std::find_if(ids.begin(), ids.end(), outside) - ids.begin());
}

/// What all rows of a batch have of one kind, side by side: the longest row's size, shorter ones filled up.
template <class T, class Fill>
std::vector<T> padded(const std::vector<Example>& examples, std::vector<T> Example::*part, const Fill& fill) {
  size_t longest = 0;
  for (const Example& example : examples) longest = std::max(longest, (example.*part).size());
  std::vector<T> out;
  out.reserve(examples.size() * longest);
  for (const Example& example : examples) {
    const std::vector<T>& own = example.*part;
    out.insert(out.end(), own.begin(), own.end());
    for (size_t i = own.size(); i < longest; ++i) out.push_back(fill(example, i));
  }
  return out;
}

constexpr float kNotAsked = std::numeric_limits<float>::quiet_NaN();

void collate(const std::vector<Example>& examples, bool rows_are_targets, Batch& batch) {
  const auto zero = [](const Example&, size_t) { return 0; };
  batch = {.rows = static_cast<int64_t>(examples.size())};
  batch.input_ids = padded(examples, &Example::input_ids, zero);
  batch.length = static_cast<int64_t>(batch.input_ids.size() / examples.size());
  batch.labels = padded(examples, &Example::labels, [](const Example&, size_t) { return kIgnore; });
  batch.values = padded(examples, &Example::values, [](const Example&, size_t) { return kNotAsked; });
  batch.token_type_ids = padded(examples, &Example::token_type_ids, zero);
  // Padding is a text of its own, behind those of its row.
  batch.position_ids = padded(examples, &Example::position_ids, [](const Example& example, size_t i) {
    return static_cast<int32_t>(i - example.position_ids.size());
  });
  for (const Example& example : examples)
    if (static_cast<int64_t>(example.input_ids.size()) < batch.length) {
      for (const Example& each : examples) batch.lengths.push_back(static_cast<int32_t>(each.input_ids.size()));
      break;
    }
  if (rows_are_targets) {
    batch.targets = std::ranges::count_if(examples, [](const Example& example) {
      return std::ranges::any_of(example.labels, [](int32_t label) { return label != kIgnore; });
    });
    return;
  }
  batch.targets = static_cast<int64_t>(batch.labels.size()) - std::ranges::count(batch.labels, kIgnore) +
                  std::ranges::count_if(batch.values, [](float value) { return !std::isnan(value); });
}

/// A row without targets, for a rank that has none left.
Example without_targets(const Example& like) {
  Example out = like;
  std::ranges::fill(out.labels, kIgnore);
  std::ranges::fill(out.values, kNotAsked);
  return out;
}

}  // namespace

uint64_t num_asked(const Example& example) {
  if (example.labels.empty()) return example.values.size();
  return example.labels.size() - static_cast<uint64_t>(std::ranges::count(example.labels, kIgnore));
}

int64_t Batch::tokens() const {
  return lengths.empty() ? rows * length : std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
}

void separate_documents(Example& example, int32_t end) {
  int32_t position = 0;
  for (size_t t = 0; t < example.input_ids.size(); ++t) {
    example.position_ids.push_back(position++);
    if (example.input_ids[t] != end) continue;
    example.labels[t] = kIgnore;
    position = 0;
  }
}

RowLoader::RowLoader(std::vector<MixtureSource> sources, RowLoaderOptions options)
    : sources_(std::move(sources)),
      options_(options),
      drawn_(sources_.size()),
      since_(sources_.size()),
      stretches_(sources_.size()) {
  LLMTK_CHECK(options.batch_size >= 1 && options.length >= 1 && options.world_size >= 1);
  LLMTK_CHECK(options.rank >= 0 && options.rank < options.world_size);
  double weights = 0;
  for (const auto& source : sources_) {
    if (!(source.weight >= 0) || !std::isfinite(source.weight))
      throw Error(
          Exit::data,
          {.what = "weight", .where = source.name, .got = std::to_string(source.weight), .expected = "0 or more"});
    if (source.rows->rows() == 0)
      throw Error(Exit::data, {.what = "the data is shorter than one row",
                               .where = source.name,
                               .got = std::to_string(source.rows->tokens()) + " tokens",
                               .expected = std::to_string(options.length + 1) + " or more",
                               .hint = "lower data.max_length, or give more data"});
    weights += source.weight;
    if (source.weight > 0) epoch_rows_ += source.rows->rows();
  }
  if (weights <= 0)
    throw Error(Exit::data, {.what = sources_.empty() ? "there is no data" : "the weights of all sources are 0",
                             .hint = "give at least one source a weight above 0"});
}

bool RowLoader::exhausted(size_t i) const {
  const auto& source = sources_[i];
  return source.weight <= 0 ||
         (source.max_epochs > 0 && drawn_[i] >= static_cast<uint64_t>(source.max_epochs) * source.rows->rows());
}

// A source may be drawn while it is behind its share, with a chance that grows with how far behind it is.
size_t RowLoader::choose() {
  double weights = 0, rows = 1;
  size_t only = sources_.size(), candidates = 0;
  for (size_t i = 0; i < sources_.size(); ++i) {
    if (exhausted(i)) continue;
    weights += sources_[i].weight;
    rows += static_cast<double>(drawn_[i] - since_[i]);
    only = i;
    ++candidates;
  }
  if (candidates <= 1) return only;
  const auto behind = [&](size_t i) {
    return exhausted(i)
               ? 0
               : std::max(0.0, sources_[i].weight / weights * rows - static_cast<double>(drawn_[i] - since_[i]));
  };
  double total = 0;
  for (size_t i = 0; i < sources_.size(); ++i) total += behind(i);
  const uint64_t random = random_of(options_.seed, kChoice, sum(drawn_), 0);
  double left = std::ldexp(static_cast<double>(random >> 11), -53) * total;
  for (size_t i = 0; i < sources_.size(); ++i) {
    const double share = behind(i);
    if (share <= 0) continue;
    only = i;
    if (left < share) break;
    left -= share;
  }
  return only;
}

bool RowLoader::draw(Draw& out) {
  const size_t i = choose();
  if (i == sources_.size()) return false;
  const uint64_t rows = sources_[i].rows->rows();
  const uint64_t epoch = drawn_[i] / rows, at = drawn_[i] % rows;
  out.source = i;
  out.row = row_at(i, epoch, at);
  out.random = random_of(options_.seed, kTransform, i, drawn_[i]);
  ++drawn_[i];
  if (exhausted(i)) since_ = drawn_;
  return true;
}

// As HF's LengthGroupedSampler: min(rows / (4 * batch), 50) batches in a stretch, one at least.
uint64_t RowLoader::row_at(size_t source, uint64_t epoch, uint64_t at) {
  const uint64_t rows = sources_[source].rows->rows();
  const auto row = [&, order = Permutation(rows, random_of(options_.seed, kOrder, source, epoch))](uint64_t place) {
    return options_.shuffle ? order(place) : place;
  };
  if (!options_.group_by_length) return row(at);
  const auto batch = static_cast<uint64_t>(options_.batch_size) * static_cast<uint64_t>(options_.world_size);
  const uint64_t size = batch * std::clamp<uint64_t>(rows / (4 * batch), 1, 50), begin = at / size * size;
  Stretch& stretch = stretches_[source];
  if (stretch.rows.empty() || stretch.epoch != epoch || stretch.begin != begin) {
    stretch = {epoch, begin, {}};
    for (uint64_t i = begin; i < std::min(begin + size, rows); ++i) stretch.rows.push_back(row(i));
    std::ranges::stable_sort(stretch.rows, std::greater{},
                             [&](uint64_t each) { return sources_[source].rows->length(each); });
  }
  return stretch.rows[at - begin];
}

Example RowLoader::example(const Draw& draw) const {
  const RowSource& source = *sources_[draw.source].rows;
  Example out;
  source.read(draw.row, out);
  if (options_.vocab_size > 0) {
    const size_t outside = find_outside(out.input_ids, options_.vocab_size);
    if (outside < out.input_ids.size())
      throw Error(Exit::data,
                  {.what = "token id " + std::to_string(out.input_ids[outside]) + " is outside the model's vocabulary",
                   .where = source.place(draw.row, outside),
                   .expected = "0 to " + std::to_string(options_.vocab_size - 1),
                   .hint = "the data was made with another tokenizer than the model's"});
    for (size_t t = 0; options_.labels_are_ids && t < out.labels.size(); ++t)
      if (out.labels[t] != kIgnore && (out.labels[t] < 0 || out.labels[t] >= options_.vocab_size))
        throw Error(Exit::data,
                    {.what = "label " + std::to_string(out.labels[t]) + " is outside the model's vocabulary",
                     .where = source.place(draw.row, t + 1),
                     .expected = "-100, or 0 to " + std::to_string(options_.vocab_size - 1)});
  }
  if (options_.transform) options_.transform(out, draw.random);
  return out;
}

bool RowLoader::next(Batch& batch) {
  const uint64_t done = sum(drawn_);
  if (options_.epochs > 0 && done >= static_cast<uint64_t>(options_.epochs) * epoch_rows_) return false;
  const auto world = static_cast<uint64_t>(options_.world_size);
  const uint64_t take = std::min(static_cast<uint64_t>(options_.batch_size) * world, epoch_rows_ - done % epoch_rows_);
  std::vector<Draw> draws;
  for (Draw one; draws.size() < take && draw(one);) draws.push_back(one);
  if (draws.empty()) return false;

  const uint64_t per_rank = (draws.size() + world - 1) / world;
  const uint64_t begin = std::min<uint64_t>(per_rank * static_cast<uint64_t>(options_.rank), draws.size());
  const uint64_t end = std::min<uint64_t>(begin + per_rank, draws.size());
  std::vector<Example> examples;
  for (uint64_t i = begin; i < end; ++i) examples.push_back(example(draws[i]));
  if (examples.empty()) examples.push_back(without_targets(example(draws[0])));
  while (examples.size() < per_rank) examples.push_back(without_targets(examples[0]));
  collate(examples, options_.rows_are_targets, batch);
  return true;
}

int64_t RowLoader::total_batches() const {
  constexpr uint64_t kEndless = std::numeric_limits<uint64_t>::max();
  uint64_t rows = 0;  // that all sources give before each has had its passes
  for (const auto& source : sources_) {
    if (source.weight <= 0 || rows == kEndless) continue;
    rows = source.max_epochs > 0 ? rows + static_cast<uint64_t>(source.max_epochs) * source.rows->rows() : kEndless;
  }
  if (options_.epochs > 0) rows = std::min(rows, static_cast<uint64_t>(options_.epochs) * epoch_rows_);
  if (rows == kEndless) return -1;
  const auto batch = static_cast<uint64_t>(options_.batch_size) * static_cast<uint64_t>(options_.world_size);
  const auto batches = [batch](uint64_t n) { return (n + batch - 1) / batch; };
  // An epoch's last batch is its own, however small.
  return static_cast<int64_t>(rows / epoch_rows_ * batches(epoch_rows_) + batches(rows % epoch_rows_));
}

ordered_json RowLoader::state() const {
  ordered_json sources = ordered_json::array();
  for (const auto& source : sources_)
    sources.push_back(
        {{"identity", source.rows->identity()}, {"weight", source.weight}, {"max_epochs", source.max_epochs}});
  ordered_json state = {{"version", 1},
                        {"seed", options_.seed},
                        {"shuffle", options_.shuffle},
                        {"max_length", options_.length},
                        {"sources", sources},
                        {"drawn", drawn_},
                        {"since", since_}};
  // The stretches' size follows from the batch.
  if (options_.group_by_length) state["group_by_length"] = options_.batch_size * options_.world_size;
  return state;
}

void RowLoader::load_state(const ordered_json& saved) {
  const ordered_json own = state();
  try {
    for (const char* key : {"version", "seed", "shuffle", "max_length", "sources"}) saved.at(key);
    for (const char* key : {"version", "seed", "shuffle", "max_length", "sources", "group_by_length"})
      if (const auto there = saved.value(key, ordered_json()), here = own.value(key, ordered_json()); there != here)
        throw Error(Exit::data, {.what = std::string("the saved position belongs to other data: ") + key + " differs",
                                 .got = here.dump(),
                                 .expected = there.dump(),
                                 .hint = "go on with the data and settings that the run began with"});
    const auto drawn = saved.at("drawn").get<std::vector<uint64_t>>(),
               since = saved.at("since").get<std::vector<uint64_t>>();
    if (drawn.size() != sources_.size() || since.size() != sources_.size())
      throw Error(Exit::data, {.what = "the saved position is broken", .got = saved.dump()});
    drawn_ = drawn;
    since_ = since;
  } catch (const nlohmann::json::exception& e) {
    throw Error(Exit::data, {.what = std::string("the saved position is broken: ") + e.what()});
  }
}

MixtureSource join_sources(std::vector<MixtureSource> sources, const RowLoaderOptions& options) {
  for (const auto& source : sources) RowLoader({{source.rows, 1, 0, source.name}}, {.length = options.length});
  if (sources.size() == 1) return {sources[0].rows, 1, 0, sources[0].name};
  std::vector<std::shared_ptr<RowSource>> parts;
  for (auto& source : sources) parts.push_back(std::move(source.rows));
  return {std::make_shared<JoinedRows>(std::move(parts)), 1, 0, "data"};
}

std::unique_ptr<BatchSource> make_loader(std::vector<MixtureSource> sources, const RowLoaderOptions& options,
                                         int64_t prefetch) {
  const bool weighted = std::ranges::any_of(sources, [](const auto& source) { return source.weight > 0; });
  const bool limited = std::ranges::any_of(sources, [](const auto& source) { return source.max_epochs > 0; });
  if (!weighted && limited) {
    for (auto& source : sources) source.weight = static_cast<double>(source.rows->rows());
  } else if (!weighted) {
    sources = {join_sources(std::move(sources), options)};
  }
  std::unique_ptr<BatchSource> loader = std::make_unique<RowLoader>(std::move(sources), options);
  if (prefetch > 0) loader = std::make_unique<PrefetchSource>(std::move(loader), static_cast<size_t>(prefetch));
  return loader;
}

// --- PrefetchSource ---

struct PrefetchSource::Queue {
  struct Item {
    Batch batch;
    ordered_json state;
    std::exception_ptr error;
    bool end = false;
  };
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Item> items;
  bool stop = false;
  std::thread thread;
};

PrefetchSource::PrefetchSource(std::unique_ptr<BatchSource> source, size_t depth)
    : source_(std::move(source)), depth_(depth), total_batches_(source_->total_batches()), state_(source_->state()) {
  LLMTK_CHECK(depth >= 1);
}

PrefetchSource::~PrefetchSource() { stop(); }

void PrefetchSource::start() {
  queue_ = std::make_unique<Queue>();
  queue_->thread = std::thread([this, &queue = *queue_] {
    while (true) {
      {
        std::unique_lock lock(queue.mutex);
        queue.changed.wait(lock, [&] { return queue.stop || queue.items.size() < depth_; });
        if (queue.stop) return;
      }
      Queue::Item item;
      try {
        item.end = !source_->next(item.batch);
        item.state = source_->state();
      } catch (...) {
        item.error = std::current_exception();
      }
      const bool last = item.end || item.error;
      std::lock_guard lock(queue.mutex);
      queue.items.push_back(std::move(item));
      queue.changed.notify_all();
      if (last) return;
    }
  });
}

void PrefetchSource::stop() {
  if (!queue_) return;
  {
    std::lock_guard lock(queue_->mutex);
    queue_->stop = true;
    queue_->changed.notify_all();
  }
  queue_->thread.join();
  queue_.reset();
}

bool PrefetchSource::next(Batch& batch) {
  if (!queue_) start();
  std::unique_lock lock(queue_->mutex);
  queue_->changed.wait(lock, [&] { return !queue_->items.empty(); });
  Queue::Item& item = queue_->items.front();
  if (item.error) std::rethrow_exception(item.error);  // it stays in the queue: asked again, the answer is the same
  if (item.end) return false;
  batch = std::move(item.batch);
  state_ = std::move(item.state);
  queue_->items.pop_front();
  queue_->changed.notify_all();
  return true;
}

void PrefetchSource::load_state(const ordered_json& state) {
  stop();
  // A refused state leaves the source where the last batch given out left it, not where those made ahead did.
  source_->load_state(state_);
  source_->load_state(state);
  state_ = state;
}

}  // namespace llmtk::data
