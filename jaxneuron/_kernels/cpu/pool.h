// Threads of the kernel's own, for callers that have none to supply. They sleep between calls.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "plan.h"

namespace jaxneuron {

class Pool {
 public:
  Pool() = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool();  // waits until every task has run

  // Has task(argument) called by a thread of the pool. If all of them are busy and there are fewer than
  // `most`, a new one is started. If the pool has no thread and can't start one, the calling thread runs the
  // task.
  void add(void (*task)(void*), void* argument, std::int64_t most);

 private:
  struct Task {
    void (*function)(void*);
    void* argument;
  };

  bool start();
  void work();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Task> tasks_;
  std::vector<std::thread> threads_;
  std::size_t idle_ = 0;
  bool done_ = false;
};

// Returns how many CPUs this process may use, by its affinity.
std::int64_t cpus();

// Returns a pool that all calls of this process share. It uses at most `*most` threads, the calling one
// included, and never more than cpus(). A forked process gets a new pool, as it has none of its parent's
// threads.
Threads shared_threads(std::int64_t* most);

}  // namespace jaxneuron
