#include "plan.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "mode.h"
#include "threads.h"
#include "tuning.h"

namespace jaxneuron {
namespace {

constexpr std::int64_t MOST_UNITS = std::int64_t{1} << 32;  // the product of two fits in 64 bits

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

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<void, Free>;

std::int64_t quotient_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

std::size_t up_to_64(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

// Returns how many bytes of packed weights a call needs for each member; 0 if it reads all weights in place
// or the plan has packed them.
std::size_t bytes_to_pack(const Plan& plan, std::int64_t rows) {
  const std::size_t bytes = plan.packed ? 0 : plan.kernel->packed_bytes(plan.network);
  return bytes && !plan.kernel->reads_in_place(plan.network, rows) ? bytes : 0;
}

// Packs the layers first to last - 1 of one member; `packed` is the memory for all layers of that member.
void pack_layers(const Plan& plan, std::int64_t member, std::int64_t first, std::int64_t last, void* packed) {
  for (std::int64_t layer = first; layer < last; ++layer)
    plan.kernel->pack(plan.network, member, layer, packed);
}

// Runs tiles on one thread. It sets the thread's floating-point mode: callers may round in another way, and
// XLA's threads treat subnormal numbers as 0. It holds memory for a tile and, if the plan has no packed
// weights, memory for the packed weights of one member.
class Worker {
 public:
  Worker(const Plan& plan, const Batch& batch, const Derivatives* wanted, std::int64_t tile_rows,
         std::atomic<bool>& failed)
      : plan_(plan), batch_(batch), wanted_(wanted), tile_rows_(tile_rows), packed_(plan.packed) {
    const std::size_t packed_bytes = wanted ? 0 : bytes_to_pack(plan, batch.rows);
    const bool packed = plan.packed || packed_bytes;
    std::size_t bytes = scratch(tile_rows, packed);
    if (const std::int64_t last_rows = batch.rows % tile_rows)
      bytes = std::max(bytes, scratch(last_rows, packed));
    bytes = up_to_64(bytes);
    void* memory = small_;
    if (bytes + packed_bytes > sizeof small_) {
      large_.reset(std::aligned_alloc(64, bytes + up_to_64(packed_bytes)));
      memory = large_.get();
    }
    memory_ = memory;
    if (!memory_) failed = true;
    if (memory_ && packed_bytes) own_ = static_cast<char*>(memory_) + bytes;
  }

  // Runs the tiles first to last - 1. Tile 0 is the first of the first member; the tiles of the next member
  // follow those of the member before.
  void operator()(std::int64_t first, std::int64_t last) {
    if (!memory_) return;
    const std::int64_t tiles = quotient_up(batch_.rows, tile_rows_);
    for (std::int64_t i = first; i < last; ++i) {
      Tile tile;
      tile.member = i / tiles;
      tile.first = i % tiles * tile_rows_;
      tile.count = std::min(tile_rows_, batch_.rows - tile.first);
      if (own_ && tile.member != member_) {
        pack_layers(plan_, tile.member, 0, plan_.network.depth, own_);
        packed_ = own_;
        member_ = tile.member;
      }
      if (wanted_)
        plan_.kernel->differentiate(plan_.network, batch_, *wanted_, tile, memory_);
      else
        plan_.kernel->run(plan_.network, batch_, tile, memory_, packed_);
    }
  }

 private:
  std::size_t scratch(std::int64_t rows, bool packed) const {
    return wanted_ ? plan_.kernel->derivative_scratch(plan_.network, *wanted_, rows)
                   : plan_.kernel->scratch(plan_.network, rows, packed);
  }

  const Plan& plan_;
  const Batch& batch_;
  const Derivatives* const wanted_;
  const std::int64_t tile_rows_;
  const Mode mode_{Mode::IEEE};
  Memory large_;
  void* memory_;
  const void* packed_;
  void* own_ = nullptr;       // memory for one member's packed weights, or null
  std::int64_t member_ = -1;  // the member whose packed weights are in own_
  alignas(64) char small_[STACK_SCRATCH];
};

// How a call is divided: how many rows a tile has, and how many threads help the caller.
struct Division {
  std::int64_t tile_rows;
  std::int64_t helpers;
};

Division divide(const Plan& plan, std::int64_t rows, const Threads* threads) {
  Division division;
  division.tile_rows = std::min(plan.tile_rows, rows);
  division.helpers = 0;
  const Network& network = plan.network;
  const double total = work(plan, rows);
  if (!threads || total < 2 * threads->repaid_by) return division;
  const std::int64_t count = std::max<std::int64_t>(threads->count(threads->pool), 1);
  if (network.members < count) {  // at least one tile for each thread; more if the tiles stay large
    const std::int64_t wanted = std::max(count, std::min(THREAD_TILES * count, rows / THREAD_TILE_ROWS));
    division.tile_rows = std::min(division.tile_rows, quotient_up(rows, wanted));
  }
  const std::int64_t items = network.members * quotient_up(rows, division.tile_rows);
  const std::int64_t repaid = std::min<std::int64_t>(count, total / threads->repaid_by);
  division.helpers = std::min(repaid, items) - 1;
  return division;
}

// Packs layers of a single network on one thread.
class Packer {
 public:
  Packer(const Plan& plan, void* packed) : plan_(plan), packed_(packed) {}
  void operator()(std::int64_t first, std::int64_t last) { pack_layers(plan_, 0, first, last, packed_); }

 private:
  const Plan& plan_;
  void* const packed_;
  const Mode mode_{Mode::IEEE};
};

// Returns the packed weights of a single network, for all threads to use. Up to `helpers` threads help to
// pack them. Returns null if there is nothing to pack; throws std::bad_alloc if there is no memory.
Memory pack(const Plan& plan, std::size_t bytes, const Threads* threads, std::int64_t helpers) {
  if (bytes == 0) return nullptr;
  Memory packed(std::aligned_alloc(64, up_to_64(bytes)));
  if (!packed) throw std::bad_alloc();
  const auto make = [&] { return Packer(plan, packed.get()); };
  if (helpers > 0)
    parallel(*threads, std::min(helpers, plan.network.depth - 1), plan.network.depth, 1, make);
  else
    make()(0, plan.network.depth);
  return packed;
}

// A plan with memory of its own for the layers' descriptions and the packed weights.
struct OwningPlan : Plan {
  std::vector<Layer> layers;
  Memory memory;
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
  plan->packed = nullptr;
  return OK;
}

double work(const Plan& plan, std::int64_t rows) {
  const Network& network = plan.network;
  const double tiles = rows ? quotient_up(rows, std::min(plan.tile_rows, rows)) : 0;
  return network.members * (plan.row_work * rows + LAYER_WORK * network.depth * tiles);
}

namespace {

// Evaluates all rows and, unless `wanted` is null, their derivatives.
Code run(const Plan& plan, const Batch& batch, const Derivatives* wanted, const Threads* threads,
         Error* error) {
  const Network& network = plan.network;
  if (batch.rows < 0) return invalid(error, "rows must be 0 or more, got %lld", (long long)batch.rows);
  if (batch.rows == 0 || network.members == 0 || network.layers[network.depth - 1].n_out == 0) return OK;
  const Division division = divide(plan, batch.rows, threads);
  const std::int64_t items = network.members * quotient_up(batch.rows, division.tile_rows);
  std::atomic<bool> failed{false};
  Plan shared = plan;
  const auto make = [&] { return Worker(shared, batch, wanted, division.tile_rows, failed); };
  if (division.helpers > 0) {
    const std::int64_t chunk = std::max<std::int64_t>(1, items / (THREAD_CHUNKS * (division.helpers + 1)));
    try {
      Memory packed;
      if (!wanted && network.members == 1)
        packed = pack(plan, bytes_to_pack(plan, batch.rows), threads, division.helpers);
      if (packed) shared.packed = packed.get();
      parallel(*threads, division.helpers, items, chunk, make);
    } catch (const std::bad_alloc&) {
      return no_memory(error, "packed weights or a loop of threads");
    }
  } else {
    make()(0, items);  // a Worker packs what it needs
  }
  return failed ? no_memory(error, "a tile of rows") : OK;
}

}  // namespace

Code run_plan(const Plan& plan, const Batch& batch, const Threads* threads, Error* error) {
  return run(plan, batch, nullptr, threads, error);
}

Code differentiate(const Plan& plan, const Batch& batch, const Derivatives& wanted, const Threads* threads,
                   Error* error) {
  const Network& network = plan.network;
  if (network.dtype > Dtype::float64) return invalid(error, "derivatives are those of float32 and float64");
  Plan with_derivatives = plan;
  with_derivatives.tile_rows = derivative_tile_rows(network, wanted);
  for (std::int64_t i = 0; i < network.depth; ++i) {
    const Layer& layer = network.layers[i];
    if (layer.n_in < 1 || layer.n_out < 1)
      return invalid(error, "derivatives need a unit in every layer, layer %lld goes from %lld to %lld",
                     (long long)i, (long long)layer.n_in, (long long)layer.n_out);
    with_derivatives.row_work += double(wanted.directions) * layer.n_in * layer.n_out;
  }
  return run(with_derivatives, batch, &wanted, threads, error);
}

}  // namespace jaxneuron

using namespace jaxneuron;

std::int32_t jaxneuron_plan_make(const Network* network, std::int64_t instruction_set, std::int64_t packs,
                                 Plan** plan, Error* error) {
  *plan = nullptr;
  Plan checked;
  if (const Code code = make_plan(*network, instruction_set, &checked, error)) return code;
  try {
    auto owning = std::make_unique<OwningPlan>();
    owning->layers.assign(network->layers, network->layers + network->depth);
    static_cast<Plan&>(*owning) = checked;
    owning->network.layers = owning->layers.data();
    if (packs && network->members == 1)
      owning->memory = pack(*owning, owning->kernel->packed_bytes(*network), nullptr, 0);
    owning->packed = owning->memory.get();
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
