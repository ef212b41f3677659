#include "plan.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "threads.h"
#include "tuning.h"

namespace jaxneuron {
namespace {

constexpr std::int64_t MOST_UNITS = std::int64_t{1} << 32;  // products of sizes don't overflow

__attribute__((format(printf, 2, 3))) Code invalid(Error* error, const char* format, ...) {
  va_list values;
  va_start(values, format);
  std::vsnprintf(error->text, sizeof error->text, format, values);
  va_end(values);
  return INVALID;
}

Code no_memory(Error* error, const char* what) {
  std::snprintf(error->text, sizeof error->text, "no memory for %s", what);
  return NO_MEMORY;
}

// While it lives, the calling thread computes with subnormal numbers; XLA's threads take them for 0.
class SubnormalNumbers {
#if defined(__x86_64__)
 public:
  SubnormalNumbers() : before_(_mm_getcsr()) { _mm_setcsr(before_ & ~FLUSH); }
  ~SubnormalNumbers() { _mm_setcsr(before_); }

 private:
  static constexpr unsigned FLUSH = 0x8040;  // FTZ and DAZ
  unsigned before_;
#elif defined(__aarch64__)
 public:
  SubnormalNumbers() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" : : "r"(before_ & ~FLUSH));
  }
  ~SubnormalNumbers() { asm volatile("msr fpcr, %0" : : "r"(before_)); }

 private:
  static constexpr std::uint64_t FLUSH = std::uint64_t{1} << 24;  // FZ
  std::uint64_t before_;
#else
 public:
  SubnormalNumbers() {}
#endif
};

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

// What one thread needs to run tiles: its floating-point mode, and memory for a tile.
class Worker {
 public:
  Worker(const Plan& plan, const Batch& batch, std::int64_t tile_rows, std::atomic<bool>& failed)
      : plan_(plan), batch_(batch), tile_rows_(tile_rows) {
    std::size_t bytes = plan.kernel->scratch(plan.network, tile_rows);
    if (const std::int64_t last_rows = batch.rows % tile_rows)
      bytes = std::max(bytes, plan.kernel->scratch(plan.network, last_rows));
    bytes = (bytes + 63) / 64 * 64;
    memory_ = small_;
    if (bytes > sizeof small_) {
      large_.reset(std::aligned_alloc(64, bytes));
      memory_ = large_.get();
    }
    if (!memory_) failed = true;
  }

  // Item i is a tile of rows of one member.
  void operator()(std::int64_t first, std::int64_t last) {
    if (!memory_) return;
    const std::int64_t tiles = (batch_.rows + tile_rows_ - 1) / tile_rows_;
    for (std::int64_t i = first; i < last; ++i) {
      Tile tile;
      tile.member = i / tiles;
      tile.first = i % tiles * tile_rows_;
      tile.count = std::min(tile_rows_, batch_.rows - tile.first);
      plan_.kernel->run(plan_.network, batch_, tile, memory_);
    }
  }

 private:
  const Plan& plan_;
  const Batch& batch_;
  const std::int64_t tile_rows_;
  SubnormalNumbers subnormal_;
  std::unique_ptr<void, Free> large_;
  void* memory_;
  alignas(64) char small_[STACK_SCRATCH];
};

// How many rows a tile has, and how many threads beside the caller work on the tiles.
struct Division {
  std::int64_t tile_rows;
  std::int64_t helpers;
};

std::int64_t quotient_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

Division divide(const Plan& plan, std::int64_t rows, const Threads* threads) {
  Division division;
  division.tile_rows = std::min(plan.tile_rows, rows);
  division.helpers = 0;
  const Network& network = plan.network;
  const double total = work(plan, rows);
  if (!threads || total < 2 * threads->repaid_by) return division;
  const std::int64_t count = std::max<std::int64_t>(threads->count(threads->pool), 1);
  if (network.members < count) {  // tiles enough for all threads, and some more where they stay large
    const std::int64_t wanted = std::max(count, std::min(THREAD_TILES * count, rows / THREAD_TILE_ROWS));
    division.tile_rows = std::min(division.tile_rows, quotient_up(rows, wanted));
  }
  const std::int64_t items = network.members * quotient_up(rows, division.tile_rows);
  const std::int64_t repaid = std::min<std::int64_t>(count, total / threads->repaid_by);
  division.helpers = std::min(repaid, items) - 1;
  return division;
}

// A plan that owns its layers' descriptions.
struct OwningPlan : Plan {
  std::vector<Layer> layers;
};

}  // namespace

Code make_plan(const Network& network, std::int64_t instruction_set, Plan* plan, Error* error) {
  if (network.depth < 1) return invalid(error, "a network must have a layer");
  if (network.members < 0) return invalid(error, "members must be 0 or more");
  if (network.dtype < Dtype::float32 || network.dtype > Dtype::float16)
    return invalid(error, "no dtype has the code %d", int(network.dtype));
  double row_work = 0;
  for (std::int64_t i = 0; i < network.depth; ++i) {
    const Layer& layer = network.layers[i];
    const auto code = std::int64_t(layer.activation);
    if (code < 0 || code >= ACTIVATIONS)
      return invalid(error, "layer %lld: no activation has the code %lld", (long long)i, (long long)code);
    if (std::min(layer.n_in, layer.n_out) < 0 || std::max(layer.n_in, layer.n_out) > MOST_UNITS)
      return invalid(error, "layer %lld: from 0 to 2^32 units, got %lld to %lld", (long long)i,
                     (long long)layer.n_in, (long long)layer.n_out);
    if (i > 0 && layer.n_in != network.layers[i - 1].n_out)
      return invalid(error, "layer %lld: takes %lld numbers, and the one before gives %lld", (long long)i,
                     (long long)layer.n_in, (long long)network.layers[i - 1].n_out);
    row_work += (layer.n_in + ACTIVATION_WORK) * layer.n_out;
  }
  const std::int64_t best = kernel_count() - 1;
  plan->network = network;
  plan->kernel = &kernel_of(std::min(std::max<std::int64_t>(instruction_set, 0), best));
  plan->tile_rows = tile_rows(network);
  plan->row_work = row_work;
  return OK;
}

double work(const Plan& plan, std::int64_t rows) {
  const Network& network = plan.network;
  const double tiles = rows ? quotient_up(rows, std::min(plan.tile_rows, rows)) : 0;
  return network.members * (plan.row_work * rows + LAYER_WORK * network.depth * tiles);
}

Code run_plan(const Plan& plan, const Batch& batch, const Threads* threads, Error* error) {
  const Network& network = plan.network;
  if (batch.rows < 0) return invalid(error, "rows must be 0 or more, got %lld", (long long)batch.rows);
  if (batch.rows == 0 || network.members == 0 || network.layers[network.depth - 1].n_out == 0) return OK;
  const Division division = divide(plan, batch.rows, threads);
  const std::int64_t items = network.members * quotient_up(batch.rows, division.tile_rows);
  std::atomic<bool> failed{false};
  const auto make = [&] { return Worker(plan, batch, division.tile_rows, failed); };
  if (division.helpers > 0) {
    const std::int64_t chunk = std::max<std::int64_t>(1, items / (THREAD_CHUNKS * (division.helpers + 1)));
    try {
      parallel(*threads, division.helpers, items, chunk, make);
    } catch (const std::bad_alloc&) {
      return no_memory(error, "a loop of threads");
    }
  } else {
    make()(0, items);
  }
  return failed ? no_memory(error, "a tile of rows") : OK;
}

}  // namespace jaxneuron

using namespace jaxneuron;

std::int32_t jaxneuron_plan_make(const Network* network, std::int64_t instruction_set, Plan** plan,
                                 Error* error) {
  *plan = nullptr;
  Plan checked;
  if (const Code code = make_plan(*network, instruction_set, &checked, error)) return code;
  try {
    auto owning = std::make_unique<OwningPlan>();
    owning->layers.assign(network->layers, network->layers + network->depth);
    static_cast<Plan&>(*owning) = checked;
    owning->network.layers = owning->layers.data();
    *plan = owning.release();
  } catch (const std::bad_alloc&) {
    return no_memory(error, "a plan");
  }
  return OK;
}

std::int32_t jaxneuron_plan_run(const Plan* plan, const Batch* batch, const Threads* threads, Error* error) {
  return run_plan(*plan, *batch, threads, error);
}

void jaxneuron_plan_free(Plan* plan) { delete static_cast<OwningPlan*>(plan); }

const char* jaxneuron_interface() { return JAXNEURON_INTERFACE " " JAXNEURON_TABLES; }

std::int64_t jaxneuron_activations() { return ACTIVATIONS; }
const char* jaxneuron_activation_name(std::int64_t code) { return ACTIVATION_NAMES[code]; }

std::int64_t jaxneuron_instruction_sets() { return kernel_count(); }
const char* jaxneuron_instruction_set_name(std::int64_t i) { return kernel_of(i).name; }
