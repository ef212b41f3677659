// The forward pass of a tile of rows through all layers, while it stands in the cache.
//
//     sum = b[j];  for i in 0 .. n_in:  sum = fma(x[i], w[i][j], sum);  y[j] = activation(sum)
//
// Every path below computes that for every row and unit j, in this order, so that a row has the same bits
// wherever it stands. They differ in what lies side by side in a vector: the units of a layer, which takes
// rows as they come, or rows, which must be transposed and fill their vectors however narrow the layer.
#pragma once

#include <utility>

#include "activations.h"
#include "network.h"
#include "stored.h"
#include "transpose.h"
#include "vector.h"

namespace jaxneuron::ISA {

// Sums kept in registers: HEIGHT numbers, each times WIDTH vectors.
constexpr int HEIGHT = 6;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int WIDTH = 4;
#else
constexpr int WIDTH = 2;
#endif

constexpr std::int64_t PACK_ROWS = 24;  // fewer rows don't pay for a copy of the weights
constexpr std::int64_t PANEL = 256;     // rows of weights that are copied at a time, to stay in the caches

template <class T>
constexpr std::int64_t vectors(std::int64_t n) {
  return (n + lanes<T> - 1) / lanes<T>;
}

template <class T>
constexpr std::int64_t padded(std::int64_t n) {
  return vectors<T>(n) * lanes<T>;
}

constexpr std::int64_t lesser(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
constexpr std::int64_t greater(std::int64_t a, std::int64_t b) { return a > b ? a : b; }

// What sums begin with: 0, a bias for each column, a bias for each row, or what was stored before.
enum class Start { zero, column, row, stored };

// out[m][n] = start + the sum over k of p[m][k] q[k][n], for M rows and N vectors of columns.
template <class T>
struct Product {
  std::int64_t size;  // of k
  const T* p;
  std::int64_t p_m, p_k;  // numbers from one m, one k to the next
  const T* q;
  std::int64_t q_k;
  Start start;
  const T* bias;
  T* out;
  std::int64_t out_m;
  std::int64_t last;  // column where the last vector begins; it may overlap the one before

  template <int M, int N>
  static void multiply(const Product& a) {
    const auto column = [&a](int n) { return n == N - 1 ? a.last : n * lanes<T>; };
    Vector<T> sums[M][N];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n)
        sums[m][n] = a.start == Start::zero     ? Vector<T>{}
                     : a.start == Start::column ? load(a.bias + column(n))
                     : a.start == Start::row    ? all<T>(a.bias[m])
                                                : load(a.out + m * a.out_m + column(n));
    const T *p = a.p, *q = a.q;
    for (std::int64_t k = a.size; k > 0; --k, p += a.p_k, q += a.q_k) {
      Vector<T> row[N];
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) row[n] = load(q + column(n));
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        const Vector<T> number = all<T>(p[m * a.p_m]);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) sums[m][n] = fma(number, row[n], sums[m][n]);
      }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) store(a.out + m * a.out_m + column(n), sums[m][n]);
  }

  template <int... I>
  static void choose(std::int64_t m, std::int64_t n, const Product& a, std::integer_sequence<int, I...>) {
    static constexpr void (*sizes[])(const Product&) = {&multiply<I / WIDTH + 1, I % WIDTH + 1>...};
    sizes[(m - 1) * WIDTH + n - 1](a);
  }

  void operator()(std::int64_t m, std::int64_t n) const {
    choose(m, n, *this, std::make_integer_sequence<int, HEIGHT * WIDTH>());
  }
};

// f(first, count) for stretches of n of at most `most`, all about as long.
template <class F>
inline void in_stretches(std::int64_t n, std::int64_t most, F f) {
  if (n <= most) return n ? f(0, n) : void();
  for (std::int64_t left = (n + most - 1) / most, first = 0; left > 0; --left) {
    const std::int64_t count = (n - first + left - 1) / left;
    f(first, count);
    first += count;
  }
}

// Whether weights are copied before use: to be widened, or laid out without gaps.
template <class S, class T = typename S::Number>
bool packs(std::int64_t n_out, std::int64_t rows) {
  return S::narrow || (n_out * std::int64_t(sizeof(T)) > LONG_ROW && rows >= PACK_ROWS);
}

// n numbers as they are computed with, and zeros up to a whole vector.
template <class S, class T = typename S::Number>
void widen(const typename S::Stored* from, std::int64_t n, T* to) {
  std::int64_t i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) store<T>(to + i, S::widen(from + i));
  if (i < n) {
    typename S::Stored rest[lanes<T>] = {};
    for (int k = 0; i + k < n; ++k) rest[k] = from[i + k];
    store<T>(to + i, S::widen(rest));
  }
}

template <class S, class T = typename S::Number>
void narrow(const T* from, std::int64_t n, typename S::Stored* to) {
  std::int64_t i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) S::put(to + i, load(from + i));
  if (i < n) {
    typename S::Stored rest[lanes<T>];
    S::put(rest, load(from + i));
    for (int k = 0; i + k < n; ++k) to[i + k] = rest[k];
  }
}

// A layer of less units than a vector has lanes, w as it lies: a vector of its row k goes on into the rows
// after it, and sums beyond n_out are never looked at. The last rows, after which nothing lies, are copied.
template <class T>
void narrow_layer(const T* w, const T* b, std::int64_t n_in, std::int64_t n_out, std::int64_t rows,
                  const T* x, std::int64_t x_row, T* y) {
  if (n_out == 0) return;
  const std::int64_t last = lesser(n_in, (lanes<T> - 1) / n_out), whole = n_in - last;
  T end[2 * lanes<T>] = {}, bias[lanes<T>] = {};
  for (std::int64_t i = 0; i < last * n_out; ++i) end[i] = w[whole * n_out + i];
  for (std::int64_t i = 0; b && i < n_out; ++i) bias[i] = b[i];
  in_stretches(rows, HEIGHT, [&](std::int64_t r, std::int64_t height) {
    Product<T> product{whole, x + r * x_row,    x_row,    1, w, n_out, Start::column,
                       bias,  y + r * lanes<T>, lanes<T>, 0};
    product(height, 1);
    product.size = last, product.p += whole, product.q = end, product.start = Start::stored;
    product(height, 1);
  });
}

// A layer with its units side by side: x (rows, n_in) to y (rows, padded n_out).
template <class S, class T = typename S::Number>
void units_in_lanes(const Layer& layer, std::int64_t member, std::int64_t rows, const T* x,
                    std::int64_t x_row, T* y, T* panel) {
  const std::int64_t n_in = layer.n_in, n_out = layer.n_out, y_row = padded<T>(n_out);
  const auto* w = static_cast<const typename S::Stored*>(layer.w) + member * layer.w_step;
  const auto* b = layer.b ? static_cast<const typename S::Stored*>(layer.b) + member * layer.b_step : nullptr;
  const bool packed = packs<S>(n_out, rows);
  if constexpr (!S::narrow)
    if (n_out < lanes<T>) return narrow_layer<T>(w, b, n_in, n_out, rows, x, x_row, y);
  if (y_row > n_out && !packed)
    for (std::int64_t r = 0; r < rows; ++r) store<T>(y + (r + 1) * y_row - lanes<T>, Vector<T>{});
  in_stretches(vectors<T>(n_out), WIDTH, [&](std::int64_t v, std::int64_t count) {
    std::int64_t j = v * lanes<T>;
    std::int64_t units = lesser(count * lanes<T>, n_out - j);
    if (units < lanes<T> && !packed) j = n_out - lanes<T>, units = lanes<T>;
    Product<T> product{
        n_in,  x,     x_row,           1, nullptr, n_out, b ? Start::column : Start::zero, nullptr,
        y + j, y_row, units - lanes<T>};
    const auto over_rows = [&](const T* from) {
      in_stretches(rows, HEIGHT, [&](std::int64_t r, std::int64_t height) {
        product.p = from + r * x_row, product.out = y + r * y_row + j;
        product(height, count);
      });
    };
    if (packed) {
      const std::int64_t width = count * lanes<T>;
      T* bias = panel + PANEL * width;
      if (b) widen<S>(b + j, units, bias);
      product.q = panel, product.q_k = width, product.bias = bias, product.last = width - lanes<T>;
      std::int64_t k = 0;
      do {
        product.size = lesser(PANEL, n_in - k);
        for (std::int64_t i = 0; i < product.size; ++i)
          widen<S>(w + (k + i) * n_out + j, units, panel + i * width);
        over_rows(x + k);
        product.start = Start::stored;
      } while ((k += PANEL) < n_in);
    } else if constexpr (!S::narrow) {
      product.q = w + j, product.bias = b ? b + j : nullptr;
      over_rows(x);
    }
  });
}

// A layer with rows side by side: x (n_in, rows) to y (n_out, rows), rows padded.
template <class T>
void rows_in_lanes(const Layer& layer, std::int64_t member, std::int64_t rows, const T* x, T* y) {
  const T* w = static_cast<const T*>(layer.w) + member * layer.w_step;
  const T* b = layer.b ? static_cast<const T*>(layer.b) + member * layer.b_step : nullptr;
  in_stretches(rows / lanes<T>, WIDTH, [&](std::int64_t v, std::int64_t count) {
    const std::int64_t r = v * lanes<T>;
    in_stretches(layer.n_out, HEIGHT, [&](std::int64_t j, std::int64_t height) {
      Product<T>{layer.n_in,
                 w + j,
                 1,
                 layer.n_out,
                 x + r,
                 rows,
                 b ? Start::row : Start::zero,
                 b ? b + j : nullptr,
                 y + j * rows + r,
                 rows,
                 (count - 1) * lanes<T>}(height, count);
    });
  });
}

// exp(z - max z) over its sum, of the units of each row; the sum in their order.
template <class T>
void softmax_of_columns(T* z, std::int64_t units, std::int64_t rows) {
  for (std::int64_t r = 0; r < rows; r += lanes<T>) {
    Vector<T> greatest = all<T>(-__builtin_inf()), sum{};
    for (std::int64_t j = 0; j < units; ++j) {
      const Vector<T> v = load(z + j * rows + r);
      greatest = v > greatest ? v : greatest;
    }
    for (std::int64_t j = 0; j < units; ++j) {
      const Vector<T> e = exp_of_difference<T>(load(z + j * rows + r), greatest);
      store<T>(z + j * rows + r, e);
      sum += e;
    }
    for (std::int64_t j = 0; j < units; ++j) store<T>(z + j * rows + r, load(z + j * rows + r) / sum);
  }
}

template <class T>
void softmax_of_rows(T* z, std::int64_t units, std::int64_t rows) {
  const std::int64_t width = padded<T>(units);
  for (std::int64_t r = 0; r < rows; ++r, z += width) {
    T greatest = -__builtin_inf(), sum = 0;
    for (std::int64_t j = 0; j < units; ++j) greatest = z[j] > greatest ? z[j] : greatest;
    for (std::int64_t j = 0; j < width; j += lanes<T>)
      store<T>(z + j, exp_of_difference<T>(load(z + j), all<T>(greatest)));
    for (std::int64_t j = 0; j < units; ++j) sum += z[j];
    for (std::int64_t j = 0; j < width; j += lanes<T>) store<T>(z + j, load(z + j) / all<T>(sum));
  }
}

// Work in vector instructions, an activation counted as ACTIVATION of them.
constexpr std::int64_t ACTIVATION = 32;

template <class T>
bool rows_are_cheaper(const Network& network, std::int64_t rows) {
  if (rows == 1) return false;
  const Layer* layers = network.layers;
  std::int64_t by_units = 0, by_rows = rows * (layers[0].n_in + layers[network.depth - 1].n_out) / 2;
  for (std::int64_t i = 0; i < network.depth; ++i) {
    by_units += (layers[i].n_in + ACTIVATION) * rows * vectors<T>(layers[i].n_out);
    by_rows += (layers[i].n_in + ACTIVATION) * layers[i].n_out * vectors<T>(rows);
    if (layers[i].n_out * std::int64_t(sizeof(T)) > LONG_ROW) return false;
  }
  return by_rows < by_units;
}

template <class T>
void run_by_rows(const Network& network, std::int64_t member, std::int64_t first, std::int64_t rows,
                 T* scratch) {
  const Layer* layers = network.layers;
  const std::int64_t n_in = layers[0].n_in, width = padded<T>(rows);
  T *x = scratch, *y = scratch + widest(network) * width;
  to_columns(static_cast<const T*>(network.x) + member * network.x_step + first * n_in, rows, n_in, x, width);
  for (std::int64_t i = 0; i < network.depth; ++i) {
    rows_in_lanes(layers[i], member, width, x, y);
    if (layers[i].activation == Activation::softmax)
      softmax_of_columns(y, layers[i].n_out, width);
    else
      activate<T>(layers[i].activation, false, y, layers[i].n_out * width);
    T* const read = x;
    x = y, y = read;
  }
  const std::int64_t n_out = layers[network.depth - 1].n_out;
  to_rows(x, width, static_cast<T*>(network.y) + (member * network.rows + first) * n_out, rows, n_out);
}

template <class S, class T = typename S::Number>
void run_by_units(const Network& network, std::int64_t member, std::int64_t first, std::int64_t rows,
                  T* scratch) {
  using Stored = typename S::Stored;
  const Layer* layers = network.layers;
  const std::int64_t size = rows * padded<T>(widest(network));
  T *tiles[] = {scratch, scratch + size}, *panel = scratch + 2 * size;
  std::int64_t x_row = layers[0].n_in;
  const Stored* input = static_cast<const Stored*>(network.x) + member * network.x_step + first * x_row;
  const T* x;
  if constexpr (S::narrow) {
    widen<S>(input, rows * x_row, tiles[1]);
    x = tiles[1];
  } else {
    x = input;
  }
  for (std::int64_t i = 0; i < network.depth; ++i) {
    const std::int64_t n_out = layers[i].n_out, y_row = padded<T>(n_out);
    T* y = tiles[i % 2];
    units_in_lanes<S>(layers[i], member, rows, x, x_row, y, panel);
    if (layers[i].activation == Activation::softmax)
      softmax_of_rows(y, n_out, rows);
    else
      activate<T>(layers[i].activation, S::narrow, y, rows * y_row);
    if constexpr (S::narrow)
      for (std::int64_t n = 0; n < rows * y_row; n += lanes<T>) store<T>(y + n, S::round(load(y + n)));
    x = y, x_row = y_row;
  }
  const std::int64_t n_out = layers[network.depth - 1].n_out;
  Stored* output = static_cast<Stored*>(network.y) + (member * network.rows + first) * n_out;
  for (std::int64_t r = 0; r < rows; ++r) narrow<S>(x + r * x_row, n_out, output + r * n_out);
}

// Numbers of scratch memory: two tiles, and a panel of weights.
template <class S, class T = typename S::Number>
std::int64_t scratch_numbers(const Network& network, std::int64_t rows) {
  if (!S::narrow && rows_are_cheaper<T>(network, rows)) return 2 * widest(network) * padded<T>(rows);
  std::int64_t panel = 0;
  for (std::int64_t i = 0; i < network.depth; ++i) {
    const Layer& layer = network.layers[i];
    if (packs<S>(layer.n_out, rows))
      panel = greater(panel, (PANEL + 1) * lesser(WIDTH * lanes<T>, padded<T>(layer.n_out)));
  }
  return 2 * rows * padded<T>(widest(network)) + panel;
}

template <class S, class T = typename S::Number>
void run_stored(const Network& network, std::int64_t member, std::int64_t first, std::int64_t rows,
                T* scratch) {
  if constexpr (!S::narrow)
    if (rows_are_cheaper<T>(network, rows)) return run_by_rows<T>(network, member, first, rows, scratch);
  run_by_units<S>(network, member, first, rows, scratch);
}

// f(storage) for the network's numbers.
template <class F>
auto with_storage(Number number, F f) {
  switch (number) {
    case Number::float64:
      return f(Same<double>());
    case Number::bfloat16:
      return f(BFloat16());
    case Number::float16:
      return f(Float16());
    default:
      return f(Same<float>());
  }
}

inline std::size_t scratch(const Network& network, std::int64_t rows) {
  return with_storage(network.number, [&](auto s) {
    using S = decltype(s);
    return scratch_numbers<S>(network, rows) * sizeof(typename S::Number);
  });
}

inline void run(const Network& network, std::int64_t member, std::int64_t first, std::int64_t rows,
                void* memory) {
  with_storage(network.number, [&](auto s) {
    using S = decltype(s);
    run_stored<S>(network, member, first, rows, static_cast<typename S::Number*>(memory));
  });
}

}  // namespace jaxneuron::ISA
