// softmax and log_softmax of the rows of a tile.
#pragma once

#include "arithmetic.h"
#include "network.h"
#include "product.h"

namespace jaxneuron::ISA {

// Replaces z (units, rows) by the softmax of each row, exp(z - max z) / sum, or by its logarithm. The sum is
// added up in the order of the units. `rows` includes the padding.
template <class T, bool is_log>
void softmax_with_rows_in_lanes(T* z, std::int64_t units, std::int64_t rows) {
  for (std::int64_t r = 0; r < rows; r += lanes<T>) {
    Vector<T> greatest = splat<T>(-__builtin_inf());
    for (std::int64_t j = 0; j < units; ++j) {
      const Vector<T> v = load(z + j * rows + r);
      greatest = v > greatest ? v : greatest;
    }
    Vector<T> sum{};
    for (std::int64_t j = 0; j < units; ++j) {
      const Vector<T> e = exp_of_difference<T>(load(z + j * rows + r), greatest);
      if constexpr (!is_log) store<T>(z + j * rows + r, e);
      sum += e;
    }
    const Vector<T> log_sum = is_log ? log<T>(sum) : sum;
    for (std::int64_t j = 0; j < units; ++j) {
      T* const at = z + j * rows + r;
      store<T>(at, is_log ? less<T>(load(at), greatest, log_sum) : load(at) / sum);
    }
  }
}

// The same for z (rows, padded units), with the same bits.
template <class T, bool is_log>
void softmax_with_units_in_lanes(T* z, std::int64_t units, std::int64_t rows) {
  const std::int64_t width = padded<T>(units);
  for (std::int64_t r = 0; r < rows; ++r) {
    T greatest = -__builtin_inf();
    for (std::int64_t j = 0; j < units; ++j) greatest = z[j] > greatest ? z[j] : greatest;
    T sum = 0;
    for (std::int64_t j = 0; j < width; j += lanes<T>) {
      const Vector<T> e = exp_of_difference<T>(load(z + j), splat<T>(greatest));
      if constexpr (!is_log) {
        store<T>(z + j, e);
      } else {
        for (std::int64_t i = 0; i < min(lanes<T>, units - j); ++i) sum += e[i];
      }
    }
    if constexpr (is_log) {
      const Vector<T> log_sum = log<T>(splat<T>(sum));
      for (std::int64_t j = 0; j < width; j += lanes<T>)
        store<T>(z + j, less<T>(load(z + j), splat<T>(greatest), log_sum));
    } else {
      for (std::int64_t j = 0; j < units; ++j) sum += z[j];
      for (std::int64_t j = 0; j < width; j += lanes<T>) store<T>(z + j, load(z + j) / splat<T>(sum));
    }
    z += width;
  }
}

// If the layer's activation is softmax or log_softmax, these replace y, the layer's sums, by the results.
// Every other activation is left to activate(). softmax_units takes y (rows, padded units), softmax_rows
// takes y (units, padded rows).
template <class T>
void softmax_units(const Layer& layer, T* y, std::int64_t rows) {
  if (layer.activation == Activation::softmax) softmax_with_units_in_lanes<T, false>(y, layer.n_out, rows);
  if (layer.activation == Activation::log_softmax) softmax_with_units_in_lanes<T, true>(y, layer.n_out, rows);
}

template <class T>
void softmax_rows(const Layer& layer, T* y, std::int64_t rows) {
  if (layer.activation == Activation::softmax) softmax_with_rows_in_lanes<T, false>(y, layer.n_out, rows);
  if (layer.activation == Activation::log_softmax) softmax_with_rows_in_lanes<T, true>(y, layer.n_out, rows);
}

}  // namespace jaxneuron::ISA
