// A small matrix product that keeps every sum in a register. All layers are computed by such products.
#pragma once

#include <type_traits>
#include <utility>

#include "stored.h"
#include "tuning.h"

namespace jaxneuron::ISA {

// How many vectors hold n numbers, and how many numbers these vectors hold.
template <class T>
constexpr std::int64_t vectors(std::int64_t n) {
  return (n + lanes<T> - 1) / lanes<T>;
}

template <class T>
constexpr std::int64_t padded(std::int64_t n) {
  return vectors<T>(n) * lanes<T>;
}

// How many vectors of columns a product of so many rows may have.
constexpr std::int64_t most_vectors(std::int64_t rows) {
  return rows == 1 ? ROW_VECTORS : ACCUMULATOR_VECTORS;
}

// What the sums begin with: 0, a bias for each column, a bias for each row, or the numbers in `out`. With
// some_column_bias only the sums of the first rows, and with some_row_bias only those of the first vectors of
// columns, begin with a bias; the others begin with 0.
enum class Start { zero, column_bias, row_bias, out, some_column_bias, some_row_bias };

// Which operands of a product have their factors in the order of the inputs. If the format has odd_first,
// the product reads them in reverse, two by two; the other operand is in the order of the sums already.
enum class Natural { left, right, both };

// out[m][n] = start + the sum over k of left[m][k] right[k][n], in numbers of the format S (stored.h): for
// ascending k or, if S::odd_first, for k = 1, 0, 3, 2 and so on. Each step is one fused multiply-add, or two
// if a Factor is a Pair of numbers.
//
// (*this)(M, N) computes M rows, at most ACCUMULATOR_ROWS, and N vectors of columns, at most most_vectors(M).
// Strides count numbers; each row of right and of out is contiguous.
template <class S, Natural natural = Natural::both, class Factor = typename S::Factor, class Right = Factor>
struct Product {
  using T = typename S::Number;

  std::int64_t size;  // the number of products in a sum

  const Factor* left;
  std::int64_t left_row_stride;
  std::int64_t left_column_stride;

  const Right* right;  // factors, or numbers as they are stored (and then row strides of GROUP rows)
  std::int64_t right_row_stride;

  T* out;
  std::int64_t out_row_stride;

  Start start;
  const T* bias;             // the bias of the first column or row; unused if sums begin without a bias
  std::int64_t last_column;  // where the last vector begins; it may overlap the one before
  std::int64_t some = 0;     // for some_ biases: how many rows, or vectors of columns, begin with a bias

  bool ends_in_relu = false;  // out gets the relu of each sum, rounded to S: a 16-bit format with GROUP 1

  void operator()(std::int64_t rows, std::int64_t column_vectors) const {
    if (rows == 1)
      choose<1, ROW_VECTORS>(1, column_vectors, std::make_integer_sequence<int, ROW_VECTORS>());
    else
      choose<2, ACCUMULATOR_VECTORS>(
          rows, column_vectors,
          std::make_integer_sequence<int, (ACCUMULATOR_ROWS - 1) * ACCUMULATOR_VECTORS>());
  }

 private:
  template <int M, int N, int... I>
  void choose(std::int64_t rows, std::int64_t column_vectors, std::integer_sequence<int, I...>) const {
    static constexpr void (*sizes[])(const Product&) = {&multiply<M + I / N, 1 + I % N>...};
    sizes[(rows - M) * N + column_vectors - 1](*this);
  }

  template <int M, int N>
  static void multiply(const Product& a) {
    const auto column = [&a](int n) { return n == N - 1 ? a.last_column : n * lanes<T>; };
    Vector<T> sums[M][N];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n)
        sums[m][n] = a.start == Start::zero          ? Vector<T>{}
                     : a.start == Start::column_bias ? load(a.bias + column(n))
                     : a.start == Start::row_bias    ? splat<T>(a.bias[m])
                     : a.start == Start::out         ? load(a.out + m * a.out_row_stride + column(n))
                     : a.start == Start::some_column_bias
                         ? (m < a.some ? load(a.bias + column(n)) : Vector<T>{})
                         : (n < a.some ? splat<T>(a.bias[m]) : Vector<T>{});
    const Factor* left = a.left;
    const Right* right = a.right;
    std::int64_t k = a.size;
    if constexpr (S::odd_first)
      for (; k > 1; k -= 2) {
        const Factor* const next_left = left + a.left_column_stride;
        const Right* const next_right = right + a.right_row_stride;
        add<M, N>(a, natural == Natural::right ? left : next_left,
                  natural == Natural::left ? right : next_right, sums);
        add<M, N>(a, natural == Natural::right ? next_left : left,
                  natural == Natural::left ? next_right : right, sums);
        left += 2 * a.left_column_stride;
        right += 2 * a.right_row_stride;
      }
    for (; k > 0; --k) {
      add<M, N>(a, left, right, sums);
      left += a.left_column_stride;
      right += a.right_row_stride;
    }
    if constexpr (S::is_16_bit && S::GROUP == 1)
      if (a.ends_in_relu)
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
          for (int n = 0; n < N; ++n) sums[m][n] = S::round(at_least<T>(sums[m][n], 0));
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) store<T>(a.out + m * a.out_row_stride + column(n), sums[m][n]);
  }

  // Loads a vector of factors of `right`.
  __attribute__((always_inline)) Vector<Factor> factors(const Right* at) const {
    if constexpr (std::is_same_v<Right, Factor>)
      return load(at);
    else if constexpr (S::GROUP == 1)
      return S::load(at);
    else
      return S::joined(load_halves(at), load_halves(at + right_row_stride / 2));
  }

  // Adds a column of left times a row of right.
  template <int M, int N>
  __attribute__((always_inline)) static void add(const Product& a, const Factor* left, const Right* right,
                                                 Vector<T> (&sums)[M][N]) {
    Vector<Factor> row[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) row[n] = a.factors(right + (n == N - 1 ? a.last_column : n * lanes<T>));
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Vector<Factor> number = splat<Factor>(left[m * a.left_row_stride]);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) sums[m][n] = fma(number, row[n], sums[m][n]);
    }
  }
};

// Calls f(first, count) for consecutive parts of 0, 1, ..., n - 1. Each has at most `most` numbers, and all
// have about the same length.
template <class F>
inline void in_stretches(std::int64_t n, std::int64_t most, F f) {
  std::int64_t left = n <= most ? 1 : (n + most - 1) / most;
  for (std::int64_t first = 0; first < n; --left) {
    const std::int64_t count = left == 1 ? n - first : (n - first + left - 1) / left;
    f(first, count);
    first += count;
  }
}

}  // namespace jaxneuron::ISA
