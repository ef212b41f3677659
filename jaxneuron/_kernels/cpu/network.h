// Structs that describe to the kernel a network, its rows and the wanted derivatives; and the functions that
// each instruction set provides.
//
// The structs have only numbers and pointers, so that C and ctypes can fill them. The caller owns all arrays.
// They are contiguous, in C order.
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

// Returns whether an activation takes whole rows, as softmax does: a unit's output then depends on the other
// units of its row. All other activations take one number at a time.
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

// Returns how many parameters an activation has, such as the slope of leaky_relu.
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
  std::int64_t n_in;  // equals n_out of the layer before
  std::int64_t n_out;
  std::int64_t w_stride;  // elements from one member's w to the next member's; 0 if they share it
  std::int64_t b_stride;  // the same for b
  Activation activation;
  double parameters[MOST_PARAMETERS];  // of the activation: the first parameters_of(activation) are used
};

// One network, or a population of networks of the same shape: its members.
struct Network {
  const Layer* layers;
  std::int64_t depth;
  std::int64_t members;
  Dtype dtype;
};

// The rows to evaluate, and where their outputs go.
struct Batch {
  const void* x;  // (rows, n_in) for each member
  void* y;        // (members, rows, n_out)
  std::int64_t rows;
  std::int64_t x_stride;  // elements from one member's x to the next member's; 0 if they share it
};

// The wanted derivatives with respect to x: for each row the Jacobian, or its products with given tangents or
// cotangents.
struct Derivatives {
  bool backward;  // true: cotangents go from y back to x; false: tangents go from x to y
  std::int64_t
      directions;     // tangents or cotangents of each row; n_in or, backward, n_out of them for a Jacobian
  const void* given;  // (rows, directions, n_in or, backward, n_out) for each member; null: the Jacobian
  std::int64_t given_stride;  // elements from one member's to the next member's; 0 if they share them
  void* result;     // the products, (members, rows, directions, n_out or, backward, n_in), or the Jacobians,
                    // (members, rows, n_out, n_in)
  void* laplacian;  // (members, rows, n_out): the sum over the inputs of the second derivatives; null if not
                    // wanted. Only with forward Jacobians
};

// Rows of one member: first, first + 1, ..., first + count - 1.
struct Tile {
  std::int64_t member;
  std::int64_t first;
  std::int64_t count;
};

// The functions of one instruction set. None of them allocates memory.
struct Kernel {
  const char* name;

  // Returns how many bytes of memory `run` needs for a tile of `rows` rows, with packed weights or without. A
  // tile with fewer rows may need more memory.
  std::size_t (*scratch)(const Network&, std::int64_t rows, bool packed);

  // Returns how many bytes one member's packed weights take; 0 for float32 and float64, whose weights are
  // always read in place.
  std::size_t (*packed_bytes)(const Network&);

  // Returns whether a call with so many rows for each member takes less time if it reads 16-bit weights in
  // place, instead of packing them.
  bool (*reads_in_place)(const Network&, std::int64_t rows);

  // Packs one layer of one member into `packed`, the memory for all layers of that member, aligned to 64
  // bytes. The thread's floating-point mode must be Mode::IEEE.
  void (*pack)(const Network&, std::int64_t member, std::int64_t layer, void* packed);

  // Evaluates a tile of at most tile_rows(network) rows. `memory` has scratch(network, tile.count,
  // packed != null) bytes, aligned to 64 bytes. `packed` has the member's packed weights; if it is null, they
  // are read in place, which AArch64 does not do in bfloat16. Subnormal numbers are treated as 0 only if
  // the calling thread's floating-point mode does so, and in the sums of bfloat16 layers on CPUs with FMA.
  void (*run)(const Network&, const Batch&, const Tile&, void* memory, const void* packed);

  // Like `scratch` and `run`, with derivatives, for float32 and float64 networks with at least one unit in
  // every layer. batch.y may be null.
  std::size_t (*derivative_scratch)(const Network&, const Derivatives&, std::int64_t rows);
  void (*differentiate)(const Network&, const Batch&, const Derivatives&, const Tile&, void* memory);
};

// Only the kernels of the CPU family that the library is compiled for are defined.
extern const Kernel baseline;
extern const Kernel avx2;
extern const Kernel avx512;
extern const Kernel avx512_bf16;
extern const Kernel neon;

// Returns whether vdpbf16ps on this CPU gives the bits of two fused multiply-adds. It tries some thousand
// sums.
bool pairs_are_exact();

int kernel_count();            // how many of the compiled instruction sets this CPU has
const Kernel& kernel_of(int);  // the instruction set 0 to kernel_count() - 1; the fastest is last

// Return sin(x + low) and cos(x + low), by the C library, for arguments too large for the reduction of
// sine.h.
double sine_of_large(double x, double low);
double cosine_of_large(double x, double low);

std::int64_t widest(const Network&);                     // the largest n_in or n_out of all layers
std::int64_t width(const Network&, const Derivatives&);  // the most numbers of one direction in a layer
std::int64_t tile_rows(const Network&);                  // the most rows of a tile, so that it fits in L2
std::int64_t derivative_tile_rows(const Network&, const Derivatives&);  // the same with derivatives

}  // namespace jaxneuron
