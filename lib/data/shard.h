#pragma once
// Token shards: ids on disk, mapped into memory. docs/data.md describes the format.

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"
#include "text/tokenizer.h"

namespace llmtk::data {

inline constexpr const char* kManifestName = "shards.json";
inline constexpr const char* kShardFormat = "llmtk-token-shards";
inline constexpr int kShardVersion = 1;

enum class TokenType { uint16, uint32 };
inline size_t token_bytes(TokenType type) { return type == TokenType::uint16 ? 2 : 4; }
std::string to_string(TokenType type);

/// What tells one tokenizer from another whatever files it is kept in: a checksum over its vocabulary, its special
/// tokens, and the ids of some texts chosen to show how it splits and normalizes.
std::string tokenizer_hash(const text::Tokenizer& tokenizer);

/// One file of a set.
struct ShardInfo {
  std::string file;  ///< relative to the folder
  uint64_t tokens = 0;
  uint64_t documents = 0;
  std::string checksum;
};

/// One split of a set of shards ("train", "validation"), seen as one long row of ids. Reading is thread-safe.
class TokenShards {
 public:
  /// A folder that `tokenize shard` wrote, one .bin file of such a folder, or a file or pattern of files with llm.c's
  /// header. Throws Error(file) for what is missing, cut short or not finished; Error(data) for an unknown split.
  static TokenShards open(const std::string& path, const std::string& split = "train");
  /// True when open() is the way to read this path.
  static bool is_shards(const std::string& path);
  /// The splits of a folder, as its manifest names them.
  static std::vector<std::string> splits(const fs::path& folder);

  uint64_t size() const { return starts_.back(); }   ///< tokens
  uint64_t documents() const { return documents_; }  ///< 0 when not known
  /// Copies the ids [begin, begin + out.size()).
  void read(uint64_t begin, std::span<int32_t> out) const;
  /// First position in [begin, end) that holds `id`; `end` when none does.
  uint64_t find(int32_t id, uint64_t begin, uint64_t end) const;
  /// "folder/train-00003.bin, token 17": where a position lies, for messages.
  std::string place(uint64_t position) const;

  /// The token behind every document; none where it is not known, or the shards were written without.
  std::optional<int32_t> eos_id() const { return eos_id_; }
  const std::vector<int32_t>& bos_ids() const { return bos_ids_; }  ///< what stands before every document, if anything
  uint64_t vocab_size() const { return vocab_size_; }               ///< 0 when not known
  const std::string& tokenizer_hash() const { return tokenizer_hash_; }  ///< empty when not known
  const std::string& tokenizer_path() const { return tokenizer_path_; }
  /// The same for the same ids: checksums of the files.
  const std::string& identity() const { return identity_; }

 private:
  struct Part {
    MappedFile file;
    TokenType type;
    size_t header;  // bytes before the first id
  };
  void add_part(const fs::path& path, TokenType type, size_t header, uint64_t tokens);
  void open_llmc(const fs::path& path);
  void open_manifest(const fs::path& folder, const std::string& split, const std::string& only);

  std::vector<Part> parts_;
  std::vector<uint64_t> starts_{0};  // parts + 1
  std::optional<int32_t> eos_id_;
  std::vector<int32_t> bos_ids_;
  uint64_t vocab_size_ = 0, documents_ = 0;
  std::string tokenizer_hash_, tokenizer_path_, identity_;
};

/// Reads every shard of a folder and compares checksums. Throws Error(file) that names the first one that differs.
/// Returns the number of files.
size_t verify_shards(const fs::path& folder);

/// The manifest of a folder. Throws Error(file) when it is missing, not JSON, or of another format or version.
nlohmann::ordered_json read_manifest(const fs::path& folder);

}  // namespace llmtk::data
