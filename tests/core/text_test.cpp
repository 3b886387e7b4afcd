#include "core/error.h"
#include "core/suggest.h"
#include "core/utf8.h"
#include "test.h"

using namespace llmtk;

TEST_CASE("invalid UTF-8 is found at its first byte") {
  CHECK(find_invalid_utf8("plain, 中文, 😀") == std::string::npos);
  CHECK(find_invalid_utf8("") == std::string::npos);
  for (const char* bad : {"\xff", "\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                          "\xf5\x80\x80\x80", "\xe4\xb8", "\xf0\x9f\x98"}) {
    CHECK(find_invalid_utf8(std::string("ab") + bad) == 2);
    CHECK(find_invalid_utf8(std::string("中") + bad + "x") == 3);
  }
  CHECK(count_code_points("a中😀") == 3);
}

TEST_CASE("width on a terminal") {
  CHECK(display_width("loss") == 4);
  CHECK(display_width("损失") == 4);
  CHECK(display_width("，。") == 4);
  CHECK(display_width("한국어") == 6);
  CHECK(display_width("😀") == 2);
  CHECK(display_width("e\u0301") == 1);
  CHECK(display_width("\u200b") == 0);
  CHECK(cut_to_width("损失abc", 5) == "损失a");
  CHECK(cut_to_width("损失abc", 3) == "损");  // half a character is none
  CHECK(cut_to_width("ab", 5) == "ab");
  CHECK(cut_to_width("ab", 0).empty());
}

TEST_CASE("what a terminal would obey is spelt out") {
  CHECK(printable("plain, 黃帝\tand\nlines 👍") == "plain, 黃帝\tand\nlines 👍");
  CHECK(printable("\x1b[31mred\x07\r\x7f") == "\\x1b[31mred\\x07\\x0d\\x7f");
  CHECK(printable("\xc2\x9b"
                  "2J") == "\\xc2\\x9b2J");  // CSI as one character
  CHECK(printable("half \xe9\xbb") == "half \\xe9\\xbb");
  CHECK(one_line("a\tb\r\n\x1b[2J 黃帝") == "a\\tb\\r\\n\\x1b[2J 黃帝");
  CHECK(in_quotes("黃\n") == "'黃\\n'");
  CHECK(in_quotes(std::string(1000, 'x')) == "'" + std::string(80, 'x') + "'");
}

TEST_CASE("an error is one line, whatever a file put into it") {
  const Error error(Exit::file, {.what = "a key '\x1b[2J\n\xff'", .where = "some\nfile", .got = "1\n2"});
  CHECK(error.what() == std::string("some\\nfile: a key '\\x1b[2J\\n\\xff': got 1\\n2"));
  CHECK(error.parts().got == "1\n2");
}

TEST_CASE("the nearest name") {
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance("ab", "ba") == 1);
  CHECK(edit_distance("", "abc") == 3);
  const std::vector<std::string> names = {"learning_rate", "weight_decay", "lora_alpha"};
  CHECK(nearest("learning_rte", names) == "learning_rate");
  CHECK(nearest("lora-alpha", names) == "lora_alpha");
  CHECK(nearest("LORA_ALPHA", names) == "lora_alpha");
  CHECK(nearest("xyzzy", names).empty());
  CHECK(nearest("", names).empty());
  CHECK(nearest(std::string(100'000, 'l'), names).empty());
}
