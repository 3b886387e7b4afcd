#include "text/word_cache.h"

#include <sys/mman.h>

#include <new>

namespace llmtk::text {

WordCache::WordCache() {
  // Zeroed pages on demand: a short text touches few.
  void* memory = ::mmap(nullptr, kBuckets * sizeof(Bucket), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  buckets_.reset(static_cast<Bucket*>(memory));
}

void WordCache::Release::operator()(Bucket* buckets) const { ::munmap(buckets, kBuckets * sizeof(Bucket)); }

void WordCache::keep(Entry (&entries)[2], uint64_t low, uint64_t high, const TokenId* ids, size_t count) {
  // The newer entry stands first; the older one of the two gives way.
  entries[1] = entries[0];
  Entry& entry = entries[0];
  entry.low = low, entry.high = high, entry.count = static_cast<uint32_t>(count);
  if (count <= kInline) {
    std::copy(ids, ids + count, entry.ids);
    return;
  }
  if (spilled_.size() > kMaxSpilled) {
    std::memset(static_cast<void*>(buckets_.get()), 0, kBuckets * sizeof(Bucket));
    spilled_.clear();
    return;
  }
  entry.ids[0] = static_cast<TokenId>(spilled_.size());
  spilled_.insert(spilled_.end(), ids, ids + count);
}

}  // namespace llmtk::text
