// One layer's sums for a tile of rows. The lanes of a vector hold either several units or several rows.
//
//     z[j] = b[j];  for i in 0 .. n_in - 1:  z[j] = fma(x[i], w[i][j], z[j])
//
// Every function here computes this for every row and every unit j, in this order, so a row has the same bits
// wherever it stands in a batch. packed.h has the sums of 16-bit numbers. A tile is (rows, padded n_out) with
// units in lanes, and (n_out, padded rows) with rows in lanes.
#pragma once

#include "network.h"
#include "product.h"
#include "stored.h"
#include "transpose.h"

namespace jaxneuron::ISA {

// Converts n stored numbers to the type T of the computation, then writes zeros up to a whole vector.
template <class S, class T = typename S::Number>
void load_row(const typename S::Stored* from, std::int64_t n, T* to) {
  std::int64_t i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) store<T>(to + i, S::load(from + i));
  if (i < n) store<T>(to + i, S::load_first(from + i, n - i));
}

// Rounds n numbers to the stored format, and stores them. `from` is padded to a whole vector.
template <class S, class T = typename S::Number>
void store_row(const T* from, std::int64_t n, typename S::Stored* to) {
  std::int64_t i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) S::store(to + i, S::round(load(from + i)));
  if (i < n) S::store_first(to + i, S::round(load(from + i)), n - i);
}

// Returns whether weights are copied to panels before use, because their rows are long.
template <class T>
bool packs(std::int64_t n_out, std::int64_t rows) {
  return n_out * std::int64_t(sizeof(T)) > LONG_ROW && rows >= PACK_ROWS;
}

// Returns how many numbers a panel of weights has, with the bias after it.
template <class T>
std::int64_t panel_numbers(std::int64_t n_out) {
  return (PANEL_ROWS + 1) * min(ACCUMULATOR_VECTORS * lanes<T>, padded<T>(n_out));
}

// One member's w and b (or null) of a layer.
template <class Stored>
struct Weights {
  Weights(const Layer& layer, std::int64_t member)
      : w(static_cast<const Stored*>(layer.w) + member * layer.w_stride),
        b(layer.b ? static_cast<const Stored*>(layer.b) + member * layer.b_stride : nullptr) {}

  const Stored* w;
  const Stored* b;
};

// Sets which bias a product of `count` rows, or of `count` vectors of columns, starts from. The product
// begins at number `first`; of all rows or vectors the first `biased` have a bias. So all of the product's
// have a bias (of the kind `bias`), or some, or none.
template <class T>
void start_with(Start bias, std::int64_t biased, std::int64_t first, std::int64_t count,
                Product<Plain<T>>& product) {
  product.some = biased - first;
  if (!product.bias || product.some <= 0)
    product.start = Start::zero;
  else if (product.some >= count)
    product.start = bias;
  else
    product.start = bias == Start::row_bias ? Start::some_row_bias : Start::some_column_bias;
}

// For fewer units than vector lanes: x is (rows, n_in), y is (rows, lanes). Weights are read in place: a load
// of row k also covers the rows after it, and the extra sums are ignored. The last rows of w are copied, with
// zeros after them, so that a load never runs past w.
template <class T>
void units_below_one_vector(const Layer& layer, Weights<T> of, std::int64_t rows, std::int64_t biased,
                            const T* x, std::int64_t x_stride, T* y) {
  const std::int64_t n_in = layer.n_in;
  const std::int64_t n_out = layer.n_out;
  if (n_out == 0) return;
  const std::int64_t copied = min(n_in, (lanes<T> - 1) / n_out);
  const std::int64_t in_place = n_in - copied;
  T end[2 * lanes<T>] = {};
  T bias[lanes<T>] = {};
  for (std::int64_t i = 0; i < copied * n_out; ++i) end[i] = of.w[in_place * n_out + i];
  if (of.b)
    for (std::int64_t i = 0; i < n_out; ++i) bias[i] = of.b[i];

  in_stretches(rows, ACCUMULATOR_ROWS, [&](std::int64_t r, std::int64_t height) {
    Product<Plain<T>> product;
    product.size = in_place;
    product.left = x + r * x_stride;
    product.left_row_stride = x_stride;
    product.left_column_stride = 1;
    product.right = of.w;
    product.right_row_stride = n_out;
    product.out = y + r * lanes<T>;
    product.out_row_stride = lanes<T>;
    product.bias = bias;
    product.last_column = 0;
    start_with(Start::column_bias, biased, r, height, product);
    product(height, 1);
    product.size = copied;
    product.left += in_place;
    product.right = end;
    product.start = Start::out;
    product(height, 1);
  });
}

// Sets the padding of y (rows, padded n_out) to 0, where products don't write it. The last vector of each row
// is cleared if it has padding.
template <class T>
void clear_padding(T* y, std::int64_t rows, std::int64_t n_out) {
  if (n_out % lanes<T> == 0) return;
  for (std::int64_t r = 1; r <= rows; ++r) store<T>(y + r * padded<T>(n_out) - lanes<T>, Vector<T>{});
}

// Units in lanes: x is (rows, n_in), y is (rows, padded n_out). The first `biased` rows have biases. If
// packs(n_out, rows), `panel` has room for panel_numbers(n_out) numbers.
template <class T>
void units_in_lanes(const Layer& layer, std::int64_t member, std::int64_t rows, std::int64_t biased,
                    const T* x, std::int64_t x_stride, T* y, T* panel) {
  const std::int64_t n_in = layer.n_in;
  const std::int64_t n_out = layer.n_out;
  const std::int64_t y_stride = padded<T>(n_out);
  const Weights<T> of(layer, member);
  const bool packed = packs<T>(n_out, rows);
  if (n_out < lanes<T>) return units_below_one_vector<T>(layer, of, rows, biased, x, x_stride, y);
  if (!packed) clear_padding(y, rows, n_out);

  in_stretches(vectors<T>(n_out), most_vectors(rows), [&](std::int64_t v, std::int64_t count) {
    std::int64_t j = v * lanes<T>;  // the first unit
    std::int64_t units = min(count * lanes<T>, n_out - j);
    if (units < lanes<T> && !packed) {  // a whole vector that ends where w does
      j = n_out - lanes<T>;
      units = lanes<T>;
    }
    Product<Plain<T>> product;
    product.left_row_stride = x_stride;
    product.left_column_stride = 1;
    product.out_row_stride = y_stride;
    const auto over_rows = [&](const T* from, bool is_first) {
      in_stretches(rows, ACCUMULATOR_ROWS, [&](std::int64_t r, std::int64_t height) {
        product.left = from + r * x_stride;
        product.out = y + r * y_stride + j;
        if (is_first)
          start_with(Start::column_bias, biased, r, height, product);
        else
          product.start = Start::out;
        product(height, count);
      });
    };
    if (packed) {
      const std::int64_t width = count * lanes<T>;
      T* bias = panel + PANEL_ROWS * width;
      if (of.b) load_row<Plain<T>>(of.b + j, units, bias);
      product.right = panel;
      product.right_row_stride = width;
      product.bias = of.b ? bias : nullptr;
      product.last_column = width - lanes<T>;
      std::int64_t k = 0;
      do {
        product.size = min(PANEL_ROWS, n_in - k);
        for (std::int64_t i = 0; i < product.size; ++i)
          load_row<Plain<T>>(of.w + (k + i) * n_out + j, units, panel + i * width);
        over_rows(x + k, k == 0);
        k += PANEL_ROWS;
      } while (k < n_in);
    } else {
      product.size = n_in;
      product.right = of.w + j;
      product.right_row_stride = n_out;
      product.bias = of.b ? of.b + j : nullptr;
      product.last_column = units - lanes<T>;
      over_rows(x, true);
    }
  });
}

// Rows in lanes: x is (n_in, rows), y is (n_out, rows), and `rows` is padded. The first `biased` rows have
// biases. Here w is the left factor: y = w^T x. The strides are from one unit to the next.
template <class T>
void rows_in_lanes(const Layer& layer, std::int64_t member, std::int64_t rows, std::int64_t biased,
                   const T* x, std::int64_t x_stride, T* y, std::int64_t y_stride) {
  const Weights<T> of(layer, member);
  in_stretches(rows / lanes<T>, ACCUMULATOR_VECTORS, [&](std::int64_t v, std::int64_t count) {
    const std::int64_t r = v * lanes<T>;
    in_stretches(layer.n_out, ACCUMULATOR_ROWS, [&](std::int64_t j, std::int64_t height) {
      Product<Plain<T>> product;
      product.size = layer.n_in;
      product.left = of.w + j;
      product.left_row_stride = 1;
      product.left_column_stride = layer.n_out;
      product.right = x + r;
      product.right_row_stride = x_stride;
      product.out = y + j * y_stride + r;
      product.out_row_stride = y_stride;
      product.bias = of.b ? of.b + j : nullptr;
      product.last_column = (count - 1) * lanes<T>;
      start_with(Start::row_bias, biased / lanes<T>, v, count, product);
      product(height, count);
    });
  });
}

// Cotangents back through a layer: dx[i] = the sum over j of w[i][j] dz[j].

// Units in lanes: dz is (rows, padded n_out), dx is (rows, padded n_in). Weights are transposed, one panel at
// a time.
template <class T>
void back_units_in_lanes(const Layer& layer, std::int64_t member, std::int64_t rows, const T* dz, T* dx,
                         T* panel) {
  const std::int64_t n_in = layer.n_in;
  const std::int64_t n_out = layer.n_out;
  const T* const w = Weights<T>(layer, member).w;
  in_stretches(vectors<T>(n_in), ACCUMULATOR_VECTORS, [&](std::int64_t v, std::int64_t count) {
    const std::int64_t i = v * lanes<T>;
    const std::int64_t width = count * lanes<T>;
    Product<Plain<T>> product;
    product.left_row_stride = padded<T>(n_out);
    product.left_column_stride = 1;
    product.right = panel;
    product.right_row_stride = width;
    product.out_row_stride = padded<T>(n_in);
    product.start = Start::zero;
    product.last_column = width - lanes<T>;
    for (std::int64_t k = 0; k < n_out; k += PANEL_ROWS) {
      product.size = min(PANEL_ROWS, n_out - k);
      transpose(w + i * n_out + k, n_out, min(width, n_in - i), product.size, panel, width);
      in_stretches(rows, ACCUMULATOR_ROWS, [&](std::int64_t r, std::int64_t height) {
        product.left = dz + r * product.left_row_stride + k;
        product.out = dx + r * product.out_row_stride + i;
        product(height, count);
      });
      product.start = Start::out;
    }
  });
}

// Rows in lanes: dz is (n_out, rows), dx is (n_in, rows), and `rows` is padded.
template <class T>
void back_rows_in_lanes(const Layer& layer, std::int64_t member, std::int64_t rows, const T* dz, T* dx) {
  const T* const w = Weights<T>(layer, member).w;
  in_stretches(rows / lanes<T>, ACCUMULATOR_VECTORS, [&](std::int64_t v, std::int64_t count) {
    in_stretches(layer.n_in, ACCUMULATOR_ROWS, [&](std::int64_t i, std::int64_t height) {
      Product<Plain<T>> product;
      product.size = layer.n_out;
      product.left = w + i * layer.n_out;
      product.left_row_stride = layer.n_out;
      product.left_column_stride = 1;
      product.right = dz + v * lanes<T>;
      product.right_row_stride = rows;
      product.out = dx + i * rows + v * lanes<T>;
      product.out_row_stride = rows;
      product.start = Start::zero;
      product.last_column = (count - 1) * lanes<T>;
      product(height, count);
    });
  });
}

}  // namespace jaxneuron::ISA
