// Evaluates a network on a tile: a few consecutive rows, which pass through all layers while they fit in the
// caches.
//
// A vector register holds several numbers, one in each of its lanes. The kernel has two ways to fill them:
//
//   units in lanes   a vector holds neighbouring units of one row. Rows are read and written as they stand,
//                    but a layer narrower than a vector leaves lanes unused.
//   rows in lanes    a vector holds the same unit of neighbouring rows. A tile is transposed at both
//                    ends, and all lanes are used however narrow the layers are.
//
// has_rows_in_lanes() counts the instructions of both and chooses. Each sum is added up in the same order
// either way, so a row's output has the same bits. Between two layers, a tile is an array: (rows, units) with
// units in lanes, (units, rows) with rows in lanes. Its last axis is padded to whole vectors; the numbers in
// the padding are never used.
//
// T is the type in which the kernel computes, float or double. S is one of the formats of stored.h: how
// numbers are stored in memory.
#pragma once

#include "activate.h"
#include "layers.h"
#include "mode.h"
#include "network.h"
#include "packed.h"
#include "softmax.h"
#include "transpose.h"

namespace jaxneuron::ISA {

// How many vector instructions a tile of `rows` rows takes, about: with units in lanes, with rows in lanes,
// and to pack 16-bit weights. If the rows of weights are longer than LONG_ROW, units always stand in lanes.
template <class S, class T = typename S::Number>
struct Cost {
  Cost(const Network& network, std::int64_t rows) {
    const Layer* layers = network.layers;
    by_rows = rows * (layers[0].n_in + layers[network.depth - 1].n_out) / 2;  // transposing
    for (std::int64_t i = 0; i < network.depth; ++i) {
      const std::int64_t products = factors<S>(layers[i].n_in);
      const std::int64_t cost = products + ACTIVATION_COST;  // for a vector of units
      by_units += cost * rows * vectors<T>(layers[i].n_out);
      by_rows += cost * layers[i].n_out * vectors<T>(rows);
      packing += products * PACKING_COST * vectors<T>(layers[i].n_out);
      rows_are_long |= layers[i].n_out * std::int64_t(sizeof(T)) > LONG_ROW;
    }
  }
  bool rows_are_cheaper() const { return by_rows < by_units && !rows_are_long; }

  std::int64_t by_units = 0;
  std::int64_t by_rows;
  std::int64_t packing = 0;
  bool rows_are_long = false;
};

// Returns whether a tile of so many rows has rows in lanes. A single row always has units in lanes, and so
// has a tile that reads 16-bit weights in place.
template <class S>
bool has_rows_in_lanes(const Network& network, std::int64_t rows, bool packed) {
  return rows > 1 && (packed || !S::is_16_bit) && Cost<S>(network, rows).rows_are_cheaper();
}

// Returns whether a call with so many rows reads 16-bit weights in place, with units in lanes, instead of
// packing them first. On AArch64 the weights of bfloat16 are always packed, as exact.h must know the
// smallest.
template <class S>
bool reads_in_place(const Network& network, std::int64_t rows) {
  if (flushes<S> && flushes_before_rounding) return false;
  const Cost<S> cost(network, min(rows, PACKED_TILE_ROWS));
  if (cost.rows_are_long) return rows < PACK_ROWS;
  return cost.by_units + cost.by_units / IN_PLACE_COST <
         (cost.rows_are_cheaper() ? cost.by_rows : cost.by_units) + cost.packing;
}

// These replace y, a layer's sums, by their activations. activate_units takes y (rows, padded units),
// activate_rows takes y (units, padded rows).
template <class S, class T = typename S::Number>
void activate_units(const Layer& layer, T* y, std::int64_t rows) {
  softmax_units(layer, y, rows);
  activate<S>(layer, y, y, rows * padded<T>(layer.n_out));
}

template <class S, class T = typename S::Number>
void activate_rows(const Layer& layer, T* y, std::int64_t rows) {
  softmax_rows(layer, y, rows);
  activate<S>(layer, y, y, layer.n_out * rows);
}

// The inputs and the outputs of the network for one tile: its rows of x and, unless batch.y is null, of y.
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
void exchange(T*& x, T*& y) {  // not std::swap: the linker might take another instruction set's copy of it
  T* const before = x;
  x = y;
  y = before;
}

// Evaluates a tile of float32 or float64 rows with rows in lanes. `scratch` has room for two tiles of the
// widest layer.
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

// The same with units in lanes. After the two tiles, `scratch` has room for a panel: a block of weights that
// is copied before use.
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

// --- 16-bit networks: packed.h has their sums ---

// Computes the activations of the n numbers z in blocks of `most` numbers, and calls f(y, first, count) for
// each block: y[i] is the activation of z[first + i]. `most` is at most ACTIVATION_BLOCK, so that f finds y
// in L1. If the layer's activation is a softmax, z already has the results.
template <class S, class F>
void activate_in_blocks(const Layer& layer, const float* z, std::int64_t n, std::int64_t most, F f) {
  alignas(BYTES) float block[ACTIVATION_BLOCK];
  for (std::int64_t i = 0; i < n; i += most) {
    const std::int64_t count = min(most, n - i);
    f(activate<S>(layer, z + i, block, count), i, count);
  }
}

// Returns whether a product computes the layer's activation, and rounds it to factors of the next layer.
template <class S>
bool ends_in_relu(const Network& network, std::int64_t layer) {
  return S::GROUP == 1 && network.layers[layer].activation == Activation::relu && layer + 1 < network.depth;
}

// Evaluates a tile of bfloat16 or float16 rows with rows in lanes. `packed` has the weights of all layers. y
// has room for the sums of the widest layer; x has room for as many inputs, packed to factors (stored.h).
template <class S, class Factor = typename S::Factor>
void run_16_bits_with_rows_in_lanes(const Network& network, const Batch& batch, const Tile& tile, float* y,
                                    Factor* x, const Factor* packed) {
  const Ends<typename S::Stored> ends(network, batch, tile);
  const std::int64_t width = padded<float>(tile.count);
  if constexpr (S::GROUP == 1) {
    load_row<S>(ends.x, tile.count * ends.n_in, y);
    to_columns(y, tile.count, ends.n_in, x, width);
  } else if (ends.n_in % 2 == 0) {  // a stored row is a row of pairs already
    to_columns(reinterpret_cast<const float*>(ends.x), tile.count, ends.n_in / 2, reinterpret_cast<float*>(x),
               width);
  } else {
    float* const rows = reinterpret_cast<float*>(x);
    load_row<S>(ends.x, tile.count * ends.n_in, rows);
    to_columns(rows, tile.count, ends.n_in, y, width);
    pack_rows<S>(ends.n_in, width, y, x);
  }
  Mode mode;
  for (std::int64_t i = 0; i < network.depth; ++i) {
    const Layer& layer = network.layers[i];
    const bool is_activated = ends_in_relu<S>(network, i);
    if constexpr (flushes<S>) mode.set(Mode::FLUSH);
    packed_rows_in_lanes<S>(layer, packed, width, x, y, is_activated);
    packed += packed_factors<S>(layer);
    if constexpr (S::GROUP == 1)
      if (is_activated) {
        exchange(x, y);
        continue;
      }
    mode.restore();
    softmax_rows(layer, y, width);
    if (i + 1 == network.depth) break;
    const std::int64_t whole_groups = ACTIVATION_BLOCK / width / S::GROUP * S::GROUP * width;
    activate_in_blocks<S>(layer, y, layer.n_out * width, whole_groups,
                          [&](const float* values, std::int64_t first, std::int64_t count) {
                            pack_rows<S>(count / width, width, values, x + factors<S>(first / width) * width);
                          });
  }
  float* const rows = reinterpret_cast<float*>(x);
  const float* found = activate<S>(network.layers[network.depth - 1], y, rows, ends.n_out * width);
  if (ends.n_out > 1) {
    float* const to = found == y ? rows : y;
    to_rows(found, width, to, tile.count, ends.n_out);
    found = to;
  }
  store_row<S>(found, tile.count * ends.n_out, ends.y);
}

// The same with units in lanes. If `packed` is null, weights are read in place.
template <class S, class Factor = typename S::Factor>
void run_16_bits_with_units_in_lanes(const Network& network, const Batch& batch, const Tile& tile, float* y,
                                     Factor* x, const Factor* packed) {
  const Ends<typename S::Stored> ends(network, batch, tile);
  const std::int64_t in_stride = factors<S>(padded<float>(ends.n_in));
  for (std::int64_t r = 0; r < tile.count; ++r)
    pack_stored_row<S>(ends.x + r * ends.n_in, ends.n_in, x + r * in_stride);
  Mode mode;
  for (std::int64_t i = 0; i < network.depth; ++i) {
    const Layer& layer = network.layers[i];
    const std::int64_t width = padded<float>(layer.n_out);
    const bool is_activated = ends_in_relu<S>(network, i);
    if constexpr (flushes<S>) mode.set(Mode::FLUSH);
    if (packed) {
      packed_units_in_lanes<S>(layer, packed, tile.count, x, y, is_activated);
      packed += packed_factors<S>(layer);
    } else {
      units_in_place<S>(layer, tile.member, tile.count, x, y, is_activated);
    }
    if constexpr (S::GROUP == 1)
      if (is_activated) {
        exchange(x, y);
        continue;
      }
    mode.restore();
    softmax_units(layer, y, tile.count);
    if (i + 1 == network.depth) break;
    activate_in_blocks<S>(layer, y, tile.count * width, ACTIVATION_BLOCK,
                          [x](const float* values, std::int64_t first, std::int64_t count) {
                            for (std::int64_t k = 0; k < count; k += lanes<float>)
                              S::pack_row(load(values + k), x + factors<S>(first + k));
                          });
    if constexpr (S::GROUP == 2)
      if (layer.n_out % 2)
        for (std::int64_t r = 0; r < tile.count; ++r)
          S::clear_second(x + factors<S>(r * width + layer.n_out - 1));
  }
  const std::int64_t width = padded<float>(ends.n_out);
  activate_in_blocks<S>(network.layers[network.depth - 1], y, tile.count * width, ACTIVATION_BLOCK,
                        [ends, width](const float* values, std::int64_t first, std::int64_t count) {
                          // Prefetch the lines of the next block's outputs: 2 % less time with 256 units.
                          const auto* const next = ends.y + (first + count) / width * ends.n_out;
                          for (std::int64_t k = 0; k < count; k += 32) __builtin_prefetch(next + k, 1);
                          if (width == ends.n_out) return store_row<S>(values, count, ends.y + first);
                          typename S::Stored* to = ends.y + first / width * ends.n_out;
                          std::int64_t unit = first % width;
                          for (std::int64_t k = 0; k < count; k += lanes<float>) {
                            store_row<S>(values + k, min(lanes<float>, ends.n_out - unit), to + unit);
                            unit += lanes<float>;
                            if (unit < width) continue;
                            unit = 0;
                            to += ends.n_out;
                          }
                        });
}

// --- the functions of struct Kernel (network.h) ---

// Each of these functions is for one format, S.

template <class S, class T = typename S::Number>
std::size_t scratch_of(const Network& network, std::int64_t rows, bool packed) {
  const bool by_rows = has_rows_in_lanes<S>(network, rows, packed);
  // Room for a layer's inputs and its sums.
  const std::int64_t width = widest(network);
  std::int64_t numbers = 2 * (by_rows ? width * padded<T>(rows) : rows * padded<T>(width));
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
  const bool by_rows = has_rows_in_lanes<S>(network, tile.count, packed);
  if constexpr (S::is_16_bit) {
    using Factor = typename S::Factor;
    const std::int64_t size =
        by_rows ? widest(network) * padded<T>(tile.count) : tile.count * padded<T>(widest(network));
    auto* const x = reinterpret_cast<Factor*>(scratch + size);
    const auto run = by_rows ? run_16_bits_with_rows_in_lanes<S> : run_16_bits_with_units_in_lanes<S>;
    run(network, batch, tile, scratch, x, static_cast<const Factor*>(packed));
  } else {
    const auto run = by_rows ? run_with_rows_in_lanes<T> : run_with_units_in_lanes<T>;
    run(network, batch, tile, scratch);
  }
}

// Returns f(format) for the format of this dtype.
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

// The same functions for a network of any dtype.

inline std::size_t scratch(const Network& network, std::int64_t rows, bool packed) {
  return with_format(network.dtype,
                     [&](auto format) { return scratch_of<decltype(format)>(network, rows, packed); });
}

inline bool in_place(const Network& network, std::int64_t rows) {
  return network.dtype == Dtype::bfloat16 ? reads_in_place<BFloat16>(network, rows)
                                          : reads_in_place<Float16>(network, rows);
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
