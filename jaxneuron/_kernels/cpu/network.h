// A network and its rows as the kernel takes them, and an instruction set's way to evaluate them.
//
// The structs are plain, so that C and ctypes can fill them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tables.h"

namespace jaxneuron {

enum class Dtype : std::int32_t { float32, float64, bfloat16, float16 };

enum class Activation : std::int64_t {
#define ENUMERATOR(name, parameters, of_rows) name,
  JAXNEURON_ACTIVATIONS(ENUMERATOR)
#undef ENUMERATOR
};

constexpr const char* ACTIVATION_NAMES[] = {
#define NAME(name, parameters, of_rows) #name,
    JAXNEURON_ACTIVATIONS(NAME)
#undef NAME
};
constexpr std::int64_t ACTIVATIONS = sizeof ACTIVATION_NAMES / sizeof *ACTIVATION_NAMES;

// Whether a unit's value depends on the other units of its row: all others are applied to numbers.
constexpr bool is_of_rows(Activation activation) {
  switch (activation) {
#define CASE(name, parameters, of_rows) \
  case Activation::name:                \
    return of_rows;
    JAXNEURON_ACTIVATIONS(CASE)
#undef CASE
  }
  return false;
}

// How many numbers the formula takes beside z.
constexpr int parameters_of(Activation activation) {
  switch (activation) {
#define CASE(name, parameters, of_rows) \
  case Activation::name:                \
    return parameters;
    JAXNEURON_ACTIVATIONS(CASE)
#undef CASE
  }
  return 0;
}

constexpr int MOST_PARAMETERS = 2;

struct Layer {
  const void* w;      // (n_in, n_out) for each member
  const void* b;      // (n_out,) for each member, or null
  std::int64_t n_in;  // as many as the layer before has outputs
  std::int64_t n_out;
  std::int64_t w_stride;  // numbers from one member's w to the next one's; 0 if they share it
  std::int64_t b_stride;
  Activation activation;
  double parameters[MOST_PARAMETERS];  // of the activation, the first of them those it has
};

// A population of networks of one shape; a single network is a population of one.
struct Network {
  const Layer* layers;
  std::int64_t depth;
  std::int64_t members;
  Dtype dtype;
};

struct Batch {
  const void* x;  // (rows, n_in) for each member
  void* y;        // (members, rows, n_out)
  std::int64_t rows;
  std::int64_t x_stride;  // numbers from one member's x to the next one's; 0 if they share it
};

// The derivatives with respect to x that are wanted of a batch: of each row the Jacobian, or its product with
// tangents or cotangents that are given.
struct Derivatives {
  bool backward;              // cotangents go back from y to x, or else tangents forward
  std::int64_t directions;    // tangents or cotangents of each row; without given ones all, n_in or n_out
  const void* given;          // (rows, directions, n_in), backward n_out, for each member; null: unit vectors
  std::int64_t given_stride;  // numbers from one member's to the next one's; 0 if they share them
  void* result;     // (members, rows, directions, n_out), backward n_in; without given ones the Jacobian,
                    // (members, rows, n_out, n_in)
  void* laplacian;  // (members, rows, n_out): the sums of second derivatives over the inputs; or null. Only
                    // forward, and of unit vectors
};

// Rows of one member: first, first + 1, ..., first + count - 1.
struct Tile {
  std::int64_t member;
  std::int64_t first;
  std::int64_t count;
};

// How one instruction set evaluates a network.
struct Kernel {
  const char* name;

  // Bytes of memory that `run` needs for a tile of so many rows. Fewer rows may need more.
  std::size_t (*scratch)(const Network&, std::int64_t rows);

  // Bytes of one member's packed weights: 0 for a dtype whose weights are read where they are.
  std::size_t (*packed_bytes)(const Network&);

  // Packs a layer of one member into the memory for all its layers, aligned to 64. Subnormal numbers must
  // count.
  void (*pack)(const Network&, std::int64_t member, std::int64_t layer, void* packed);

  // Evaluates at most tile_rows(network) rows, in scratch(network, tile.count) bytes aligned to 64, with the
  // member's packed weights; allocates nothing. Subnormal numbers count if the calling thread's
  // floating-point mode lets them, but never in bfloat16's sums if there is FMA.
  void (*run)(const Network&, const Batch&, const Tile&, void* memory, const void* packed);

  // The same with derivatives, of float32 and float64 networks that have a unit in every layer. batch.y may
  // be null.
  std::size_t (*derivative_scratch)(const Network&, const Derivatives&, std::int64_t rows);
  void (*differentiate)(const Network&, const Batch&, const Derivatives&, const Tile&, void* memory);
};

// Those of the CPU's family are defined.
extern const Kernel baseline;
extern const Kernel avx2;
extern const Kernel avx512;
extern const Kernel avx512_bf16;
extern const Kernel neon;

// Whether the product of pairs that this CPU has gives the bits that two fused multiply-adds give.
bool pairs_are_exact();

int kernel_count();            // how many of them this CPU has
const Kernel& kernel_of(int);  // each of those, the best one last

// sin(x + low) and cos(x + low), by the C library.
double sine_of_large(double x, double low);
double cosine_of_large(double x, double low);

std::int64_t widest(const Network&);  // the most numbers that a row has between two layers, x and y included
std::int64_t width(const Network&, const Derivatives&);  // the same of a direction: unit vectors take no x
std::int64_t tile_rows(const Network&);                  // rows of a tile that fits in L2
std::int64_t derivative_tile_rows(const Network&, const Derivatives&);

}  // namespace jaxneuron
