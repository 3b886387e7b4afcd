#include "data/pretraining.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <chrono>
#include <set>
#include <thread>

#include "data/checksums.h"
#include "data/shard_writer.h"
#include "stderr_of.h"
#include "support.h"

using namespace llmtk;
using namespace llmtk::data;
using test::ByteTokenizer;
using test::error_of;
using test::kBytes;
using test::says;

namespace {

struct Fixture {
  test::TemporaryFolder folder;
  DataConfig config;
  LoaderContext context{.batch_size = 2, .eval_batch_size = 2, .epochs = 1, .seed = 1, .vocab_size = 257};

  Fixture() {
    config.cache_dir = (folder / "cache").string();
    config.max_length = 8;
  }
  std::string write(const std::string& name, const std::string& text) {
    write_file_atomic(folder / name, text);
    return (folder / name).string();
  }
  PretrainingData open(const text::Tokenizer* tokenizer = &kBytes) {
    return open_pretraining_data(config, tokenizer, "bytes", context);
  }
};

using Ids = std::vector<int32_t>;

/// All labels that are trained on, in order.
Ids targets(BatchSource& source) {
  Ids out;
  Batch batch;
  while (source.next(batch)) {
    int64_t count = 0;
    for (const int32_t label : batch.labels)
      if (label != kIgnore) out.push_back(label), ++count;
    CHECK(count == batch.targets);
  }
  return out;
}

/// Has one token for the beginning and the end of a text.
class EosFirst : public ByteTokenizer {
 public:
  std::vector<text::TokenId> prefix() const override { return {256}; }
};

size_t entries(const fs::path& folder) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

}  // namespace

TEST_CASE("raw text becomes rows whose labels are the ids one further, and the cache is used again") {
  Fixture f;
  f.config.train = {{.path = f.write("a.txt", "abcdefghijklmnopqrstuvwxyz")}};
  f.config.shuffle = false;
  PretrainingData data = f.open();
  CHECK(data.train_tokens == 27);
  CHECK(data.train->total_batches() == 2);
  Batch batch;
  REQUIRE(data.train->next(batch));
  CHECK(batch.rows == 2);
  CHECK(batch.length == 8);
  CHECK(batch.targets == 16);
  CHECK(kBytes.decode(batch.input_ids, false) == "abcdefghijklmnop");
  CHECK(kBytes.decode(batch.labels, false) == "bcdefghijklmnopq");
  REQUIRE(data.train->next(batch));
  CHECK(kBytes.decode(batch.labels, false) == "rstuvwxy");
  CHECK(!data.train->next(batch));
  CHECK(!data.validation);

  REQUIRE(entries(f.config.cache_dir) == 1);
  const fs::path cached = *fs::directory_iterator(f.config.cache_dir);
  const auto written = fs::last_write_time(cached / "train-00000.bin");
  f.open();
  CHECK(fs::last_write_time(cached / "train-00000.bin") == written);
  CHECK(entries(f.config.cache_dir) == 1);
  f.write("a.txt", "ABCdefghijklmnopqrstuvwxyz");  // same name, same size
  f.open();
  CHECK(entries(f.config.cache_dir) == 2);
  const ByteTokenizer shifted(1);
  f.context.vocab_size = 258;
  f.open(&shifted);
  CHECK(entries(f.config.cache_dir) == 3);
}

TEST_CASE("rows begin with what the tokenizer puts before a text, unless it shall not") {
  Fixture f;
  f.config.train = {{.path = f.write("a.txt", "abcdefghijklmnopqrstuvwxyz")}};
  f.config.shuffle = false;
  f.context.vocab_size = 258;
  const ByteTokenizer with_bos(0, true, true);
  Batch batch;
  CHECK(f.open(&with_bos).train->next(batch));
  CHECK(with_bos.decode(batch.input_ids, false) == "<bos>abcdefghijklmno");
  f.config.prepend_bos = false;
  CHECK(f.open(&with_bos).train->next(batch));
  CHECK(with_bos.decode(batch.input_ids, false) == "abcdefghijklmnop");
}

TEST_CASE("what is held out is never trained on, and nothing is lost between") {
  Fixture f;
  std::string text;
  for (int i = 0; i < 3000; ++i)
    text += std::string(1, static_cast<char>('0' + i / 300)) + "line " + std::to_string(10000 + i) + "\n";
  f.config.train = {{.path = f.write("a.txt", text), .document = "line"}};
  f.config.validation_fraction = 0.1;
  f.config.shuffle = false;
  PretrainingData data = f.open();
  CHECK(data.train_tokens + data.validation_tokens == 3000 * 12);
  CHECK(static_cast<double>(data.validation_tokens) == Approx(3600).margin(250));
  const auto documents = [](const Ids& ids) {
    std::set<std::string> out;
    Ids document;
    for (const int32_t id : ids) {
      if (id != 256) {
        document.push_back(id);
      } else {
        out.insert(kBytes.decode(document, false));
        document.clear();
      }
    }
    return out;
  };
  const auto train = documents(targets(*data.train)), validation = documents(targets(*data.validation));
  for (const auto& document : validation) REQUIRE(!train.contains(document));
  CHECK(train.size() + validation.size() >= 2998);  // the first id of a stream is nowhere a target
  std::set<char> parts;
  for (const auto& document : validation)
    if (document[0] != 'l') parts.insert(document[0]);  // the first lacks its first id
  CHECK(parts.size() == 10);                            // every part of the corpus is seen

  // Evaluation: every token once, in order, each time the same.
  PretrainingData again = f.open();
  const Ids ids = targets(*again.validation);
  CHECK(ids.size() == data.validation_tokens - 1);
}

TEST_CASE("shards, with their validation split, and a mixture with weights") {
  Fixture f;
  std::mt19937 random(1);
  const auto text = f.write("a.txt", test::random_text(random, 20000));
  write_shards({text}, kBytes, "bytes", f.folder / "shards",
               {.read = {.document = DocumentUnit::line}, .shard_tokens = 3000, .validation_fraction = 0.2});
  const auto other = f.write("b.txt", std::string(5000, 'z'));
  f.config.train = {{.path = (f.folder / "shards").string(), .weight = 1}, {.path = other, .weight = 3}};
  f.config.validation = {{.path = (f.folder / "shards").string()}};
  PretrainingData data = f.open();
  const auto shards = TokenShards::open((f.folder / "shards").string(), "validation");
  CHECK(data.validation_tokens == shards.size());
  Ids expected(shards.size() - 1);
  shards.read(1, expected);
  CHECK(targets(*data.validation) == expected);
  const Ids ids = targets(*data.train);
  const double share = static_cast<double>(std::count(ids.begin(), ids.end(), 'z')) / static_cast<double>(ids.size());
  CHECK(share == Approx(0.75).margin(0.01));
  REQUIRE(data.description["sources"].size() == 3);
  CHECK(data.description["sources"][2]["role"] == "validation");
}

TEST_CASE("without weights every row of every source comes once an epoch") {
  Fixture f;
  f.config.train = {{.path = f.write("a.txt", std::string(80, 'a'))},
                    {.path = f.write("b.txt", std::string(800, 'b'))}};
  PretrainingData data = f.open();
  const Ids ids = targets(*data.train);
  CHECK(std::count(ids.begin(), ids.end(), 'a') + std::count(ids.begin(), ids.end(), 256) >= 80);
  CHECK(std::count(ids.begin(), ids.end(), 'a') <= 80);
  CHECK(ids.size() == 880);
}

TEST_CASE("rows that are tokenized already") {
  Fixture f;
  f.config.train = {{.path = f.write("rows.jsonl",
                                     "\xEF\xBB\xBF{\"input_ids\": [1, 2, 3], \"labels\": [-100, 2, 3]}\n\n"
                                     "{\"input_ids\": [4, 5, 6, 7]}\n{\"input_ids\": [8, 9]}\n")}};
  f.config.shuffle = false;
  PretrainingData data = f.open(nullptr);
  CHECK(data.train_tokens == 9);
  Batch batch;
  REQUIRE(data.train->next(batch));
  CHECK(batch.length == 4);
  CHECK(batch.input_ids == Ids{1, 2, 3, 0, 4, 5, 6, 7});
  CHECK(batch.labels == Ids{2, 3, kIgnore, kIgnore, 5, 6, 7, kIgnore});
  CHECK(batch.targets == 5);
  REQUIRE(data.train->next(batch));
  CHECK(batch.input_ids == Ids{8, 9});

  const auto message = [&](const std::string& rows) {
    f.write("rows.jsonl", rows);
    return error_of([&] { targets(*f.open(nullptr).train); });
  };
  const std::string idle = "{\"input_ids\": [1, 2, 3], \"labels\": [7, -100, -100]}\n";
  CHECK(says(message(idle + "\n" + idle), "rows.jsonl: no row has a label to train on"));
  Exit exit = Exit::ok;
  error_of([&] { f.open(nullptr); }, &exit);
  CHECK(exit == Exit::data);
  f.write("rows.jsonl", "{\"input_ids\": [1, 2]}\n\n" + idle + idle);
  CHECK(says(test::stderr_of([&] { f.open(nullptr); }), "rows.jsonl:3: no label to train on, as in 2 of 3 rows"));
  CHECK(says(message("{\"input_ids\": [1,2]}\n\n{\"input_ids\": [1,2,3,4,5,6,7,8,9]}"),
             "rows.jsonl:3: 'input_ids' is longer than data.max_length"));
  CHECK(says(message("{\"input_ids\": [1,2], \"labels\": [1]}"),
             "rows.jsonl:1: 'labels' and 'input_ids' differ in length"));
  CHECK(says(message("{\"input_ids\": [1,\"a\"]}"), "'input_ids'[1]: got \"a\""));
  CHECK(says(message("{\"input_ids\": [1,300]}"), "rows.jsonl:1, token 1: token id 300 is outside"));
  CHECK(says(message("{\"input_ids\": [1,2], \"labels\": [1, -7]}"), "label -7 is outside"));
}

TEST_CASE("with a document mask positions restart and no document's end predicts") {
  Fixture f;
  f.config.train = {{.path = f.write("a.txt", "ab\n\ncde\n\nf\n\nghijklmn\n"), .document = "blank_line"}};
  f.config.shuffle = false;
  f.config.document_mask = true;
  PretrainingData data = f.open();
  Batch batch;
  REQUIRE(data.train->next(batch));
  REQUIRE(batch.rows == 2);
  constexpr int32_t kEnd = 256;
  CHECK(batch.input_ids == Ids{'a', 'b', kEnd, 'c', 'd', 'e', kEnd, 'f', kEnd, 'g', 'h', 'i', 'j', 'k', 'l', 'm'});
  CHECK(batch.labels ==
        Ids{'b', kEnd, kIgnore, 'd', 'e', kEnd, kIgnore, kEnd, kIgnore, 'h', 'i', 'j', 'k', 'l', 'm', 'n'});
  CHECK(batch.position_ids == Ids{0, 1, 2, 0, 1, 2, 3, 0, 0, 0, 1, 2, 3, 4, 5, 6});
  CHECK(batch.targets == 13);

  f.config.append_eos = false;
  const ByteTokenizer without_eos(0, false);
  CHECK(says(error_of([&] { f.open(&without_eos); }), "no token ends the documents"));
  f.config.append_eos = true;
  const auto text = f.write("b.txt", std::string(100, 'b'));
  write_shards({text}, kBytes, "bytes", f.folder / "no-eos", {.append_eos = false});
  f.config.train = {{.path = (f.folder / "no-eos").string()}};
  CHECK(says(error_of([&] { f.open(); }), "no-eos: data.document_mask, but no token ends the documents"));
  f.config.train = {{.path = text}};
  const EosFirst eos_first;
  CHECK(says(error_of([&] { f.open(&eos_first); }), "the token that ends documents stands before them too: got 256"));
  f.config.prepend_bos = false;
  CHECK(f.open(&eos_first).train);
  f.config.prepend_bos = true;
  f.config.train = {{.path = f.write("rows.jsonl", "{\"input_ids\": [1, 2]}\n")}};
  CHECK(says(error_of([&] { f.open(); }), "data.document_mask does not work with rows"));
}

TEST_CASE("a checksum is remembered until its file changes") {
  test::TemporaryFolder folder;
  const fs::path file = folder / "a.txt", cache = folder / "cache";
  const auto age = [&] {  // what changed just now is not remembered: the clock's steps may be coarse
    ::timespec at{::time(nullptr) - 100, 0}, times[] = {at, at};
    REQUIRE(::utimensat(AT_FDCWD, file.c_str(), times, 0) == 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(3100));
  };
  write_file_atomic(file, "one");
  CHECK(remembered_checksum(file, cache) == checksum_file(file));
  CHECK_FALSE(fs::exists(cache / "checksums"));
  age();
  CHECK(remembered_checksum(file, cache) == checksum_file(file));
  REQUIRE(fs::exists(cache / "checksums"));
  const fs::path entry = fs::directory_iterator(cache / "checksums")->path();
  auto known = nlohmann::ordered_json::parse(read_file(entry));
  known["checksum"] = "remembered";
  write_file_atomic(entry, known.dump());
  CHECK(remembered_checksum(file, cache) == "remembered");
  write_file_atomic(entry, "half a fi");
  CHECK(remembered_checksum(file, cache) == checksum_file(file));
  known["checksum"] = "remembered";
  for (const char* key : {"device", "inode", "size", "modified", "changed"}) {
    INFO(key);
    auto other = known;
    other["file"][key] = other["file"][key].get<int64_t>() + 1;
    write_file_atomic(entry, other.dump());
    CHECK(remembered_checksum(file, cache) == checksum_file(file));
    write_file_atomic(entry, known.dump());
    CHECK(remembered_checksum(file, cache) == "remembered");
  }
  write_file_atomic(file, "two");  // of the same size
  age();
  CHECK(remembered_checksum(file, cache) == checksum_file(file));
}

TEST_CASE("what cannot be trained on is refused with its place") {
  Fixture f;
  const auto a = f.write("a.txt", test::random_text(*std::make_unique<std::mt19937>(1), 1000));
  const auto message = [&](const text::Tokenizer* tokenizer = &kBytes) { return error_of([&] { f.open(tokenizer); }); };
  f.config.train = {{.path = f.write("short.txt", "abc")}};
  CHECK(says(message(), "short.txt: the data is shorter than one row: got 4 tokens, expected 9 or more"));
  f.config.train = {{.path = a}, {.path = (f.folder / "short.txt").string()}};
  CHECK(says(message(), "short.txt: the data is shorter than one row"));
  f.config.train = {{.path = (f.folder / "none.txt").string()}};
  CHECK(says(message(), "none.txt: no such file"));
  f.config.train = {{.path = a}};
  CHECK(says(message(nullptr), "raw text needs a tokenizer"));
  f.config.validation = {{.path = a}};
  CHECK(says(message(), "part of the training data"));
  f.config.validation.clear();
  f.context.vocab_size = 256;
  CHECK(says(message(), "more tokens than the model's vocabulary"));
  f.context.vocab_size = 257;
  write_shards({a}, kBytes, "bytes", f.folder / "shards", {});
  f.config.train = {{.path = (f.folder / "shards").string()}};
  const ByteTokenizer without_eos(0, false);
  CHECK(says(message(&without_eos), "made with another tokenizer"));
  f.context.vocab_size = 200;
  CHECK(says(message(nullptr), "larger vocabulary than the model's: got 257, expected at most 200"));
  f.context.vocab_size = 257;
  const auto bad = f.write("bad.jsonl", "{\"text\": \"ok\"}\n{\"text\": 1}\n");
  f.config.train = {{.path = bad}};
  CHECK(says(message(), "bad.jsonl:2: field 'text': got number"));
}

TEST_CASE("an option that the data has no use for is refused") {
  Fixture f;
  const auto text = f.write("a.txt", std::string(100, 'a'));
  const auto rows = f.write("rows.jsonl", "{\"input_ids\": [1, 2]}\n");
  write_shards({text}, kBytes, "bytes", f.folder / "shards", {});
  const std::string shards = (f.folder / "shards").string(), file = shards + "/train-00000.bin";
  const auto message = [&](const SourceConfig& source) {
    f.config.train = {source};
    Exit exit = Exit::usage;
    const std::string told = error_of([&] { f.open(); }, &exit);
    CHECK(exit == Exit::usage);
    return told;
  };
  CHECK(says(message({.path = text, .split = "train"}), "a.txt: split has no effect on raw text"));
  CHECK(says(message({.path = shards, .text_field = "body"}), "shards: text_field has no effect on token shards"));
  CHECK(says(message({.path = shards, .document = "line"}), "document has no effect on token shards"));
  CHECK(message({.path = shards, .split = "train"}).empty());
  CHECK(says(message({.path = file, .split = "train"}), "split has no effect on a file of token ids"));
  CHECK(says(message({.path = rows, .text_field = "body"}), "text_field has no effect on rows that are tokenized"));
  const auto told_of = [&](auto DataConfig::*setting, const auto& value) {
    const auto before = f.config.*setting;
    f.config.*setting = value;
    const std::string told = message({.path = shards});
    CHECK(message({.path = text}).empty());
    f.config.train = {{.path = shards}, {.path = text}};
    CHECK(error_of([&] { f.open(); }).empty());
    f.config.*setting = before;
    return told;
  };
  CHECK(says(told_of(&DataConfig::append_eos, false), "data.append_eos has no effect on data that is tokenized"));
  CHECK(says(told_of(&DataConfig::prepend_bos, false), "data.prepend_bos has no effect"));
  CHECK(says(told_of(&DataConfig::on_bad_line, "skip"), "data.on_bad_line has no effect"));
}

TEST_CASE("the section reads from YAML, and its rules are told with their lines") {
  const auto config =
      config::parse<DataConfig>("train:\n  - {path: a.txt, document: line}\nmax_length: 64\n", "x.yaml");
  CHECK(config.train.at(0).document == "line");
  CHECK(config.max_length == 64);
  const auto message = [](const char* yaml) { return error_of([&] { config::parse<DataConfig>(yaml, "x.yaml"); }); };
  CHECK(says(message("train: [{path: a}, {path: b, weight: 2}]\n"), "weight"));
  CHECK(says(message("train: [{path: a}]\nvalidation: [{path: b}]\nvalidation_fraction: 0.1\n"), "x.yaml:3"));
  CHECK(says(message("train: [{path: a, document: page}]\n"), "blank_line"));
  const std::string idle =
      message("train: [{path: a}]\nvalidation: [{path: b}, {path: c, weight: 2, max_epochs: 3}]\n");
  CHECK(says(idle, "validation.1.weight"));
  CHECK(says(idle, "validation.1.max_epochs"));
  CHECK(says(idle, "has no effect"));
  CHECK(says(message("train: [{path: a}]\nappend_eos: false\ndocument_mask: true\n"), "x.yaml:3"));
  CHECK(says(message("{}"), "train"));
}

TEST_CASE("real text: the loader gives every token of Tang poems once an epoch") {
  const char* data = std::getenv("LLMTK_TEST_DATA");
  if (!data) LLMTK_SKIP("LLMTK_TEST_DATA is not set");
  Fixture f;
  f.config.train = {{.path = std::string(data) + "/text/tang_poems.txt", .document = "blank_line"}};
  f.config.max_length = 128;
  f.context.batch_size = 16;
  PretrainingData opened = f.open();
  std::vector<int64_t> count(257), expected(257);
  for (const int32_t id : targets(*opened.train)) ++count[static_cast<size_t>(id)];
  const auto shards = TokenShards::open(fs::directory_iterator(f.config.cache_dir)->path().string());
  Ids all(shards.size());
  shards.read(0, all);
  for (size_t i = 1; i <= (all.size() - 1) / 128 * 128; ++i) ++expected[static_cast<size_t>(all[i])];
  CHECK(count == expected);
  CHECK(count[256] > 5000);
}
