// Carries tangents forward through the layers of a tile, and the Laplacian:
//
//     dz_i = w^T dy_i of the layer before,  dy_i = activation'(z) dz_i
//     L_z  = w^T L of the layer before,     L    = activation'(z) L_z + activation''(z) sum_i dz_i^2
//
// Values, tangents and L go through a layer together, as groups of one tile (directions.h): by one product,
// and by one pass of the activation in which slopes and curvatures stay in registers. The first layer's
// products with unit vectors are not computed: they are its weights. If the directions don't fit into one
// tile, several passes take some of them each. Every pass computes the values again, except the first layer's
// products. The sums of squares are kept from pass to pass, and the last pass computes L.
#pragma once

#include "directions.h"
#include "with_slopes.h"

namespace jaxneuron::ISA {

template <class T, bool by_rows>
class Forward {
 public:
  Forward(const Network& network, const Batch& batch, const Derivatives& wanted, const Tile& tile, T* memory)
      : network_(network),
        wanted_(wanted),
        member_(tile.member),
        first_(tile.first + tile.member * batch.rows),
        ends_(network, batch, tile) {
    of_.rows = tile.count;
    if (wanted.given)
      given_ = static_cast<const T*>(wanted.given) + member_ * wanted.given_stride +
               tile.first * wanted.directions * ends_.n_in;
    const Sizes sizes(network, wanted, tile.count);
    x_ = memory;
    y_ = memory + sizes.tile;
    panel_ = memory + 2 * sizes.tile;
    kept_ = panel_ + sizes.panel;
    if (sizes.squares) squares_ = kept_ + sizes.kept;
  }

  // Returns how many numbers of memory a tile of so many rows needs.
  static std::int64_t numbers(const Network& network, const Derivatives& wanted, std::int64_t rows) {
    const Sizes sizes(network, wanted, rows);
    return 2 * sizes.tile + sizes.panel + sizes.kept + sizes.squares;
  }

  // Returns how many directions go through the layers together: as many as fit into DIRECTION_BYTES or, with
  // units in lanes, into DIRECTION_ROWS if that is more.
  static std::int64_t together(const Network& network, const Derivatives& wanted, std::int64_t rows) {
    const std::int64_t group = Groups<T, by_rows>{rows, 1}.numbers(width(network, wanted)) * sizeof(T);
    const std::int64_t others = wanted.laplacian ? 2 : 1;
    const std::int64_t groups = max(DIRECTION_BYTES / group, by_rows ? 0 : DIRECTION_ROWS / rows);
    return min(wanted.directions, max(1, groups - others));
  }

  void operator()() {
    if (squares_) std::memset(squares_, 0, Sizes(network_, wanted_, of_.rows).squares * sizeof(T));
    in_stretches(wanted_.directions, together(network_, wanted_, of_.rows),
                 [&](std::int64_t first, std::int64_t count) {
                   direction_ = first;
                   count_ = count;
                   is_last_ = first + count == wanted_.directions;
                   of_.groups = 1 + count + has_laplacian();
                   pass();
                 });
  }

 private:
  struct Sizes {
    Sizes(const Network& network, const Derivatives& wanted, std::int64_t rows) {
      const std::int64_t directions = together(network, wanted, rows);
      const Groups<T, by_rows> one{rows, 1};
      // softmax needs three groups of the tile that is free, and x needs one.
      tile = one.numbers(width(network, wanted)) * max(3, 1 + directions + (wanted.laplacian ? 1 : 0));
      tile = max(tile, one.numbers(network.layers[0].n_in));
      if (!wanted.given && directions < wanted.directions) kept = one.numbers(network.layers[0].n_out);
      for (std::int64_t i = 0; i < network.depth; ++i) {
        if (!by_rows) panel = max(panel, panel_numbers<T>(network.layers[i].n_out));
        if (wanted.laplacian && directions < wanted.directions)
          squares += one.numbers(network.layers[i].n_out);
      }
    }
    std::int64_t tile = 0;
    std::int64_t panel = 0;
    std::int64_t kept = 0;
    std::int64_t squares = 0;
  };

  bool has_laplacian() const { return wanted_.laplacian && is_last_; }

  // Group 0 has the values. In the last pass the last group has L, if it is wanted.
  T* group(T* tile, std::int64_t g, std::int64_t units) const { return tile + g * of_.part(units); }

  void pass() {
    T* squares = squares_;
    for (std::int64_t l = 0; l < network_.depth; ++l) {
      const Layer& layer = network_.layers[l];
      if (l > 0)
        multiply(layer, of_.groups, x_, padded<T>(layer.n_in));
      else if (given_)
        multiply_given();
      else
        multiply_units();
      if (is_of_rows(layer.activation))
        through_rows(layer, l == 0, squares);
      else if (has_laplacian() || squares)
        through<true>(layer, l == 0, squares);
      else
        through<false>(layer, l == 0, squares);
      if (squares) squares += of_.numbers(layer.n_out);
      exchange(x_, y_);
    }
    store_results();
  }

  // Copies the first group of a tile of `from_groups` groups to the first group of one of `to_groups` groups.
  void copy_group(std::int64_t units, const T* from, std::int64_t from_groups, T* to,
                  std::int64_t to_groups) {
    const std::int64_t size = of_.part(units);
    for (std::int64_t part = 0; part < of_.parts(units); ++part)
      std::memcpy(to + part * to_groups * size, from + part * from_groups * size, size * sizeof(T));
  }

  // Writes the products of the first `groups` groups to y. x has this number of groups too. Only the values,
  // group 0, get biases.
  void multiply(const Layer& layer, std::int64_t groups, const T* x, std::int64_t x_stride) {
    const std::int64_t rows = of_.rows;
    const std::int64_t width = padded<T>(rows);
    if (by_rows)
      rows_in_lanes(layer, member_, groups * width, width, x, groups * width, y_, of_.groups * width);
    else
      units_in_lanes(layer, member_, groups * rows, rows, x, x_stride, y_, panel_);
  }

  // The first layer for values and given tangents.
  void multiply_given() {
    const std::int64_t n = ends_.n_in;
    of_.load(ends_.x, n, n, x_);
    for (std::int64_t t = 0; t < count_; ++t)
      of_.load(given_ + (direction_ + t) * n, wanted_.directions * n, n, group(x_, 1 + t, n));
    multiply(network_.layers[0], of_.groups, x_, padded<T>(n));
  }

  // The first layer for values and unit vectors: the product with unit vector t is row t of w.
  void multiply_units() {
    const Layer& layer = network_.layers[0];
    if (direction_ == 0) {
      if (by_rows) to_columns(ends_.x, of_.rows, ends_.n_in, x_, padded<T>(of_.rows));
      multiply(layer, 1, by_rows ? x_ : ends_.x, ends_.n_in);
      if (!is_last_) copy_group(layer.n_out, y_, of_.groups, kept_, 1);
    } else {
      copy_group(layer.n_out, kept_, 1, y_, of_.groups);
    }
    const T* const w = Weights<T>(layer, member_).w;
    for (std::int64_t t = 0; t < count_; ++t)
      of_.fill(w + (direction_ + t) * layer.n_out, layer.n_out, group(y_, 1 + t, layer.n_out));
  }

  // Replaces z by activation(z), dz by dy and, in the last pass, L_z by L. In the first layer L_z is 0.
  template <bool curved>
  void through(const Layer& layer, bool is_first, T* squares) {
    const std::int64_t size = of_.part(layer.n_out);
    const std::int64_t count = count_;
    const bool to_laplacian = has_laplacian();
    const bool keep = !is_last_;
    activate_with_slopes<T>(layer, y_, of_.parts(layer.n_out), size, of_.stride(layer.n_out),
                            [=](T* at, std::int64_t place, const WithSlopes<T>& y) {
                              store<T>(at, y.value);
                              Vector<T> sum = curved && squares ? load(squares + place) : Vector<T>{};
                              for (std::int64_t t = 0; t < count; ++t) {
                                at += size;
                                const Vector<T> z = load(at);
                                if (curved) sum = fma(z, z, sum);
                                store<T>(at, z * y.slope);
                              }
                              if (!curved) return;
                              if (keep) return store<T>(squares + place, sum);
                              if (!to_laplacian) return;
                              at += size;
                              const Vector<T> bent = y.curvature * sum;
                              store<T>(at, is_first ? bent : fma(y.slope, load(at), bent));
                            });
  }

  // The same for softmax and log_softmax. It overwrites x_, which the products no longer need.
  void through_rows(const Layer& layer, bool is_first, T* squares) {
    const std::int64_t n = layer.n_out;
    const std::int64_t size = of_.part(n);
    T* const p = x_;
    T* const values = x_ + of_.numbers(n);
    T* sums = nullptr;
    copy_group(n, y_, of_.groups, p, 1);
    std::memcpy(values, p, of_.numbers(n) * sizeof(T));
    activate_group<T, by_rows>(layer, values, of_.rows);
    Layer softmax = layer;
    softmax.activation = Activation::softmax;
    activate_group<T, by_rows>(softmax, p, of_.rows);
    copy_group(n, values, 1, y_, of_.groups);
    if (wanted_.laplacian) {
      sums = squares ? squares : values;
      if (!squares) std::memset(sums, 0, of_.numbers(n) * sizeof(T));
    }
    for (std::int64_t t = 0; t < count_; ++t) through_softmax(of_, layer, p, group(y_, 1 + t, n), sums);
    if (!has_laplacian()) return;
    T* const last = group(y_, 1 + count_, n);
    if (is_first)
      for (std::int64_t part = 0; part < of_.parts(n); ++part)
        std::memset(last + part * of_.stride(n), 0, size * sizeof(T));
    laplacian_through_softmax(of_, layer, p, last, sums);
  }

  // Copies values, tangents and L from x_ to where they are wanted.
  void store_results() {
    const std::int64_t n = ends_.n_out;
    const std::int64_t n_in = ends_.n_in;
    if (ends_.y && direction_ == 0) of_.store_rows(x_, n, ends_.y, n);
    if (has_laplacian())
      of_.store_rows(group(x_, 1 + count_, n), n, static_cast<T*>(wanted_.laplacian) + first_ * n, n);
    T* const result = static_cast<T*>(wanted_.result);
    const T* const tangents = group(x_, 1, n);
    if (given_) {  // result[row][direction][output]
      T* const to = result + (first_ * wanted_.directions + direction_) * n;
      for (std::int64_t t = 0; t < count_; ++t)
        of_.store_rows(tangents + t * of_.part(n), n, to + t * n, wanted_.directions * n);
    } else {  // result[row][output][direction]
      T* const to = result + first_ * n * n_in + direction_;
      const std::int64_t size = of_.part(n);
      if (by_rows)
        for (std::int64_t j = 0; j < n; ++j)
          transpose(tangents + j * of_.stride(n), size, count_, of_.rows, to + j * n_in, n * n_in);
      else
        for (std::int64_t r = 0; r < of_.rows; ++r)
          transpose(tangents + r * padded<T>(n), size, count_, n, to + r * n * n_in, n_in);
    }
  }

  const Network& network_;
  const Derivatives& wanted_;
  const std::int64_t member_;
  const std::int64_t first_;  // the index of the first row among the rows of all members
  const Ends<T> ends_;
  const T* given_ = nullptr;
  Groups<T, by_rows> of_{};
  T* x_;  // the tile before a layer, and y_ the tile after it
  T* y_;
  T* panel_;
  T* kept_;                     // the first layer's z, for several passes of unit vectors
  T* squares_ = nullptr;        // sums of squares of all layers, for several passes
  std::int64_t direction_ = 0;  // the first direction of this pass
  std::int64_t count_ = 0;      // how many directions this pass has
  bool is_last_ = false;        // whether this is the last pass
};

}  // namespace jaxneuron::ISA
