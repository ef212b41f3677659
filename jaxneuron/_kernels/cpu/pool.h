// The kernel's own threads, for a caller that has none to supply. They sleep between calls.
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
  ~Pool();  // when every task has been run

  // Has task(argument) called on one of at most `most` threads, which is started if all others have work. If
  // the system has no thread to give, the calling thread runs the task itself.
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

// The CPUs that this process may use, by its affinity.
std::int64_t cpus();

// A pool that all calls of this process share, for calls by at most `*most` threads, the calling one
// included, and never more than cpus(). A forked process has none of its parent's threads: it gets a pool of
// its own.
Threads shared_threads(std::int64_t* most);

}  // namespace jaxneuron
