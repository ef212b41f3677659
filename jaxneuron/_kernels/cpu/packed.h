// The sums of 16-bit layers. Weights are packed once, in the order in which products read them, or read in
// place. The inputs of a layer are packed each time, before its products.
//
// A float16 layer is summed in float32, in the order of a float32 layer (layers.h). A bfloat16 layer is
// summed in pairs of inputs. Subnormal numbers are treated as 0, in x, w, b and the partial sums:
//
//     z[j] = b[j];  for i in 0, 2, 4 .. n_in:  z[j] = fma(x[i+1], w[i+1][j], z[j])
//                                              z[j] = fma(x[i], w[i][j], z[j])
//
// This is what the instruction vdpbf16ps computes, on CPUs that have it. On other CPUs with FMA, the numbers
// are packed as floats, and multiplied in that order in a floating-point mode that treats subnormal numbers
// as 0; that gives the same bits. If n_in is odd, the last input is added alone, or with x = 0 and w = -0:
// their product -0 does not change a sum. CPUs without FMA sum in the same order, but round each product and
// do not treat subnormal numbers as 0.
//
// A *factor* is one operand of these products: a float or, on CPUs that have the instruction, a pair of
// bfloat16 numbers.
#pragma once

#include "exact.h"
#include "layers.h"

namespace jaxneuron::ISA {

// Returns how many factors n numbers are packed into.
template <class S>
constexpr std::int64_t factors(std::int64_t n) {
  return (n + S::GROUP - 1) / S::GROUP;
}

// Whether the thread's floating-point mode must be set to treat subnormal numbers as 0. vdpbf16ps does so in
// every mode.
template <class S>
constexpr bool flushes = S::odd_first && has_fma;

// Returns how many factors a packed layer takes. A layer's units are divided into stretches of up to
// ROW_VECTORS vectors. Each stretch is packed as its biases, in float32, followed by its weights. If
// exact.h is needed, the layer's smallest |w| comes at the end.
template <class S>
std::int64_t packed_factors(const Layer& layer) {
  const bool and_least = flushes<S> && flushes_before_rounding;
  return padded<float>(layer.n_out) * (factors<S>(layer.n_in) + 1) + (and_least ? lanes<float> : 0);
}

template <class S, class Factor>
Factor& least_weight(const Layer& layer, Factor* packed) {
  return packed[packed_factors<S>(layer) - lanes<float>];
}

// Calls f(first unit, vectors) for each stretch of the layer's units.
template <class F>
void in_stretches_of_units(const Layer& layer, F f) {
  in_stretches(vectors<float>(layer.n_out), ROW_VECTORS,
               [&](std::int64_t v, std::int64_t count) { f(v * lanes<float>, count); });
}

// Packs one member's weights and biases into packed_factors(layer) factors. Lanes that only pad a vector get
// numbers whose results are ignored.
template <class S>
void pack_layer(const Layer& layer, std::int64_t member, typename S::Factor* to) {
  using Stored = typename S::Stored;
  const Weights<Stored> of(layer, member);
  const std::int64_t n_out = layer.n_out;
  const std::int64_t size = factors<S>(layer.n_in) + 1;
  const Stored* const end = of.w + layer.n_in * n_out;
  in_stretches_of_units(layer, [&](std::int64_t j, std::int64_t count) {
    float* const biases = reinterpret_cast<float*>(to + j * size);
    for (std::int64_t i = 0; i < count * lanes<float>; i += lanes<float>)
      store<float>(biases + i, Vector<float>{});
    if (of.b) load_row<S>(of.b + j, min(count * lanes<float>, n_out - j), biases);
  });
  for (std::int64_t k = 0; k < layer.n_in; k += S::GROUP)  // outside, to read weights in order of memory
    in_stretches_of_units(layer, [&](std::int64_t j, std::int64_t count) {
      const std::int64_t width = count * lanes<float>;
      const Stored* const row = of.w + k * n_out + j;
      const std::int64_t place = S::odd_first && (k | 1) < layer.n_in ? k ^ 1 : factors<S>(k);
      auto* const packed = to + j * size + width * (place + 1);
      const auto pack = [packed](std::int64_t i, Halves first, Halves second) {
        if constexpr (S::GROUP == 1)
          store<float>(packed + i, S::widened(first));
        else
          store<Pair>(packed + i, S::joined(first, second));
      };
      if (row + width + (S::GROUP - 1) * n_out <= end) {
        for (std::int64_t i = 0; i < width; i += lanes<float>)
          pack(i, load_halves(row + i), S::GROUP == 1 ? Halves{} : load_halves(row + n_out + i));
        return;
      }
      for (std::int64_t i = 0; i < width; i += lanes<float>) {
        const auto before_end = [end](const Stored* from) {
          return load_first_halves(from, max(0, min(lanes<float>, end - from)));
        };
        pack(i, before_end(row + i), k + 1 < layer.n_in ? before_end(row + n_out + i) : Halves{} + 0x8000);
      }
    });
  if constexpr (flushes<S> && flushes_before_rounding)
    least_weight<S>(layer, to) = least_size(to, padded<float>(n_out) * size);
}

template <class S, Natural natural, class Factor>
Product<S, natural, Factor> product_of(const Factor*) {
  return {};
}

// Calls f(first unit, units, vectors, biases, weights, width, x) for stretches of up to `most` vectors of the
// layer's units. f multiplies their packed weights, whose rows are `width` factors apart, by x, which has
// `size` factors. `weights` and x are pointers to Factor, or to Exact if exact.h is needed.
template <class S, class Factor, class F>
void over_units(const Layer& layer, std::int64_t most, const Factor* packed, const Factor* x,
                [[maybe_unused]] std::int64_t size, F f) {
  const auto multiply = [&](const auto* of_layer, const auto* of_x) {
    in_stretches_of_units(layer, [&](std::int64_t j, std::int64_t packed_together) {
      const std::int64_t width = packed_together * lanes<float>;
      const auto* const of_units = of_layer + j * (factors<S>(layer.n_in) + 1);
      const float* const biases = reinterpret_cast<const float*>(of_units);
      in_stretches(packed_together, most, [&](std::int64_t v, std::int64_t count) {
        const std::int64_t i = v * lanes<float>;
        const std::int64_t units = min(count * lanes<float>, layer.n_out - j - i);
        f(j + i, units, count, biases + i, of_units + width + i, width, of_x);
      });
    });
  };
  if constexpr (flushes<S> && flushes_before_rounding)
    if (double(least_weight<S>(layer, packed)) * least_size(x, size) < LEAST_PRODUCT)
      return multiply(reinterpret_cast<const Exact*>(packed), reinterpret_cast<const Exact*>(x));
  multiply(packed, x);
}

// Packs one row of n stored numbers for a layer with units in lanes, and pads it with zeros to whole vectors.
template <class S>
void pack_stored_row(const typename S::Stored* from, std::int64_t n, typename S::Factor* x) {
  if constexpr (S::GROUP == 1) {
    load_row<S>(from, n, x);
  } else {  // the row is a row of pairs already
    for (std::int64_t i = 0; i < n; i += lanes<float>) {
      const bool is_whole = i + lanes<float> <= n;
      const Halves numbers = is_whole ? load_halves(from + i) : load_first_halves(from + i, n - i);
      std::memcpy(x + i / 2, &numbers, sizeof numbers);
    }
  }
}

// Computes a layer's sums with units in lanes: y (rows, padded n_out) from x (rows, factors of padded n_in).
// If ends_in_relu, y gets the relu of the sums, rounded to the format.
template <class S, class Factor = typename S::Factor>
void packed_units_in_lanes(const Layer& layer, const Factor* packed, std::int64_t rows, const Factor* x,
                           float* y, bool ends_in_relu) {
  const std::int64_t size = factors<S>(layer.n_in);
  const std::int64_t x_stride = factors<S>(padded<float>(layer.n_in));
  over_units<S>(layer, most_vectors(rows), packed, x, rows * x_stride,
                [&](std::int64_t j, std::int64_t, std::int64_t count, const float* biases,
                    const auto* weights, std::int64_t width, const auto* left) {
                  auto product = product_of<S, Natural::left>(weights);
                  product.left_row_stride = x_stride;
                  product.left_column_stride = 1;
                  product.right_row_stride = width;
                  product.out_row_stride = padded<float>(layer.n_out);
                  product.start = Start::column_bias;
                  product.bias = biases;
                  product.last_column = (count - 1) * lanes<float>;
                  std::int64_t k = 0;
                  do {
                    product.size = min(PANEL_ROWS, size - k);
                    product.ends_in_relu = ends_in_relu && k + PANEL_ROWS >= size;
                    product.right = weights + k * width;
                    in_stretches(rows, ACCUMULATOR_ROWS, [&](std::int64_t r, std::int64_t height) {
                      product.left = left + r * product.left_row_stride + k;
                      product.out = y + r * product.out_row_stride + j;
                      product(height, count);
                    });
                    product.start = Start::out;
                    k += PANEL_ROWS;
                  } while (k < size);
                });
}

// Computes the same as packed_units_in_lanes, but reads the weights where they are stored. Only two kinds of
// rows are copied first: the last ones of a layer with fewer units than a vector has lanes, because a load of
// a row also covers the rows after it; and a last row without a pair.
template <class S, class Factor = typename S::Factor, class Stored = typename S::Stored>
void units_in_place(const Layer& layer, std::int64_t member, std::int64_t rows, const Factor* x, float* y,
                    bool ends_in_relu) {
  const std::int64_t n_in = layer.n_in;
  const std::int64_t n_out = layer.n_out;
  if (n_out == 0) return;
  const Weights<Stored> of(layer, member);
  const std::int64_t y_stride = padded<float>(n_out);
  const bool is_narrow = n_out < lanes<float>;
  const std::int64_t last = is_narrow ? (lanes<float> - 1) / n_out : n_in % S::GROUP;
  const std::int64_t in_place = last ? max(n_in - last, 0) / 2 * 2 : n_in;  // no pair is divided
  const std::int64_t copied = n_in - in_place;
  clear_padding(y, rows, n_out);

  in_stretches(vectors<float>(n_out), most_vectors(rows), [&](std::int64_t v, std::int64_t count) {
    std::int64_t j = v * lanes<float>;
    std::int64_t units = min(count * lanes<float>, n_out - j);
    if (units < lanes<float> && !is_narrow) {  // a whole vector that ends where w does
      j = n_out - lanes<float>;
      units = lanes<float>;
    }
    alignas(BYTES) float biases[ROW_VECTORS * lanes<float>];
    if (of.b) load_row<S>(of.b + j, units, biases);
    alignas(BYTES) Stored copy[2 * ROW_VECTORS * lanes<float>];
    if (copied > 0) {
      for (Stored& number : copy) number = 0x8000;  // -0
      std::memcpy(copy, of.w + in_place * n_out + j, (is_narrow ? copied * n_out : units) * sizeof *copy);
    }
    Product<S, Natural::both, Factor, Stored> product;
    product.left_row_stride = factors<S>(padded<float>(n_in));
    product.left_column_stride = 1;
    product.out_row_stride = y_stride;
    product.bias = biases;
    product.last_column = max(units - lanes<float>, 0);
    in_stretches(rows, ACCUMULATOR_ROWS, [&](std::int64_t r, std::int64_t height) {
      product.left = x + r * product.left_row_stride;
      product.out = y + r * y_stride + j;
      product.start = of.b ? Start::column_bias : Start::zero;
      const auto multiply = [&](std::int64_t inputs, const Stored* w, std::int64_t w_stride, bool is_last) {
        product.size = factors<S>(inputs);
        product.right = w;
        product.right_row_stride = S::GROUP * w_stride;
        product.ends_in_relu = ends_in_relu && is_last;
        product(height, count);
        product.left += product.size;
        product.start = Start::out;
      };
      if (in_place > 0 || copied == 0) multiply(in_place, of.w + j, n_out, copied == 0);
      if (copied > 0) multiply(copied, copy, units, true);
    });
  });
}

// Packs y (n_in, rows) into x (factors of n_in, rows), for a layer with rows in lanes. `rows` is a multiple
// of lanes<float>.
template <class S, class Factor = typename S::Factor>
void pack_rows(std::int64_t n_in, std::int64_t rows, const float* y, Factor* x) {
  if constexpr (S::GROUP == 1) {
    for (std::int64_t i = 0; i < n_in * rows; i += lanes<float>) S::pack_row(load(y + i), x + i);
  } else {
    for (std::int64_t k = 0; k < n_in; k += 2)
      for (std::int64_t r = 0; r < rows; r += lanes<float>) {
        const float* const from = y + k * rows + r;
        S::pack(load(from), k + 1 < n_in ? load(from + rows) : Vector<float>{}, x + k / 2 * rows + r);
      }
  }
}

// Computes a layer's sums with rows in lanes: y (n_out, rows) from x (factors of n_in, rows). If
// ends_in_relu, y gets the relu of the sums, rounded to the format.
template <class S, class Factor = typename S::Factor>
void packed_rows_in_lanes(const Layer& layer, const Factor* packed, std::int64_t rows, const Factor* x,
                          float* y, bool ends_in_relu) {
  const std::int64_t size = factors<S>(layer.n_in);
  over_units<S>(layer, ROW_VECTORS, packed, x, size * rows,
                [&](std::int64_t j, std::int64_t units, std::int64_t, const float* biases,
                    const auto* weights, std::int64_t width, const auto* right) {
                  auto product = product_of<S, Natural::right>(weights);
                  product.size = size;
                  product.left_row_stride = 1;
                  product.left_column_stride = width;
                  product.right_row_stride = rows;
                  product.out_row_stride = rows;
                  product.start = Start::row_bias;
                  product.ends_in_relu = ends_in_relu;
                  in_stretches(
                      rows / lanes<float>, ACCUMULATOR_VECTORS, [&](std::int64_t v, std::int64_t count) {
                        product.right = right + v * lanes<float>;
                        product.last_column = (count - 1) * lanes<float>;
                        in_stretches(units, ACCUMULATOR_ROWS, [&](std::int64_t i, std::int64_t height) {
                          product.left = weights + i;
                          product.bias = biases + i;
                          product.out = y + (j + i) * rows + v * lanes<float>;
                          product(height, count);
                        });
                      });
                });
}

}  // namespace jaxneuron::ISA
