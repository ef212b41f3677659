#include "pool.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <new>
#include <system_error>

#if defined(__linux__)
#include <sched.h>
#endif

#include "tuning.h"

namespace jaxneuron {
namespace {

// A pool and the process that made it. It is never freed, because its threads may still wait in it when the
// process ends.
struct Shared {
  const pid_t process = getpid();
  Pool pool;
};

std::atomic<Shared*> shared{nullptr};

// Returns this process's pool, and makes it if there is none. It does not use a lock, because another thread
// could hold that lock at the moment of a fork.
Pool& shared_pool() {
  Shared* found = shared.load();
  while (!found || found->process != getpid()) {
    Shared* const fresh = new Shared;
    if (shared.compare_exchange_strong(found, fresh)) return fresh->pool;
    delete fresh;
  }
  return found->pool;
}

// While an object of this class lives, the calling thread blocks all signals. Threads started meanwhile block
// them for good, so that only the program's own threads handle signals.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

// Gives the calling thread a name, which top -H, debuggers and profilers show.
void name_this_thread() {
#if defined(__linux__)
  pthread_setname_np(pthread_self(), "jaxneuron");
#elif defined(__APPLE__)
  pthread_setname_np("jaxneuron");
#endif
}

std::int64_t limited(void* most) { return std::min(*static_cast<std::int64_t*>(most), cpus()); }

void schedule(void* most, void (*task)(void*), void* argument) {
  try {
    shared_pool().add(task, argument, limited(most) - 1);
  } catch (const std::bad_alloc&) {
    task(argument);
  }
}

}  // namespace

Pool::~Pool() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    done_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Pool::add(void (*task)(void*), void* argument, std::int64_t most) {
  bool queued;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (idle_ <= tasks_.size() && std::int64_t(threads_.size()) < most) start();
    queued = !threads_.empty();
    if (queued) tasks_.push_back({task, argument});
  }
  if (queued)
    changed_.notify_one();
  else
    task(argument);
}

bool Pool::start() {
  const SignalsBlocked blocked;
  try {
    threads_.emplace_back([this] { work(); });
  } catch (const std::system_error&) {  // the system cannot start another thread
    return false;
  }
  return true;
}

void Pool::work() {
  name_this_thread();
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    ++idle_;
    changed_.wait(lock, [this] { return done_ || !tasks_.empty(); });
    --idle_;
    if (tasks_.empty()) return;
    const Task task = tasks_.front();
    tasks_.pop_front();
    lock.unlock();
    task.function(task.argument);
    lock.lock();
  }
}

std::int64_t cpus() {
#if defined(__linux__)
  cpu_set_t allowed;
  if (!sched_getaffinity(0, sizeof allowed, &allowed)) return CPU_COUNT(&allowed);
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

Threads shared_threads(std::int64_t* most) { return {limited, schedule, most, ASLEEP_THREAD_WORK}; }

}  // namespace jaxneuron
