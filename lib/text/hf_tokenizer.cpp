#include "text/hf_tokenizer.h"

#include <functional>
#include <thread>

#include "core/error.h"
#include "core/file.h"
#include "core/utf8.h"
#include "text/unicode.h"

namespace llmtk::text {
namespace {

std::vector<AddedToken> found_in_raw_text(const std::vector<AddedToken>& tokens) {
  std::vector<AddedToken> chosen;
  for (const AddedToken& token : tokens)
    if (!token.normalized) chosen.push_back(token);
  return chosen;
}

/// The others, as the normalizer leaves them: they are looked for in normalized text.
std::vector<AddedToken> found_in_normalized_text(const std::vector<AddedToken>& tokens, const Normalizer& normalizer) {
  std::vector<AddedToken> chosen;
  for (const AddedToken& token : tokens) {
    if (!token.normalized) continue;
    std::string buffer;
    chosen.push_back(token);
    chosen.back().content = normalizer.apply(token.content, buffer);
  }
  return chosen;
}

}  // namespace

void write_kept_files(const std::filesystem::path& folder, const std::vector<KeptFile>& files) {
  for (const auto& [name, content] : files) {
    std::filesystem::create_directories((folder / name).parent_path());
    write_file_atomic(folder / name, content);
  }
}

HfTokenizer::HfTokenizer(Parts parts)
    : parts_(std::move(parts)),
      raw_finder_(found_in_raw_text(parts_.added)),
      normalized_finder_(found_in_normalized_text(parts_.added, parts_.normalizer)),
      vocab_size_(parts_.model->vocabulary().size()) {
  for (size_t i = 0; i < parts_.added.size(); ++i) {
    const auto id = static_cast<size_t>(parts_.added[i].id);
    if (added_by_id_.size() <= id) added_by_id_.resize(id + 1, -1);
    added_by_id_[id] = static_cast<int32_t>(i);
    vocab_size_ = std::max(vocab_size_, id + 1);
  }
}

HfTokenizer::~HfTokenizer() = default;

void HfTokenizer::encode(std::string_view text, std::vector<TokenId>& out, bool add_special_tokens) const {
  const auto& before = parts_.post_processor.before();
  const auto& after = parts_.post_processor.after();
  if (add_special_tokens) out.insert(out.end(), before.begin(), before.end());
  std::unique_ptr<WordCache> cache = caches_.take();
  const auto words = [&](std::string_view part, bool at_start) {
    parts_.pre_tokenizer.for_each_word(part, at_start, [&](std::string_view word, const char* readable_end) {
      parts_.model->encode_word(word, readable_end, *cache, out);
    });
  };
  std::string buffer;
  raw_finder_.split(text, [&](std::string_view part, const AddedToken* token) {
    if (token) {
      out.push_back(token->id);
      return;
    }
    const bool at_start = part.data() == text.data();
    part = parts_.normalizer.apply(part, buffer);
    if (normalized_finder_.empty()) {
      words(part, at_start);
    } else {
      normalized_finder_.split(part, [&](std::string_view inner, const AddedToken* inner_token) {
        if (inner_token)
          out.push_back(inner_token->id);
        else
          words(inner, at_start && inner.data() == part.data());
      });
    }
  });
  caches_.give_back(std::move(cache));
  if (add_special_tokens) out.insert(out.end(), after.begin(), after.end());
}

const AddedToken* HfTokenizer::added(TokenId id) const {
  if (id < 0 || static_cast<size_t>(id) >= added_by_id_.size() || added_by_id_[id] < 0) return nullptr;
  return &parts_.added[added_by_id_[id]];
}

std::string_view HfTokenizer::spelled(TokenId id) const {
  if (const AddedToken* token = added(id)) return token->content;
  return parts_.model->vocabulary().token(id);
}

std::string HfTokenizer::token_bytes(TokenId id) const {
  return parts_.decoder.bytes_of(std::string(spelled(id)), false);
}

std::string HfTokenizer::first_token_bytes(TokenId id) const {
  return parts_.decoder.bytes_of(std::string(spelled(id)), true);
}

std::string HfTokenizer::decode(std::span<const TokenId> ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  std::string bytes;
  const bool in_a_row = parts_.decoder.is_concatenation();
  for (const TokenId id : ids) {
    if (skip_special_tokens && is_special(id)) continue;
    if (!added(id) && !parts_.model->vocabulary().has(id)) continue;
    if (in_a_row)
      bytes += token_bytes(id);
    else
      tokens.emplace_back(spelled(id));
  }
  if (!in_a_row) bytes = parts_.decoder.decode(std::move(tokens));
  if (find_invalid_utf8(bytes) != bytes.npos) bytes = replace_invalid_utf8(bytes);
  return parts_.cleans_up_blanks ? clean_up_blanks(std::move(bytes)) : bytes;
}

std::optional<TokenId> HfTokenizer::token_to_id(std::string_view token) const {
  for (const AddedToken& added : parts_.added)
    if (added.content == token) return added.id;
  if (const TokenId id = parts_.model->vocabulary().find(token); id >= 0) return id;
  return std::nullopt;
}

std::string HfTokenizer::id_to_token(TokenId id) const { return std::string(spelled(id)); }

bool HfTokenizer::is_special(TokenId id) const {
  const AddedToken* token = added(id);
  return token && token->special;
}

void HfTokenizer::save(const std::filesystem::path& folder) const {
  write_kept_files(folder, parts_.files);
}

size_t HfTokenizer::CachePool::slot_of_thread() {
  static std::atomic<size_t> threads{0};
  thread_local const size_t slot = threads.fetch_add(1, std::memory_order_relaxed) % kSlots;
  return slot;
}

HfTokenizer::CachePool::~CachePool() {
  for (auto& slot : slots_) delete slot.load();
}

std::unique_ptr<WordCache> HfTokenizer::CachePool::take() {
  std::unique_ptr<WordCache> cache(slots_[slot_of_thread()].exchange(nullptr, std::memory_order_acquire));
  return cache ? std::move(cache) : std::make_unique<WordCache>();
}

void HfTokenizer::CachePool::give_back(std::unique_ptr<WordCache> cache) {
  delete slots_[slot_of_thread()].exchange(cache.release(), std::memory_order_acq_rel);
}

}  // namespace llmtk::text
