#include "data/loader.h"

#include <map>
#include <set>
#include <thread>

#include "data/permutation.h"
#include "support.h"

using namespace llmtk;
using namespace llmtk::data;
using test::error_of;
using test::says;

namespace {

/// Row i of source s is [1000 s + i] twice, its label the same.
class Numbers : public RowSource {
 public:
  Numbers(uint64_t rows, int32_t first) : rows_(rows), first_(first) {}
  uint64_t rows() const override { return rows_; }
  uint64_t tokens() const override { return 2 * rows_; }
  void read(uint64_t row, Example& out) const override {
    out = {};
    out.input_ids = out.labels = std::vector<int32_t>(2, first_ + static_cast<int32_t>(row));
  }
  std::string place(uint64_t row, size_t) const override { return "row " + std::to_string(row); }
  std::string identity() const override { return std::to_string(rows_) + "@" + std::to_string(first_); }

 private:
  uint64_t rows_;
  int32_t first_;
};

MixtureSource numbers(uint64_t rows, int32_t first, double weight = 1, int64_t max_epochs = 0) {
  return {std::make_shared<Numbers>(rows, first), weight, max_epochs, "source"};
}

using Ids = std::vector<int32_t>;

/// The first id of each row; rows without targets come as -1.
Ids firsts(const Batch& batch) {
  Ids out;
  for (int64_t row = 0; row < batch.rows; ++row) {
    const size_t at = static_cast<size_t>(row * batch.length);
    out.push_back(batch.labels[at] == kIgnore ? -1 : batch.input_ids[at]);
  }
  return out;
}

std::vector<Ids> batches(BatchSource& source, int most = 1 << 20) {
  std::vector<Ids> out;
  Batch batch;
  while (static_cast<int>(out.size()) < most && source.next(batch)) out.push_back(firsts(batch));
  return out;
}

Ids flat(const std::vector<Ids>& batches) {
  Ids out;
  for (const auto& batch : batches) out.insert(out.end(), batch.begin(), batch.end());
  return out;
}

}  // namespace

TEST_CASE("a permutation is a bijection, and another one for every key") {
  for (const uint64_t n : {1u, 2u, 3u, 5u, 63u, 64u, 65u, 1000u, 4097u}) {
    std::set<uint64_t> seen;
    const Permutation permutation(n, 7);
    for (uint64_t i = 0; i < n; ++i) {
      REQUIRE(permutation(i) < n);
      seen.insert(permutation(i));
    }
    CHECK(seen.size() == n);
  }
  std::set<std::vector<uint64_t>> orders;
  for (uint64_t key = 0; key < 200; ++key) {
    std::vector<uint64_t> order;
    for (uint64_t i = 0; i < 20; ++i) order.push_back(Permutation(20, key)(i));
    orders.insert(order);
  }
  CHECK(orders.size() == 200);
  // Where the first element goes is spread evenly: each of 10 places about 1,000 times.
  std::map<uint64_t, int> places;
  for (uint64_t key = 0; key < 10000; ++key) ++places[Permutation(10, key)(0)];
  for (const auto& [place, count] : places) CHECK(count == Approx(1000).margin(150));
  // The order is part of saved runs: it must never change.
  CHECK(Permutation(1'000'000'000'000, 42)(12345) == 205445907u);
}

TEST_CASE("every row once an epoch, in another order each time; without shuffling in order") {
  RowLoader loader({numbers(10, 0)}, {.batch_size = 4, .length = 2, .seed = 1, .epochs = 2});
  CHECK(loader.total_batches() == 6);
  const auto all = batches(loader);
  REQUIRE(all.size() == 6);
  CHECK(all[2].size() == 2);  // an epoch ends with its own, smaller batch
  Ids first = flat({all[0], all[1], all[2]}), second = flat({all[3], all[4], all[5]});
  CHECK(first != second);
  std::sort(first.begin(), first.end());
  std::sort(second.begin(), second.end());
  CHECK(first == Ids{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  CHECK(second == first);
  RowLoader other({numbers(10, 0)}, {.batch_size = 4, .length = 2, .seed = 2, .epochs = 2});
  CHECK(batches(other) != all);
  RowLoader ordered({numbers(5, 0)}, {.batch_size = 2, .length = 2, .shuffle = false, .epochs = 2});
  CHECK(flat(batches(ordered)) == Ids{0, 1, 2, 3, 4, 0, 1, 2, 3, 4});
}

TEST_CASE("the number of batches is known before") {
  for (const int64_t epochs : {0, 1, 2, 5})
    for (const int64_t passes : {0, 1, 3}) {
      const RowLoaderOptions options{.batch_size = 4, .length = 2, .epochs = epochs};
      RowLoader loader({numbers(7, 0, 3, passes), numbers(20, 1000, 1, passes)}, options);
      CAPTURE(epochs, passes);
      if (epochs == 0 && passes == 0)
        CHECK(loader.total_batches() == -1);
      else
        CHECK(loader.total_batches() == static_cast<int64_t>(batches(loader).size()));
    }
}

TEST_CASE("sources keep their shares at every moment") {
  const std::vector<double> weights{0.5, 0.3, 0.15, 0.05, 0};
  std::vector<MixtureSource> sources;
  for (size_t i = 0; i < weights.size(); ++i)
    sources.push_back(numbers(100 + 10 * i, static_cast<int32_t>(1000 * i), 7 * weights[i]));
  RowLoader loader(sources, {.batch_size = 1, .length = 2, .seed = 3, .epochs = 0});
  Batch batch;
  double worst = 0;
  int same = 0, last = -1;
  for (int n = 1; n <= 20000; ++n) {
    REQUIRE(loader.next(batch));
    for (size_t i = 0; i < weights.size(); ++i)
      worst = std::max(worst, std::abs(static_cast<double>(loader.drawn()[i]) - weights[i] * n));
    same += batch.input_ids[0] / 1000 == last;
    last = batch.input_ids[0] / 1000;
  }
  CHECK(worst <= 3);
  CHECK(loader.drawn() == std::vector<uint64_t>{10000, 6000, 3000, 1000, 0});
  CHECK(same > 1000);  // drawn, not dealt in a fixed order
}

TEST_CASE("a source with a limit on its epochs drops out and the others go on") {
  RowLoader loader({numbers(10, 0, 1, 2), numbers(40, 1000, 1, 1), numbers(5, 2000, 2, 3)},
                   {.batch_size = 3, .length = 2, .epochs = 0});
  std::map<int32_t, int> count;
  for (const int32_t id : flat(batches(loader))) ++count[id];
  CHECK(count.size() == 55);
  for (const auto& [id, times] : count) CHECK(times == (id < 1000 ? 2 : id < 2000 ? 1 : 3));
}

TEST_CASE("restored at any position, the rest is the same, with prefetch or without") {
  const auto make = [](bool prefetch, int64_t batch_size) -> std::unique_ptr<BatchSource> {
    auto loader = std::make_unique<RowLoader>(
        std::vector<MixtureSource>{numbers(7, 0, 3), numbers(20, 1000, 1), numbers(4, 2000, 1, 2)},
        RowLoaderOptions{.batch_size = batch_size, .length = 2, .seed = 5, .epochs = 3});
    if (!prefetch) return loader;
    return std::make_unique<PrefetchSource>(std::move(loader), 3);
  };
  const auto whole = batches(*make(false, 2));
  REQUIRE(whole.size() == 48);
  for (const bool prefetch : {false, true}) {
    for (size_t at = 0; at <= whole.size(); ++at) {
      auto source = make(prefetch, 2);
      CHECK(source->total_batches() == static_cast<int64_t>(whole.size()));
      const auto head = batches(*source, static_cast<int>(at));
      if (prefetch && at % 5 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // let it run ahead
      const std::string state = source->state().dump();
      const auto rest = batches(*source);
      auto restored = make(prefetch, 2);
      batches(*restored, 3);  // wherever it stood before
      restored->load_state(nlohmann::ordered_json::parse(state));
      CHECK(restored->state().dump() == state);
      REQUIRE(batches(*restored) == rest);
      auto joined = head;
      joined.insert(joined.end(), rest.begin(), rest.end());
      REQUIRE(joined == whole);
    }
  }
}

TEST_CASE("ranks share each batch without overlap, whatever their number") {
  const auto run = [](int world) {
    std::vector<std::vector<Ids>> ranks;
    for (int rank = 0; rank < world; ++rank) {
      RowLoader loader(
          {numbers(30, 0, 2), numbers(11, 1000, 1)},
          {.batch_size = 12 / world, .length = 2, .seed = 6, .epochs = 2, .rank = rank, .world_size = world});
      ranks.push_back(batches(loader));
    }
    std::vector<Ids> joined(ranks[0].size());
    for (size_t n = 0; n < joined.size(); ++n) {
      for (const auto& rank : ranks) {
        REQUIRE(rank.size() == joined.size());
        REQUIRE(rank[n].size() == ranks[0][n].size());  // no rank waits for another
        for (const int32_t id : rank[n])
          if (id >= 0) joined[n].push_back(id);
      }
    }
    return joined;
  };
  const auto alone = run(1);
  CHECK(alone.size() == 8);
  CHECK(alone[3].size() == 5);
  for (const int world : {2, 3, 4, 6}) CHECK(run(world) == alone);
}

TEST_CASE("a position of other data, seed or settings is refused and changes nothing") {
  RowLoader loader({numbers(10, 0)}, {.batch_size = 2, .length = 2, .seed = 1});
  RowLoader other({numbers(11, 0)}, {.batch_size = 2, .length = 2, .seed = 1});
  RowLoader reseeded({numbers(10, 0)}, {.batch_size = 2, .length = 2, .seed = 2});
  Batch batch;
  loader.next(batch);
  for (BatchSource* source : {static_cast<BatchSource*>(&other), static_cast<BatchSource*>(&reseeded)}) {
    Exit exit = Exit::ok;
    CHECK(says(error_of([&] { source->load_state(loader.state()); }, &exit), "belongs to other data"));
    CHECK(exit == Exit::data);
  }
  CHECK(says(error_of([&] { loader.load_state({{"version", 1}}); }), "broken"));
  // Another batch size may go on from it.
  RowLoader larger({numbers(10, 0)}, {.batch_size = 8, .length = 2, .seed = 1});
  larger.load_state(loader.state());
  CHECK(flat(batches(larger)) == flat(batches(loader)));
  // Refused with batches made ahead: the next batch is still the one that was due.
  PrefetchSource ahead(std::make_unique<RowLoader>(std::vector<MixtureSource>{numbers(10, 0)},
                                                   RowLoaderOptions{.batch_size = 2, .length = 2, .seed = 1}),
                       2);
  Ids got = flat(batches(ahead, 2));
  CHECK_THROWS_AS(ahead.load_state(other.state()), Error);
  const Ids rest = flat(batches(ahead));
  got.insert(got.end(), rest.begin(), rest.end());
  RowLoader fresh({numbers(10, 0)}, {.batch_size = 2, .length = 2, .seed = 1});
  CHECK(got == flat(batches(fresh)));
}

TEST_CASE("no rows, no weights, ids outside the vocabulary: errors that say where") {
  CHECK(says(error_of([] { RowLoader({numbers(0, 0)}, {.length = 2}); }), "shorter than one row"));
  CHECK(says(error_of([] {
               RowLoader({numbers(3, 0, 0), numbers(3, 0, 0)}, {.length = 2});
             }),
             "weights of all sources are 0"));
  CHECK(says(error_of([] { RowLoader({}, {.length = 2}); }), "no data"));
  auto loader =
      std::make_unique<RowLoader>(std::vector<MixtureSource>{numbers(5, 98)},
                                  RowLoaderOptions{.batch_size = 2, .length = 2, .shuffle = false, .vocab_size = 100});
  Batch batch;
  PrefetchSource source(std::move(loader), 4);
  CHECK(source.next(batch));  // the error comes in its turn, not earlier
  for (int i = 0; i < 2; ++i)
    CHECK(says(error_of([&] { source.next(batch); }),
               "row 2: token id 100 is outside the model's vocabulary: expected 0 to 99"));
}
