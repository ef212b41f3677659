// Derivatives of a tile of rows with respect to its inputs, in closed form, layer after layer:
//
//     dz = w^T dy_before,  dy = activation'(z) dz                                 tangents, forward.h
//     dz = activation'(z) dy,  dy_before = w dz                                   cotangents, backward.h
//     L = activation'(z) (w^T L_before) + activation''(z) sum_i dz_i^2            the Laplacian, forward.h
//
// Tangents and cotangents are treated as further rows of the tile: they take the same products as the values
// in kernel.h, without biases. Every sum adds its terms in one fixed order, so the bits of a row don't depend
// on its tile, on whether rows or units are in lanes, or on the other directions.
#pragma once

#include "backward.h"
#include "forward.h"

namespace jaxneuron::ISA {

// Returns the cost, in vector instructions, of a product of `size` terms with so many rows and vectors of
// columns. That is the number of multiplications or of loads, whichever is greater. A block with few chains
// of sums costs more: as many instructions as fit into the latency of its sums.
inline std::int64_t product_cost(std::int64_t size, std::int64_t rows, std::int64_t column_vectors) {
  const std::int64_t down = (rows + ACCUMULATOR_ROWS - 1) / ACCUMULATOR_ROWS;
  const std::int64_t across = (column_vectors + ACCUMULATOR_VECTORS - 1) / ACCUMULATOR_VECTORS;
  const std::int64_t loads = rows * across + column_vectors * down;
  return size * max(max(rows * column_vectors, loads), CHAINS * down * across);
}

// Returns whether a tile of so many rows, with its directions, takes fewer vector instructions with rows in
// lanes than with units in lanes.
template <class T>
bool rows_are_cheaper(const Network& network, const Derivatives& wanted, std::int64_t rows) {
  if (rows == 1) return false;
  const std::int64_t row_vectors = vectors<T>(rows);
  const std::int64_t forward = wanted.backward ? 1 : 1 + wanted.directions + (wanted.laplacian ? 1 : 0);
  const std::int64_t backward = wanted.backward ? wanted.directions : 0;
  std::int64_t by_units = 0;
  std::int64_t by_rows = 0;
  for (std::int64_t l = 0; l < network.depth; ++l) {
    const std::int64_t n_in = network.layers[l].n_in;
    const std::int64_t n_out = network.layers[l].n_out;
    if (max(wanted.backward ? n_in : 0, n_out) * std::int64_t(sizeof(T)) > LONG_ROW) return false;
    by_units += 2 * ACTIVATION_COST * rows * vectors<T>(n_out);
    by_rows += 2 * ACTIVATION_COST * n_out * row_vectors;
    by_units += product_cost(n_in, rows * forward, vectors<T>(n_out));
    by_rows += product_cost(n_in, n_out, row_vectors * forward);
    if (backward) {
      by_units += product_cost(n_out, rows * backward, vectors<T>(n_in));
      by_units += n_out * vectors<T>(n_in) * TRANSPOSE_COST;
      by_rows += product_cost(n_out, n_in, row_vectors * backward);
    }
  }
  return by_rows < by_units;
}

// Calls f(a number of type T, a null pointer to the Forward or Backward that a tile of so many rows needs).
// The types of both arguments are all that counts.
template <class F>
auto with_way(const Network& network, const Derivatives& wanted, std::int64_t rows, F f) {
  const auto of = [&](auto zero) {
    using T = decltype(zero);
    if (rows_are_cheaper<T>(network, wanted, rows))
      return wanted.backward ? f(T(), static_cast<Backward<T, true>*>(nullptr))
                             : f(T(), static_cast<Forward<T, true>*>(nullptr));
    return wanted.backward ? f(T(), static_cast<Backward<T, false>*>(nullptr))
                           : f(T(), static_cast<Forward<T, false>*>(nullptr));
  };
  return network.dtype == Dtype::float64 ? of(double()) : of(float());
}

// The functions of the struct Kernel: see network.h.

inline std::size_t derivative_scratch(const Network& network, const Derivatives& wanted, std::int64_t rows) {
  return with_way(network, wanted, rows, [&](auto zero, auto* way) {
    return std::size_t(way->numbers(network, wanted, rows)) * sizeof(zero);
  });
}

inline void differentiate(const Network& network, const Batch& batch, const Derivatives& wanted,
                          const Tile& tile, void* memory) {
  with_way(network, wanted, tile.count, [&](auto zero, auto* way) {
    using T = decltype(zero);
    std::remove_pointer_t<decltype(way)>(network, batch, wanted, tile, static_cast<T*>(memory))();
  });
}

constexpr Kernel kernel(const char* name) {
  return {name, scratch, packed_bytes, in_place, pack, run, derivative_scratch, differentiate};
}

}  // namespace jaxneuron::ISA
