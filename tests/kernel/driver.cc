// Random networks through every instruction set that the processor has: outputs within the bound of plain
// loops, and a row's bits the same in every tile, place and thread and, where there is FMA, instruction set.
// Made to run under sanitizers: every array is as large as it must be and no larger.
//
//     driver [NETWORKS [SEED]]
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <thread>

#include "network.h"
#include "reference.h"
#include "threads.h"

namespace jaxneuron {
namespace {

using reference::Real;
using Bytes = std::unique_ptr<char[]>;

std::mt19937_64 source;

std::int64_t random(std::int64_t low, std::int64_t high) {
  return std::uniform_int_distribution<std::int64_t>(low, high)(source);
}

[[noreturn]] void fail(const Kernel& kernel, const Network& network, const char* what) {
  std::fprintf(stderr, "%s: %s\n  number %d, %lld members, %lld rows", kernel.name, what, int(network.number),
               (long long)network.members, (long long)network.rows);
  for (std::int64_t l = 0; l < network.depth; ++l) {
    const Layer& layer = network.layers[l];
    std::fprintf(stderr, "; %lld to %lld, activation %lld%s%s", (long long)layer.n_in, (long long)layer.n_out,
                 (long long)layer.activation, layer.b ? "" : ", no bias", layer.w_step ? "" : ", shared");
  }
  std::fprintf(stderr, "\n");
  std::exit(1);
}

std::vector<const Kernel*> kernels() {
  std::vector<const Kernel*> found;
  for (int i = 0; i < kernel_count(); ++i) found.push_back(&kernel_of(i));
  return found;
}

bool fuses(const Kernel& kernel) { return std::strcmp(kernel.name, "baseline") != 0; }

struct Example {
  Network network{};
  std::vector<Layer> layers;
  std::vector<Bytes> arrays;
  std::int64_t strange = -1;  // a row of infinities, NaNs, subnormal and huge numbers

  // `count` random numbers of about `size`, the same on every machine.
  void* array(std::int64_t count, double size) {
    arrays.emplace_back(new char[count * reference::size_of(network.number)]);
    for (std::int64_t i = 0; i < count; ++i) {
      double sum = 0;
      for (int times = 0; times < 3; ++times) sum += random(-(1 << 24), 1 << 24);
      reference::put(arrays.back().get(), network.number, i, sum * 0x1p-24 * size);
    }
    return arrays.back().get();
  }

  std::int64_t bytes() const {
    return network.members * network.rows * layers.back().n_out * reference::size_of(network.number);
  }
};

std::int64_t random_width() {
  static const std::int64_t beside[] = {7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 133};
  switch (random(0, 9)) {
    case 0:
      return random(150, 300);
    case 1:
    case 2:
    case 3:
      return beside[random(0, 14)];
    default:
      return random(1, 24);
  }
}

Example random_example() {
  Example example;
  Network& network = example.network;
  network.number = Number(random(0, 3));
  network.members = random(0, 2) ? 1 : random(2, 4);
  network.depth = random(1, 5);
  const std::int64_t most = random(0, 3) ? 20 : 200;
  network.rows = random(1, most);
  const std::int64_t n_in = random_width();
  std::int64_t width = n_in;
  for (std::int64_t l = 0; l < network.depth; ++l) {
    Layer layer{};
    layer.n_in = width;
    layer.n_out = width = random_width();
    const bool last = l + 1 == network.depth, population = network.members > 1;
    layer.activation = Activation(random(0, std::int64_t(Activation::softmax) - !last));
    layer.w_step = population && random(0, 2) ? layer.n_in * layer.n_out : 0;
    layer.w = example.array(layer.n_in * layer.n_out * (layer.w_step ? network.members : 1),
                            1.5 / std::sqrt(double(layer.n_in)));
    if (random(0, 3)) {
      layer.b_step = population && random(0, 2) ? layer.n_out : 0;
      layer.b = example.array(layer.n_out * (layer.b_step ? network.members : 1), 1);
    }
    example.layers.push_back(layer);
  }
  network.layers = example.layers.data();
  network.x_step = network.members > 1 && random(0, 1) ? network.rows * n_in : 0;
  void* x = example.array(network.rows * n_in * (network.x_step ? network.members : 1), 2);
  network.x = x;
  if (random(0, 3) == 0) {
    static const double strange[] = {INFINITY, -INFINITY, NAN, 3e38, -3e38, 1e-40, -1e-7, -0.0};
    example.strange = random(0, network.rows - 1);
    for (std::int64_t i = 0; i < n_in; ++i)
      reference::put(x, network.number, example.strange * n_in + i, strange[random(0, 7)]);
  }
  return example;
}

// All rows of all members, in tiles of `rows` or, where that is 0, of random sizes.
Bytes evaluate(const Kernel& kernel, const Example& example, std::int64_t rows) {
  Network network = example.network;
  Bytes y(new char[example.bytes()]);
  network.y = y.get();
  std::uint64_t state = 1;
  for (std::int64_t member = 0; member < network.members; ++member)
    for (std::int64_t first = 0, size; first < network.rows; first += size) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      size = rows ? rows : 1 + std::int64_t(state >> 33) % tile_rows(network);
      size = std::min(size, network.rows - first);
      void* memory = nullptr;
      if (posix_memalign(&memory, 64, kernel.scratch(network, size))) std::abort();
      kernel.run(network, member, first, size, memory);
      std::free(memory);
    }
  return y;
}

// NaN is NaN, whichever.
bool same(const Example& example, const Bytes& a, const Bytes& b) {
  if (std::memcmp(a.get(), b.get(), example.bytes()) == 0) return true;
  const std::int64_t width = reference::size_of(example.network.number);
  for (std::int64_t i = 0; i < example.bytes() / width; ++i)
    if (std::memcmp(a.get() + i * width, b.get() + i * width, width) != 0 &&
        !(std::isnan(reference::get(a.get(), example.network.number, i)) &&
          std::isnan(reference::get(b.get(), example.network.number, i))))
      return false;
  return true;
}

void check_bound(const Kernel& kernel, const Example& example, const Bytes& y) {
  const Network& network = example.network;
  const std::int64_t n_out = example.layers.back().n_out;
  for (std::int64_t member = 0; member < network.members; ++member)
    for (int times = 0; times < 3; ++times) {
      const std::int64_t row = random(0, network.rows - 1);
      if (row == example.strange) continue;
      const reference::Outputs truth = reference::outputs(network, member, row);
      for (std::int64_t j = 0; j < n_out; ++j) {
        const Real found = reference::get(y.get(), network.number, (member * network.rows + row) * n_out + j);
        if (!(std::fabs(found - truth.y[j]) <= truth.error[j])) {
          std::fprintf(stderr, "row %lld, unit %lld: %.17Lg, not %.17Lg within %.3Lg\n", (long long)row,
                       (long long)j, found, truth.y[j], truth.error[j]);
          fail(kernel, network, "an output is off by more than its bound");
        }
      }
    }
}

// A row stands in two places of the same tile or of two.
void check_place(const Kernel& kernel, const Example& example, const Bytes& y) {
  Example moved;
  moved.network = example.network;
  moved.layers = example.layers;
  Network& network = moved.network;
  network.layers = moved.layers.data();
  const std::int64_t width = reference::size_of(network.number), n_in = moved.layers[0].n_in;
  const std::int64_t row = n_in * width,
                     rows = network.x_step ? network.members * network.rows : network.rows;
  const std::int64_t shift = random(0, network.rows - 1);
  Bytes x(new char[rows * row]);
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t start = r / network.rows * network.rows;
    std::memcpy(x.get() + (start + (r + shift) % network.rows) * row,
                static_cast<const char*>(network.x) + r * row, row);
  }
  network.x = x.get();
  const Bytes found = evaluate(kernel, moved, tile_rows(network));
  const std::int64_t out = moved.layers.back().n_out * width;
  Bytes back(new char[moved.bytes()]);
  for (std::int64_t r = 0; r < network.members * network.rows; ++r) {
    const std::int64_t start = r / network.rows * network.rows;
    std::memcpy(back.get() + r * out, found.get() + (start + (r + shift) % network.rows) * out, out);
  }
  if (!same(moved, y, back)) fail(kernel, network, "a row's bits depend on its place");
}

// FNV-1a.
void add_to_hash(std::uint64_t& hash, const Example& example, const Bytes& y) {
  const std::int64_t width = reference::size_of(example.network.number);
  for (std::int64_t i = 0; i < example.bytes(); ++i) {
    const bool nan = std::isnan(reference::get(y.get(), example.network.number, i / width));
    hash = (hash ^ (nan ? 0xff : y[i] & 0xff)) * 0x100000001b3u;
  }
}

void check(const Example& example, std::uint64_t& hash) {
  Bytes fused;
  for (const Kernel* kernel : kernels()) {
    Bytes y = evaluate(*kernel, example, tile_rows(example.network));
    check_bound(*kernel, example, y);
    if (!same(example, y, evaluate(*kernel, example, 1)))
      fail(*kernel, example.network, "a row alone has other bits than in its tile");
    if (!same(example, y, evaluate(*kernel, example, 0)))
      fail(*kernel, example.network, "a row's bits depend on the tiles");
    check_place(*kernel, example, y);
    if (!fuses(*kernel)) continue;
    if (fused && !same(example, y, fused))
      fail(*kernel, example.network, "the bits are not those of the other instruction sets");
    fused = std::move(y);
  }
  if (fused) add_to_hash(hash, example, fused);
}

// --- threads ---

// What the FFI's ThreadPool is to the kernel.
class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  }
  ~Pool() {
    {
      const std::lock_guard lock(mutex_);
      done_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  std::int64_t num_threads() const { return std::int64_t(threads_.size()); }
  template <class F>
  void Schedule(F&& f) {
    {
      const std::lock_guard lock(mutex_);
      tasks_.emplace_back(std::forward<F>(f));
    }
    changed_.notify_one();
  }

 private:
  void work() {
    for (;;) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return done_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  std::vector<std::thread> threads_;
  bool done_ = false;
};

// Every item once, seen by him who handed it over. `counts` is no atomic, so that ThreadSanitizer sees a
// mistake; `made` is freed, so that AddressSanitizer sees a thread that comes too late and touches what was
// the caller's.
void count(Pool& pool, std::int64_t items, std::int64_t chunk) {
  std::vector<int> counts(items);
  const auto made = std::make_unique<std::atomic<int>>(0);
  parallel(pool, pool.num_threads(), items, chunk, [&] {
    ++*made;
    return [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) ++counts[i];
      if (first % 2)
        std::this_thread::sleep_for(std::chrono::microseconds(1));  // time for the others to come
    };
  });
  for (const int times : counts)
    if (times != 1) {
      std::fprintf(stderr, "parallel: an item of %lld was done %d times\n", (long long)items, times);
      std::exit(1);
    }
}

void check_threads() {
  for (const int threads : {1, 2, 5}) {
    Pool pool(threads);
    std::vector<std::thread> callers;
    for (int c = 0; c < 3; ++c)
      callers.emplace_back([&] {
        for (std::int64_t times = 0; times < 200; ++times) count(pool, times % 40, 1 + times % 3);
      });
    for (std::thread& caller : callers) caller.join();
    // From the pool's own threads, all of them at once, as XLA may call: no one is left to help.
    std::mutex mutex;
    std::condition_variable changed;
    int left = 50;
    for (int task = left; task > 0; --task)
      pool.Schedule([&] {
        count(pool, 20, 1);
        const std::lock_guard lock(mutex);
        if (--left == 0) changed.notify_all();
      });
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return left == 0; });
  }
}

// Several threads evaluate one network at once.
void check_together(const Example& example) {
  for (const Kernel* kernel : kernels()) {
    const Bytes y = evaluate(*kernel, example, tile_rows(example.network));
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t)
      threads.emplace_back([&, t] {
        if (!same(example, y, evaluate(*kernel, example, t)))
          fail(*kernel, example.network, "the bits depend on the thread");
      });
    for (std::thread& thread : threads) thread.join();
  }
}

}  // namespace
}  // namespace jaxneuron

int main(int count, char** words) {
  using namespace jaxneuron;
  const long networks = count > 1 ? std::atol(words[1]) : 200;
  const long seed = count > 2 ? std::atol(words[2]) : 1;
  std::uint64_t hash = 0xcbf29ce484222325u;
  check_threads();
  for (long n = 0; n < networks; ++n) {
    source.seed(seed + n);
    const Example example = random_example();
    check(example, hash);
    if (n % 10 == 0) check_together(example);
  }
  for (const Kernel* kernel : kernels()) std::printf("%s ", kernel->name);
  std::printf("agree with plain loops, and with themselves, on %ld networks\n", networks);
  std::printf("bits with FMA: %016llx\n", (unsigned long long)hash);
}
