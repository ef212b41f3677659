// The forward pass of a tile of rows through all layers while it stands in the caches.
//
// A tile goes with the units of each layer side by side in vectors, taking rows as they come; or with rows
// side by side, which must be transposed in and out, and fill their vectors however narrow a layer is. Which
// of the two takes fewer instructions is counted beforehand; a row's bits are the same by either.
#pragma once

#include "activations.h"
#include "layers.h"
#include "network.h"
#include "transpose.h"

namespace jaxneuron::ISA {

// softmax of each row, exp(z - max z) over its sum in the order of the units, or its logarithm: z (units,
// rows), rows padded.
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

// The same for z (rows, padded units).
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

// Whether rows side by side take fewer vector instructions than units do.
template <class T>
bool rows_are_cheaper(const Network& network, std::int64_t rows) {
  if (rows == 1) return false;
  const Layer* layers = network.layers;
  std::int64_t by_units = 0;
  std::int64_t by_rows = rows * (layers[0].n_in + layers[network.depth - 1].n_out) / 2;  // to transpose
  for (std::int64_t i = 0; i < network.depth; ++i) {
    by_units += (layers[i].n_in + ACTIVATION_COST) * rows * vectors<T>(layers[i].n_out);
    by_rows += (layers[i].n_in + ACTIVATION_COST) * layers[i].n_out * vectors<T>(rows);
    if (layers[i].n_out * std::int64_t(sizeof(T)) > LONG_ROW) return false;
  }
  return by_rows < by_units;
}

template <class T>
void run_with_rows_in_lanes(const Network& network, const Batch& batch, const Tile& tile, T* scratch) {
  const Layer* layers = network.layers;
  const std::int64_t n_in = layers[0].n_in;
  const std::int64_t n_out = layers[network.depth - 1].n_out;
  const std::int64_t width = padded<T>(tile.count);
  const T* input = static_cast<const T*>(batch.x) + tile.member * batch.x_stride + tile.first * n_in;
  T* output = static_cast<T*>(batch.y) + (tile.member * batch.rows + tile.first) * n_out;
  T* x = scratch;
  T* y = scratch + widest(network) * width;
  to_columns(input, tile.count, n_in, x, width);
  for (std::int64_t i = 0; i < network.depth; ++i) {
    rows_in_lanes(layers[i], tile.member, width, x, y);
    if (layers[i].activation == Activation::softmax)
      softmax_with_rows_in_lanes<T, false>(y, layers[i].n_out, width);
    else if (layers[i].activation == Activation::log_softmax)
      softmax_with_rows_in_lanes<T, true>(y, layers[i].n_out, width);
    else
      activate<T, false>(layers[i], y, layers[i].n_out * width);
    T* const read = x;
    x = y;
    y = read;
  }
  to_rows(x, width, output, tile.count, n_out);
}

template <class S, class T = typename S::Number>
void run_with_units_in_lanes(const Network& network, const Batch& batch, const Tile& tile, T* scratch) {
  using Stored = typename S::Stored;
  const Layer* layers = network.layers;
  const std::int64_t n_in = layers[0].n_in;
  const std::int64_t n_out = layers[network.depth - 1].n_out;
  const std::int64_t rows = tile.count;
  const Stored* input =
      static_cast<const Stored*>(batch.x) + tile.member * batch.x_stride + tile.first * n_in;
  Stored* output = static_cast<Stored*>(batch.y) + (tile.member * batch.rows + tile.first) * n_out;
  const std::int64_t size = rows * padded<T>(widest(network));
  T* const tiles[] = {scratch, scratch + size};
  T* const panel = scratch + 2 * size;
  const T* x;
  if constexpr (S::is_16_bit) {
    load_row<S>(input, rows * n_in, tiles[1]);
    x = tiles[1];
  } else {
    x = input;
  }
  std::int64_t x_stride = n_in;
  for (std::int64_t i = 0; i < network.depth; ++i) {
    const std::int64_t y_stride = padded<T>(layers[i].n_out);
    T* y = tiles[i % 2];
    units_in_lanes<S>(layers[i], tile.member, rows, x, x_stride, y, panel);
    if (layers[i].activation == Activation::softmax)
      softmax_with_units_in_lanes<T, false>(y, layers[i].n_out, rows);
    else if (layers[i].activation == Activation::log_softmax)
      softmax_with_units_in_lanes<T, true>(y, layers[i].n_out, rows);
    else
      activate<T, S::is_16_bit>(layers[i], y, rows * y_stride);
    if constexpr (S::is_16_bit)
      for (std::int64_t n = 0; n < rows * y_stride; n += lanes<T>) store<T>(y + n, S::round(load(y + n)));
    x = y;
    x_stride = y_stride;
  }
  for (std::int64_t r = 0; r < rows; ++r) store_row<S>(x + r * x_stride, n_out, output + r * n_out);
}

// Numbers of scratch memory: the tile before a layer and after it, and a panel of weights.
template <class S, class T = typename S::Number>
std::int64_t scratch_numbers(const Network& network, std::int64_t rows) {
  if (!S::is_16_bit && rows_are_cheaper<T>(network, rows)) return 2 * widest(network) * padded<T>(rows);
  std::int64_t panel = 0;
  for (std::int64_t i = 0; i < network.depth; ++i) {
    const std::int64_t n_out = network.layers[i].n_out;
    if (packs<S>(n_out, rows)) panel = max(panel, panel_numbers<T>(n_out));
  }
  return 2 * rows * padded<T>(widest(network)) + panel;
}

template <class S, class T = typename S::Number>
void run_stored(const Network& network, const Batch& batch, const Tile& tile, T* scratch) {
  if constexpr (!S::is_16_bit)
    if (rows_are_cheaper<T>(network, tile.count))
      return run_with_rows_in_lanes<T>(network, batch, tile, scratch);
  run_with_units_in_lanes<S>(network, batch, tile, scratch);
}

// f(format) for the format that has this dtype.
template <class F>
auto with_format(Dtype dtype, F f) {
  switch (dtype) {
    case Dtype::float64:
      return f(Plain<double>());
    case Dtype::bfloat16:
      return f(BFloat16());
    case Dtype::float16:
      return f(Float16());
    default:
      return f(Plain<float>());
  }
}

// Kernel::scratch and Kernel::run of this instruction set: see network.h.
inline std::size_t scratch(const Network& network, std::int64_t rows) {
  return with_format(network.dtype, [&](auto format) {
    using S = decltype(format);
    return scratch_numbers<S>(network, rows) * sizeof(typename S::Number);
  });
}

inline void run(const Network& network, const Batch& batch, const Tile& tile, void* memory) {
  with_format(network.dtype, [&](auto format) {
    using S = decltype(format);
    run_stored<S>(network, batch, tile, static_cast<typename S::Number*>(memory));
  });
}

}  // namespace jaxneuron::ISA
