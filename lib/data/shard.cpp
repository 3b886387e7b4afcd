#include "data/shard.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/files.h"

namespace llmtk::data {

using nlohmann::ordered_json;
static_assert(std::endian::native == std::endian::little, "shards are little-endian and mapped as they are");

namespace {

// llm.c's files: 256 int32, of which the first three say what follows.
constexpr size_t kLlmcHeader = 1024;
constexpr int32_t kLlmcMagic16 = 20240520, kLlmcVersion16 = 1;
constexpr int32_t kLlmcMagic32 = 20240801, kLlmcVersion32 = 7;

struct LlmcHeader {
  int32_t magic = 0, version = 0, tokens = 0;
};

LlmcHeader read_llmc_header(const fs::path& path) {
  LlmcHeader header;
  MappedFile file(path);
  if (file.size() < kLlmcHeader) return header;
  std::memcpy(&header, file.bytes().data(), sizeof header);
  return header;
}

bool is_llmc(const LlmcHeader& header) { return header.magic == kLlmcMagic16 || header.magic == kLlmcMagic32; }

TokenType parse_type(const std::string& name, const fs::path& manifest) {
  if (name == "uint16") return TokenType::uint16;
  if (name == "uint32") return TokenType::uint32;
  throw Error(Exit::file,
              {.what = "unknown dtype", .where = manifest.string(), .got = name, .expected = "uint16 or uint32"});
}

const ordered_json* find_split(const ordered_json& manifest, const std::string& split) {
  const auto& splits = manifest.at("splits");
  const auto at = splits.find(split);
  return at == splits.end() ? nullptr : &*at;
}

Error broken_manifest(const fs::path& path, const std::exception& e) {
  return Error(Exit::file, {.what = std::string("broken manifest: ") + e.what(), .where = path.string()});
}

/// A manifest must not make us open files elsewhere.
std::string plain_name(const std::string& file, const fs::path& manifest) {
  if (!file.empty() && file != ".." && file != "." && fs::path(file).filename() == file) return file;
  throw Error(Exit::file, {.what = "a shard lies outside of this folder",
                           .where = manifest.string(),
                           .got = "'" + file + "'",
                           .expected = "a file's name"});
}

}  // namespace

std::string to_string(TokenType type) { return type == TokenType::uint16 ? "uint16" : "uint32"; }

std::string tokenizer_hash(const text::Tokenizer& tokenizer) {
  Checksum sum;
  const auto add = [&](std::string_view text) {
    const uint64_t size = text.size();
    sum.update(std::as_bytes(std::span(&size, 1)));
    sum.update(std::as_bytes(std::span(text.data(), text.size())));
  };
  const text::SpecialTokens special = tokenizer.special_tokens();
  const int64_t numbers[] = {static_cast<int64_t>(tokenizer.vocab_size()), special.bos, special.eos};
  sum.update(std::as_bytes(std::span(numbers)));
  for (size_t id = 0; id < tokenizer.vocab_size(); ++id) {
    try {
      add(tokenizer.id_to_token(static_cast<text::TokenId>(id)));
    } catch (const Error&) {
      add("");  // vocabularies may have gaps
    }
  }
  // Two tokenizers with one vocabulary may still split or normalize in different ways.
  const char* probes[] = {"Hello world, it's 12345.67 and don't\n\n  indented\tcode_name();  ",
                          "黃帝鑄鼎於荆山，鍊丹砂。2024年", "e\xCC\x81 \xC3\xA9 \xEF\xAC\x81 \xF0\x9F\x98\x80",
                          " leading   spaces UPPER lower"};
  for (const char* probe : probes) {
    std::vector<text::TokenId> ids;
    tokenizer.encode(probe, ids);
    sum.update(std::as_bytes(std::span(ids)));
    add("");
  }
  return sum.hex();
}

ordered_json read_manifest(const fs::path& folder) {
  const fs::path path = folder / kManifestName;
  ordered_json manifest;
  try {
    manifest = ordered_json::parse(read_file(path));
    if (manifest.at("format") != kShardFormat)
      throw std::runtime_error("its format is not " + std::string(kShardFormat));
  } catch (const Error&) {
    throw;
  } catch (const std::exception& e) {
    throw Error(Exit::file,
                {.what = std::string("not a manifest of token shards: ") + e.what(), .where = path.string()});
  }
  const ordered_json version = manifest.value("version", ordered_json());
  if (version != kShardVersion)
    throw Error(Exit::file, {.what = "unknown version of the shard format",
                             .where = path.string(),
                             .got = version.dump(),
                             .expected = std::to_string(kShardVersion),
                             .hint = "a newer llmtk wrote it, or write the shards again"});
  return manifest;
}

bool TokenShards::is_shards(const std::string& path) {
  if (fs::is_directory(path)) return fs::exists(fs::path(path) / kManifestName);
  if (fs::exists(path)) return fs::path(path).extension() == ".bin";
  return is_pattern(path) && path.ends_with(".bin");
}

std::vector<std::string> TokenShards::splits(const fs::path& folder) {
  std::vector<std::string> names;
  const ordered_json splits = read_manifest(folder).value("splits", ordered_json::object());
  for (const auto& [name, split] : splits.items()) names.push_back(name);
  return names;
}

TokenShards TokenShards::open(const std::string& path, const std::string& split) {
  TokenShards shards;
  if (fs::is_directory(path)) {
    shards.open_manifest(path, split, "");
  } else if (fs::exists(path)) {
    if (is_llmc(read_llmc_header(path))) {
      shards.open_llmc(path);
    } else {
      const fs::path folder = fs::path(path).has_parent_path() ? fs::path(path).parent_path() : fs::path(".");
      if (!fs::exists(folder / kManifestName))
        throw Error(Exit::file, {.what = "cannot tell what this file holds",
                                 .where = path,
                                 .expected = "shards.json beside it, or llm.c's header",
                                 .hint = "`llmtk tokenize shard` writes both the ids and their description"});
      shards.open_manifest(folder, "", fs::path(path).filename().string());
    }
  } else {
    const auto files = is_pattern(path) ? expand_pattern(path) : std::vector<fs::path>();
    if (files.empty()) throw Error(Exit::file, {.what = "no such file or folder", .where = path});
    for (const auto& file : files) shards.open_llmc(file);
  }
  if (shards.size() == 0)
    throw Error(Exit::data, {.what = "the shards hold no tokens", .where = path, .got = "split '" + split + "'"});
  return shards;
}

void TokenShards::add_part(const fs::path& path, TokenType type, size_t header, uint64_t tokens) {
  MappedFile file(path);
  uint64_t expected = 0;
  if (__builtin_mul_overflow(tokens, uint64_t{token_bytes(type)}, &expected) ||
      __builtin_add_overflow(expected, uint64_t{header}, &expected))
    throw Error(Exit::file,
                {.what = "a shard cannot hold so many tokens", .where = path.string(), .got = std::to_string(tokens)});
  if (file.size() != expected)
    throw Error(Exit::file,
                {.what = file.size() < expected ? "the shard is cut short" : "the shard is longer than described",
                 .where = path.string(),
                 .got = std::to_string(file.size()) + " bytes",
                 .expected = std::to_string(expected) + " (" + std::to_string(tokens) + " tokens)",
                 .hint = "copy it again, or write the shards again"});
  if (tokens == 0) return;
  parts_.push_back({std::move(file), type, header});
  starts_.push_back(starts_.back() + tokens);
}

void TokenShards::open_llmc(const fs::path& path) {
  const LlmcHeader header = read_llmc_header(path);
  if (!is_llmc(header))
    throw Error(Exit::file, {.what = "no token file of llm.c",
                             .where = path.string(),
                             .got = "magic " + std::to_string(header.magic),
                             .expected = std::to_string(kLlmcMagic16) + " or " + std::to_string(kLlmcMagic32)});
  const bool wide = header.magic == kLlmcMagic32;
  const int32_t version = wide ? kLlmcVersion32 : kLlmcVersion16;
  if (header.version != version || header.tokens < 0)
    throw Error(Exit::file, {.what = "unknown version of llm.c's token files",
                             .where = path.string(),
                             .got = std::to_string(header.version),
                             .expected = std::to_string(version)});
  add_part(path, wide ? TokenType::uint32 : TokenType::uint16, kLlmcHeader, static_cast<uint64_t>(header.tokens));
  // These files carry no checksum; reading all of them to make one would cost what mapping saves.
  Checksum sum;
  const std::string text = identity_ + path.filename().string() + std::to_string(header.tokens);
  sum.update(std::as_bytes(std::span(text.data(), text.size())));
  const auto bytes = MappedFile(path);
  const size_t probe = std::min<size_t>(bytes.size(), 1 << 16);
  sum.update(bytes.bytes().first(probe));
  sum.update(bytes.bytes().last(probe));
  identity_ = sum.hex();
}

void TokenShards::open_manifest(const fs::path& folder, const std::string& split, const std::string& only) {
  const ordered_json manifest = read_manifest(folder);
  const fs::path path = folder / kManifestName;
  try {
    if (!manifest.at("complete").get<bool>())
      throw Error(Exit::file, {.what = "these shards are not finished",
                               .where = path.string(),
                               .hint = "run the same `llmtk tokenize shard` again: it goes on where it stopped"});
    const TokenType type = parse_type(manifest.at("dtype").get<std::string>(), path);
    if (!split.empty() && !find_split(manifest, split)) {
      std::string names;
      for (const auto& [name, value] : manifest.at("splits").items()) names += (names.empty() ? "" : ", ") + name;
      throw Error(Exit::data,
                  {.what = "no such split", .where = path.string(), .got = "'" + split + "'", .expected = names});
    }
    Checksum sum;
    bool found = false;
    for (const auto& [name, value] : manifest.at("splits").items()) {
      if (!split.empty() && name != split) continue;
      for (const auto& shard : value.at("shards")) {
        const std::string file = shard.at("file").get<std::string>();
        if (!only.empty() && file != only) continue;
        found = true;
        add_part(folder / plain_name(file, path), type, 0, shard.at("tokens").get<uint64_t>());
        documents_ += shard.at("documents").get<uint64_t>();
        const std::string checksum = shard.at("checksum").get<std::string>();
        sum.update(std::as_bytes(std::span(checksum.data(), checksum.size())));
      }
    }
    if (!only.empty() && !found)
      throw Error(Exit::file, {.what = "shards.json does not list this file", .where = (folder / only).string()});
    identity_ = sum.hex();
    vocab_size_ = manifest.at("vocab_size").get<uint64_t>();
    const auto& settings = manifest.at("settings");
    if (settings.at("append_eos").get<bool>()) eos_id_ = manifest.at("eos_id").get<int32_t>();
    bos_ids_ = settings.value("bos_ids", std::vector<int32_t>());
    tokenizer_hash_ = manifest.at("tokenizer").at("hash").get<std::string>();
    tokenizer_path_ = manifest.at("tokenizer").at("path").get<std::string>();
  } catch (const nlohmann::json::exception& e) {
    throw broken_manifest(path, e);
  }
}

void TokenShards::read(uint64_t begin, std::span<int32_t> out) const {
  LLMTK_CHECK(begin + out.size() <= size(), begin, " + ", out.size(), " > ", size());
  size_t part = std::upper_bound(starts_.begin(), starts_.end(), begin) - starts_.begin() - 1;
  for (size_t done = 0; done < out.size(); ++part) {
    const uint64_t from = begin + done - starts_[part];
    const size_t count = std::min<uint64_t>(out.size() - done, starts_[part + 1] - starts_[part] - from);
    const std::byte* data = parts_[part].file.bytes().data() + parts_[part].header;
    if (parts_[part].type == TokenType::uint16) {
      const auto* ids = reinterpret_cast<const uint16_t*>(data) + from;
      std::copy(ids, ids + count, out.data() + done);
    } else {
      std::memcpy(out.data() + done, data + 4 * from, 4 * count);
    }
    done += count;
  }
}

uint64_t TokenShards::find(int32_t id, uint64_t begin, uint64_t end) const {
  std::vector<int32_t> chunk(4096);
  for (; begin < end; begin += chunk.size()) {
    const std::span<int32_t> ids(chunk.data(), std::min<uint64_t>(chunk.size(), end - begin));
    read(begin, ids);
    const auto at = std::find(ids.begin(), ids.end(), id);
    if (at != ids.end()) return begin + static_cast<uint64_t>(at - ids.begin());
  }
  return end;
}

std::string TokenShards::place(uint64_t position) const {
  const size_t part = std::upper_bound(starts_.begin(), starts_.end() - 1, position) - starts_.begin() - 1;
  return parts_[part].file.path().string() + ", token " + std::to_string(position - starts_[part]);
}

size_t verify_shards(const fs::path& folder) {
  const ordered_json manifest = read_manifest(folder);
  std::vector<std::pair<fs::path, std::string>> shards;
  try {
    for (const auto& [name, split] : manifest.at("splits").items())
      for (const auto& shard : split.at("shards"))
        shards.emplace_back(folder / plain_name(shard.at("file").get<std::string>(), folder / kManifestName),
                            shard.at("checksum").get<std::string>());
  } catch (const nlohmann::json::exception& e) {
    throw broken_manifest(folder / kManifestName, e);
  }
  for (const auto& [path, expected] : shards)
    if (const std::string got = checksum_file(path); got != expected)
      throw Error(Exit::file, {.what = "the shard's checksum differs",
                               .where = path.string(),
                               .got = got,
                               .expected = expected,
                               .hint = "copy it again, or write the shards again"});
  return shards.size();
}

}  // namespace llmtk::data
