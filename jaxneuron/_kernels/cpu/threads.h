// A loop whose iterations are shared with threads that the caller supplies.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

#include "plan.h"
#include "tuning.h"

namespace jaxneuron {

// Moves the calling thread off a CPU, then restores its affinity. Linux wakes a thread on the CPU where it
// last ran, so a helper once woken on its caller's CPU would keep sharing it, call after call, while another
// is idle: measured on virtual machines, a call by two threads then took as long as by one (6.3 ms, not 3.4).
#if defined(__linux__)
inline int current_cpu() { return sched_getcpu(); }

inline void leave(int cpu) {
  if (cpu < 0 || sched_getcpu() != cpu) return;
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed)) return;
  cpu_set_t others = allowed;
  CPU_CLR(cpu, &others);
  if (CPU_COUNT(&others) && !sched_setaffinity(0, sizeof others, &others))
    sched_setaffinity(0, sizeof allowed, &allowed);
}
#else
inline int current_cpu() { return -1; }
inline void leave(int) {}
#endif

// The state of one loop: which items have been claimed, and how many are done. A helper may look at it when
// the call has returned already, so it lives until the last helper has let go of it.
class Loop {
 public:
  Loop(std::int64_t items, std::int64_t chunk) : items_(items), chunk_(chunk) {}

  // Works on chunks until none is left. One is claimed before `make` is touched: the caller waits for
  // claimed chunks, so its stack is still alive.
  template <class Make>
  void run(const Make& make) {
    std::int64_t first = next_.fetch_add(chunk_);
    if (first >= items_) return;
    auto work = make();
    do {
      const std::int64_t last = std::min(first + chunk_, items_);
      work(first, last);
      if (done_.fetch_add(last - first) + (last - first) == items_) {
        std::lock_guard<std::mutex> lock(mutex_);
        finished_.notify_one();
      }
      first = next_.fetch_add(chunk_);
    } while (first < items_);
  }

  // Returns when all items are done.
  void wait() {
    for (int i = 0; i < YIELDS && done_.load() < items_; ++i) std::this_thread::yield();
    if (done_.load() == items_) return;
    std::unique_lock<std::mutex> lock(mutex_);
    finished_.wait(lock, [this] { return done_.load() == items_; });
  }

 private:
  const std::int64_t items_;
  const std::int64_t chunk_;
  std::atomic<std::int64_t> next_{0};
  std::atomic<std::int64_t> done_{0};
  std::mutex mutex_;
  std::condition_variable finished_;
};

// What a helper is given to run. The helper deletes it.
template <class Make>
struct Task {
  std::shared_ptr<Loop> loop;
  const Make& make;
  int caller_cpu;

  static void run(void* argument) {
    const std::unique_ptr<Task> task(static_cast<Task*>(argument));
    leave(task->caller_cpu);
    task->loop->run(task->make);
  }
};

// Runs work(first, last) for all items, `chunk` of them at a time, on the calling thread and up to `helpers`
// of the threads. Each of these calls make() once for a `work` of its own. Returns when all items are done.
// It waits only for chunks that a thread has claimed, never for a thread to start, so the caller may be one
// of the threads itself. Throws std::bad_alloc, if at all, before any item has begun.
template <class Make>
void parallel(const Threads& threads, std::int64_t helpers, std::int64_t items, std::int64_t chunk,
              const Make& make) {
  const auto loop = std::make_shared<Loop>(items, chunk);
  const int cpu = current_cpu();
  for (std::int64_t i = 0; i < helpers; ++i) {
    auto* const task = new (std::nothrow) Task<Make>{loop, make, cpu};
    if (!task) break;
    threads.schedule(threads.pool, &Task<Make>::run, task);
  }
  std::this_thread::yield();  // a helper may be waiting for this CPU
  loop->run(make);
  loop->wait();
}

}  // namespace jaxneuron
