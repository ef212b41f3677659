// A loop over items, shared with the threads of a pool.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace jaxneuron {

// Takes the calling thread off a processor. It may go back there, but Linux wakes a thread where it ran last.
// Otherwise a helper that was once woken on its caller's processor shares it call after call: Linux takes an
// idle processor of a virtual machine for one that is not to be had.
#if defined(__linux__)
inline int processor() { return sched_getcpu(); }

inline void leave(int processor) {
  cpu_set_t all, others;
  if (processor < 0 || sched_getcpu() != processor || sched_getaffinity(0, sizeof all, &all)) return;
  others = all;
  CPU_CLR(processor, &others);
  if (CPU_COUNT(&others) && !sched_setaffinity(0, sizeof others, &others))
    sched_setaffinity(0, sizeof all, &all);
}
#else
inline int processor() { return -1; }
inline void leave(int) {}
#endif

// What the threads share. It lives until the last of them has looked, which may be after the call.
struct Loop {
  Loop(std::int64_t items, std::int64_t chunk) : items(items), chunk(chunk) {}

  // A chunk is claimed before anything of the caller's is touched: as long as one is at work, he waits.
  template <class Make>
  void run(const Make& make) {
    std::int64_t first = next.fetch_add(chunk);
    if (first >= items) return;
    auto work = make();
    do {
      const std::int64_t last = std::min(first + chunk, items);
      work(first, last);
      if (done.fetch_add(last - first) + (last - first) == items) {
        std::lock_guard<std::mutex> lock(mutex);
        finished.notify_one();
      }
      first = next.fetch_add(chunk);
    } while (first < items);
  }

  void wait() {
    for (int i = 0; i < YIELDS && done.load() < items; ++i) std::this_thread::yield();
    if (done.load() == items) return;
    std::unique_lock<std::mutex> lock(mutex);
    finished.wait(lock, [this] { return done.load() == items; });
  }

  static constexpr int YIELDS = 100;  // some 50 us, as long as a thread takes to fall asleep and wake
  const std::int64_t items, chunk;
  std::atomic<std::int64_t> next{0}, done{0};
  std::mutex mutex;
  std::condition_variable finished;
};

// work(first, last) over all items in chunks, by the caller and up to `helpers` threads of the pool, where
// each has a work = make() of its own. The caller may itself be a thread of the pool: he waits only for
// chunks that a thread is at, never for a thread to come.
template <class Pool, class Make>
void parallel(Pool& pool, std::int64_t helpers, std::int64_t items, std::int64_t chunk, const Make& make) {
  const auto loop = std::make_shared<Loop>(items, chunk);
  const int mine = processor();
  for (std::int64_t i = 0; i < helpers; ++i)
    pool.Schedule([loop, &make, mine] {
      leave(mine);
      loop->run(make);
    });
  std::this_thread::yield();  // to a helper that waits for this processor
  loop->run(make);
  loop->wait();
}

}  // namespace jaxneuron
