#include "embed_input.h"

#include <unistd.h>

#include <deque>
#include <iostream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "core/utf8.h"
#include "data/files.h"
#include "text/unicode.h"

namespace llmtk {
namespace {

bool is_blank(const std::string& text) { return text.find_first_not_of(" \t\r\n") == std::string::npos; }

/// What the kinds of input do alike: texts that cannot be used.
class CheckedInput : public TextInput {
 public:
  explicit CheckedInput(data::BadLine on_bad_line) : on_bad_line_(on_bad_line) {}
  void finish() const override { report_.finish(); }

 protected:
  /// False: the text is left out. May mend it.
  bool usable(InputText& input) {
    if (is_blank(input.text)) return bad({.what = "an empty text", .where = input.where});
    const size_t at = find_invalid_utf8(input.text);
    if (at == std::string::npos) return true;
    if (on_bad_line_ != data::BadLine::replace)
      return bad({.what = "not UTF-8: an invalid byte at offset " + std::to_string(at), .where = input.where});
    input.text = text::replace_invalid_utf8(input.text);
    data::ParsedBlock mended;
    mended.replaced = 1;
    report_.add(mended);
    return true;
  }

  bool bad(Error::Parts parts) {
    if (on_bad_line_ == data::BadLine::stop) parts.hint = "--bad-lines skip leaves such texts out";
    const Error error(Exit::data, std::move(parts));
    if (on_bad_line_ == data::BadLine::stop) throw error;
    data::ParsedBlock left_out;
    left_out.skipped = 1;
    left_out.complaints = {error.what()};
    report_.add(left_out);
    return false;
  }

  BadLineReport report_;

 private:
  data::BadLine on_bad_line_;
};

class ArgumentInput final : public CheckedInput {
 public:
  ArgumentInput(std::vector<std::string> texts, data::BadLine on_bad_line)
      : CheckedInput(on_bad_line), texts_(std::move(texts)) {}

  std::optional<InputText> next() override {
    while (at_ < texts_.size()) {
      InputText input{texts_[at_], "--text " + std::to_string(at_ + 1)};
      ++at_;
      if (usable(input)) return input;
    }
    return std::nullopt;
  }

 private:
  std::vector<std::string> texts_;
  size_t at_ = 0;
};

class FileInput final : public CheckedInput {
 public:
  FileInput(const std::vector<std::string>& files, const data::ReadOptions& read)
      : CheckedInput(read.on_bad_line), read_(read), reader_(data::find_text_files(files), read) {}

  std::optional<InputText> next() override {
    for (;;) {
      while (!ready_.empty()) {
        InputText input = std::move(ready_.front());
        ready_.pop_front();
        if (usable(input)) return input;
      }
      data::Block block;
      if (!reader_.next(block)) return std::nullopt;
      take(block);
    }
  }

 private:
  void take(const data::Block& block) {
    const data::SourceFile& file = reader_.files()[block.begin.file];
    if (block.begin.file != file_) file_ = block.begin.file, number_ = 0;
    data::ReadOptions read = read_;
    read.keep_empty = file.kind != data::FileKind::text;  // a row without text is a mistake, a blank line is none
    data::ParsedBlock parsed = data::parse_block(block, file, read);
    const char* unit = file.kind == data::FileKind::text ? ", text " : ", row ";
    for (size_t i = 0; i < parsed.documents.size(); ++i) {
      const bool begins = i > 0 || !parsed.continues, ends = i + 1 < parsed.documents.size() || !parsed.open;
      if (!begins && open_.empty() && parsed.documents[i].text.empty()) continue;  // its beginning was left out
      open_ += parsed.documents[i].text;
      if (!ends) continue;
      ready_.push_back({std::exchange(open_, {}), file.path.string() + unit + std::to_string(++number_)});
    }
    parsed.documents.clear();
    report_.add(parsed);
  }

  data::ReadOptions read_;
  data::BlockReader reader_;
  size_t file_ = 0;
  uint64_t number_ = 0;  // of texts of this file
  std::string open_;     // of a text that the next block goes on with
  std::deque<InputText> ready_;
};

/// A line is a text, or a row of JSON where it begins with {.
class LineInput final : public CheckedInput {
 public:
  LineInput(data::BadLine on_bad_line, std::string text_field)
      : CheckedInput(on_bad_line), text_field_(std::move(text_field)) {
    if (::isatty(STDIN_FILENO)) log::info("reading texts, one a line, from standard input; end with Ctrl-D");
  }

  std::optional<InputText> next() override {
    for (std::string line; std::getline(std::cin, line);) {
      InputText input{.where = "standard input:" + std::to_string(++number_)};
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (is_blank(line)) continue;
      if (!line.starts_with('{'))
        input.text = std::move(line);
      else if (!read_row(line, input))
        continue;
      if (usable(input)) return input;
    }
    return std::nullopt;
  }

 private:
  bool read_row(const std::string& line, InputText& input) {
    const auto row = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (row.is_object() && row.contains(text_field_) && row[text_field_].is_string()) {
      input.text = row[text_field_].get<std::string>();
      return true;
    }
    return bad({.what = "a row without a text",
                .where = input.where,
                .got = row.is_discarded() ? "not JSON" : std::string(cut_to_width(line, 60)),
                .expected = "{\"" + text_field_ + "\": \"...\"}"});
  }

  std::string text_field_;
  uint64_t number_ = 0;
};

}  // namespace

std::unique_ptr<TextInput> open_input(const EmbedInputOptions& options) {
  const data::ReadOptions read = options.read.options();
  if (!options.texts.empty()) return std::make_unique<ArgumentInput>(options.texts, read.on_bad_line);
  if (!options.files.empty()) return std::make_unique<FileInput>(options.files, read);
  return std::make_unique<LineInput>(read.on_bad_line, read.text_field);
}

}  // namespace llmtk
