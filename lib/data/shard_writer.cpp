#include "data/shard_writer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "core/processors.h"
#include "data/ordered_map.h"
#include "data/progress_lines.h"
#include "data/shard_encode.h"

namespace llmtk::data {
namespace {

using nlohmann::ordered_json;

constexpr const char* kSplitNames[] = {"train", "validation"};
constexpr uint64_t kMaxComplaints = 20;  // in the log; all are counted

/// One writer a folder. The lock is the kernel's, so a killed process leaves none behind.
class FolderLock {
 public:
  FolderLock(const fs::path& folder, bool wait) {
    fd_ = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    // File systems without locks answer with other errors; there the user has to take care.
    if (fd_ >= 0 && ::flock(fd_, LOCK_EX | (wait ? 0 : LOCK_NB)) != 0 && errno == EWOULDBLOCK) {
      ::close(fd_);
      throw Error(Exit::file, {.what = "another process is writing shards here", .where = folder.string()});
    }
  }
  ~FolderLock() {
    if (fd_ >= 0) ::close(fd_);
  }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_;
};

/// A shard being written. It takes its name only when it is whole.
struct OpenShard {
  std::unique_ptr<AtomicFile> file;
  Checksum checksum;
  ShardInfo info;
};

std::string shard_name(int split, size_t index) {
  char name[64];
  std::snprintf(name, sizeof name, "%s-%05zu.bin", kSplitNames[split], index);
  return name;
}

/// True for the names that shard_name makes.
bool is_shard_name(const std::string& name) {
  for (const char* split : kSplitNames) {
    const std::string prefix = std::string(split) + "-";
    if (!name.starts_with(prefix) || !name.ends_with(".bin")) continue;
    const std::string digits = name.substr(prefix.size(), name.size() - prefix.size() - 4);
    return digits.size() >= 5 && digits.find_first_not_of("0123456789") == std::string::npos;
  }
  return false;
}

class Sharder {
 public:
  Sharder(const std::vector<std::string>& inputs, const text::Tokenizer& tokenizer, const std::string& tokenizer_path,
          const fs::path& folder, const ShardOptions& options)
      : tokenizer_(tokenizer),
        folder_(folder),
        options_(options),
        files_(find_text_files(inputs)),
        encoder_(tokenizer, tokenizer_path, files_, options) {
    if (!(options.validation_fraction >= 0 && options.validation_fraction < 1))
      throw Error(Exit::usage, {.what = "validation fraction",
                                .got = std::to_string(options.validation_fraction),
                                .expected = "a number from 0 to below 1"});
    if (options.shard_tokens < 1)
      throw Error(Exit::usage, {.what = "tokens of a shard", .got = "0", .expected = "1 or more"});
    checksums_.resize(files_.size());
    describe(tokenizer_path);
  }

  ShardSummary run() {
    fs::create_directories(folder_);
    FolderLock lock(folder_, options_.wait);
    if (!restore()) {
      summary();
      return summary_;
    }
    remove_leftovers();
    if (summary_.train.empty() && summary_.validation.empty()) save_manifest(false);
    BlockReader reader(files_, options_.read);
    if (from_.file > 0 || from_.offset > 0) reader.seek(from_);
    progress_.total_bytes = encoder_.total_bytes();
    progress_.resumed_bytes = progress_.bytes = encoder_.global_offset(from_);
    const int threads = options_.threads > 0 ? options_.threads : usable_processors();
    ordered_map<Block, EncodedBlock>(
        threads, [&](Block& block) { return reader.next(block); }, [&](Block& block) { return encoder_.encode(block); },
        [&](EncodedBlock& encoded) { write(encoded); });
    finish_part();
    position_ = nullptr;
    save_manifest(true);
    summary();
    return summary_;
  }

 private:
  /// The part of the manifest that says what is made of what: two runs with the same can go on with one another's work.
  void describe(const std::string& tokenizer_path) {
    const ReadOptions& read = options_.read;
    ordered_json validation = nullptr;
    if (options_.validation_fraction > 0) {
      validation = {{"fraction", options_.validation_fraction},
                    {"split_by", options_.split_by == SplitBy::hash ? "hash" : "tail"}};
      if (options_.split_by == SplitBy::hash) validation["seed"] = options_.seed;
    }
    head_ = {{"format", kShardFormat},
             {"version", kShardVersion},
             {"dtype", to_string(encoder_.type())},
             {"vocab_size", tokenizer_.vocab_size()},
             {"eos_id", encoder_.eos() < 0 ? ordered_json(nullptr) : ordered_json(encoder_.eos())},
             {"tokenizer", {{"path", tokenizer_path}, {"hash", tokenizer_hash(tokenizer_)}}},
             {"settings",
              {{"text_field", read.text_field},
               {"document", to_string(read.document)},
               {"on_bad_line", to_string(read.on_bad_line)},
               {"max_line_bytes", read.max_line_bytes},
               {"block_bytes", read.block_bytes},
               {"piece_bytes", read.piece_bytes},
               {"bos_ids", encoder_.bos_ids()},
               {"append_eos", options_.append_eos},
               {"shard_tokens", options_.shard_tokens},
               {"validation", validation}}}};
  }

  ordered_json sources() const {
    ordered_json list = ordered_json::array();
    for (size_t i = 0; i < files_.size(); ++i) {
      list.push_back({{"path", files_[i].path.string()}, {"bytes", files_[i].bytes}});
      list.back()["checksum"] = checksums_[i].empty() ? ordered_json(nullptr) : ordered_json(checksums_[i]);
    }
    return list;
  }

  void save_manifest(bool complete) {
    ordered_json manifest = head_;
    manifest["sources"] = sources();
    manifest["documents"] = progress_.documents;
    manifest["tokens"] = progress_.tokens;
    manifest["lines"] = {{"skipped", summary_.skipped}, {"replaced", summary_.replaced}, {"empty", summary_.empty}};
    for (const int split : {kTrain, kValidation}) {
      if (split == kValidation && options_.validation_fraction == 0) continue;
      ordered_json shards = ordered_json::array();
      uint64_t tokens = 0, documents = 0;
      for (const auto& info : shards_of(split)) {
        shards.push_back(
            {{"file", info.file}, {"tokens", info.tokens}, {"documents", info.documents}, {"checksum", info.checksum}});
        tokens += info.tokens;
        documents += info.documents;
      }
      manifest["splits"][kSplitNames[split]] = {{"tokens", tokens}, {"documents", documents}, {"shards", shards}};
    }
    manifest["complete"] = complete;
    if (!complete) manifest["position"] = position_;
    write_file_atomic(folder_ / kManifestName,
                      manifest.dump(1, ' ', false, ordered_json::error_handler_t::replace) + "\n");
  }

  std::vector<ShardInfo>& shards_of(int split) { return split == kTrain ? summary_.train : summary_.validation; }

  /// Takes up an earlier run's work. False when nothing is left to do.
  bool restore() {
    if (!fs::exists(folder_ / kManifestName)) {
      for (const auto& entry : fs::directory_iterator(folder_))
        if (is_shard_name(entry.path().filename().string()) && !options_.overwrite)
          throw Error(Exit::file, {.what = "a file of another origin has the name of a shard",
                                   .where = entry.path().string(),
                                   .hint = "choose another folder, or --overwrite"});
      return true;
    }
    const ordered_json old = read_manifest(folder_);
    try {
      const bool complete = old.at("complete").get<bool>();
      const bool begun = complete || !old.at("position").is_null();
      const std::string difference = begun ? differs(old) : "";
      if (!begun || (options_.overwrite && !difference.empty())) {
        fs::remove(folder_ / kManifestName);  // first: shards without a manifest are not taken for anything
        return true;
      }
      if (!difference.empty())
        throw Error(Exit::data, {.what = "the folder holds shards of other settings or other input",
                                 .where = (folder_ / kManifestName).string(),
                                 .got = difference,
                                 .hint = "choose another folder, or --overwrite"});
      load(old);
      summary_.resumed = !complete;
      summary_.was_complete = complete;
      if (complete && options_.check_sources && !sources_unchanged()) {
        if (!options_.overwrite)
          throw Error(Exit::data, {.what = "the input has changed since these shards were written",
                                   .where = folder_.string(),
                                   .hint = "choose another folder, or --overwrite"});
        fs::remove(folder_ / kManifestName);
        reset();
        return true;
      }
      return !complete;
    } catch (const nlohmann::json::exception& e) {
      throw Error(Exit::file,
                  {.what = std::string("broken manifest: ") + e.what(), .where = (folder_ / kManifestName).string()});
    }
  }

  /// The first setting in which the old manifest differs, as "key: old, now new"; empty when none does.
  std::string differs(const ordered_json& old) const {
    const ordered_json now = head_;
    for (const char* key : {"dtype", "vocab_size", "eos_id"})
      if (old.at(key) != now.at(key))
        return std::string(key) + " " + old.at(key).dump() + ", now " + now.at(key).dump();
    if (old.at("tokenizer").at("hash") != now.at("tokenizer").at("hash"))
      return "another tokenizer (" + old.at("tokenizer").at("path").get<std::string>() + ")";
    for (const auto& [key, value] : now.at("settings").items())
      if (const ordered_json was = old.at("settings").value(key, ordered_json::array()); was != value)
        return key + " " + was.dump() + ", now " + value.dump();
    const auto& sources = old.at("sources");
    for (size_t i = 0; i < std::min(sources.size(), files_.size()); ++i) {
      if (sources[i].at("path") != files_[i].path.string())
        return "source " + sources[i].at("path").dump() + ", now " + files_[i].path.string();
      if (sources[i].at("bytes") != files_[i].bytes)
        return files_[i].path.string() + " of " + sources[i].at("bytes").dump() + " bytes, now " +
               std::to_string(files_[i].bytes);
    }
    if (sources.size() != files_.size())
      return std::to_string(sources.size()) + " source files, now " + std::to_string(files_.size());
    return "";
  }

  void load(const ordered_json& old) {
    progress_.documents = old.at("documents");
    progress_.tokens = old.at("tokens");
    summary_.skipped = old.at("lines").at("skipped");
    summary_.replaced = old.at("lines").at("replaced");
    summary_.empty = old.at("lines").at("empty");
    for (size_t i = 0; i < checksums_.size(); ++i) {
      const auto& checksum = old.at("sources")[i].at("checksum");
      if (!checksum.is_null()) checksums_[i] = checksum;
    }
    for (const int split : {kTrain, kValidation}) {
      const auto at = old.at("splits").find(kSplitNames[split]);
      if (at == old.at("splits").end()) continue;
      for (const auto& shard : at->at("shards")) {
        ShardInfo info{shard.at("file"), shard.at("tokens"), shard.at("documents"), shard.at("checksum")};
        std::error_code error;
        if (fs::file_size(folder_ / info.file, error) != info.tokens * token_bytes(encoder_.type()) || error)
          throw Error(Exit::file,
                      {.what = "a finished shard is missing or has another length",
                       .where = (folder_ / info.file).string(),
                       .hint = "start again with --overwrite after removing " + std::string(kManifestName)});
        shards_of(split).push_back(std::move(info));
      }
    }
    if (old.at("complete")) return;
    position_ = old.at("position");
    from_ = {.file = position_.at("file"),
             .offset = position_.at("offset"),
             .line = position_.at("line"),
             .in_document = position_.at("in_document"),
             .mid_line = position_.at("mid_line"),
             .checksum = position_.at("checksum")};
    skip_pieces_ = position_.at("documents_done");
    open_ = position_.at("open");
    open_split_ = position_.at("open_split");
  }

  void reset() {
    summary_ = {};
    progress_ = {};
    checksums_.assign(files_.size(), "");
  }

  bool sources_unchanged() const {
    for (size_t i = 0; i < files_.size(); ++i)
      if (checksum_file(files_[i].path) != checksums_[i]) return false;
    return true;
  }

  /// What a killed run left: half-written files, and a whole one that it had no time to list.
  void remove_leftovers() {
    std::vector<fs::path> leftovers;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      const std::string name = entry.path().filename().string();
      const std::string target = name.substr(0, name.find(".tmp-"));
      const bool temporary = target != name && (is_shard_name(target) || target == kManifestName);
      bool listed = false;
      for (const int split : {kTrain, kValidation})
        for (const auto& info : shards_of(split)) listed |= info.file == name;
      if (temporary || (is_shard_name(name) && !listed)) leftovers.push_back(entry.path());
    }
    for (const auto& path : leftovers) fs::remove(path);
  }

  // --- on the calling thread, in order ---

  void write(EncodedBlock& block) {
    size_t from = 0;
    for (size_t i = 0; i < block.pieces.size(); ++i) {
      const Piece& piece = block.pieces[i];
      const std::string_view ids(block.ids.data() + from, piece.bytes);
      from += piece.bytes;
      if (i < skip_pieces_) continue;
      const bool begins = !(i == 0 && block.continues && open_);
      if (begins && i == 0 && block.continues && piece.blank) continue;  // what it would go on with was left out
      const uint64_t tokens = piece.bytes / token_bytes(encoder_.type()) + (begins ? encoder_.bos_ids().size() : 0);
      const uint64_t have = current_[kTrain].info.tokens + current_[kValidation].info.tokens;
      if (have > 0 && have + tokens > options_.shard_tokens) {
        position_ = {{"file", block.begin.file},
                     {"offset", block.begin.offset},
                     {"line", block.begin.line},
                     {"in_document", block.begin.in_document},
                     {"mid_line", block.begin.mid_line},
                     {"checksum", block.begin.checksum},
                     {"documents_done", i},
                     {"open", open_},
                     {"open_split", open_split_}};
        finish_part();
        save_manifest(false);
      }
      if (begins) open_split_ = piece.split;
      append(open_split_, ids, tokens, begins);
    }
    skip_pieces_ = 0;
    if (!block.pieces.empty()) open_ = block.open;
    summary_.skipped += block.skipped;
    summary_.replaced += block.replaced;
    summary_.empty += block.empty;
    if (!block.file_checksum.empty()) checksums_[block.begin.file] = block.file_checksum;
    for (const auto& complaint : block.complaints)
      if (++complaints_ <= kMaxComplaints)
        log::warn(complaint + (complaints_ == kMaxComplaints ? " (no more of these are shown)" : ""));
    progress_.bytes = encoder_.global_offset(block.end);
    if (options_.on_progress) options_.on_progress(progress_);
  }

  void append(int split, std::string_view ids, uint64_t tokens, bool begins) {
    OpenShard& shard = current_[split];
    if (!shard.file) {
      shard.info.file = shard_name(split, shards_of(split).size());
      shard.file = std::make_unique<AtomicFile>(folder_ / shard.info.file);
    }
    for (const std::string_view part : {begins ? std::string_view(encoder_.bos()) : std::string_view(), ids}) {
      shard.file->write(part);
      shard.checksum.update(std::as_bytes(std::span(part)));
    }
    shard.info.tokens += tokens;
    shard.info.documents += begins;
    progress_.tokens += tokens;
    progress_.documents += begins;
  }

  /// Closes the open shards of both splits: the position behind them is one for both.
  void finish_part() {
    for (const int split : {kTrain, kValidation}) {
      OpenShard& shard = current_[split];
      if (!shard.file) continue;
      shard.file->commit();
      shard.info.checksum = shard.checksum.hex();
      shards_of(split).push_back(std::move(shard.info));
      shard = OpenShard();
    }
  }

  void summary() {
    summary_.bytes = encoder_.total_bytes();
    summary_.tokens = progress_.tokens;
    summary_.documents = progress_.documents;
    summary_.type = encoder_.type();
  }

  const text::Tokenizer& tokenizer_;
  const fs::path folder_;
  const ShardOptions& options_;
  std::vector<SourceFile> files_;
  const BlockEncoder encoder_;
  std::vector<std::string> checksums_;
  ordered_json head_, position_ = nullptr;

  ReadPosition from_;       // where an earlier run's finished shards end:
  size_t skip_pieces_ = 0;  // so many documents into the block that begins there
  bool open_ = false;       // the last document written goes on in the next block
  int open_split_ = kTrain;
  OpenShard current_[2];
  ShardProgress progress_;
  ShardSummary summary_;
  uint64_t complaints_ = 0;
};

}  // namespace

SplitBy parse_split_by(std::string_view name) {
  if (name == "hash") return SplitBy::hash;
  if (name == "tail") return SplitBy::tail;
  throw Error(Exit::usage,
              {.what = "unknown way to split", .got = "'" + std::string(name) + "'", .expected = "hash or tail"});
}

std::function<void(const ShardProgress&)> progress_lines(double seconds) {
  return [lines = ProgressLines("tokenized", "MB", seconds)](const ShardProgress& progress) mutable {
    const auto millions = [](uint64_t count) { return static_cast<double>(count) * 1e-6; };
    char tokens[40];
    std::snprintf(tokens, sizeof tokens, ", %.1f M tokens", millions(progress.tokens));
    lines.update(millions(progress.bytes), millions(progress.total_bytes), millions(progress.resumed_bytes), tokens);
  };
}

ShardSummary write_shards(const std::vector<std::string>& inputs, const text::Tokenizer& tokenizer,
                          const std::string& tokenizer_path, const fs::path& folder, const ShardOptions& options) {
  return Sharder(inputs, tokenizer, tokenizer_path, folder, options).run();
}

}  // namespace llmtk::data
