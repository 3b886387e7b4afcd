#pragma once
// All rows of some files, read by one thread, worked on by several, in order; and what a fine-tuning config says of
// them.

#include <atomic>
#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "core/error.h"
#include "data/finetuning.h"
#include "data/ordered_map.h"
#include "data/reader.h"
#include "data/row_encoder.h"
#include "data/scan.h"
#include "data/schema.h"

namespace llmtk::data {

/// How the rows of a source are read.
ReadOptions row_options(const FinetuneSourceConfig& source, const std::string& on_bad_line);
/// Threads that tokenize.
int row_threads(const FinetuneDataConfig& config);
/// What the rows of a source are: as it says, or as its first row does. Throws Error(usage) for a format that the
/// objective does not take, Error(data) for a row of none.
Format format_of(const FinetuneSourceConfig& source, Objective objective, const Fields& first);

/// What the rows of data.train say, labels and tags aside, source by source: each source's first max_samples rows.
/// Throws what opening the data would throw of rows, and Error(usage) for rows that are tokenized already.
std::vector<std::string> texts_of_rows(const FinetuneDataConfig& config, Objective objective);

/// Bad rows of a reading.
struct BadRows {
  uint64_t skipped = 0, replaced = 0;
  std::vector<std::string> complaints;  ///< the first ones
};

/// Gives each row to `work` (any thread) and what it made of it to `take` (this one, in order), until all are read or
/// `take` says that it has enough. What is wrong with rows behind that is not looked at, so the outcome does not depend
/// on the threads. Errors of a row are data.on_bad_line's.
template <class Out>
BadRows read_rows(const std::vector<SourceFile>& files, const ReadOptions& options, int threads,
                  const std::function<Out(JsonRow& row, size_t file, const std::string& where)>& work,
                  const std::function<bool(Out& out)>& take) {
  struct In {
    Block block;
    std::exception_ptr error;
  };
  struct Chunk {
    std::vector<Out> rows;
    BadRows bad;
    std::exception_ptr error;
  };
  BlockReader reader(files, options);
  std::atomic<bool> enough = false, failed = false;
  const auto read = [&](In& in) {
    if (enough || failed) return false;
    try {
      return reader.next(in.block);
    } catch (...) {
      failed = true;
      in.error = std::current_exception();
      return true;
    }
  };
  const auto parse = [&](const In& in) {
    Chunk chunk{.error = in.error};
    if (in.error || enough) return chunk;
    const size_t number = in.block.begin.file;
    const SourceFile& file = files[number];
    ParsedRows parsed = parse_rows(in.block, file, options);
    chunk.error = parsed.error;
    chunk.bad = {parsed.skipped, parsed.replaced, std::move(parsed.complaints)};
    for (JsonRow& row : parsed.rows) {
      try {
        chunk.rows.push_back(work(row, number, place(file, row.line)));
      } catch (const TooLong&) {
        chunk.error = std::current_exception();
        break;
      } catch (const Error& error) {
        if (options.on_bad_line == BadLine::stop || error.exit() != Exit::data) {
          chunk.error = std::current_exception();
          break;
        }
        ++chunk.bad.skipped;
        chunk.bad.complaints.emplace_back(error.what());
      }
    }
    return chunk;
  };
  BadRows bad;
  const auto write = [&](Chunk& chunk) {
    if (enough) return;
    for (Out& row : chunk.rows)
      if (!take(row)) {
        enough = true;
        return;
      }
    bad.skipped += chunk.bad.skipped;
    bad.replaced += chunk.bad.replaced;
    for (auto& complaint : chunk.bad.complaints)
      if (bad.complaints.size() < 5) bad.complaints.push_back(std::move(complaint));
    if (chunk.error) std::rethrow_exception(chunk.error);
  };
  ordered_map<In, Chunk>(threads, read, parse, write);
  return bad;
}

}  // namespace llmtk::data
