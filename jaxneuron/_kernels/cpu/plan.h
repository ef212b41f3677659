// The library's plain C interface: make a plan from a network, run it on rows, free it.
//
//     Plan* plan;
//     Error error;
//     if (jaxneuron_plan_make(&network, instruction_set, packs, &plan, &error)) { ... error.text ... }
//     jaxneuron_plan_run(plan, &batch, &threads, &error);  // as often as wanted, by many threads at once
//     jaxneuron_plan_free(plan);
//
// The library has no global state. The caller supplies threads, for instance those of pool.h. A plan holds a
// copy of the layers' descriptions and, if asked to, of a single network's 16-bit weights. All other weights
// are read in place: they must stay where they are until the plan is freed. The structs have only numbers and
// pointers; an enum is an integer of the size that it states.
#pragma once

#include <cstdint>

#include "network.h"

namespace jaxneuron {

// Count this up when a struct, a function, or the operands or attributes of an XLA handler change.
#define JAXNEURON_INTERFACE "7"

enum Code : std::int32_t { OK = 0, INVALID = 1, NO_MEMORY = 2 };

// Why a function has not returned OK: a sentence without the function's name.
struct Error {
  char text[256];
};

// Threads that may help a call. Both functions get `pool`, may be called from any thread, those of the pool
// included, and throw nothing.
struct Threads {
  // Returns how many threads there are. Called only if the call is long enough for two.
  std::int64_t (*count)(void* pool);
  // Has task(argument) called once, now or later, by a thread of the pool or by the calling one.
  void (*schedule)(void* pool, void (*task)(void* argument), void* argument);
  void* pool;
  double repaid_by;  // work that makes one more thread worthwhile, in the unit of tuning.h
};

// A checked network, and how it will be evaluated. C sees only pointers to it.
struct Plan {
  Network network;
  const Kernel* kernel;
  std::int64_t tile_rows;  // the most rows of a tile
  double row_work;         // work for one row, in the unit of tuning.h
  const void*
      packed;  // a single network's packed weights (Kernel::pack); if null, each run packs or reads them
};

// Checks the network and fills `plan`, which keeps the pointer network.layers. Allocates nothing.
// `instruction_set` is an index of jaxneuron_instruction_set_name; one beyond the last means the last.
Code make_plan(const Network& network, std::int64_t instruction_set, Plan* plan, Error* error);

// Returns the work of a call with so many rows for each member, in the unit of tuning.h.
double work(const Plan& plan, std::int64_t rows);

// Evaluates all rows of all members, on the calling thread and, if the call is long enough and `threads` is
// not null, on some of those. x and y must not overlap, except that each row of y may take the place of its
// own row of x.
Code run_plan(const Plan& plan, const Batch& batch, const Threads* threads, Error* error);

// The same with derivatives; batch.y may be null. Refuses 16-bit dtypes, and layers without units.
Code differentiate(const Plan& plan, const Batch& batch, const Derivatives& wanted, const Threads* threads,
                   Error* error);

}  // namespace jaxneuron

#define EXPORTED extern "C" __attribute__((visibility("default")))

// make_plan with memory of its own: it copies the layers' descriptions and, if `packs` is not 0, packs the
// 16-bit weights of a single network. *plan is null after an error.
EXPORTED std::int32_t jaxneuron_plan_make(const jaxneuron::Network* network, std::int64_t instruction_set,
                                          std::int64_t packs, jaxneuron::Plan** plan,
                                          jaxneuron::Error* error);
EXPORTED std::int32_t jaxneuron_plan_run(const jaxneuron::Plan* plan, const jaxneuron::Batch* batch,
                                         const jaxneuron::Threads* threads, jaxneuron::Error* error);
EXPORTED void jaxneuron_plan_free(jaxneuron::Plan* plan);

// Returns JAXNEURON_INTERFACE, a space, and the hash of the tables (tables.h) that this library was compiled
// with.
EXPORTED const char* jaxneuron_interface();

// How many activations there are, and the name of the one with a code from 0 on.
EXPORTED std::int64_t jaxneuron_activations();
EXPORTED const char* jaxneuron_activation_name(std::int64_t code);

// How many instruction sets this CPU has of those that the library is compiled for, and their names, the
// fastest last.
EXPORTED std::int64_t jaxneuron_instruction_sets();
EXPORTED const char* jaxneuron_instruction_set_name(std::int64_t i);
