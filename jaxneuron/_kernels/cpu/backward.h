// Carries cotangents back through the layers of a tile:
//
//     dz = activation'(z) dy,  dy of the layer before = w dz
//
// A first pass goes forward: it computes the values, and keeps the slopes of all layers. Then the cotangents
// go back, some directions of all rows at a time, as groups of a tile (directions.h). The last layer's
// products with unit vectors are not computed: they are its weights times its slopes.
#pragma once

#include "directions.h"
#include "with_slopes.h"

namespace jaxneuron::ISA {

template <class T, bool by_rows>
class Backward {
 public:
  Backward(const Network& network, const Batch& batch, const Derivatives& wanted, const Tile& tile, T* memory)
      : network_(network),
        wanted_(wanted),
        member_(tile.member),
        first_(tile.first + tile.member * batch.rows),
        ends_(network, batch, tile),
        one_{tile.count, 1},
        of_{tile.count, 0} {
    if (wanted.given)
      given_ = static_cast<const T*>(wanted.given) + member_ * wanted.given_stride +
               tile.first * wanted.directions * ends_.n_out;
    const Sizes sizes(network, wanted, tile.count);
    x_ = memory;
    y_ = memory + sizes.tile;
    panel_ = memory + 2 * sizes.tile;
    slopes_ = panel_ + sizes.panel;
  }

  // Returns how many numbers of memory a tile of so many rows needs.
  static std::int64_t numbers(const Network& network, const Derivatives& wanted, std::int64_t rows) {
    const Sizes sizes(network, wanted, rows);
    return sizes.slopes + 2 * sizes.tile + sizes.panel;
  }

  // Returns how many directions go through the layers together.
  static std::int64_t together(const Derivatives& wanted, std::int64_t rows) {
    const std::int64_t columns = by_rows ? DIRECTION_COLUMNS / padded<T>(rows) : DIRECTION_ROWS / rows;
    return min(wanted.directions, max(1, columns));
  }

  void operator()() {
    evaluate();
    in_stretches(wanted_.directions, together(wanted_, of_.rows),
                 [&](std::int64_t first, std::int64_t count) {
                   direction_ = first;
                   of_.groups = count;
                   pass();
                 });
  }

 private:
  struct Sizes {
    Sizes(const Network& network, const Derivatives& wanted, std::int64_t rows) {
      const Groups<T, by_rows> one{rows, 1};
      tile = one.numbers(widest(network)) * together(wanted, rows);
      for (std::int64_t i = 0; i < network.depth; ++i) {
        slopes += one.numbers(network.layers[i].n_out);
        if (!by_rows) {
          panel = max(panel, panel_numbers<T>(network.layers[i].n_out));
          panel = max(panel, panel_numbers<T>(network.layers[i].n_in));
        }
      }
    }
    std::int64_t slopes = 0;
    std::int64_t tile = 0;
    std::int64_t panel = 0;
  };

  T* group(T* tile, std::int64_t g, std::int64_t units) const { return tile + g * of_.part(units); }

  // Computes the values of all layers, and stores their slopes. For softmax and log_softmax it stores the
  // values of softmax instead of slopes.
  void evaluate() {
    const std::int64_t rows = of_.rows;
    const std::int64_t width = padded<T>(rows);
    const T* x = ends_.x;
    std::int64_t x_stride = ends_.n_in;
    if (by_rows) {
      to_columns(ends_.x, rows, ends_.n_in, x_, width);
      x = x_;
    }
    T* slopes = slopes_;
    for (std::int64_t l = 0; l < network_.depth; ++l) {
      Layer layer = network_.layers[l];
      const std::int64_t n = layer.n_out;
      if (by_rows)
        rows_in_lanes(layer, member_, width, width, x, width, y_, width);
      else
        units_in_lanes(layer, member_, rows, rows, x, x_stride, y_, panel_);
      if (is_of_rows(layer.activation)) {
        std::memcpy(slopes, y_, one_.numbers(n) * sizeof(T));
        activate_group<T, by_rows>(layer, y_, rows);
        layer.activation = Activation::softmax;
        activate_group<T, by_rows>(layer, slopes, rows);
      } else {
        activate_with_slopes<T>(layer, y_, 1, one_.numbers(n), 0,
                                [slopes](T* at, std::int64_t place, const WithSlopes<T>& y) {
                                  store<T>(at, y.value);
                                  store<T>(slopes + place, y.slope);
                                });
      }
      slopes += one_.numbers(n);
      exchange(x_, y_);
      x = x_;
      x_stride = padded<T>(n);
    }
    slopes_end_ = slopes;
    if (ends_.y) one_.store_rows(x, ends_.n_out, ends_.y, ends_.n_out);
  }

  void pass() {
    std::int64_t l = network_.depth - 1;
    const Layer& last = network_.layers[l];
    T* slopes = slopes_end_ - one_.numbers(last.n_out);
    if (given_ || is_of_rows(last.activation)) {
      given_ ? load_given() : load_units();
      through(last, slopes);
    } else {
      load_last_weights(slopes);
      --l;
      if (l >= 0) slopes -= one_.numbers(network_.layers[l].n_out);
      if (l >= 0) through(network_.layers[l], slopes);
    }
    for (; l >= 0; --l) {
      const Layer& layer = network_.layers[l];
      if (by_rows)
        back_rows_in_lanes(layer, member_, of_.stride(1), x_, y_);
      else
        back_units_in_lanes(layer, member_, of_.groups * of_.rows, x_, y_, panel_);
      exchange(x_, y_);
      if (l > 0) {
        slopes -= one_.numbers(layer.n_in);
        through(network_.layers[l - 1], slopes);
      }
    }
    // result[row][direction][input]
    T* const to = static_cast<T*>(wanted_.result) + (first_ * wanted_.directions + direction_) * ends_.n_in;
    for (std::int64_t t = 0; t < of_.groups; ++t)
      of_.store_rows(group(x_, t, ends_.n_in), ends_.n_in, to + t * ends_.n_in,
                     wanted_.directions * ends_.n_in);
  }

  // Replaces dy by dz, in x_.
  void through(const Layer& layer, T* slopes) {
    const std::int64_t n = layer.n_out;
    for (std::int64_t t = 0; t < of_.groups; ++t)
      if (layer.activation == Activation::log_softmax)
        back_through_log_softmax(of_, layer, slopes, group(x_, t, n));
      else if (is_of_rows(layer.activation))
        through_softmax(of_, layer, slopes, group(x_, t, n), static_cast<T*>(nullptr));
    if (is_of_rows(layer.activation)) return;
    const std::int64_t size = of_.part(n);
    for (std::int64_t part = 0; part < of_.parts(n); ++part)
      for (std::int64_t i = 0; i < size; i += lanes<T>) {
        const Vector<T> slope = load(slopes + part * size + i);
        T* at = x_ + part * of_.stride(n) + i;
        for (std::int64_t t = 0; t < of_.groups; ++t, at += size) store<T>(at, load(at) * slope);
      }
  }

  // --- the cotangents that enter the first product, written to x_ ---

  void load_given() {
    const std::int64_t n = ends_.n_out;
    for (std::int64_t t = 0; t < of_.groups; ++t)
      of_.load(given_ + (direction_ + t) * n, wanted_.directions * n, n, group(x_, t, n));
  }

  void load_units() {
    const std::int64_t n = ends_.n_out;
    std::memset(x_, 0, of_.groups * of_.numbers(n) * sizeof(T));
    for (std::int64_t t = 0; t < of_.groups; ++t)
      for (std::int64_t r = 0; r < of_.rows; ++r)
        group(x_, t, n)[(direction_ + t) * of_.unit_stride(n) + r * of_.row_stride(n)] = 1;
  }

  // The last layer's products with unit vectors: for unit vector t, column t of w times slope t.
  void load_last_weights(const T* slopes) {
    const Layer& layer = network_.layers[network_.depth - 1];
    const std::int64_t n_in = layer.n_in;
    const std::int64_t n_out = layer.n_out;
    const T* const w = Weights<T>(layer, member_).w + direction_;
    if (by_rows) {
      const std::int64_t size = of_.part(n_in);
      for (std::int64_t i = 0; i < n_in; ++i)
        for (std::int64_t t = 0; t < of_.groups; ++t)
          for (std::int64_t r = 0; r < size; r += lanes<T>)
            store<T>(group(x_, t, n_in) + i * of_.stride(n_in) + r,
                     w[i * n_out + t] * load(slopes + (direction_ + t) * size + r));
    } else {
      const std::int64_t width = padded<T>(n_in);
      std::memset(y_, 0, of_.groups * width * sizeof(T));
      transpose(w, n_out, n_in, of_.groups, y_, width);
      for (std::int64_t t = 0; t < of_.groups; ++t)
        for (std::int64_t r = 0; r < of_.rows; ++r) {
          const T slope = slopes[r * padded<T>(n_out) + direction_ + t];
          T* const to = group(x_, t, n_in) + r * width;
          for (std::int64_t i = 0; i < width; i += lanes<T>)
            store<T>(to + i, load(y_ + t * width + i) * slope);
        }
    }
  }

  const Network& network_;
  const Derivatives& wanted_;
  const std::int64_t member_;
  const std::int64_t first_;  // the index of the first row among the rows of all members
  const Ends<T> ends_;
  const T* given_ = nullptr;
  const Groups<T, by_rows> one_;  // the layout of a tile of values
  Groups<T, by_rows> of_;         // the layout of a tile of directions
  T* x_;                          // the tile before a layer, and y_ the tile after it
  T* y_;
  T* panel_;
  T* slopes_;
  T* slopes_end_ = nullptr;
  std::int64_t direction_ = 0;  // the first direction of this pass
};

}  // namespace jaxneuron::ISA
