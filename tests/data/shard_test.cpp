#include "data/shard.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "data/shard_writer.h"
#include "support.h"

using namespace llmtk;
using namespace llmtk::data;
using test::ByteTokenizer;
using test::error_of;
using test::kBytes;
using test::says;

namespace {

ShardSummary shard(const fs::path& input, const fs::path& folder, const ShardOptions& options,
                   const text::Tokenizer& tokenizer = kBytes) {
  return write_shards({input.string()}, tokenizer, "bytes", folder, options);
}

std::string text_of(const TokenShards& shards, const text::Tokenizer& tokenizer = kBytes) {
  std::vector<int32_t> ids(shards.size());
  shards.read(0, ids);
  return tokenizer.decode(ids);
}

std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(folder))
    files[entry.path().filename().string()] = read_file(entry.path());
  return files;
}

/// A folder of text, JSON lines and one long document.
void make_corpus(const fs::path& folder, size_t bytes) {
  std::mt19937 random(3);
  fs::create_directories(folder);
  std::string lines;
  while (lines.size() < bytes) {
    std::string text = test::random_text(random, random() % 500);
    std::replace(text.begin(), text.end(), '\n', ' ');
    lines += "{\"text\": \"" + text + "\"}\n";
  }
  write_file_atomic(folder / "a.jsonl", lines);
  write_file_atomic(folder / "b.txt", test::random_text(random, bytes));
  write_file_atomic(folder / "c.txt", "short");
}

/// Runs `work` in a process of its own; killed after `microseconds` unless that is negative. Returns its peak memory in
/// KB.
template <class F>
long in_child(F&& work, int64_t microseconds = -1) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    try {
      work();
    } catch (const std::exception& e) {
      std::fprintf(stderr, "%s\n", e.what());
      ::_exit(1);
    }
    ::_exit(0);
  }
  if (microseconds >= 0) {
    std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
    ::kill(pid, SIGKILL);
  }
  int status = 0;
  struct rusage usage {};
  REQUIRE(::wait4(pid, &status, 0, &usage) == pid);
  REQUIRE((microseconds >= 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 0)));
  return usage.ru_maxrss;
}

}  // namespace

TEST_CASE("documents are separated by eos and shards end between documents") {
  test::TemporaryFolder folder;
  const auto input = folder / "a.txt";
  write_file_atomic(input, "一二\n\nthree\n\n四\n");
  ShardOptions options{.read = {.document = DocumentUnit::blank_line}, .shard_tokens = 13, .threads = 2};
  const ShardSummary summary = shard(input, folder / "out", options);
  CHECK(summary.documents == 3);
  CHECK(summary.tokens == 6 + 5 + 3 + 3);
  REQUIRE(summary.train.size() == 2);
  CHECK(summary.train[0].tokens == 13);
  const TokenShards shards = TokenShards::open((folder / "out").string());
  CHECK(text_of(shards) == "一二<eos>three<eos>四<eos>");
  CHECK(shards.eos_id() == 256);
  CHECK(shards.vocab_size() == 257);
  CHECK(shards.documents() == 3);
  CHECK(shards.find(256, 7, 17) == 12);
  CHECK(shards.find(999, 0, 17) == 17);
  CHECK(says(shards.place(14), "train-00001.bin, token 1"));
  CHECK(text_of(TokenShards::open((folder / "out/train-00001.bin").string())) == "四<eos>");
  CHECK(verify_shards(folder / "out") == 2);

  const auto manifest = nlohmann::json::parse(read_file(folder / "out/shards.json"));
  CHECK(manifest["dtype"] == "uint16");
  CHECK(manifest["sources"][0]["checksum"] == checksum_file(input));
  CHECK(fs::file_size(folder / "out/train-00000.bin") == 26);
}

TEST_CASE("what the tokenizer puts before a text stands before every document, once") {
  test::TemporaryFolder folder;
  const ByteTokenizer with_bos(0, true, true);
  write_file_atomic(folder / "a.txt", "one two three four five\n\nsix\n");
  ShardOptions options{.read = {.document = DocumentUnit::blank_line, .block_bytes = 16, .piece_bytes = 16},
                       .shard_tokens = 30};
  const ShardSummary summary = shard(folder / "a.txt", folder / "out", options, with_bos);
  CHECK(summary.tokens == 25 + 5);
  const TokenShards shards = TokenShards::open((folder / "out").string());
  CHECK(text_of(shards, with_bos) == "<bos>one two three four five<eos><bos>six<eos>");
  CHECK(shards.bos_ids() == std::vector<int32_t>{257});
  CHECK(verify_shards(folder / "out") == 1);
  options.shard_tokens = 29;  // the bos counts
  CHECK(shard(folder / "a.txt", folder / "parts", options, with_bos).train.size() == 2);

  options.prepend_bos = false;
  CHECK(says(error_of([&] { shard(folder / "a.txt", folder / "parts", options, with_bos); }), "bos_ids [257], now []"));
  shard(folder / "a.txt", folder / "without", options, with_bos);
  CHECK(text_of(TokenShards::open((folder / "without").string()), with_bos) == "one two three four five<eos>six<eos>");

  // Shards whose manifest does not speak of it were made without.
  shard(folder / "a.txt", folder / "old", options);
  auto manifest = nlohmann::ordered_json::parse(read_file(folder / "old/shards.json"));
  manifest["settings"].erase("bos_ids");
  write_file_atomic(folder / "old/shards.json", manifest.dump());
  CHECK(shard(folder / "a.txt", folder / "old", options).was_complete);
  CHECK(TokenShards::open((folder / "old").string()).bos_ids().empty());
}

TEST_CASE("a vocabulary over 65536 is kept in 32 bits") {
  test::TemporaryFolder folder;
  const ByteTokenizer wide(100000);
  write_file_atomic(folder / "a.txt", "黃帝");
  shard(folder / "a.txt", folder / "out", {}, wide);
  CHECK(nlohmann::json::parse(read_file(folder / "out/shards.json"))["dtype"] == "uint32");
  CHECK(text_of(TokenShards::open((folder / "out").string()), wide) == "黃帝<eos>");
  // 65536 is the last that fits in 16.
  shard(folder / "a.txt", folder / "edge", {}, ByteTokenizer(65536 - 257));
  CHECK(text_of(TokenShards::open((folder / "edge").string()), ByteTokenizer(65536 - 257)) == "黃帝<eos>");
  CHECK(nlohmann::json::parse(read_file(folder / "edge/shards.json"))["dtype"] == "uint16");
}

TEST_CASE("the files are the same for any number of threads, and hold what was read") {
  test::TemporaryFolder folder;
  make_corpus(folder / "in", 200000);
  ShardOptions options{
      .read = {.block_bytes = 3000, .piece_bytes = 5000}, .shard_tokens = 50000, .validation_fraction = 0.1};
  std::map<std::string, std::string> first;
  for (const int threads : {1, 2, 7}) {
    options.threads = threads;
    const auto out = folder / ("out" + std::to_string(threads));
    shard(folder / "in", out, options);
    if (first.empty()) first = contents(out);
    CHECK(contents(out) == first);
  }
  CHECK(first.size() > 9);
  // Cut into blocks or not, the text is the same: the long document comes out in one piece, with one eos.
  const std::string train = text_of(TokenShards::open((folder / "out1").string(), "train"));
  const std::string validation = text_of(TokenShards::open((folder / "out1").string(), "validation"));
  const std::string text = read_file(folder / "in/b.txt") + "<eos>";
  CHECK((says(train, text) || says(validation, text)));
  const auto manifest = nlohmann::json::parse(first.at("shards.json"));
  const double share =
      manifest["splits"]["validation"]["documents"].get<double>() / manifest["documents"].get<double>();
  CHECK(share == Approx(0.1).margin(0.04));
}

TEST_CASE("killed at any moment and started again, the files come out the same") {
  test::TemporaryFolder folder;
  make_corpus(folder / "in", 300000);
  for (const auto split : {SplitBy::hash, SplitBy::tail}) {
    ShardOptions options{.read = {.on_bad_line = BadLine::skip, .block_bytes = 2000, .piece_bytes = 4000},
                         .shard_tokens = 20000,
                         .validation_fraction = 0.2,
                         .split_by = split,
                         .threads = 2};
    const fs::path whole = folder / (split == SplitBy::hash ? "hash" : "tail"), broken = whole.string() + "-killed";
    const auto began = std::chrono::steady_clock::now();
    shard(folder / "in", whole, options);
    const auto took =
        std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - began).count();
    std::mt19937 random(4);
    for (int kill = 0; kill < 25; ++kill) {
      in_child([&] { shard(folder / "in", broken, options); }, random() % (took / 4 + 1));
      // Never taken for whole.
      if (fs::exists(broken / "shards.json") && !nlohmann::json::parse(read_file(broken / "shards.json"))["complete"])
        CHECK(says(error_of([&] { TokenShards::open(broken.string()); }), "not finished"));
    }
    shard(folder / "in", broken, options);
    CHECK(contents(broken) == contents(whole));
    CHECK(shard(folder / "in", broken, options).was_complete);
  }
}

TEST_CASE("an interrupted run takes up after each shard in turn") {
  // A crash behind every single shard, without the luck of timing: on_progress throws.
  test::TemporaryFolder folder;
  make_corpus(folder / "in", 30000);
  ShardOptions options{.read = {.block_bytes = 1000, .piece_bytes = 2000},
                       .shard_tokens = 3000,
                       .validation_fraction = 0.3,
                       .threads = 2};
  shard(folder / "in", folder / "whole", options);
  int runs = 0;
  for (bool done = false; !done; ++runs) {
    int blocks = 0;
    options.on_progress = [&](const ShardProgress&) {
      if (++blocks == 5) throw std::runtime_error("stop");
    };
    try {
      shard(folder / "in", folder / "parts", options);
      done = true;
    } catch (const std::runtime_error&) {
    }
    REQUIRE(runs < 100);
  }
  CHECK(runs > 5);
  CHECK(contents(folder / "parts") == contents(folder / "whole"));
}

TEST_CASE("validation by hash keeps copies together; the tail is the last part") {
  test::TemporaryFolder folder;
  std::string lines;
  for (int i = 0; i < 2000; ++i) lines += "line " + std::to_string(i % 500) + "\n";
  write_file_atomic(folder / "a.txt", lines);
  ShardOptions options{.read = {.document = DocumentUnit::line}, .validation_fraction = 0.25};
  shard(folder / "a.txt", folder / "hash", options);
  const auto documents = [](const std::string& text) {
    std::vector<std::string> out;
    for (size_t i = 0, end; (end = text.find("<eos>", i)) != std::string::npos; i = end + 5)
      out.push_back(text.substr(i, end - i));
    return out;
  };
  const auto train = documents(text_of(TokenShards::open((folder / "hash").string(), "train")));
  const auto validation = documents(text_of(TokenShards::open((folder / "hash").string(), "validation")));
  CHECK(train.size() + validation.size() == 2000);
  CHECK(validation.size() == Approx(500).margin(120));
  for (const auto& document : validation) REQUIRE(std::find(train.begin(), train.end(), document) == train.end());
  options.seed = 1;
  shard(folder / "a.txt", folder / "hash1", options);
  CHECK(documents(text_of(TokenShards::open((folder / "hash1").string(), "validation"))) != validation);
  options.split_by = SplitBy::tail;
  shard(folder / "a.txt", folder / "tail", options);
  const auto last = documents(text_of(TokenShards::open((folder / "tail").string(), "validation")));
  CHECK(last.size() == Approx(500).margin(20));
  CHECK(last.back() == "line 499");
  CHECK(documents(text_of(TokenShards::open((folder / "tail").string(), "train"))).front() == "line 0");
}

TEST_CASE("other settings, other input and another tokenizer are not mixed into a folder") {
  test::TemporaryFolder folder;
  make_corpus(folder / "in", 5000);
  shard(folder / "in", folder / "out", {});
  const auto before = contents(folder / "out");
  CHECK(says(error_of([&] { shard(folder / "in", folder / "out", {.shard_tokens = 100}); }),
             "shard_tokens 100000000, now 100"));
  CHECK(says(error_of([&] { shard(folder / "in", folder / "out", {}, ByteTokenizer(7)); }), "vocab_size 257, now 264"));
  std::string text = read_file(folder / "in/b.txt");
  text[10] ^= 1;
  write_file_atomic(folder / "in/b.txt", text);
  CHECK(says(error_of([&] { shard(folder / "in", folder / "out", {}); }), "input has changed"));
  CHECK(contents(folder / "out") == before);
  shard(folder / "in", folder / "out", {.overwrite = true});
  CHECK(contents(folder / "out") != before);
  CHECK(
      says(error_of([&] { shard(folder / "in", folder / "x", {}, ByteTokenizer(0, false)); }), "no end-of-text token"));
}

TEST_CASE("bad lines are counted in the manifest; stop leaves no finished set behind") {
  test::TemporaryFolder folder;
  write_file_atomic(folder / "a.jsonl", "{\"text\": \"a\"}\noops\n{\"text\": \"b\xFF\"}\n{\"text\": \"c\"}\n");
  CHECK(says(error_of([&] { shard(folder / "a.jsonl", folder / "stop", {}); }), "a.jsonl:2: not JSON"));
  CHECK_THROWS(TokenShards::open((folder / "stop").string()));
  const ShardSummary skip = shard(folder / "a.jsonl", folder / "skip", {.read = {.on_bad_line = BadLine::skip}});
  CHECK(skip.skipped == 2);
  CHECK(text_of(TokenShards::open((folder / "skip").string())) == "a<eos>c<eos>");
  CHECK(nlohmann::json::parse(read_file(folder / "skip/shards.json"))["lines"]["skipped"] == 2);
  // A run that stopped before its first shard does not stand in the way of other settings.
  shard(folder / "a.jsonl", folder / "stop", {.read = {.on_bad_line = BadLine::replace}});
  CHECK(text_of(TokenShards::open((folder / "stop").string())) == "a<eos>b\xEF\xBF\xBD<eos>c<eos>");
}

TEST_CASE("a shard that is cut short, longer, or damaged is refused") {
  test::TemporaryFolder folder;
  make_corpus(folder / "in", 5000);
  const auto out = folder / "out";
  shard(folder / "in", out, {});
  const auto bin = out / "train-00000.bin";
  const std::string bytes = read_file(bin);
  fs::resize_file(bin, bytes.size() - 1);
  Exit exit = Exit::ok;
  CHECK(says(error_of([&] { TokenShards::open(out.string()); }, &exit), "train-00000.bin: the shard is cut short"));
  CHECK(exit == Exit::file);
  write_file_atomic(bin, bytes + "xx");
  CHECK(says(error_of([&] { TokenShards::open(out.string()); }), "longer than described"));
  std::string damaged = bytes;
  damaged[100] ^= 1;
  write_file_atomic(bin, damaged);
  CHECK(says(error_of([&] { verify_shards(out); }), "checksum differs"));
  CHECK(says(error_of([&] { TokenShards::open(out.string(), "test"); }), "no such split"));
  write_file_atomic(folder / "raw.bin", bytes);
  CHECK(says(error_of([&] { TokenShards::open((folder / "raw.bin").string()); }), "shards.json"));
}

TEST_CASE("a hostile manifest is refused") {
  test::TemporaryFolder folder;
  make_corpus(folder / "in", 2000);
  const auto out = folder / "out";
  shard(folder / "in", out, {});
  const auto good = nlohmann::ordered_json::parse(read_file(out / "shards.json"));
  const auto refused = [&](const nlohmann::ordered_json& manifest, const std::string& why) {
    write_file_atomic(out / "shards.json", manifest.dump());
    Exit exit = Exit::ok;
    CHECK_THAT(error_of([&] { TokenShards::open(out.string()); }, &exit), Catch::Contains(why));
    CHECK(exit == Exit::file);
    return manifest;
  };
  auto bad = good;
  const auto first = [&]() -> nlohmann::ordered_json& { return bad["splits"]["train"]["shards"][0]; };
  // Times the two bytes of a token it is 2 more than nothing, in 64 bits.
  first()["tokens"] = (uint64_t{1} << 63) + fs::file_size(out / "train-00000.bin") / 2;
  refused(bad, "cannot hold so many tokens");
  for (const char* file : {"../in/a.bin", "/etc/passwd", "..", ""}) {
    bad = good;
    first()["file"] = file;
    refused(bad, "lies outside of this folder");
    CHECK_THAT(error_of([&] { verify_shards(out); }), Catch::Contains("lies outside of this folder"));
  }
  bad = good;
  bad.erase("version");
  refused(bad, "unknown version");
  bad = good;
  first().erase("checksum");
  refused(bad, "broken manifest");
  Exit exit = Exit::ok;
  error_of([&] { verify_shards(out); }, &exit);
  CHECK(exit == Exit::file);
}

TEST_CASE("llm.c's files are read, alone or by pattern") {
  test::TemporaryFolder folder;
  const auto write = [&](const std::string& name, int32_t magic, int32_t version, const auto& ids, int32_t count) {
    std::string bytes(1024, '\0');
    const int32_t header[] = {magic, version, count};
    std::memcpy(bytes.data(), header, sizeof header);
    bytes.append(reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(ids[0]));
    write_file_atomic(folder / name, bytes);
    return (folder / name).string();
  };
  const std::vector<uint16_t> a{50256, 1, 2}, b{65535, 4};
  const auto first = write("train_000.bin", 20240520, 1, a, 3);
  write("train_001.bin", 20240520, 1, b, 2);
  std::vector<int32_t> ids(5);
  const auto both = TokenShards::open((folder / "train_*.bin").string());
  REQUIRE(both.size() == 5);
  both.read(0, ids);
  CHECK(ids == std::vector<int32_t>{50256, 1, 2, 65535, 4});
  CHECK(TokenShards::open(first).size() == 3);
  CHECK(both.identity() != TokenShards::open(first).identity());
  const auto wide = TokenShards::open(write("wide.bin", 20240801, 7, std::vector<uint32_t>{128000, 5}, 2));
  wide.read(0, std::span(ids).first(2));
  CHECK(ids[0] == 128000);
  CHECK(says(error_of([&] { TokenShards::open(write("short.bin", 20240520, 1, a, 4)); }), "cut short"));
  CHECK(says(error_of([&] { TokenShards::open(write("new.bin", 20240520, 2, a, 3)); }), "unknown version"));
}

TEST_CASE("memory does not grow with the corpus") {
#ifdef __SANITIZE_ADDRESS__
  LLMTK_SKIP("the sanitizers' own memory is more than the bound");
#endif
  test::TemporaryFolder folder;
  std::mt19937 random(5);
  const std::string text = test::random_text(random, 1 << 20);
  const auto make = [&](const char* name, int megabytes) {
    AtomicFile file(folder / name);
    for (int i = 0; i < megabytes; ++i) file.write(text);
    file.commit();
    return folder / name;
  };
  const auto small = make("small.txt", 30), large = make("large.txt", 90);
  const ShardOptions options{.read = {.document = DocumentUnit::line}, .shard_tokens = 20'000'000, .threads = 2};
  const long with_small = in_child([&] { shard(small, folder / "s", options); });
  const long with_large = in_child([&] { shard(large, folder / "l", options); });
  INFO(with_small << " KB for 30 MB, " << with_large << " KB for 90 MB");
  CHECK(with_large < with_small + 30000);
  CHECK(with_large < 120000);
}

TEST_CASE("real text comes back whole") {
  const char* data = std::getenv("LLMTK_TEST_DATA");
  if (!data) LLMTK_SKIP("LLMTK_TEST_DATA is not set");
  test::TemporaryFolder folder;
  for (const char* name : {"tinyshakespeare.txt", "tang_poems.txt"}) {
    const fs::path input = fs::path(data) / "text" / name;
    shard(input, folder / name, {.shard_tokens = 1'000'000});
    CHECK(text_of(TokenShards::open((folder / name).string())) == read_file(input) + "<eos>");
  }
  const ShardSummary poems =
      shard(fs::path(data) / "text/tang_poems.txt", folder / "poems", {.read = {.document = DocumentUnit::blank_line}});
  CHECK(poems.documents > 5000);
  const ShardSummary rows =
      shard(fs::path(data) / "instruct/gsm8k_train.jsonl", folder / "rows", {.read = {.text_field = "output"}});
  CHECK(rows.documents == 7473);
}
