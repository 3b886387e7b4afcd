#pragma once
// Text of any size to token shards: all cores, constant memory, the same bytes for any number of threads and restarts.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "data/reader.h"
#include "data/shard.h"

namespace llmtk::data {

/// How documents are chosen for validation.
enum class SplitBy {
  hash,  ///< by a seeded hash of the text: copies of one document fall on the same side, whatever their order
  tail,  ///< the documents that begin in the last part of the input
};
/// "hash", "tail"; throws Error(usage).
SplitBy parse_split_by(std::string_view name);

struct ShardProgress {
  uint64_t bytes = 0, total_bytes = 0;  ///< of the input
  uint64_t resumed_bytes = 0;           ///< of these, done by an earlier run
  uint64_t tokens = 0, documents = 0;
};

struct ShardOptions {
  ReadOptions read;
  bool prepend_bos = true;  ///< before every document what the tokenizer itself puts before a text, if anything
  bool append_eos = true;   ///< the tokenizer's eos after every document
  /// A shard is closed before a document that would make it longer (a single longer document has one of its own).
  uint64_t shard_tokens = 100'000'000;
  double validation_fraction = 0;
  SplitBy split_by = SplitBy::hash;
  uint64_t seed = 0;          ///< of the hash
  int threads = 0;            ///< that encode; 0: one for each core
  bool overwrite = false;     ///< throw away shards of other settings or other input
  bool wait = false;          ///< for another process that writes the same folder, rather than to refuse
  bool check_sources = true;  ///< when the shards are complete: read the input again and compare checksums
  std::function<void(const ShardProgress&)> on_progress;  ///< called after each block, from the calling thread
};

struct ShardSummary {
  bool was_complete = false;  ///< nothing was left to do
  bool resumed = false;       ///< some shards were there from an earlier run
  uint64_t bytes = 0;         ///< of the input
  uint64_t tokens = 0, documents = 0;
  uint64_t skipped = 0, replaced = 0, empty = 0;  ///< lines
  std::vector<ShardInfo> train, validation;
  TokenType type = TokenType::uint16;
};

/// For on_progress: a line on stderr every few seconds, with the share done, the speed and the time left.
std::function<void(const ShardProgress&)> progress_lines(double seconds = 5);

/// Encodes the text behind `inputs` (see find_text_files) into `folder`. A run that was killed goes on behind its last
/// finished shard when it is started again with the same arguments; the files come out the same as without the kill.
/// Throws Error(data) for bad input, for shards of other settings (unless `overwrite`), and for a tokenizer without eos
/// while `append_eos`; Error(file) for disk trouble, or when another process writes the folder.
ShardSummary write_shards(const std::vector<std::string>& inputs, const text::Tokenizer& tokenizer,
                          const std::string& tokenizer_path, const fs::path& folder, const ShardOptions& options);

}  // namespace llmtk::data
