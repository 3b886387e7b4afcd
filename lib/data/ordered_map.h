#pragma once
// A pipeline whose result does not depend on the number of threads: one thread reads, several work, the caller writes
// in the order of reading.

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace llmtk::data {

/// Runs write(work(x)) for every x that read(x) fills until it returns false. `read` is called from a thread of its
/// own, `work` from `threads` others at the same time, `write` from the calling thread, in the order of reading. At
/// most threads + 2 items exist at once. What any of the three throws comes out here, the first in the order of
/// reading.
template <class In, class Out>
void ordered_map(int threads, const std::function<bool(In&)>& read, const std::function<Out(In&)>& work,
                 const std::function<void(Out&)>& write) {
  struct Slot {
    In in;
    Out out;
    std::exception_ptr error;
    bool done = false;
  };
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::shared_ptr<Slot>> order, todo;
  bool ended = false, stop = false;
  const size_t window = static_cast<size_t>(threads) + 2;

  const auto reader = [&] {
    while (true) {
      auto slot = std::make_shared<Slot>();
      {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return stop || order.size() < window; });
        if (stop) return;
      }
      bool more = false;
      try {
        more = read(slot->in);
      } catch (...) {
        slot->error = std::current_exception();
        slot->done = true;
      }
      std::lock_guard lock(mutex);
      if (more) todo.push_back(slot);
      if (more || slot->error) order.push_back(slot);
      ended = !more;
      changed.notify_all();
      if (ended) return;
    }
  };
  const auto worker = [&] {
    while (true) {
      std::shared_ptr<Slot> slot;
      {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return stop || !todo.empty() || ended; });
        if (stop || todo.empty()) return;
        slot = std::move(todo.front());
        todo.pop_front();
      }
      try {
        slot->out = work(slot->in);
      } catch (...) {
        slot->error = std::current_exception();
      }
      slot->in = In();
      std::lock_guard lock(mutex);
      slot->done = true;
      changed.notify_all();
    }
  };

  // Joins the threads whether the loop below ends or throws; they must end before what they refer to does.
  struct Threads {
    std::vector<std::thread> all;
    std::function<void()> halt;
    ~Threads() {
      halt();
      for (auto& thread : all) thread.join();
    }
  } running{{}, [&] {
              std::lock_guard lock(mutex);
              stop = true;
              changed.notify_all();
            }};
  running.all.emplace_back(reader);
  for (int i = 0; i < threads; ++i) running.all.emplace_back(worker);

  while (true) {
    std::shared_ptr<Slot> slot;
    {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return order.empty() ? ended : order.front()->done; });
      if (order.empty()) return;
      slot = order.front();
    }
    if (slot->error) std::rethrow_exception(slot->error);
    write(slot->out);
    std::lock_guard lock(mutex);
    order.pop_front();
    changed.notify_all();
  }
}

}  // namespace llmtk::data
