// Evaluates random networks with every instruction set that the CPU has, and checks two things. First,
// outputs differ from those of plain loops by at most the error bound. Second, a row has the same bits in
// every tile, at every place of a tile, in every thread, through the kernel's functions and through the C
// interface, and with every instruction set that has FMA. The driver is meant to run under sanitizers, so
// every array has exactly the size that it needs.
//
//     driver [NETWORKS [SEED]]    how many networks (200), and the seed of the first (1)
#include <atomic>
#include <cfenv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "check_bfloat16.h"
#include "check_derivatives.h"
#include "examples.h"
#include "mode.h"
#include "plan.h"
#include "pool.h"
#include "threads.h"

namespace jaxneuron {
namespace {

void check_bound(const Kernel& kernel, const Example& example, const Bytes& y) {
  const Network& network = example.network;
  const Batch& batch = example.batch;
  const std::int64_t n_out = example.layers.back().n_out;
  for (std::int64_t member = 0; member < network.members; ++member)
    for (int times = 0; times < 3; ++times) {
      const std::int64_t row = random(0, batch.rows - 1);
      if (row == example.strange) continue;
      const reference::Outputs truth = reference::outputs(network, batch, member, row);
      for (std::int64_t j = 0; j < n_out; ++j) {
        if (!(std::fabs(truth.y[j]) + truth.error[j] < reference::largest(network.dtype)))
          continue;  // the output may be infinite or NaN
        const Real found = reference::get(y.get(), network.dtype, (member * batch.rows + row) * n_out + j);
        if (!(std::fabs(found - truth.y[j]) <= truth.error[j])) {
          std::fprintf(stderr, "row %lld, unit %lld: %.17Lg, not %.17Lg within %.3Lg\n", (long long)row,
                       (long long)j, found, truth.y[j], truth.error[j]);
          fail(kernel, example, "an output is off by more than its bound");
        }
      }
    }
}

// Checks that a row's bits do not depend on its place: rotates the rows, so that each moves to another place
// of its tile or to another tile, and compares the bits.
void check_place(const Kernel& kernel, const Example& example, const Bytes& y) {
  Example moved;
  moved.network = example.network;
  moved.batch = example.batch;
  moved.layers = example.layers;
  Network& network = moved.network;
  Batch& batch = moved.batch;
  network.layers = moved.layers.data();
  const std::int64_t width = reference::size_of(network.dtype);
  const std::int64_t n_in = moved.layers[0].n_in;
  const std::int64_t row = n_in * width;
  const std::int64_t rows = batch.x_stride ? network.members * batch.rows : batch.rows;
  const std::int64_t shift = random(0, batch.rows - 1);
  Bytes x(new char[rows * row]);
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t start = r / batch.rows * batch.rows;
    std::memcpy(x.get() + (start + (r + shift) % batch.rows) * row,
                static_cast<const char*>(batch.x) + r * row, row);
  }
  batch.x = x.get();
  const Bytes found = evaluate(kernel, moved, tile_rows(network));
  const std::int64_t out = moved.layers.back().n_out * width;
  Bytes back(new char[moved.bytes()]);
  for (std::int64_t r = 0; r < network.members * batch.rows; ++r) {
    const std::int64_t start = r / batch.rows * batch.rows;
    std::memcpy(back.get() + r * out, found.get() + (start + (r + shift) % batch.rows) * out, out);
  }
  if (!same(moved, y, back)) fail(kernel, example, "a row's bits depend on its place");
}

void check(const Example& example, std::uint64_t& hash) {
  Bytes fused;
  for (const Kernel* kernel : kernels()) {
    Bytes y = evaluate(*kernel, example, tile_rows(example.network));
    check_bound(*kernel, example, y);
    if (!same(example, y, evaluate(*kernel, example, 1)))
      fail(*kernel, example, "a row alone has other bits than in its tile");
    if (!same(example, y, evaluate(*kernel, example, 0)))
      fail(*kernel, example, "a row's bits depend on the tiles");
    if (!same(example, y, evaluate(*kernel, example, 0, true)))
      fail(*kernel, example, "a row has other bits if weights are read in place");
    check_place(*kernel, example, y);
    if (!fuses(*kernel)) continue;
    if (fused && !same(example, y, fused))
      fail(*kernel, example, "the bits are not those of the other instruction sets");
    fused = std::move(y);
  }
  if (fused) add_to_hash(hash, example.network.dtype, example.bytes(), fused);
}

// --- threads ---

// A pool as `Threads`. At most `most` of its threads help a caller.
struct Helpers {
  Pool& pool;
  std::int64_t most;

  operator Threads() {
    const auto count = [](void* helpers) { return static_cast<Helpers*>(helpers)->most; };
    const auto schedule = [](void* helpers, void (*task)(void*), void* argument) {
      static_cast<Helpers*>(helpers)->pool.add(task, argument, static_cast<Helpers*>(helpers)->most);
    };
    return {count, schedule, this, 1};
  }
};

// Checks that every item runs exactly once and that the caller sees its result. `counts` is not atomic, so
// that ThreadSanitizer reports a race. `made` is freed at the end, so that AddressSanitizer reports a thread
// that starts late and touches the caller's memory.
void count(Helpers helpers, std::int64_t items, std::int64_t chunk) {
  std::vector<int> counts(items);
  const auto made = std::make_unique<std::atomic<int>>(0);
  parallel(helpers, helpers.most, items, chunk, [&] {
    ++*made;
    return [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) ++counts[i];
      if (first % 2)
        std::this_thread::sleep_for(std::chrono::microseconds(1));  // gives helpers time to start
    };
  });
  for (const int times : counts)
    if (times != 1) {
      std::fprintf(stderr, "parallel: an item of %lld was done %d times\n", (long long)items, times);
      std::exit(1);
    }
}

void check_threads() {
  for (const int most : {0, 1, 2, 5}) {
    Pool pool;
    const Helpers helpers{pool, most};
    std::vector<std::thread> callers;
    for (int c = 0; c < 8; ++c)
      callers.emplace_back([&] {
        for (std::int64_t times = 0; times < 100; ++times) count(helpers, times % 40, 1 + times % 3);
      });
    for (std::thread& caller : callers) caller.join();
    // The pool's own threads call `parallel`, all at once, as XLA's threads may do: then no thread can help.
    const auto task = [](void* argument) { count(*static_cast<const Helpers*>(argument), 20, 1); };
    for (int times = 0; times < 50; ++times) pool.add(task, const_cast<Helpers*>(&helpers), most);
  }  // the pool's destructor waits for its tasks
}

// --- the C interface ---

// Checks an evaluation in place: each row of outputs overwrites its row of inputs.
void check_in_place(const Plan& plan, const Example& example, const Threads& threads, const Bytes& y) {
  const Network& network = example.network;
  const std::int64_t width = network.layers[0].n_in;
  if (example.layers.back().n_out != width || (network.members > 1 && !example.batch.x_stride)) return;
  const Bytes rows(new char[example.bytes()]);
  std::memcpy(rows.get(), example.batch.x, example.bytes());
  Batch batch = example.batch;
  batch.x = batch.y = rows.get();
  Error error;
  if (run_plan(plan, batch, &threads, &error)) fail(*plan.kernel, example, error.text);
  if (!same(example, y, rows)) fail(*plan.kernel, example, "in place the bits are not the same");
}

constexpr int ROUNDINGS[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};

// Gives this thread the mode of a program that rounds in another way, and stops at a division by 0, an
// overflow or NaN.
void change_mode(int rounding) {
  std::fesetround(rounding);
#ifdef __GLIBC__
  feenableexcept(FE_DIVBYZERO | FE_OVERFLOW | FE_INVALID);
#endif
}

// Its last bit depends on the thread's rounding.
float third() {
  volatile float one = 1;
  return one / 3;
}

// Checks that eight threads can run one plan at the same time: one without helpers, three with helpers from
// `pool`, four with helpers from the shared pool. Callers treat subnormal numbers as 0, as XLA's threads do,
// round to all sides, and stop at a division by 0, an overflow or NaN.
void check_plan(const Example& example, Pool& pool) {
  Error error;
  Helpers helpers{pool, 2};
  std::int64_t most = 3;
  const Threads given = helpers;
  const Threads shared = shared_threads(&most);
  for (int set = 0; set < kernel_count(); ++set) {
    const Bytes y = evaluate(kernel_of(set), example, tile_rows(example.network));
    Plan* plan = nullptr;
    const Mode mode(Mode::FLUSH);
    if (jaxneuron_plan_make(&example.network, set, random(0, 1), &plan, &error))
      fail(kernel_of(set), example, error.text);
    plan->row_work = 1e9;  // so large that helpers are worth their cost
    std::vector<std::thread> callers;
    for (int c = 0; c < 8; ++c) {
      const Threads* const threads = c == 0 ? nullptr : c < 4 ? &given : &shared;
      callers.emplace_back([&, c, threads] {
        const Bytes found(new char[example.bytes()]);
        Batch batch = example.batch;
        batch.y = found.get();
        Error of_run;
        const Mode mode(c < 4 ? Mode::FLUSH : Mode::IEEE);
        change_mode(ROUNDINGS[c % 4]);
        const float before = third();
        const std::int32_t code = jaxneuron_plan_run(plan, &batch, threads, &of_run);
        if (third() != before) fail(kernel_of(set), example, "the thread rounds in another way afterwards");
        std::fesetenv(FE_DFL_ENV);
        if (code) fail(kernel_of(set), example, of_run.text);
        if (!same(example, y, found)) fail(kernel_of(set), example, "a plan's bits are not the kernel's");
      });
    }
    for (std::thread& caller : callers) caller.join();
    check_in_place(*plan, example, shared, y);
    jaxneuron_plan_free(plan);
  }
}

void refuses(const Network& network, const char* text) {
  Error error{"nothing"};
  Plan* plan = nullptr;
  if (jaxneuron_plan_make(&network, 0, 1, &plan, &error) != INVALID || plan ||
      std::strcmp(error.text, text)) {
    std::fprintf(stderr, "a plan should be refused with \"%s\", not \"%s\"\n", text, error.text);
    std::exit(1);
  }
}

void check_refusals() {
  const float w[6] = {};
  Layer layers[2] = {{w, nullptr, 2, 3, 0, 0, Activation::relu}, {w, nullptr, 3, 2, 0, 0, Activation::relu}};
  const Network good{layers, 2, 1, Dtype::float32};
  Network bad = good;
  bad.depth = 0;
  refuses(bad, "a network must have a layer");
  bad = good;
  bad.members = -1;
  refuses(bad, "members must be 0 or more");
  bad = good;
  bad.dtype = Dtype(4);
  refuses(bad, "no dtype has the code 4");
  layers[1].n_in = 2;
  refuses(good, "layer 1: takes 2 numbers, and the one before gives 3");
  layers[1].n_in = -3;
  refuses(good, "layer 1: from 0 to 2^32 units, got -3 to 2");
  layers[1].n_in = 3;
  layers[1].activation = Activation(ACTIVATIONS);
  refuses(good, ("layer 1: no activation has the code " + std::to_string(ACTIVATIONS)).c_str());
  layers[0].activation = Activation(-1);
  refuses(good, "layer 0: no activation has the code -1");
}

// Checks that several threads can evaluate one network at the same time.
void check_together(const Example& example) {
  for (const Kernel* kernel : kernels()) {
    const Bytes y = evaluate(*kernel, example, tile_rows(example.network));
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t)
      threads.emplace_back([&, t] {
        if (!same(example, y, evaluate(*kernel, example, t)))
          fail(*kernel, example, "the bits depend on the thread");
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
  check_refusals();
  source.seed(seed);
  check_pairs();
  check_sigmoid();
  Pool pool;
  for (long n = 0; n < networks; ++n) {
    source.seed(seed + n);
    const Example example = random_example();
    check(example, hash);
    check_derivatives(example, hash);
    if (n % 10 == 0) check_together(example);
    check_plan(example, pool);
  }
  for (const Kernel* kernel : kernels()) std::printf("%s ", kernel->name);
  std::printf("agree with plain loops, and with themselves, on %ld networks\n", networks);
  std::printf("bits with FMA: %016llx\n", (unsigned long long)hash);
}
