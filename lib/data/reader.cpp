#include "data/reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "data/csv.h"
#include "data/scan.h"

namespace llmtk::data {
namespace {

/// Where a long document may be cut so that tokenizers see the least of it: between "x\n" and "y", after another line
/// end (not before what may be a blank line, where those count), before a space, or at least not inside a character.
size_t soft_cut(std::string_view text, bool blank_lines_count) {
  size_t newline = kNone;
  for (size_t i = text.size() - 1; i > text.size() / 2; --i) {
    if (text[i - 1] != '\n') continue;
    if (newline == kNone && !blank_lines_count) newline = i;
    const size_t last = i >= 3 && text[i - 2] == '\r' ? i - 3 : i - 2;  // of the line before
    if (i >= 2 && !is_space(text[last]) && !is_space(text[i])) return i;
  }
  if (newline != kNone) return newline;
  for (size_t i = text.size() - 1; i > text.size() / 2; --i)
    if (text[i] == ' ' && !is_space(text[i - 1])) return i;
  size_t cut = text.size() - 1;
  while (cut > text.size() - 4 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;
  if (text[cut] == '\n' && text[cut - 1] == '\r') --cut;
  return cut;
}

/// The end of the last blank line: paragraphs before it are whole. npos where there is none. With `mid_line` the text
/// begins inside a line, whose rest is no blank line.
size_t last_paragraph_end(std::string_view text, bool mid_line) {
  size_t end = text.rfind('\n');
  while (end != kNone && end > 0) {
    const size_t before = text.rfind('\n', end - 1);
    const size_t start = before == kNone ? 0 : before + 1;
    if (is_blank(text.substr(start, end - start)) && !(start == 0 && mid_line)) return end + 1;
    end = before;
  }
  return kNone;
}

template <class Enum, size_t N>
Enum parse_choice(std::string_view name, const char* what, const std::pair<const char*, Enum> (&choices)[N]) {
  std::string expected;
  for (const auto& [text, value] : choices) {
    if (name == text) return value;
    expected += (expected.empty() ? "" : ", ") + std::string(text);
  }
  throw Error(Exit::usage,
              {.what = std::string("unknown ") + what, .got = "'" + std::string(name) + "'", .expected = expected});
}

constexpr std::pair<const char*, BadLine> kBadLines[] = {
    {"stop", BadLine::stop}, {"skip", BadLine::skip}, {"replace", BadLine::replace}};
constexpr std::pair<const char*, DocumentUnit> kUnits[] = {
    {"file", DocumentUnit::file}, {"line", DocumentUnit::line}, {"blank_line", DocumentUnit::blank_line}};

}  // namespace

BadLine parse_bad_line(std::string_view name) { return parse_choice(name, "way to handle bad lines", kBadLines); }
std::string to_string(BadLine policy) { return kBadLines[static_cast<int>(policy)].first; }
DocumentUnit parse_document_unit(std::string_view name) { return parse_choice(name, "document unit", kUnits); }
std::string to_string(DocumentUnit unit) { return kUnits[static_cast<int>(unit)].first; }

// --- BlockReader ---

BlockReader::BlockReader(std::vector<SourceFile> files, ReadOptions options)
    : files_(std::move(files)), options_(std::move(options)) {
  LLMTK_CHECK(options_.block_bytes >= 16 && options_.piece_bytes >= 16);
}

BlockReader::~BlockReader() { close_file(); }

void BlockReader::open_file() {
  const auto& path = files_[at_.file].path;
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0)
    throw Error(Exit::file, {.what = std::string("cannot open: ") + std::strerror(errno), .where = path.string()});
  ::posix_fadvise(fd_, 0, 0, POSIX_FADV_SEQUENTIAL);
  ended_ = false;
  buffer_.clear();
  read_header();
}

void BlockReader::read_header() {
  header_.clear();
  const char delimiter = delimiter_of(files_[at_.file].kind);
  if (!delimiter) return;
  fill(kByteOrderMark.size());
  const size_t begin = buffer_.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0;
  CsvScanner scanner(delimiter);
  for (size_t i = begin; i < options_.max_line_bytes && fill(i + 1); ++i)
    if (scanner.eat(buffer_[i])) {
      header_ = buffer_.substr(begin, i + 1 - begin);
      return;
    }
  if (!ended_)
    throw Error(Exit::data, {.what = "the first line, which names the columns, is too long",
                             .where = place(files_[at_.file], 1),
                             .expected = "at most " + std::to_string(options_.max_line_bytes) + " bytes",
                             .hint = "is a quotation mark missing?"});
  header_ = buffer_.substr(begin);
}

void BlockReader::close_file() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

bool BlockReader::fill(size_t size) {
  while (!ended_ && buffer_.size() < size) {
    const size_t have = buffer_.size();
    buffer_.resize(std::max(size, have + (64u << 10)));
    const ssize_t n = ::read(fd_, buffer_.data() + have, buffer_.size() - have);
    buffer_.resize(have + (n > 0 ? static_cast<size_t>(n) : 0));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      throw Error(Exit::file, {.what = std::string("cannot read: ") + std::strerror(errno),
                               .where = place(files_[at_.file], at_.line)});
    ended_ = n == 0;
  }
  return buffer_.size() >= size;
}

// How many bytes of buffer_ (filled as needed) make the next block; 0 when a line is too long.
size_t BlockReader::find_cut(bool& open) {
  open = false;
  const FileKind kind = files_[at_.file].kind;
  if (kind == FileKind::json) return find_cut_json();
  if (const char delimiter = delimiter_of(kind)) return find_cut_table(delimiter);
  const bool whole = kind == FileKind::text && options_.document == DocumentUnit::file;
  const size_t limit = kind == FileKind::jsonl ? options_.max_line_bytes : options_.piece_bytes;
  for (size_t size = whole ? limit : std::min(options_.block_bytes, limit);; size = std::min(2 * size, limit)) {
    // One byte more tells "exactly this long" from "longer".
    if (!fill(size + 1)) return buffer_.size();
    const std::string_view text(buffer_.data(), size);
    if (!whole) {
      const bool paragraphs = kind == FileKind::text && options_.document == DocumentUnit::blank_line;
      const size_t newline = text.rfind('\n');
      const size_t cut = paragraphs ? last_paragraph_end(text, at_.mid_line) : newline == kNone ? kNone : newline + 1;
      if (cut != kNone) return cut;
    }
    if (size < limit) continue;
    if (kind == FileKind::jsonl) return 0;
    open = true;
    return soft_cut(text, kind == FileKind::text && options_.document == DocumentUnit::blank_line);
  }
}

size_t BlockReader::find_cut_json() {
  JsonScanner scanner;
  size_t last = 0;
  for (size_t i = 0;; ++i) {
    if (i == buffer_.size() && !fill(i + 1)) return buffer_.size();
    if (scanner.eat(buffer_[i])) last = i + 1;
    if (i + 1 >= options_.block_bytes && last > 0) return last;
    if (i + 1 - last > options_.max_line_bytes && scanner.inside())
      throw Error(
          Exit::data,
          {.what = "a JSON value is too long",
           .where = place(files_[at_.file], at_.line + std::count(buffer_.begin(), buffer_.begin() + last, '\n')),
           .expected = "at most " + std::to_string(options_.max_line_bytes) + " bytes",
           .hint = "is a bracket or a quotation mark missing? Otherwise raise the limit on the length of a line"});
    // Only spaces so far: give them out, so that padding cannot fill the memory.
    if (i + 1 >= options_.block_bytes && !scanner.inside()) return i + 1;
  }
}

size_t BlockReader::find_cut_table(char delimiter) {
  CsvScanner scanner(delimiter);
  size_t last = 0;
  // A byte order mark does not keep the first field from beginning with a quote.
  const bool marked = at_.offset == 0 && fill(kByteOrderMark.size()) && buffer_.starts_with(kByteOrderMark);
  for (size_t i = marked ? kByteOrderMark.size() : 0;; ++i) {
    if (i == buffer_.size() && !fill(i + 1)) {
      if (scanner.in_quotes()) stop_at_record(last, "a quoted field is not closed", "the closing quotation mark");
      return buffer_.size();
    }
    if (scanner.eat(buffer_[i])) last = i + 1;
    if (last > 0 && i + 1 >= options_.block_bytes) return last;
    if (i + 1 - last > options_.max_line_bytes)
      stop_at_record(last, "a record is too long", "at most " + std::to_string(options_.max_line_bytes) + " bytes");
  }
}

// Where such a record ends cannot be told, so nothing behind it can be read either.
void BlockReader::stop_at_record(size_t begin, const char* what, const std::string& expected) const {
  const auto before = std::count(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(begin), '\n');
  throw Error(Exit::data, {.what = what,
                           .where = place(files_[at_.file], at_.line + static_cast<uint64_t>(before)),
                           .expected = expected,
                           .hint = "is a quotation mark missing, or one too many?"});
}

void BlockReader::drop_long_line(Block& block) {
  if (options_.on_bad_line == BadLine::stop)
    throw Error(Exit::data, {.what = "the line is too long",
                             .where = place(files_[at_.file], at_.line),
                             .expected = "at most " + std::to_string(options_.max_line_bytes) + " bytes",
                             .hint = kOtherwise});
  ++block.too_long;
  while (true) {
    const size_t newline = buffer_.find('\n');
    const size_t drop = newline == kNone ? buffer_.size() : newline + 1;
    advance(drop);
    if (newline != kNone) break;
    if (!fill(options_.block_bytes) && buffer_.empty()) break;
  }
  ++at_.line;
}

bool BlockReader::next(Block& block) {
  if (at_.file >= files_.size()) return false;
  if (fd_ < 0) open_file();
  block = Block();
  size_t cut;
  while ((cut = find_cut(block.open)) == 0 && !(ended_ && buffer_.empty())) drop_long_line(block);
  at_.checksum = checksum_.hex();
  block.begin = at_;
  block.bytes.assign(buffer_, 0, cut);
  block.header = header_;
  advance(cut);
  at_.line += static_cast<uint64_t>(std::count(block.bytes.begin(), block.bytes.end(), '\n'));
  at_.in_document = block.open;
  at_.mid_line = block.open && !block.bytes.ends_with('\n');
  at_.checksum = checksum_.hex();
  if (ended_ && buffer_.empty()) {
    block.file_checksum = at_.checksum;
    close_file();
    checksum_ = Checksum();
    at_ = {.file = at_.file + 1};
  }
  block.end = at_;
  return true;
}

void BlockReader::advance(size_t bytes) {
  checksum_.update(std::as_bytes(std::span(buffer_.data(), bytes)));
  at_.offset += bytes;
  buffer_.erase(0, bytes);
}

void BlockReader::seek(const ReadPosition& position) {
  close_file();
  at_ = {.file = position.file};
  checksum_ = Checksum();
  if (position.file >= files_.size()) return;
  open_file();
  while (at_.offset < position.offset && fill(1)) {
    advance(std::min<uint64_t>(buffer_.size(), position.offset - at_.offset));
    if (at_.offset < position.offset) fill(options_.block_bytes);
  }
  if (at_.offset != position.offset || checksum_.hex() != position.checksum)
    throw Error(Exit::data, {.what = "the file has changed since the work on it began",
                             .where = files_[position.file].path.string(),
                             .hint = "start again with --overwrite, or into another folder"});
  at_ = position;
}

}  // namespace llmtk::data
