#include "data/reader.h"

#include "core/utf8.h"
#include "stderr_of.h"
#include "support.h"
#include "text/unicode.h"

using namespace llmtk;
using namespace llmtk::data;
using test::error_of;
using test::says;

namespace {

struct Read {
  std::vector<std::string> documents;
  uint64_t skipped = 0, replaced = 0, empty = 0;
  std::vector<std::string> complaints;
};

Read read_all(const fs::path& path, const ReadOptions& options) {
  Read out;
  const auto files = find_text_files({path.string()});
  BlockReader reader(files, options);
  Block block;
  bool open = false;
  while (reader.next(block)) {
    const ParsedBlock parsed = parse_block(block, files[block.begin.file], options);
    for (size_t i = 0; i < parsed.documents.size(); ++i) {
      if (i == 0 && parsed.continues && open) {
        out.documents.back() += parsed.documents[i].text;
      } else {
        out.documents.push_back(parsed.documents[i].text);
      }
    }
    if (!parsed.documents.empty()) open = parsed.open;
    out.skipped += parsed.skipped;
    out.replaced += parsed.replaced;
    out.empty += parsed.empty;
    out.complaints.insert(out.complaints.end(), parsed.complaints.begin(), parsed.complaints.end());
  }
  return out;
}

using Documents = std::vector<std::string>;

}  // namespace

TEST_CASE("UTF-8 is checked as Unicode defines it") {
  for (const char* good : {"", "abc", "黃帝", "\xF0\x9F\x98\x80", "\xEF\xBF\xBD", "\xF4\x8F\xBF\xBF", "\xED\x9F\xBF"})
    CHECK(find_invalid_utf8(good) == std::string::npos);
  for (const char* bad : {"\x80", "\xC0\xAF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80",
                          "\xE9\xBB", "\xFF", "\xE9\xBB z"})
    CHECK(find_invalid_utf8(std::string("12345678黃") + bad) == 11);
  // One U+FFFD for each maximal part: what Python prints for b"...".decode(errors="replace").
  CHECK(text::replace_invalid_utf8("a\xE9\xBB黃\xC0\xAF\xF0\x9F\x98") ==
        "a\xEF\xBF\xBD黃\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST_CASE("a text file is one document, its lines, or its paragraphs") {
  test::TemporaryFolder folder;
  const auto path = folder / "a.txt";
  write_file_atomic(path, "\xEF\xBB\xBF一\r\nb\r\n \t\r\n\r\nc\r\n");
  CHECK(read_all(path, {}).documents == Documents{"一\nb\n \t\n\nc\n"});
  CHECK(read_all(path, {.document = DocumentUnit::line}).documents == Documents{"一", "b", "c"});
  CHECK(read_all(path, {.document = DocumentUnit::blank_line}).documents == Documents{"一\nb", "c"});
  write_file_atomic(path, "");
  CHECK(read_all(path, {}).documents.empty());
}

TEST_CASE("blocks of any size give the same documents") {
  test::TemporaryFolder folder;
  std::mt19937 random(1);
  for (const char* name : {"a.txt", "a.jsonl", "a.json", "a.csv"}) {
    const std::string kind = name;
    std::string content = kind == "a.csv" ? "text,id\n" : "";
    for (int i = 0; i < 60; ++i) {
      std::string text;
      for (const char c : test::random_text(random, random() % 300)) {
        const bool as_is = kind == "a.txt" || kind == "a.csv";
        if (c == '\n') text += as_is ? "\r" : "\\n";
        if (c != '\n' || as_is) text += c;
      }
      if (kind == "a.txt") content += text + std::string(random() % 3, '\n');
      if (kind == "a.jsonl") content += R"({"x": [1, {"y": "]}"}], "text": ")" + text + "\\\"\"}\n";
      if (kind == "a.csv") content += "\"" + text + "\"\"\"," + std::to_string(i) + "\r\n";
      if (kind == "a.json")
        content += (i ? ",\n" : "[") +
                   (R"({"x": [1, {"y": "]}"}],)"
                    "\n"
                    R"( "text": ")" +
                    text) +
                   "\\\"\"}";
    }
    if (kind == "a.json") content += "]";
    const auto path = folder / name;
    write_file_atomic(path, content);
    for (const auto unit : {DocumentUnit::file, DocumentUnit::line, DocumentUnit::blank_line}) {
      const Read whole = read_all(path, {.document = unit});
      CHECK(whole.documents.size() > (unit == DocumentUnit::file && name == std::string("a.txt") ? 0 : 10));
      for (const size_t block : {16, 57, 400, 5000})
        CHECK((read_all(path, {.document = unit, .block_bytes = block}).documents == whole.documents));
      // Documents in pieces: put together they are the same.
      for (const size_t piece : {16, 57, 400}) {
        INFO(name << to_string(unit) << piece);
        CHECK(
            (read_all(path, {.document = unit, .block_bytes = 16, .piece_bytes = piece}).documents == whole.documents));
      }
    }
  }
}

TEST_CASE("a table's column, whatever stands in the fields") {
  test::TemporaryFolder folder;
  const auto comma = folder / "表.csv", tab = folder / "b.tsv";
  write_file_atomic(comma,
                    "\xEF\xBB\xBF\"id\",text\r\n1,plain\r\n2,\"with, comma, \"\"quotes\"\" and\nlines\"\n\n"
                    "3,a \"bare\" quote\n4,\"\"\n5,\"黃,帝\"");
  write_file_atomic(tab, "text\tid\none, two\t1\n\"a\ttab\"\t2\n");
  const Documents expected = {"plain", "with, comma, \"quotes\" and\nlines", "a \"bare\" quote", "黃,帝"};
  for (const size_t block : {16u, 40u, 1u << 20}) {
    const Read read = read_all(comma, {.block_bytes = block});
    CHECK(read.documents == expected);
    CHECK(read.empty == 1);
    CHECK(read_all(tab, {.block_bytes = block}).documents == Documents{"one, two", "a\ttab"});
  }
  CHECK(read_all(comma, {.text_field = "id"}).documents == Documents{"1", "2", "3", "4", "5"});
  CHECK(read_all(comma, {.keep_empty = true}).documents.size() == 5);
}

TEST_CASE("a table's broken records are named by file and line") {
  test::TemporaryFolder folder;
  const auto path = folder / "壞.csv";
  const auto message = [&](const std::string& content, ReadOptions options = {}) {
    write_file_atomic(path, content);
    Exit exit = Exit::ok;
    const std::string text = error_of([&] { read_all(path, options); }, &exit);
    CHECK(exit == Exit::data);
    return text;
  };
  CHECK(says(message("id,body\n1,x\n"), "壞.csv:1: no column is named 'text': got 'id', 'body'"));
  CHECK(says(message("id,text\n1,x\n2\n"), "壞.csv:3: the number of fields: got 1, expected 2"));
  CHECK(says(message("id,text\n1,\"a\nb\"\n2,\"x\"y\n"), "壞.csv:4: text behind the closing quote"));
  CHECK(says(message("id,text\n1,\xFF\n"), "壞.csv:2: not UTF-8"));
  CHECK(says(message("id,text\n1,\"a\nbc\xFF\"\n"), "壞.csv:3: not UTF-8: byte 0xFF at byte 3 of the line"));
  // Where such a record ends cannot be told: what follows it is never taken for records.
  for (const auto policy : {BadLine::stop, BadLine::skip, BadLine::replace})
    for (const size_t block : {16u, 1u << 20}) {
      const ReadOptions options{.on_bad_line = policy, .max_line_bytes = 100, .block_bytes = block};
      CHECK(says(message("id,text\n0,\"a\nb\"\n1,\"never closed\n2,y\n", options),
                 "壞.csv:4: a quoted field is not closed"));
      CHECK(says(message("id,text\n0,\"a\nb\"\n1,\"" + std::string(500, 'x') + "\n2,y\"\n3,z\n", options),
                 "壞.csv:4: a record is too long: expected at most 100 bytes (is a quotation mark missing"));
      const std::string header = message("id,\xC4\xDA\xC8\xDD\n1,x\n", options);
      CHECK(says(header, "壞.csv:1: the first line, which names the columns, is not UTF-8"));
      CHECK(says(header, "iconv -f GB18030"));
    }
  write_file_atomic(path, "id,text\n1,a\n2\n3,\xFF\n4,b\n");
  const Read skip = read_all(path, {.on_bad_line = BadLine::skip});
  CHECK(skip.documents == Documents{"a", "b"});
  CHECK(skip.skipped == 2);
  CHECK(read_all(path, {.on_bad_line = BadLine::replace}).documents == Documents{"a", "\xEF\xBF\xBD", "b"});
}

TEST_CASE("a broken line is named by file and line and handled as asked") {
  test::TemporaryFolder folder;
  const auto path = folder / "壞.jsonl";
  write_file_atomic(
      path,
      "{\"text\": \"一\"}\r\n\n{\"text\": \"broken\n{\"txt\": \"x\", \"id\": 1}\n[1]\n{\"text\": 5}\n{\"text\": \"\"}\n"
      "{\"text\": \"黃\xE9\xBB\"}\n{\"text\": \"二\"}");
  for (const size_t block : {16u, 1u << 20}) {
    Exit exit = Exit::ok;
    const std::string message = error_of([&] { read_all(path, {.block_bytes = block}); }, &exit);
    CHECK(exit == Exit::data);
    CHECK(says(message, path.string() + ":3: not JSON"));

    const Read skip = read_all(path, {.on_bad_line = BadLine::skip, .block_bytes = block});
    CHECK(skip.documents == Documents{"一", "二"});
    CHECK(skip.skipped == 5);
    CHECK(skip.empty == 1);
    REQUIRE(skip.complaints.size() == 5);
    CHECK(says(skip.complaints[1], path.string() + ":4: the row has no field 'text': got 'id', 'txt'"));
    CHECK(says(skip.complaints[2], ":5: not a JSON object: got array"));
    CHECK(says(skip.complaints[3], ":6: field 'text': got number, expected a string"));
    CHECK(says(skip.complaints[4], ":8: not UTF-8: byte 0xE9 at byte 14 of the line"));

    const Read replace = read_all(path, {.on_bad_line = BadLine::replace, .block_bytes = block});
    CHECK(replace.documents == Documents{"一", "黃\xEF\xBF\xBD", "二"});
    CHECK(replace.skipped == 4);
    CHECK(replace.replaced == 1);
  }
}

TEST_CASE("invalid UTF-8 in a text file: stop, skip the line, replace") {
  test::TemporaryFolder folder;
  const auto path = folder / "a.txt";
  write_file_atomic(path, "黃帝\n鑄\xE9鼎\n於荆山\n");
  CHECK(says(error_of([&] { read_all(path, {}); }), "a.txt:2: not UTF-8: byte 0xE9 at byte 4 of the line"));
  CHECK(says(error_of([&] { read_all(path, {.block_bytes = 16, .piece_bytes = 16}); }), "a.txt:2: not UTF-8"));
  const Read skip = read_all(path, {.on_bad_line = BadLine::skip});
  CHECK(skip.documents == Documents{"黃帝\n於荆山\n"});
  CHECK(skip.skipped == 1);
  const Read replace = read_all(path, {.on_bad_line = BadLine::replace});
  CHECK(replace.documents == Documents{"黃帝\n鑄\xEF\xBF\xBD鼎\n於荆山\n"});
  CHECK(replace.replaced == 1);
  write_file_atomic(path, std::string("\xFF\xFEh\0i\0", 6));
  CHECK(says(error_of([&] { read_all(path, {}); }), "UTF-16"));
}

TEST_CASE("a JSON file: arrays, objects over several lines, a file that ends too soon") {
  test::TemporaryFolder folder;
  const auto path = folder / "a.json";
  write_file_atomic(path, "\xEF\xBB\xBF[\n {\"text\":\n  \"a]}\\\"\"},\n {\"text\": \"b\"}\n, 7, {\"text\": \"c\"");
  CHECK(says(error_of([&] { read_all(path, {}); }), "a.json:5: not a JSON object: got number"));
  const Read skip = read_all(path, {.on_bad_line = BadLine::skip});
  CHECK(skip.documents == Documents{"a]}\"", "b"});
  CHECK(skip.skipped == 2);
  CHECK(says(skip.complaints[1], "a.json:5: not JSON"));
  write_file_atomic(path, "[{\"id\": 1,\n \"text\": \"\xFF\"}]");
  CHECK(says(error_of([&] { read_all(path, {}); }), "a.json:2: not UTF-8: byte 0xFF at byte 11 of the line"));
  const Read mended = read_all(path, {.on_bad_line = BadLine::replace});
  CHECK(mended.documents == Documents{"\xEF\xBF\xBD"});
  CHECK(says(mended.complaints.at(0), "a.json:2: not UTF-8"));
}

TEST_CASE("lines of ten megabytes are read; longer than the limit is an error or left out") {
  test::TemporaryFolder folder;
  const auto path = folder / "a.jsonl";
  const std::string text(10 << 20, 'x');
  write_file_atomic(path, "{\"text\": \"a\"}\n{\"text\": \"" + text + "\"}\n{\"text\": \"b\"}\n");
  CHECK(read_all(path, {}).documents == Documents{"a", text, "b"});
  CHECK(says(error_of([&] { read_all(path, {.max_line_bytes = 1 << 20}); }), "a.jsonl:2: the line is too long"));
  const Read skip = read_all(path, {.on_bad_line = BadLine::skip, .max_line_bytes = 1 << 20});
  CHECK(skip.documents == Documents{"a", "b"});
  CHECK(skip.skipped == 1);
  CHECK(says(skip.complaints.at(0), "a.jsonl:2: the line is longer"));
}

TEST_CASE("a reader goes on from any block's end, and notices a changed file") {
  test::TemporaryFolder folder;
  std::mt19937 random(2);
  write_file_atomic(folder / "a.txt", test::random_text(random, 3000));
  write_file_atomic(folder / "b.txt", test::random_text(random, 2000));
  const auto files = find_text_files({folder.path().string()});
  const ReadOptions options{.document = DocumentUnit::line, .block_bytes = 100};
  const auto blocks_from = [&](const ReadPosition& from) {
    BlockReader reader(files, options);
    reader.seek(from);
    std::vector<Block> blocks;
    for (Block block; reader.next(block);) blocks.push_back(block);
    return blocks;
  };
  const auto all = blocks_from({});
  REQUIRE(all.size() > 40);
  for (size_t i = 0; i < all.size(); ++i) {
    const auto rest = blocks_from(all[i].end);
    REQUIRE(rest.size() == all.size() - i - 1);
    for (size_t k = 0; k < rest.size(); ++k) {
      REQUIRE(rest[k].bytes == all[i + 1 + k].bytes);
      REQUIRE(rest[k].begin.line == all[i + 1 + k].begin.line);
      REQUIRE(rest[k].end.checksum == all[i + 1 + k].end.checksum);
    }
  }
  std::string text = read_file(folder / "a.txt");
  text[0] ^= 1;
  write_file_atomic(folder / "a.txt", text);
  CHECK(says(error_of([&] { blocks_from(all[3].end); }), "has changed"));
}

TEST_CASE("a folder's tables and other files are left out, which is said once") {
  test::TemporaryFolder folder;
  fs::create_directories(folder / "books");
  for (const char* name : {"books/README.md", "books/labels.csv", "books/LICENSE", "books/a.tsv"})
    write_file_atomic(folder / name, "x");
  const std::string root = (folder / "books").string();
  const std::string none = error_of([&] { find_text_files({root}); });
  CHECK(says(none, "books: no text in this folder: expected .txt, .jsonl or .json files (for tables"));
  CHECK(says(none, root + "/**/"));
  write_file_atomic(folder / "books/b.txt", "x");
  const std::string said = test::stderr_of([&] {
    find_text_files({root});
    find_text_files({root, fs::relative(root).string()});
  });
  const std::string warning = "left out 4 files of other kinds, such as " + root +
                              "/LICENSE (to read it give a pattern, '" + root + "/**/LICENSE')";
  CHECK(says(said, warning));
  CHECK(said.find("left out") == said.rfind("left out"));
  CHECK(find_text_files({root + "/*.csv"}).size() == 1);
  CHECK(find_text_files({root + "/labels.csv", root + "/**/LICENSE"}).size() == 2);
}

TEST_CASE("files, folders and patterns; other formats are refused with the way out") {
  test::TemporaryFolder folder;
  fs::create_directories(folder / "子/深");
  for (const char* name : {"b.txt", "a.jsonl", "子/c.TXT", "子/深/d.json", ".hidden.txt", "子/x.py"})
    write_file_atomic(folder / name, "x");
  const auto names = [&](const std::string& path) {
    std::vector<std::string> out;
    for (const auto& file : find_text_files({path})) out.push_back(fs::relative(file.path, folder.path()).string());
    return out;
  };
  const std::string root = folder.path().string();
  CHECK(names(root) == Documents{"a.jsonl", "b.txt", "子/c.TXT", "子/深/d.json"});
  CHECK(names(root + "/*.txt") == Documents{"b.txt"});
  CHECK(names(root + "/**/[cd].*") == Documents{"子/c.TXT", "子/深/d.json"});
  CHECK(names(root + "/**/*.py") == Documents{"子/x.py"});
  CHECK(names(root + "/子/x.py") == Documents{"子/x.py"});
  CHECK(says(error_of([&] { names(root + "/none.txt"); }), "no such file"));
  CHECK(says(error_of([&] { names(root + "/*.md"); }), "no file matches"));
  for (const char* name : {"e.parquet", "e.jsonl.gz", "e.bin"}) {
    write_file_atomic(folder / name, "x");
    Exit exit = Exit::ok;
    const std::string message = error_of([&] { names(root + "/" + name); }, &exit);
    CHECK(exit == Exit::data);
    CHECK(says(message, name));
    CHECK(says(message, "("));  // a hint
  }
}
