// What a forward pass is given: networks of one shape, their rows, and what evaluates them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace jaxneuron {

enum class Number : std::int32_t { float32, float64, bfloat16, float16 };

// In the order of ACTIVATIONS in _cpu.py.
enum class Activation : std::int64_t {
  identity,
  relu,
  leaky_relu,
  hard_sigmoid,
  sigmoid,
  cr_sigmoid,
  tanh,
  cr_tanh,
  silu,
  gelu,
  gelu_tanh,
  softplus,
  elu,
  selu,
  softmax,
};

struct Layer {
  const void* w;  // (n_in, n_out) for each member
  const void* b;  // (n_out,) for each member, or null
  std::int64_t n_in, n_out;
  std::int64_t w_step, b_step;  // numbers between one member's and the next one's; 0 if they share them
  Activation activation;
};

// A population of networks of one shape; a single network is a population of one.
struct Network {
  const Layer* layers;
  std::int64_t depth;
  Number number;
  std::int64_t members, rows;
  const void* x;  // (rows, n_in) for each member
  std::int64_t x_step;
  void* y;  // (members, rows, n_out)
};

// How one instruction set evaluates a network. `run` takes at most tile_rows(network) rows of one member from
// x to y, in scratch(network, rows) bytes of memory aligned to 64, and allocates none. Fewer rows may need
// more of it.
struct Kernel {
  const char* name;
  std::size_t (*scratch)(const Network&, std::int64_t rows);
  void (*run)(const Network&, std::int64_t member, std::int64_t first, std::int64_t rows, void* memory);
};

extern const Kernel baseline, avx2, avx512, neon;  // those that the processor's family has

int kernel_count();            // of those, how many this processor can run
const Kernel& kernel_of(int);  // each of them, the best one last

std::int64_t widest(const Network&);     // numbers between two layers, inputs and outputs included
std::int64_t tile_rows(const Network&);  // rows whose numbers stay in the second cache

// Bytes: longer rows of weights lie in few sets of the caches, and are copied.
constexpr std::int64_t LONG_ROW = 2048;

}  // namespace jaxneuron
