// The forward pass of a tile of rows through all layers while it stands in the caches.
//
// A tile goes with the units of each layer side by side in vectors, taking rows as they come; or with rows
// side by side, which must be transposed in and out, and fill their vectors however narrow a layer is. Which
// of the two takes fewer instructions is counted beforehand; a row's bits are the same by either.
#pragma once

#include "activate.h"
#include "layers.h"
#include "network.h"
#include "packed.h"
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
template <class S, class T = typename S::Number>
bool rows_are_cheaper(const Network& network, std::int64_t rows) {
  if (rows == 1) return false;
  const Layer* layers = network.layers;
  std::int64_t by_units = 0;
  std::int64_t by_rows = rows * (layers[0].n_in + layers[network.depth - 1].n_out) / 2;  // to transpose
  for (std::int64_t i = 0; i < network.depth; ++i) {
    const std::int64_t cost = factors<S>(layers[i].n_in) + ACTIVATION_COST;  // of a vector of sums
    by_units += cost * rows * vectors<T>(layers[i].n_out);
    by_rows += cost * layers[i].n_out * vectors<T>(rows);
    if (layers[i].n_out * std::int64_t(sizeof(T)) > LONG_ROW) return false;
  }
  return by_rows < by_units;
}

// y = activation(y) for a tile with units, or rows, side by side.
template <class S, class T = typename S::Number>
void activate_units(const Layer& layer, T* y, std::int64_t rows) {
  if (layer.activation == Activation::softmax)
    softmax_with_units_in_lanes<T, false>(y, layer.n_out, rows);
  else if (layer.activation == Activation::log_softmax)
    softmax_with_units_in_lanes<T, true>(y, layer.n_out, rows);
  else
    activate<T, S::is_16_bit>(layer, y, rows * padded<T>(layer.n_out));
}

template <class S, class T = typename S::Number>
void activate_rows(const Layer& layer, T* y, std::int64_t rows) {
  if (layer.activation == Activation::softmax)
    softmax_with_rows_in_lanes<T, false>(y, layer.n_out, rows);
  else if (layer.activation == Activation::log_softmax)
    softmax_with_rows_in_lanes<T, true>(y, layer.n_out, rows);
  else
    activate<T, S::is_16_bit>(layer, y, layer.n_out * rows);
}

// The rows of a tile, and where its results go.
template <class Stored>
struct Ends {
  Ends(const Network& network, const Batch& batch, const Tile& tile)
      : n_in(network.layers[0].n_in), n_out(network.layers[network.depth - 1].n_out) {
    x = static_cast<const Stored*>(batch.x) + tile.member * batch.x_stride + tile.first * n_in;
    y = batch.y ? static_cast<Stored*>(batch.y) + (tile.member * batch.rows + tile.first) * n_out : nullptr;
  }

  std::int64_t n_in;
  std::int64_t n_out;
  const Stored* x;
  Stored* y;
};

template <class T>
void exchange(T*& x, T*& y) {  // std::swap would be shared with other instruction sets
  T* const before = x;
  x = y;
  y = before;
}

template <class T>
void run_with_rows_in_lanes(const Network& network, const Batch& batch, const Tile& tile, T* scratch) {
  const Ends<T> ends(network, batch, tile);
  const std::int64_t width = padded<T>(tile.count);
  T* x = scratch;
  T* y = scratch + widest(network) * width;
  to_columns(ends.x, tile.count, ends.n_in, x, width);
  for (std::int64_t i = 0; i < network.depth; ++i) {
    rows_in_lanes(network.layers[i], tile.member, width, width, x, width, y, width);
    activate_rows<Plain<T>>(network.layers[i], y, width);
    exchange(x, y);
  }
  to_rows(x, width, ends.y, tile.count, ends.n_out);
}

template <class T>
void run_with_units_in_lanes(const Network& network, const Batch& batch, const Tile& tile, T* scratch) {
  const Ends<T> ends(network, batch, tile);
  const std::int64_t size = tile.count * padded<T>(widest(network));
  T* const tiles[] = {scratch, scratch + size};
  T* const panel = scratch + 2 * size;
  const T* x = ends.x;
  std::int64_t x_stride = ends.n_in;
  for (std::int64_t i = 0; i < network.depth; ++i) {
    T* const y = tiles[i % 2];
    units_in_lanes(network.layers[i], tile.member, tile.count, tile.count, x, x_stride, y, panel);
    activate_units<Plain<T>>(network.layers[i], y, tile.count);
    x = y;
    x_stride = padded<T>(network.layers[i].n_out);
  }
  for (std::int64_t r = 0; r < tile.count; ++r)
    store_row<Plain<T>>(x + r * x_stride, ends.n_out, ends.y + r * ends.n_out);
}

// 16-bit numbers, by weights that are packed.
template <class S, class Factor = typename S::Factor>
void run_packed_with_rows_in_lanes(const Network& network, const Batch& batch, const Tile& tile, float* y,
                                   Factor* x, const Factor* packed) {
  const Ends<typename S::Stored> ends(network, batch, tile);
  const std::int64_t width = padded<float>(tile.count);
  float* rows = reinterpret_cast<float*>(x);
  if (S::GROUP > S::GROUP_FACTORS && ends.n_in % S::GROUP == 0) {  // rows are factors as they stand
    to_columns(reinterpret_cast<const float*>(ends.x), tile.count, factors<S>(ends.n_in), rows, width);
  } else {
    load_row<S>(ends.x, tile.count * ends.n_in, rows);
    to_columns(rows, tile.count, ends.n_in, y, width);
    pack_rows<S>(ends.n_in, width, y, x);
  }
  for (std::int64_t i = 0; i < network.depth; ++i) {
    const Layer& layer = network.layers[i];
    if (i > 0) pack_rows<S>(layer.n_in, width, y, x);
    packed_rows_in_lanes<S>(layer, packed, width, x, y);
    activate_rows<S>(layer, y, width);
    packed += packed_factors<S>(layer);
  }
  if (ends.n_out == 1)
    rows = y;
  else
    to_rows(y, width, rows, tile.count, ends.n_out);
  store_row<S>(rows, tile.count * ends.n_out, ends.y);
}

template <class S, class Factor = typename S::Factor>
void run_packed_with_units_in_lanes(const Network& network, const Batch& batch, const Tile& tile, float* y,
                                    Factor* x, const Factor* packed) {
  const Ends<typename S::Stored> ends(network, batch, tile);
  for (std::int64_t r = 0; r < tile.count; ++r)
    load_row<S>(ends.x + r * ends.n_in, ends.n_in, y + r * padded<float>(ends.n_in));
  for (std::int64_t i = 0; i < network.depth; ++i) {
    packed_units_in_lanes<S>(network.layers[i], packed, tile.count, x, y);
    activate_units<S>(network.layers[i], y, tile.count);
    packed += packed_factors<S>(network.layers[i]);
  }
  for (std::int64_t r = 0; r < tile.count; ++r)
    store_row<S>(y + r * padded<float>(ends.n_out), ends.n_out, ends.y + r * ends.n_out);
}

// Kernel's functions, for one format.

template <class S, class T = typename S::Number>
std::size_t scratch_of(const Network& network, std::int64_t rows) {
  const bool by_rows = rows_are_cheaper<S>(network, rows);
  // The tile before a layer and after it; of rows side by side, an odd number of inputs is packed to one
  // more.
  const std::int64_t width = widest(network);
  std::int64_t numbers = by_rows ? (2 * width + S::is_16_bit) * padded<T>(rows) : 2 * rows * padded<T>(width);
  if (!S::is_16_bit && !by_rows) {
    std::int64_t panel = 0;
    for (std::int64_t i = 0; i < network.depth; ++i)
      if (const std::int64_t n_out = network.layers[i].n_out; packs<T>(n_out, rows))
        panel = max(panel, panel_numbers<T>(n_out));
    numbers += panel;
  }
  return numbers * sizeof(T);
}

template <class S>
std::size_t packed_bytes_of(const Network& network) {
  std::int64_t size = 0;
  if constexpr (S::is_16_bit)
    for (std::int64_t i = 0; i < network.depth; ++i) size += packed_factors<S>(network.layers[i]);
  return size * sizeof(typename S::Factor);
}

template <class S>
void pack_of(const Network& network, std::int64_t member, std::int64_t layer, void* memory) {
  if constexpr (S::is_16_bit) {
    auto* packed = static_cast<typename S::Factor*>(memory);
    for (std::int64_t i = 0; i < layer; ++i) packed += packed_factors<S>(network.layers[i]);
    pack_layer<S>(network.layers[layer], member, packed);
  }
}

template <class S, class T = typename S::Number>
void run_of(const Network& network, const Batch& batch, const Tile& tile, void* memory,
            [[maybe_unused]] const void* packed) {
  T* const scratch = static_cast<T*>(memory);
  const bool by_rows = rows_are_cheaper<S>(network, tile.count);
  if constexpr (S::is_16_bit) {
    using Factor = typename S::Factor;
    const std::int64_t size =
        by_rows ? widest(network) * padded<T>(tile.count) : tile.count * padded<T>(widest(network));
    auto* const x = reinterpret_cast<Factor*>(scratch + size);
    const auto run = by_rows ? run_packed_with_rows_in_lanes<S> : run_packed_with_units_in_lanes<S>;
    run(network, batch, tile, scratch, x, static_cast<const Factor*>(packed));
  } else {
    const auto run = by_rows ? run_with_rows_in_lanes<T> : run_with_units_in_lanes<T>;
    run(network, batch, tile, scratch);
  }
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

// Kernel's functions of this instruction set: see network.h.

inline std::size_t scratch(const Network& network, std::int64_t rows) {
  return with_format(network.dtype, [&](auto format) { return scratch_of<decltype(format)>(network, rows); });
}

inline std::size_t packed_bytes(const Network& network) {
  return with_format(network.dtype, [&](auto format) { return packed_bytes_of<decltype(format)>(network); });
}

inline void pack(const Network& network, std::int64_t member, std::int64_t layer, void* packed) {
  with_format(network.dtype, [&](auto format) { pack_of<decltype(format)>(network, member, layer, packed); });
}

inline void run(const Network& network, const Batch& batch, const Tile& tile, void* memory,
                const void* packed) {
  with_format(network.dtype,
              [&](auto format) { run_of<decltype(format)>(network, batch, tile, memory, packed); });
}

}  // namespace jaxneuron::ISA
