// The library's plain C interface: make a plan from a network, run it on rows, free it.
//
//     Plan* plan;
//     Error error;
//     if (jaxneuron_plan_make(&network, instruction_set, &plan, &error)) { ... error.text ... }
//     jaxneuron_plan_run(plan, &batch, &threads, &error);  // as often as wanted, by many threads at once
//     jaxneuron_plan_free(plan);
//
// There is no global state; threads are the caller's to supply, for instance those of pool.h. A plan holds
// the layers' descriptions, and a copy of 16-bit weights of a single network; all others must stay where they
// are until the plan is freed. All structs are plain; enums are integers of the size they state.
#pragma once

#include <cstdint>

#include "network.h"

namespace jaxneuron {

// To be counted up when a struct, a function or the handler's operands and attributes change.
#define JAXNEURON_INTERFACE "6"

enum Code : std::int32_t { OK = 0, INVALID = 1, NO_MEMORY = 2 };

// Why a function has returned another code than OK: a sentence without the function's name.
struct Error {
  char text[256];
};

// Threads that may help. `count` says how many there are; it is asked only for calls that are long enough.
// `schedule` sees to it that task(argument) is called once, now or later, on one of them or on the caller's,
// and throws nothing. Both may be called from any thread, theirs included.
struct Threads {
  std::int64_t (*count)(void* pool);
  void (*schedule)(void* pool, void (*task)(void* argument), void* argument);
  void* pool;
  double repaid_by;  // work, as tuning.h counts it, that repays one of them
};

// How a network will be evaluated. C sees only pointers to it.
struct Plan {
  Network network;
  const Kernel* kernel;
  std::int64_t tile_rows;  // at most
  double row_work;         // multiplications, as tuning.h counts them
  const void* packed;      // a single network's weights (Kernel::pack); null: a run packs what it needs
};

// Fills `plan`, which keeps a pointer to network.layers: it costs no memory, and a few instructions a layer.
// `instruction_set` is an index of jaxneuron_instruction_set_name, limited to those there are.
Code make_plan(const Network& network, std::int64_t instruction_set, Plan* plan, Error* error);

// What a call of so many rows of each member costs, in multiplications as tuning.h counts them.
double work(const Plan& plan, std::int64_t rows);

// Evaluates all rows of all members, on the calling thread and, where it pays and `threads` is not null, on
// others. x and y must not overlap, unless every row of y is to take the place of its row of x.
Code run_plan(const Plan& plan, const Batch& batch, const Threads* threads, Error* error);

// The same with derivatives; batch.y may be null. Refuses 16-bit numbers, and layers without units.
Code differentiate(const Plan& plan, const Batch& batch, const Derivatives& wanted, const Threads* threads,
                   Error* error);

}  // namespace jaxneuron

#define EXPORTED extern "C" __attribute__((visibility("default")))

// make_plan on the heap, with a copy of the layers' descriptions; 16-bit weights of a single network are
// packed.
EXPORTED std::int32_t jaxneuron_plan_make(const jaxneuron::Network* network, std::int64_t instruction_set,
                                          jaxneuron::Plan** plan, jaxneuron::Error* error);
EXPORTED std::int32_t jaxneuron_plan_run(const jaxneuron::Plan* plan, const jaxneuron::Batch* batch,
                                         const jaxneuron::Threads* threads, jaxneuron::Error* error);
EXPORTED void jaxneuron_plan_free(jaxneuron::Plan* plan);

// JAXNEURON_INTERFACE, a space, and the hash of the tables that this library was compiled from.
EXPORTED const char* jaxneuron_interface();

// The activations, in the order of their codes.
EXPORTED std::int64_t jaxneuron_activations();
EXPORTED const char* jaxneuron_activation_name(std::int64_t code);

// The instruction sets that this CPU has and the library is compiled for, the best one last.
EXPORTED std::int64_t jaxneuron_instruction_sets();
EXPORTED const char* jaxneuron_instruction_set_name(std::int64_t i);
