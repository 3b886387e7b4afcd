#include "data/reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"
#include "core/utf8.h"
#include "text/unicode.h"

namespace llmtk::data {
namespace {

using nlohmann::json;

constexpr size_t kNone = std::string_view::npos;
constexpr size_t kComplaints = 5;  // per block; enough to see what is wrong
constexpr const char* kOtherwise = "bad lines can be skipped or replaced: --bad-lines, in a config data.on_bad_line";

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r\v\f") == kNone; }
bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

std::string place(const SourceFile& file, uint64_t line) { return file.path.string() + ":" + std::to_string(line); }

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

/// Finds the ends of the top-level values of a stream of JSON, `[` and `,` between them left aside.
class JsonScanner {
 public:
  /// Eats one byte; true when it ends a value.
  bool eat(char c) {
    if (in_string_) {
      if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '"') {
        in_string_ = false;
        return depth_ == 0;
      }
      return false;
    }
    if (depth_ == 0) {
      if (is_space(c) || c == ',' || c == '[' || c == ']') return std::exchange(bare_, false);
      if (c == '"') in_string_ = true;
      if (c == '{') depth_ = 1;
      bare_ = c != '"' && c != '{';
      return false;
    }
    if (c == '"') in_string_ = true;
    if (c == '{' || c == '[') ++depth_;
    if (c == '}' || c == ']') --depth_;
    return depth_ == 0;
  }
  bool inside() const { return depth_ > 0 || in_string_ || bare_; }

 private:
  int depth_ = 0;
  bool in_string_ = false, escaped_ = false, bare_ = false;
};

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

// --- parse_block ---

namespace {

class Parser {
 public:
  Parser(const Block& block, const SourceFile& file, const ReadOptions& options)
      : block_(block), file_(file), options_(options) {}

  ParsedBlock run() {
    std::string_view bytes = block_.bytes;
    if (block_.begin.offset == 0) {
      if (bytes.starts_with("\xFF\xFE") || bytes.starts_with("\xFE\xFF"))
        throw Error(Exit::data, {.what = "the file is UTF-16",
                                 .where = file_.path.string(),
                                 .expected = "UTF-8",
                                 .hint = "convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW"});
      if (bytes.starts_with("\xEF\xBB\xBF")) bytes.remove_prefix(3);
    }
    if (block_.too_long > 0) {
      out_.skipped += block_.too_long;
      complain(block_.begin.line - 1, "the line is longer than " + std::to_string(options_.max_line_bytes) + " bytes");
    }
    out_.continues = block_.begin.in_document;
    out_.open = block_.open;
    if (file_.kind == FileKind::jsonl) parse_lines(bytes);
    if (file_.kind == FileKind::json) parse_values(bytes);
    if (file_.kind == FileKind::text) parse_text(bytes);
    return std::move(out_);
  }

 private:
  void complain(uint64_t line, const std::string& what) {
    if (out_.complaints.size() < kComplaints) out_.complaints.push_back(place(file_, line) + ": " + what);
  }

  /// A line that cannot be used: an error, or left out and counted.
  void bad(uint64_t line, Error::Parts parts) {
    parts.where = place(file_, line);
    if (options_.on_bad_line == BadLine::stop && parts.hint.empty()) parts.hint = kOtherwise;
    const Error error(Exit::data, std::move(parts));
    if (options_.on_bad_line == BadLine::stop) throw error;
    ++out_.skipped;
    if (out_.complaints.size() < kComplaints) out_.complaints.push_back(error.what());
  }

  /// Text that is UTF-8, mended if need be in `mended`; false when the line is left out.
  bool check_utf8(std::string_view& text, std::string& mended, uint64_t line) {
    const size_t at = find_invalid_utf8(text);
    if (at == kNone) return true;
    char byte[8];
    std::snprintf(byte, sizeof byte, "0x%02X", static_cast<unsigned char>(text[at]));
    if (options_.on_bad_line != BadLine::replace) {
      bad(line, {.what = "not UTF-8: byte " + std::string(byte) + " at byte " + std::to_string(at + 1) + " of the line",
                 .hint = options_.on_bad_line == BadLine::stop
                             ? std::string("is it another encoding? iconv -f GB18030 -t UTF-8 FILE > NEW converts; ") +
                                   kOtherwise
                             : ""});
      return false;
    }
    ++out_.replaced;
    complain(line, "not UTF-8: byte " + std::string(byte) + " replaced by U+FFFD");
    mended = text::replace_invalid_utf8(text);
    text = mended;
    return true;
  }

  void add_row(std::string_view text, uint64_t line) {
    std::string mended;
    if (!check_utf8(text, mended, line)) return;
    json row;
    try {
      row = json::parse(text);
    } catch (const json::exception& e) {
      const std::string message = e.what();
      const size_t column = message.find("column ");
      return bad(line, {.what = "not JSON: " + (column == kNone ? message : message.substr(column))});
    }
    if (!row.is_object())
      return bad(
          line,
          {.what = "not a JSON object", .got = row.type_name(), .expected = "{\"" + options_.text_field + "\": ...}"});
    const auto field = row.find(options_.text_field);
    if (field == row.end()) {
      std::string keys;
      for (const auto& [key, value] : row.items()) keys += (keys.empty() ? "'" : ", '") + key + "'";
      return bad(line, {.what = "the row has no field '" + options_.text_field + "'",
                        .got = keys.empty() ? "{}" : keys,
                        .hint = "--text-field, in a config text_field, names the field that holds the text"});
    }
    if (!field->is_string())
      return bad(line,
                 {.what = "field '" + options_.text_field + "'", .got = field->type_name(), .expected = "a string"});
    auto& value = field->get_ref<std::string&>();
    if (value.empty() && !options_.keep_empty) {
      ++out_.empty;
    } else {
      out_.documents.push_back({std::move(value)});
    }
  }

  void parse_lines(std::string_view bytes) {
    uint64_t line = block_.begin.line;
    for (size_t i = 0; i < bytes.size(); ++line) {
      const size_t end = std::min(bytes.find('\n', i), bytes.size());
      const std::string_view text = bytes.substr(i, end - i);
      if (!is_blank(text)) add_row(text, line);
      i = end + 1;
    }
  }

  void parse_values(std::string_view bytes) {
    JsonScanner scanner;
    uint64_t line = block_.begin.line;
    size_t start = kNone;
    uint64_t start_line = line;
    for (size_t i = 0; i < bytes.size(); ++i) {
      const bool ended = scanner.eat(bytes[i]);
      if (start == kNone && scanner.inside()) {
        start = i;
        start_line = line;
      }
      if (ended) {
        const bool closed = bytes[start] == '{' || bytes[start] == '"';  // else bytes[i] is what follows the value
        add_row(bytes.substr(start, i + closed - start), start_line);
        start = kNone;
      }
      if (bytes[i] == '\n') ++line;
    }
    if (start != kNone) add_row(bytes.substr(start), start_line);
  }

  /// The lines of a text that are UTF-8 or could be mended, CRLF turned to LF.
  std::string clean_lines(std::string_view bytes) {
    std::string out;
    out.reserve(bytes.size());
    const bool well_formed = find_invalid_utf8(bytes) == kNone;
    uint64_t line = block_.begin.line;
    for (size_t i = 0; i < bytes.size(); ++line) {
      const size_t newline = bytes.find('\n', i);
      const size_t end = newline == kNone ? bytes.size() : newline;
      std::string_view text = bytes.substr(i, end - i);
      i = end + 1;
      if (newline != kNone && text.ends_with('\r')) text.remove_suffix(1);
      std::string mended;
      if (!well_formed && !check_utf8(text, mended, line)) continue;
      out += text;
      if (newline != kNone) out += '\n';
    }
    return out;
  }

  void parse_text(std::string_view bytes) {
    std::string cleaned;
    if (bytes.find('\r') != kNone || find_invalid_utf8(bytes) != kNone) {
      cleaned = clean_lines(bytes);
      bytes = cleaned;
    }
    switch (options_.document) {
      case DocumentUnit::file:
        if (!bytes.empty() || out_.continues || options_.keep_empty) out_.documents.push_back({std::string(bytes)});
        break;
      case DocumentUnit::line:
        split_lines(bytes);
        break;
      case DocumentUnit::blank_line:
        split_paragraphs(bytes);
        break;
    }
  }

  void split_lines(std::string_view bytes) {
    bool first = out_.continues;  // the rest of a long line may well be empty, and still ends its document
    for (size_t i = 0; i < bytes.size() || first;) {
      const size_t end = std::min(bytes.find('\n', i), bytes.size());
      const std::string_view text = bytes.substr(i, end - i);
      if (first || options_.keep_empty || !is_blank(text)) out_.documents.push_back({std::string(text)});
      first = false;
      i = end + 1;
    }
  }

  void split_paragraphs(std::string_view bytes) {
    std::string paragraph;
    bool any = out_.continues;
    bool mid_line = block_.begin.mid_line;  // then the first line is the rest of one, and not blank as a whole
    const auto finish = [&] {
      if (!any) return;
      if (paragraph.ends_with('\n')) paragraph.pop_back();
      out_.documents.push_back({std::move(paragraph)});
      paragraph.clear();
      any = false;
    };
    for (size_t i = 0; i < bytes.size();) {
      const size_t newline = bytes.find('\n', i);
      const size_t end = newline == kNone ? bytes.size() : newline + 1;
      const std::string_view line = bytes.substr(i, end - i);
      i = end;
      if (!std::exchange(mid_line, false) && is_blank(line.substr(0, line.size() - (newline != kNone)))) {
        finish();
        continue;
      }
      paragraph += line;
      any = true;
    }
    if (out_.open && any) {
      out_.documents.push_back({std::move(paragraph)});
    } else {
      finish();
      // The block ended on a blank line after all; nothing of the open document stands in it.
      if (out_.open) out_.open = false;
    }
  }

  const Block& block_;
  const SourceFile& file_;
  const ReadOptions& options_;
  ParsedBlock out_;
};

}  // namespace

ParsedBlock parse_block(const Block& block, const SourceFile& file, const ReadOptions& options) {
  return Parser(block, file, options).run();
}

}  // namespace llmtk::data
