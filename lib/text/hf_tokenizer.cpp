#include "text/hf_tokenizer.h"

#include <functional>
#include <thread>

#include "core/error.h"
#include "core/file.h"
#include "text/byte_level.h"
#include "text/unicode.h"

namespace llmtk::text {
namespace {

std::vector<AddedToken> choose(const std::vector<AddedToken>& tokens, bool normalized) {
  std::vector<AddedToken> chosen;
  for (const AddedToken& token : tokens)
    if (token.normalized == normalized) chosen.push_back(token);
  return chosen;
}

}  // namespace

HfTokenizer::HfTokenizer(Parts parts)
    : parts_(std::move(parts)),
      raw_finder_(choose(parts_.added, false)),
      normalized_finder_(choose(parts_.added, true)),
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
  const auto& post = parts_.post_processor;
  if (add_special_tokens) out.insert(out.end(), post.before.begin(), post.before.end());
  std::unique_ptr<WordCache> cache = caches_.take();
  const auto words = [&](std::string_view part) {
    parts_.pre_tokenizer.for_each_word(part, [&](std::string_view word, const char* readable_end) {
      parts_.model->encode_word(word, readable_end, *cache, out);
    });
  };
  raw_finder_.split(text, [&](std::string_view part, const AddedToken* token) {
    if (token) {
      out.push_back(token->id);
      return;
    }
    std::string normalized;
    if (parts_.nfc && to_nfc(part, normalized)) part = normalized;
    if (normalized_finder_.empty()) {
      words(part);
    } else {
      normalized_finder_.split(part, [&](std::string_view inner, const AddedToken* inner_token) {
        if (inner_token)
          out.push_back(inner_token->id);
        else
          words(inner);
      });
    }
  });
  caches_.give_back(std::move(cache));
  if (add_special_tokens) out.insert(out.end(), post.after.begin(), post.after.end());
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
  const std::string_view token = spelled(id);
  if (parts_.decoder != Decoder::byte_level) return std::string(token);
  if (auto bytes = unspell_bytes(token)) return *std::move(bytes);
  return std::string(token);
}

std::string HfTokenizer::decode(std::span<const TokenId> ids, bool skip_special_tokens) const {
  std::string bytes;
  bool first = true;
  for (const TokenId id : ids) {
    if (skip_special_tokens && is_special(id)) continue;
    if (!added(id) && !parts_.model->vocabulary().has(id)) continue;
    if (parts_.decoder == Decoder::join_with_spaces && !first) bytes += ' ';
    bytes += token_bytes(id);
    first = false;
  }
  if (find_invalid_utf8(bytes) == bytes.size()) return bytes;
  return replace_invalid_utf8(bytes);
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
  std::filesystem::create_directories(folder);
  for (const auto& [name, content] : parts_.files) write_file_atomic(folder / name, content);
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
