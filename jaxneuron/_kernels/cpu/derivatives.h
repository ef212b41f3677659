// Derivatives of a tile of rows with respect to its inputs, in closed form: layer after layer
//
//     dz = w^T dy_before,  dy = activation'(z) dz                                 tangents, forward
//     dz = activation'(z) dy,  dy_before = w dz                                   cotangents, backward
//     L = activation'(z) (w^T L_before) + activation''(z) sum_i dz_i^2            the Laplacian
//
// First come the values, as kernel.h computes them, with the slopes of all layers; then tangents or
// cotangents, some directions of all rows at a time, as more rows of a tile: the same products, without
// biases. Of unit vectors the first product is that layer's weights. Every sum is one chain in the order of
// its terms, so that a row's bits don't depend on its tile, on what lies side by side in it, or on the
// directions beside it.
#pragma once

#include "curvatures.h"
#include "kernel.h"

namespace jaxneuron::ISA {

// The first n numbers of v, at most all.
template <class T>
inline void store_first(T* to, Vector<T> v, std::int64_t n) {
  if (n >= lanes<T>) return store<T>(to, v);
  for (std::int64_t i = 0; i < n; ++i) to[i] = v[i];
}

inline float fma(float a, float b, float c) { return has_fma ? __builtin_fmaf(a, b, c) : a * b + c; }
inline double fma(double a, double b, double c) { return has_fma ? __builtin_fma(a, b, c) : a * b + c; }

// How many directions go through the layers together.
template <bool by_rows>
std::int64_t directions_together(const Derivatives& wanted, std::int64_t rows) {
  return min(wanted.directions, max(1, (by_rows ? DIRECTION_COLUMNS : DIRECTION_ROWS) / rows));
}

// Whether rows side by side take fewer vector instructions than units do, the directions' with them.
template <class T>
bool rows_are_cheaper(const Network& network, const Derivatives& wanted, std::int64_t rows) {
  if (rows == 1 && wanted.directions == 1) return false;
  std::int64_t by_units = 0;
  std::int64_t by_rows = 0;
  std::int64_t column_vectors = 0;
  std::int64_t passes = 0;
  in_stretches(wanted.directions, directions_together<true>(wanted, rows),
               [&](std::int64_t, std::int64_t count) { column_vectors += vectors<T>(rows * count); });
  in_stretches(wanted.directions, directions_together<false>(wanted, rows),
               [&](std::int64_t, std::int64_t) { ++passes; });
  for (std::int64_t l = 0; l < network.depth; ++l) {
    const std::int64_t n_in = network.layers[l].n_in;
    const std::int64_t n_out = network.layers[l].n_out;
    if (max(n_in, n_out) * std::int64_t(sizeof(T)) > LONG_ROW) return false;
    const std::int64_t cost = n_in + 2 * ACTIVATION_COST;
    by_units += cost * rows * vectors<T>(n_out);
    by_rows += cost * n_out * vectors<T>(rows);
    if (wanted.backward) {
      by_units += n_out * vectors<T>(n_in) * (rows * wanted.directions + 4 * passes);
      by_rows += n_in * (n_out + 4) * column_vectors;
    } else {
      by_units += n_in * vectors<T>(n_out) * rows * wanted.directions;
      by_rows += n_out * (n_in + 4) * column_vectors;
    }
  }
  return by_rows < by_units;
}

// One tile, and the memory for it. A tile of n units for some columns is (n, padded columns) by rows, and
// (columns, padded n) by units. Its columns are those of the first direction, then those of the second by
// rows; by units the directions of the first row, then those of the second.
template <class T, bool by_rows>
class Differentiation {
 public:
  Differentiation(const Network& network, const Batch& batch, const Derivatives& wanted, const Tile& tile,
                  T* memory)
      : network_(network),
        wanted_(wanted),
        member_(tile.member),
        rows_(tile.count),
        first_(tile.first + tile.member * batch.rows),
        ends_(network, batch, tile) {
    const std::int64_t n = wanted.backward ? ends_.n_out : ends_.n_in;
    if (wanted.given)
      given_ = static_cast<const T*>(wanted.given) + member_ * wanted.given_stride +
               tile.first * wanted.directions * n;
    const Sizes sizes(network, wanted, rows_);
    slopes_ = memory;
    memory += sizes.slopes;
    if (wanted.laplacian) {
      curvatures_ = memory;
      squares_ = memory + sizes.slopes;
      memory += 2 * sizes.slopes;
    }
    for (T*& each : tiles_) {
      each = memory;
      memory += sizes.tile;
    }
    panel_ = memory;
  }

  // Numbers of memory for a tile of so many rows.
  static std::int64_t numbers(const Network& network, const Derivatives& wanted, std::int64_t rows) {
    const Sizes sizes(network, wanted, rows);
    return sizes.slopes * (wanted.laplacian ? 3 : 1) + 2 * sizes.tile + sizes.panel;
  }

  void operator()() {
    evaluate();
    if (squares_)
      for (std::int64_t i = 0; i < of_layer(network_.depth); ++i) squares_[i] = 0;
    in_stretches(wanted_.directions, directions_together<by_rows>(wanted_, rows_),
                 [&](std::int64_t first, std::int64_t count) {
                   direction_ = first;
                   count_ = count;
                   if (wanted_.backward)
                     backward();
                   else
                     forward();
                 });
    if (squares_) laplacian();
  }

 private:
  struct Sizes {
    Sizes(const Network& network, const Derivatives& wanted, std::int64_t rows) {
      for (std::int64_t i = 0; i < network.depth; ++i) {
        slopes += size(network.layers[i].n_out, rows);
        if (!by_rows) {
          panel = max(panel, panel_numbers<T>(network.layers[i].n_out));
          panel = max(panel, panel_numbers<T>(network.layers[i].n_in));
        }
      }
      // A vector more, as slopes are multiplied by in whole ones.
      tile = size(widest(network), rows * directions_together<by_rows>(wanted, rows)) + lanes<T>;
      tile = max(tile, size(widest(network), rows));
    }
    std::int64_t slopes = 0;
    std::int64_t tile = 0;
    std::int64_t panel = 0;
  };

  // Numbers of a tile of n units and so many columns.
  static std::int64_t size(std::int64_t n, std::int64_t columns) {
    return by_rows ? n * padded<T>(columns) : columns * padded<T>(n);
  }

  // Where a layer's slopes begin.
  std::int64_t of_layer(std::int64_t l) const {
    std::int64_t at = 0;
    for (std::int64_t i = 0; i < l; ++i) at += size(network_.layers[i].n_out, rows_);
    return at;
  }

  std::int64_t columns() const { return rows_ * count_; }
  std::int64_t row_stride() const { return padded<T>(columns()); }  // by rows, from unit to unit

  // The values of all layers, to y; their slopes, and curvatures. Of softmax the slopes' place has its
  // values, of its logarithm too.
  void evaluate() {
    const std::int64_t width = padded<T>(rows_);
    const T* x = ends_.x;
    std::int64_t x_stride = ends_.n_in;
    if (by_rows) {
      to_columns(ends_.x, rows_, ends_.n_in, tiles_[1], width);
      x = tiles_[1];
    }
    T* slopes = slopes_;
    T* curvatures = curvatures_;
    for (std::int64_t l = 0; l < network_.depth; ++l) {
      Layer layer = network_.layers[l];
      T* const y = tiles_[l % 2];
      const std::int64_t numbers = size(layer.n_out, rows_);
      if (by_rows)
        rows_in_lanes(layer, member_, width, x, y);
      else
        units_in_lanes(layer, member_, rows_, x, x_stride, y, panel_);
      if (is_of_rows(layer.activation)) {
        std::memcpy(slopes, y, numbers * sizeof(T));
        activate_values(layer, y);
        layer.activation = Activation::softmax;
        activate_values(layer, slopes);
      } else {
        activate_with_slopes(layer, y, slopes, curvatures, numbers);
        if (by_rows && rows_ < width) end_with_ones(layer.n_out, slopes);
      }
      slopes += numbers;
      if (curvatures) curvatures += numbers;
      x = y;
      x_stride = padded<T>(layer.n_out);
    }
    if (ends_.y) store_values(x, ends_.y);
  }

  void activate_values(const Layer& layer, T* y) const {
    if (by_rows)
      activate_rows<Plain<T>>(layer, y, padded<T>(rows_));
    else
      activate_units<Plain<T>>(layer, y, rows_);
  }

  // Columns of one direction may be followed by those of the next within a vector, which slopes of 1 leave as
  // they are.
  void end_with_ones(std::int64_t units, T* slopes) const {
    for (std::int64_t j = 0; j < units; ++j)
      for (std::int64_t r = rows_; r < padded<T>(rows_); ++r) slopes[j * padded<T>(rows_) + r] = 1;
  }

  void store_values(const T* from, T* to) const {
    if (by_rows) return to_rows(from, padded<T>(rows_), to, rows_, ends_.n_out);
    for (std::int64_t r = 0; r < rows_; ++r)
      store_row<Plain<T>>(from + r * padded<T>(ends_.n_out), ends_.n_out, to + r * ends_.n_out);
  }

  void forward() {
    T* y = tiles_[0];
    T* z = tiles_[1];
    std::int64_t l = 0;
    if (given_) {
      load_given(ends_.n_in, y);
    } else {
      load_weights(y);
      through_activation(0, y);
      l = 1;
    }
    for (; l < network_.depth; ++l) {
      multiply(l, columns(), y, z);
      through_activation(l, z);
      exchange(y, z);
    }
    if (given_)
      store_directions(ends_.n_out, y);
    else
      store_columns_of_jacobian(y);
  }

  void backward() {
    T* y = tiles_[0];
    T* z = tiles_[1];
    std::int64_t l = network_.depth - 1;
    if (given_ || is_of_rows(network_.layers[l].activation)) {
      given_ ? load_given(ends_.n_out, y) : load_units(ends_.n_out, y);
      through_activation(l, y);
    } else {
      load_last_weights(y);
      --l;
      if (l >= 0) through_activation(l, y);
    }
    for (; l >= 0; --l) {
      if (by_rows)
        back_rows_in_lanes(network_.layers[l], member_, row_stride(), y, z);
      else
        back_units_in_lanes(network_.layers[l], member_, columns(), y, z, panel_);
      if (l > 0) through_activation(l - 1, z);
      exchange(y, z);
    }
    store_directions(ends_.n_in, y);
  }

  // w^T times some columns, without the bias.
  void multiply(std::int64_t l, std::int64_t columns, const T* y, T* z) const {
    Layer layer = network_.layers[l];
    layer.b = nullptr;
    if (by_rows)
      rows_in_lanes(layer, member_, padded<T>(columns), y, z);
    else
      units_in_lanes(layer, member_, columns, y, padded<T>(layer.n_in), z, panel_);
  }

  // dz to dy, or back, which is the same: the Jacobian of softmax is symmetric, and all others are diagonal.
  void through_activation(std::int64_t l, T* y) {
    const Layer& layer = network_.layers[l];
    const T* const slopes = slopes_ + of_layer(l);
    T* const squares = squares_ ? squares_ + of_layer(l) : nullptr;
    if (layer.activation == Activation::log_softmax && wanted_.backward)
      back_through_log_softmax(layer.n_out, slopes, y);
    else if (is_of_rows(layer.activation))
      through_softmax(layer, slopes, squares, y);
    else if (by_rows)
      multiply_by_rows(layer.n_out, slopes, squares, y);
    else
      multiply_by_units(layer.n_out, slopes, squares, y);
  }

  void multiply_by_rows(std::int64_t units, const T* slopes, T* squares, T* y) const {
    const std::int64_t width = padded<T>(rows_);
    for (std::int64_t j = 0; j < units; ++j) {
      T* const of_unit = y + j * row_stride();
      for (std::int64_t t = 0; t < count_; ++t)
        for (std::int64_t r = 0; r < width; r += lanes<T>) {
          T* const at = of_unit + t * rows_ + r;
          const Vector<T> z = load(at);
          if (squares) add_square(z, squares + j * width + r);
          store<T>(at, z * load(slopes + j * width + r));
        }
    }
  }

  void multiply_by_units(std::int64_t units, const T* slopes, T* squares, T* y) const {
    const std::int64_t width = padded<T>(units);
    for (std::int64_t r = 0; r < rows_; ++r)
      for (std::int64_t t = 0; t < count_; ++t)
        for (std::int64_t j = 0; j < width; j += lanes<T>) {
          T* const at = y + (r * count_ + t) * width + j;
          const Vector<T> z = load(at);
          if (squares) add_square(z, squares + r * width + j);
          store<T>(at, z * load(slopes + r * width + j));
        }
  }

  static void add_square(Vector<T> z, T* sum) { store<T>(sum, fma(z, z, load(sum))); }

  // dz - m, m = the sum of p dz, times p for softmax itself. Their squares are those of dz - m.
  void through_softmax(const Layer& layer, const T* p, T* squares, T* y) const {
    const bool is_log = layer.activation == Activation::log_softmax;
    const std::int64_t units = layer.n_out;
    over_columns(units, p, squares, y, [&](auto at) {
      auto mean = at.zero();
      for (std::int64_t j = 0; j < units; ++j) mean = fma(at.p(j), at.y(j), mean);
      for (std::int64_t j = 0; j < units; ++j) {
        const auto less = at.y(j) - mean;
        if (squares) at.add_square(j, less);
        at.put(j, is_log ? less : at.p(j) * less);
      }
    });
  }

  // dy - p times the sum of dy
  void back_through_log_softmax(std::int64_t units, const T* p, T* y) const {
    over_columns(units, p, static_cast<T*>(nullptr), y, [&](auto at) {
      auto sum = at.zero();
      for (std::int64_t j = 0; j < units; ++j) sum += at.y(j);
      for (std::int64_t j = 0; j < units; ++j) at.put(j, fma(at.p(j), -sum, at.y(j)));
    });
  }

  // Some columns of a tile, those of one vector or a single one, by the unit.
  struct Columns {
    const T* probabilities;
    T* squares;
    T* numbers;
    std::int64_t width;   // of a tile of rows
    std::int64_t stride;  // of a tile of directions
    std::int64_t count;

    Vector<T> zero() const { return Vector<T>{}; }
    Vector<T> p(std::int64_t j) const { return load(probabilities + j * width); }
    Vector<T> y(std::int64_t j) const { return load(numbers + j * stride); }
    void put(std::int64_t j, Vector<T> v) const { store_first<T>(numbers + j * stride, v, count); }
    void add_square(std::int64_t j, Vector<T> v) const {
      Differentiation::add_square(v, squares + j * width);
    }
  };

  struct Column {
    const T* probabilities;
    T* squares;
    T* numbers;

    T zero() const { return 0; }
    T p(std::int64_t j) const { return probabilities[j]; }
    T y(std::int64_t j) const { return numbers[j]; }
    void put(std::int64_t j, T v) const { numbers[j] = v; }
    void add_square(std::int64_t j, T v) const { squares[j] = fma(v, v, squares[j]); }
  };

  template <class F>
  void over_columns(std::int64_t units, const T* p, T* squares, T* y, F f) const {
    const std::int64_t width = by_rows ? padded<T>(rows_) : padded<T>(units);
    if constexpr (by_rows) {
      for (std::int64_t t = 0; t < count_; ++t)
        for (std::int64_t r = 0; r < width; r += lanes<T>)
          f(Columns{p + r, squares ? squares + r : nullptr, y + t * rows_ + r, width, row_stride(),
                    rows_ - r});
    } else {
      for (std::int64_t r = 0; r < rows_; ++r)
        for (std::int64_t t = 0; t < count_; ++t)
          f(Column{p + r * width, squares ? squares + r * width : nullptr, y + (r * count_ + t) * width});
    }
  }

  // L, as one more direction, from the sums of squares.
  void laplacian() {
    T* y = tiles_[0];
    T* z = tiles_[1];
    direction_ = 0;
    count_ = 1;
    for (std::int64_t l = 0; l < network_.depth; ++l) {
      const Layer& layer = network_.layers[l];
      const std::int64_t numbers = size(layer.n_out, rows_);
      const T* const slopes = slopes_ + of_layer(l);
      const T* const curvatures = curvatures_ + of_layer(l);
      const T* const squares = squares_ + of_layer(l);
      if (l > 0)
        multiply(l, rows_, y, z);
      else
        for (std::int64_t i = 0; i < numbers; ++i) z[i] = 0;
      if (is_of_rows(layer.activation))
        laplacian_of_softmax(layer, slopes, squares, z);
      else
        for (std::int64_t i = 0; i < numbers; i += lanes<T>) {
          const Vector<T> bent = load(curvatures + i) * load(squares + i);
          store<T>(z + i, l == 0 ? bent : fma(load(slopes + i), load(z + i), bent));
        }
      exchange(y, z);
    }
    store_values(y, static_cast<T*>(wanted_.laplacian) + first_ * ends_.n_out);
  }

  // p (s - the sum of p s) for s = L + S, S the sums of squares; of its logarithm L - the sum of p s
  void laplacian_of_softmax(const Layer& layer, const T* p, const T* squares, T* y) const {
    const bool is_log = layer.activation == Activation::log_softmax;
    const std::int64_t width = by_rows ? padded<T>(rows_) : 1;  // from unit to unit
    const std::int64_t row = by_rows ? 1 : padded<T>(layer.n_out);
    for (std::int64_t r = 0; r < rows_; ++r) {
      T mean = 0;
      for (std::int64_t j = 0; j < layer.n_out; ++j) {
        const std::int64_t at = r * row + j * width;
        mean = fma(p[at], y[at] + squares[at], mean);
      }
      for (std::int64_t j = 0; j < layer.n_out; ++j) {
        const std::int64_t at = r * row + j * width;
        y[at] = is_log ? y[at] - mean : p[at] * (y[at] + squares[at] - mean);
      }
    }
  }

  // --- what goes into the first product, and where the results go ---

  // By rows the vector after the last whole one of each unit is set first, and then partly overwritten.
  void clear_ends(std::int64_t units, T* y) const {
    if (by_rows && columns() < row_stride())
      for (std::int64_t j = 0; j < units; ++j) store<T>(y + (j + 1) * row_stride() - lanes<T>, Vector<T>{});
  }

  void load_given(std::int64_t n, T* y) const {
    clear_ends(n, y);
    for (std::int64_t t = 0; t < count_; ++t) {
      const T* const from = given_ + (direction_ + t) * n;
      const std::int64_t stride = wanted_.directions * n;
      if (by_rows)
        transpose(from, stride, rows_, n, y + t * rows_, row_stride());
      else
        for (std::int64_t r = 0; r < rows_; ++r)
          load_row<Plain<T>>(from + r * stride, n, y + (r * count_ + t) * padded<T>(n));
    }
  }

  // Unit vectors.
  void load_units(std::int64_t n, T* y) const {
    const std::int64_t numbers = size(n, columns());
    for (std::int64_t i = 0; i < numbers; ++i) y[i] = 0;
    for (std::int64_t t = 0; t < count_; ++t)
      for (std::int64_t r = 0; r < rows_; ++r) {
        const std::int64_t unit = direction_ + t;
        y[by_rows ? unit * row_stride() + t * rows_ + r : (r * count_ + t) * padded<T>(n) + unit] = 1;
      }
  }

  // The first layer's products with unit vectors: row t of w.
  void load_weights(T* y) const {
    const Layer& layer = network_.layers[0];
    const T* const w = Weights<T>(layer, member_).w;
    const std::int64_t n = layer.n_out;
    clear_ends(n, y);
    for (std::int64_t t = 0; t < count_; ++t) {
      const T* const row = w + (direction_ + t) * n;
      if (by_rows)
        for (std::int64_t j = 0; j < n; ++j) fill(row[j], y + j * row_stride() + t * rows_);
      else
        for (std::int64_t r = 0; r < rows_; ++r)
          load_row<Plain<T>>(row, n, y + (r * count_ + t) * padded<T>(n));
    }
  }

  // The last layer's products with unit vectors times slopes: column t of w.
  void load_last_weights(T* y) const {
    const Layer& layer = network_.layers[network_.depth - 1];
    const T* const w = Weights<T>(layer, member_).w;
    const T* const slopes = slopes_ + of_layer(network_.depth - 1);
    const std::int64_t width = padded<T>(by_rows ? rows_ : layer.n_out);
    clear_ends(layer.n_in, y);
    for (std::int64_t t = 0; t < count_; ++t) {
      const std::int64_t j = direction_ + t;
      for (std::int64_t i = 0; i < layer.n_in; ++i) {
        const T weight = w[i * layer.n_out + j];
        if (by_rows) {
          T* const to = y + i * row_stride() + t * rows_;
          for (std::int64_t r = 0; r < rows_; r += lanes<T>)
            store_first<T>(to + r, weight * load(slopes + j * width + r), rows_ - r);
        } else {
          for (std::int64_t r = 0; r < rows_; ++r)
            y[(r * count_ + t) * padded<T>(layer.n_in) + i] = weight * slopes[r * width + j];
        }
      }
    }
  }

  void fill(T number, T* to) const {
    for (std::int64_t r = 0; r < rows_; r += lanes<T>) store_first<T>(to + r, splat<T>(number), rows_ - r);
  }

  // result[row][direction][n]
  void store_directions(std::int64_t n, const T* y) const {
    T* const result = static_cast<T*>(wanted_.result) + first_ * wanted_.directions * n;
    for (std::int64_t t = 0; t < count_; ++t) {
      T* const to = result + (direction_ + t) * n;
      const std::int64_t stride = wanted_.directions * n;
      if (by_rows)
        transpose(y + t * rows_, row_stride(), n, rows_, to, stride);
      else
        for (std::int64_t r = 0; r < rows_; ++r)
          store_row<Plain<T>>(y + (r * count_ + t) * padded<T>(n), n, to + r * stride);
    }
  }

  // result[row][output][direction]
  void store_columns_of_jacobian(const T* y) const {
    const std::int64_t n_in = ends_.n_in;
    const std::int64_t n_out = ends_.n_out;
    T* const result = static_cast<T*>(wanted_.result) + first_ * n_out * n_in + direction_;
    if (by_rows)
      for (std::int64_t j = 0; j < n_out; ++j)
        transpose(y + j * row_stride(), rows_, count_, rows_, result + j * n_in, n_out * n_in);
    else
      for (std::int64_t r = 0; r < rows_; ++r)
        transpose(y + r * count_ * padded<T>(n_out), padded<T>(n_out), count_, n_out,
                  result + r * n_out * n_in, n_in);
  }

  const Network& network_;
  const Derivatives& wanted_;
  const std::int64_t member_;
  const std::int64_t rows_;
  const std::int64_t first_;  // of the rows, among those of all members
  const Ends<T> ends_;
  const T* given_ = nullptr;
  T* slopes_;
  T* curvatures_ = nullptr;
  T* squares_ = nullptr;
  T* tiles_[2];
  T* panel_;
  std::int64_t direction_ = 0;  // the first one that is in the tile
  std::int64_t count_ = 0;      // of directions in it
};

// Kernel's functions: see network.h.

template <class F>
auto with_number(const Network& network, F f) {
  return network.dtype == Dtype::float64 ? f(double()) : f(float());
}

inline std::size_t derivative_scratch(const Network& network, const Derivatives& wanted, std::int64_t rows) {
  return with_number(network, [&](auto zero) {
    using T = decltype(zero);
    const auto numbers = rows_are_cheaper<T>(network, wanted, rows) ? Differentiation<T, true>::numbers
                                                                    : Differentiation<T, false>::numbers;
    return std::size_t(numbers(network, wanted, rows)) * sizeof(T);
  });
}

inline void differentiate(const Network& network, const Batch& batch, const Derivatives& wanted,
                          const Tile& tile, void* memory) {
  with_number(network, [&](auto zero) {
    using T = decltype(zero);
    T* const numbers = static_cast<T*>(memory);
    if (rows_are_cheaper<T>(network, wanted, tile.count))
      Differentiation<T, true>(network, batch, wanted, tile, numbers)();
    else
      Differentiation<T, false>(network, batch, wanted, tile, numbers)();
  });
}

constexpr Kernel kernel(const char* name) {
  return {name, scratch, packed_bytes, pack, run, derivative_scratch, differentiate};
}

}  // namespace jaxneuron::ISA
