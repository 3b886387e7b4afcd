#pragma once
// Streams documents out of text files of any size: one thread cuts blocks, any number of threads parse them.

#include <cstddef>
#include <cstdint>
#include <exception>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "data/files.h"

namespace llmtk::data {

/// What to do with a line that is broken: not a JSON object, without the text field, or not UTF-8.
enum class BadLine {
  stop,     ///< an error that names file and line
  skip,     ///< leave the line out, count it, name the first ones
  replace,  ///< U+FFFD for what is not UTF-8; a line that cannot be mended so is left out, as by skip
};
/// "stop", "skip", "replace"; throws Error(usage).
BadLine parse_bad_line(std::string_view name);
std::string to_string(BadLine policy);

/// What one document of a plain text file is.
enum class DocumentUnit {
  file,        ///< the whole file, unchanged but for CRLF -> LF
  line,        ///< each line that is not blank, without its end
  blank_line,  ///< paragraphs: what stands between blank lines
};
/// "file", "line", "blank_line"; throws Error(usage).
DocumentUnit parse_document_unit(std::string_view name);
std::string to_string(DocumentUnit unit);

struct ReadOptions {
  std::string text_field = "text";             ///< the key of a JSON row, or the column of a table, that holds the text
  DocumentUnit document = DocumentUnit::file;  ///< for plain text files
  BadLine on_bad_line = BadLine::stop;
  bool keep_empty = false;  ///< rows, lines and files without text are documents too
  /// A longer line of JSON lines is a bad line; a longer value of a .json file or record of a table, whose end cannot
  /// be told, an error. It bounds the memory; plain text has no such limit.
  size_t max_line_bytes = 64u << 20;
  size_t block_bytes = 1u << 20;  ///< how much one block holds about
  /// A document longer than this is read in pieces, cut at a line end where there is one.
  size_t piece_bytes = 4u << 20;
};

/// A place between two blocks.
struct ReadPosition {
  size_t file = 0;
  uint64_t offset = 0;                      ///< in bytes
  uint64_t line = 1;                        ///< of the byte at `offset`
  bool in_document = false;                 ///< the next block goes on with a document
  bool mid_line = false;                    ///< ... in the middle of a line
  std::string checksum = Checksum().hex();  ///< of the file's first `offset` bytes
};

/// Some whole lines (or JSON objects, or a piece of one long document), not yet looked at.
struct Block {
  ReadPosition begin, end;  ///< `end` is where the next block begins: after a file's last, the next file's start
  std::string bytes;
  bool open = false;          ///< the last document goes on in the next block
  std::string file_checksum;  ///< of the whole file, in its last block; else empty
  std::string header;         ///< of a table: its first record, without a byte order mark
  uint64_t too_long = 0;      ///< lines over max_line_bytes that were passed over before this block
};

/// Cuts files into blocks: constant memory, as fast as the disk.
class BlockReader {
 public:
  BlockReader(std::vector<SourceFile> files, ReadOptions options);
  ~BlockReader();
  BlockReader(const BlockReader&) = delete;
  BlockReader& operator=(const BlockReader&) = delete;

  /// False after the last file. Throws Error(file) for a file that cannot be read and Error(data) for a line that is
  /// too long (when the policy is stop).
  bool next(Block& block);
  /// Goes on from `position` (its checksum is read again and compared). Throws Error(data) when the file has changed.
  void seek(const ReadPosition& position);

  const std::vector<SourceFile>& files() const { return files_; }

 private:
  void open_file();
  void close_file();
  bool fill(size_t size);  // buffer_ holds `size` bytes, or the file has ended (false)
  size_t find_cut(bool& open);
  size_t find_cut_json();
  size_t find_cut_table(char delimiter);
  void read_header();
  [[noreturn]] void stop_at_record(size_t begin, const char* what, const std::string& expected) const;
  void drop_long_line(Block& block);
  void advance(size_t bytes);  // over the first bytes of buffer_

  std::vector<SourceFile> files_;
  ReadOptions options_;
  ReadPosition at_;
  Checksum checksum_;  // of the bytes before at_
  int fd_ = -1;
  bool ended_ = false;  // the file has no more bytes than those in buffer_
  std::string buffer_;  // read, not yet given out
  std::string header_;  // of the table that is open
};

struct Document {
  std::string text;
  uint64_t line = 0;  ///< where it begins; of plain text alone
};

/// The documents of one block.
struct ParsedBlock {
  std::vector<Document> documents;
  bool continues = false;               ///< the first document is the rest of one that an earlier block began
  bool open = false;                    ///< the last document goes on in the next block
  uint64_t skipped = 0;                 ///< lines left out
  uint64_t replaced = 0;                ///< lines with U+FFFD put in
  uint64_t empty = 0;                   ///< rows whose text is empty: no document
  std::vector<std::string> complaints;  ///< the first few, "file:line: what"
};

/// Pure; may run on any thread. Throws Error(data) naming file and line when the policy is stop.
ParsedBlock parse_block(const Block& block, const SourceFile& file, const ReadOptions& options);

/// A row with all its fields: an object of JSON lines or of a .json file; of a table, an object of texts by the
/// columns' names; of plain text, {"text": ...} for each document.
struct JsonRow {
  nlohmann::ordered_json json;
  uint64_t line = 0;
};

/// The rows of one block.
struct ParsedRows {
  std::vector<JsonRow> rows;
  uint64_t skipped = 0, replaced = 0;   ///< as ParsedBlock's
  std::vector<std::string> complaints;  ///< as ParsedBlock's
  std::exception_ptr error;             ///< Error(data) of what stopped the reading behind the last of `rows`
};

/// As parse_block, with all fields; options.text_field is not looked at.
ParsedRows parse_rows(const Block& block, const SourceFile& file, const ReadOptions& options);

}  // namespace llmtk::data
