#include "core/allocator.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/memory.h"

namespace llmtk {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kLarge = size_t{1} << 20;  // smaller tensors go to malloc
constexpr size_t kGranule = 4096;
constexpr size_t kGrowth = size_t{32} << 20;
constexpr size_t kSmallAlignment = 64;

size_t round_up(size_t size, size_t unit) { return (size + unit - 1) / unit * unit; }

/// Address space reserved in one piece, made usable from its low end as need grows. One long piece leaves no borders
/// between blocks, so neighbours always join and memory does not balloon.
struct Arena {
  char* begin = nullptr;
  char* usable = nullptr;  // [begin, usable) may be touched
  char* end = nullptr;
};

class BlockHeap {
 public:
  void* allocate(size_t size) {
    size = round_up(size, kGranule);
    const std::lock_guard lock(mutex_);
    auto fit = by_size_.lower_bound({size, nullptr});
    if (fit == by_size_.end()) {
      if (!grow(size)) return nullptr;
      fit = by_size_.lower_bound({size, nullptr});
    }
    char* const address = fit->second;
    const Free block = take(free_.find(address));
    if (block.size > size) put(address + size, {block.size - size, block.touched});
    used_.emplace(address, size);
    statistics_.in_use += size;
    statistics_.peak = std::max(statistics_.peak, statistics_.in_use + statistics_.cached);
    return address;
  }

  /// False when the address is not from here.
  bool free(void* pointer) {
    const std::lock_guard lock(mutex_);
    const auto found = used_.find(static_cast<char*>(pointer));
    if (found == used_.end()) return false;
    statistics_.in_use -= found->second;
    put(found->first, {found->second, true});
    used_.erase(found);
    return true;
  }

  void release() {
    const std::lock_guard lock(mutex_);
    std::vector<std::pair<char*, Free>> blocks(free_.begin(), free_.end());
    for (auto [address, block] : blocks) {
      if (!block.touched) continue;
      ::madvise(address, block.size, MADV_DONTNEED);
      take(free_.find(address));
      put(address, {block.size, false});
    }
  }

  AllocatorStatistics statistics() {
    const std::lock_guard lock(mutex_);
    return statistics_;
  }

 private:
  struct Free {
    size_t size;
    bool touched;  // holds memory, not just address space
  };

  Free take(std::map<char*, Free>::iterator block) {
    const Free result = block->second;
    if (result.touched) statistics_.cached -= result.size;
    by_size_.erase({result.size, block->first});
    free_.erase(block);
    return result;
  }

  /// Adds a free block and joins it with its neighbours.
  void put(char* address, Free block) {
    auto next = free_.lower_bound(address);
    if (next != free_.end() && address + block.size == next->first) {
      const Free after = take(next);
      block = {block.size + after.size, block.touched || after.touched};
      next = free_.lower_bound(address);
    }
    if (next != free_.begin()) {
      const auto previous = std::prev(next);
      if (previous->first + previous->second.size == address) {
        address = previous->first;
        const Free before = take(previous);
        block = {block.size + before.size, block.touched || before.touched};
      }
    }
    free_.emplace(address, block);
    by_size_.emplace(block.size, address);
    if (block.touched) statistics_.cached += block.size;
  }

  /// Makes a free block of at least `size` bytes.
  bool grow(size_t size) {
    for (int attempt = 0; attempt < 2; ++attempt) {
      if (!arenas_.empty() && extend(arenas_.back(), size)) return true;
      if (attempt == 0 && !reserve(size)) return false;
    }
    return false;
  }

  bool extend(Arena& arena, size_t size) {
    // A free block at the usable end needs only the rest.
    size_t tail = 0;
    if (!free_.empty()) {
      const auto last = free_.lower_bound(arena.usable);
      if (last != free_.begin()) {
        const auto& [address, block] = *std::prev(last);
        if (address + block.size == arena.usable && address >= arena.begin) tail = block.size;
      }
    }
    const size_t room = static_cast<size_t>(arena.end - arena.usable);
    const size_t least = round_up(size - tail, kHugePage);
    if (least > room) return false;
    const size_t more = std::min(round_up(least, kGrowth), room);
    // The kernel would give the pages and end the process when they are touched.
    if (least > available_memory_bytes()) return false;
    if (::mprotect(arena.usable, more, PROT_READ | PROT_WRITE) != 0) return false;
    ++statistics_.maps;
    put(arena.usable, {more, false});
    arena.usable += more;
    return true;
  }

  bool reserve(size_t size) {
    const size_t memory = static_cast<size_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    // Limits on address space (ulimit -v) may forbid the generous reservation.
    for (size_t wanted = std::max(2 * memory, size + kGrowth); wanted >= size; wanted /= 2) {
      const size_t length = round_up(wanted, kHugePage) + kHugePage;
      void* const raw = ::mmap(nullptr, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (raw == MAP_FAILED) continue;
      Arena arena;
      arena.begin = reinterpret_cast<char*>(round_up(reinterpret_cast<size_t>(raw), kHugePage));
      arena.end = arena.begin + (length - kHugePage);
      arena.usable = arena.begin;
      ::madvise(arena.begin, length - kHugePage, MADV_HUGEPAGE);  // without it everything works, slower
      arenas_.push_back(arena);
      return true;
    }
    return false;
  }

  std::mutex mutex_;
  std::vector<Arena> arenas_;
  std::map<char*, Free> free_;
  std::set<std::pair<size_t, char*>> by_size_;
  std::map<char*, size_t> used_;
  AllocatorStatistics statistics_;
};

BlockHeap& heap() {
  static BlockHeap* const instance = new BlockHeap;  // outlives every tensor
  return *instance;
}

[[noreturn]] void out_of_memory(size_t size) {
  throw Error(Exit::runtime,
              {.what = "out of memory",
               .got = "a request for " + std::to_string(size >> 20) + " MiB",
               .expected = "at most the " + std::to_string(available_memory_bytes() >> 20) + " MiB that are available",
               .hint = "in training lower trainer.per_device_train_batch_size or data.max_length, or turn "
                       "trainer.gradient_checkpointing on; in generation lower --batch-size or --max-new-tokens"});
}

void free_block(void* pointer) {
  if (pointer && !heap().free(pointer)) std::free(pointer);
}

class CachingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t size) override {
    void* pointer = nullptr;
    if (size >= kLarge) {
      pointer = heap().allocate(size);
    } else if (size > 0) {
      pointer = std::aligned_alloc(kSmallAlignment, round_up(size, kSmallAlignment));
    }
    if (size > 0 && !pointer) out_of_memory(size);
    return {pointer, pointer, &free_block, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_block; }
  void copy_data(void* to, const void* from, size_t size) const override { std::memcpy(to, from, size); }
};

}  // namespace

void install_cpu_allocator() {
#ifndef __SANITIZE_ADDRESS__  // the sanitizer sees overruns only in malloc's blocks
  static std::once_flag once;
  std::call_once(once, [] { c10::SetCPUAllocator(new CachingAllocator, /*priority=*/100); });
#endif
}

void release_cached() {
  heap().release();
  malloc_trim(0);
}

AllocatorStatistics allocator_statistics() { return heap().statistics(); }

}  // namespace llmtk
