#include "core/file.h"

#include "core/error.h"
#include "test.h"

using namespace llmtk;

TEST_CASE("an atomic file replaces its target on commit only") {
  test::TemporaryFolder folder;
  const auto path = folder / "a.txt";
  write_file_atomic(path, "old");
  {
    AtomicFile file(path);
    file.write("new");
  }
  CHECK(read_file(path) == "old");
  {
    AtomicFile file(path);
    file.write(std::string(3 << 20, 'x'));
    file.commit();
  }
  CHECK(read_file(path) == std::string(3 << 20, 'x'));
  CHECK(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()) == 1);
}

TEST_CASE("a missing file is an error that names it") {
  try {
    MappedFile file("/nonexistent/file");
    FAIL("no error");
  } catch (const Error& e) {
    CHECK(e.exit() == Exit::file);
    CHECK(std::string(e.what()).find("/nonexistent/file") != std::string::npos);
  }
}

TEST_CASE("a checksum does not depend on how the bytes were cut") {
  std::string text(1000, ' ');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 7);
  Checksum whole;
  whole.update(std::as_bytes(std::span(text)));
  for (const size_t step : {1, 7, 31, 32, 33, 999}) {
    Checksum parts;
    for (size_t i = 0; i < text.size(); i += step)
      parts.update(std::as_bytes(std::span(text).subspan(i, std::min(step, text.size() - i))));
    CHECK(parts.hex() == whole.hex());
  }
  text[500] ^= 1;
  Checksum flipped;
  flipped.update(std::as_bytes(std::span(text)));
  CHECK(flipped.hex() != whole.hex());
}
