// Turns rows into columns and back, by the perfect shuffle.
//
// W rows of C features stand one after the other in C vectors: feature f of row r at place r C + f. One step
// takes first the numbers at even places, then those at odd places, which moves the lowest bit of each
// number's place to its front. After log2(C) steps f stands before r: vector f holds feature f of all W rows.
// The inverse goes back.
#pragma once

#include <utility>

#include "vector.h"

namespace jaxneuron::ISA {

template <class V, int... I>
inline V even(V a, V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, 2 * I...);
}

template <class V, int... I>
inline V odd(V a, V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, 2 * I + 1 ...);
}

template <class V, int... I>
inline V first_halves(V a, V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (I / 2 + I % 2 * int(sizeof...(I)))...);
}

template <class V, int... I>
inline V second_halves(V a, V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, ((I + int(sizeof...(I))) / 2 + I % 2 * int(sizeof...(I)))...);
}

template <class T>
using Places = std::make_integer_sequence<int, lanes<T>>;

// Turns the rows in v into features.
template <class T, int C>
inline void separate(Vector<T> (&v)[C]) {
  for (int times = 1; times < C; times *= 2) {
    Vector<T> u[C];
    for (int i = 0; i < C / 2; ++i) {
      u[i] = even(v[2 * i], v[2 * i + 1], Places<T>());
      u[C / 2 + i] = odd(v[2 * i], v[2 * i + 1], Places<T>());
    }
    for (int i = 0; i < C; ++i) v[i] = u[i];
  }
}

// Turns the features in v into rows.
template <class T, int C>
inline void join(Vector<T> (&v)[C]) {
  for (int times = 1; times < C; times *= 2) {
    Vector<T> u[C];
    for (int i = 0; i < C / 2; ++i) {
      u[2 * i] = first_halves(v[i], v[C / 2 + i], Places<T>());
      u[2 * i + 1] = second_halves(v[i], v[C / 2 + i], Places<T>());
    }
    for (int i = 0; i < C; ++i) v[i] = u[i];
  }
}

// How many numbers 16 bytes hold: a part of a vector.
template <class T>
constexpr int PART = 16 / sizeof(T);

template <class V, class H, int... I>
inline V joined(H a, H b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, I...);
}

// Loads `count` parts, the first numbers of which are `stride` apart, into one vector.
template <class T, int count, class V>
inline V load_parts(const T* from, std::int64_t stride) {
  V v;
  if constexpr (count == 1) {
    std::memcpy(&v, from, sizeof v);
  } else {
    typedef T Half __attribute__((vector_size(count / 2 * 16)));
    const Half a = load_parts<T, count / 2, Half>(from, stride);
    const Half b = load_parts<T, count / 2, Half>(from + count / 2 * stride, stride);
    v = joined<V>(a, b, std::make_integer_sequence<int, count * PART<T>>());
  }
  return v;
}

// Interleaves a and b in groups of `size` numbers, part by part: the first halves of their parts (half = 0),
// or the second (half = 1).
template <class T, int size, int half, int... I>
inline Vector<T> interleaved(Vector<T> a, Vector<T> b, std::integer_sequence<int, I...>) {
  constexpr int Q = PART<T>;
  return __builtin_shufflevector(
      a, b, (I / Q * Q + half * Q / 2 + I % Q / (2 * size) * size + I % size + I / size % 2 * lanes<T>)...);
}

// to[c][r] = from[r][c] for a block of W rows and columns. Each part of a row is loaded to where the vectors
// of the result have that row, so that only numbers within parts are left to exchange.
template <class T>
inline void transpose_block(const T* from, std::int64_t stride, T* to, std::int64_t to_stride) {
  constexpr int Q = PART<T>;
  for (int c = 0; c < lanes<T>; c += Q) {
    Vector<T> v[Q];
    for (int r = 0; r < Q; ++r)
      v[r] = load_parts<T, lanes<T> / Q, Vector<T>>(from + r * stride + c, Q * stride);
    if constexpr (Q == 4) {
      const Vector<T> a = interleaved<T, 1, 0>(v[0], v[1], Places<T>());
      const Vector<T> b = interleaved<T, 1, 1>(v[0], v[1], Places<T>());
      const Vector<T> d = interleaved<T, 1, 0>(v[2], v[3], Places<T>());
      const Vector<T> e = interleaved<T, 1, 1>(v[2], v[3], Places<T>());
      v[0] = interleaved<T, 2, 0>(a, d, Places<T>());
      v[1] = interleaved<T, 2, 1>(a, d, Places<T>());
      v[2] = interleaved<T, 2, 0>(b, e, Places<T>());
      v[3] = interleaved<T, 2, 1>(b, e, Places<T>());
    } else {
      const Vector<T> a = interleaved<T, 1, 0>(v[0], v[1], Places<T>());
      v[1] = interleaved<T, 1, 1>(v[0], v[1], Places<T>());
      v[0] = a;
    }
    for (int k = 0; k < Q; ++k) store(to + (c + k) * to_stride, v[k]);
  }
}

// C features of W rows, whose vectors start `stride` numbers apart, to columns that start `column_stride`
// numbers apart.
template <class T, int C>
inline void block_to_columns(const T* rows, std::int64_t stride, T* columns, std::int64_t column_stride) {
  Vector<T> v[C];
  for (int i = 0; i < C; ++i) v[i] = load(rows + i * stride);
  separate<T, C>(v);
  for (int f = 0; f < C; ++f) store(columns + f * column_stride, v[f]);
}

template <class T, int C>
inline void block_to_rows(const T* columns, std::int64_t column_stride, T* rows, std::int64_t stride) {
  Vector<T> v[C];
  for (int f = 0; f < C; ++f) v[f] = load(columns + f * column_stride);
  join<T, C>(v);
  for (int i = 0; i < C; ++i) store(rows + i * stride, v[i]);
}

// Calls f(C, first feature, stride of its vectors) for the blocks of C features that cover n features of W
// rows. Returns false if no such blocks exist; then f is not called.
template <class T, class F>
inline bool in_blocks(std::int64_t n, F f) {
  constexpr int W = lanes<T>;
  if (n >= W) {
    for (std::int64_t i = 0; i + W <= n; i += W) f(std::integral_constant<int, W>(), i, n);
    if (n % W) f(std::integral_constant<int, W>(), n - W, n);
    return true;
  }
  if (n == 1) return f(std::integral_constant<int, 1>(), 0, W), true;
  if constexpr (W > 2)
    if (n == 2) return f(std::integral_constant<int, 2>(), 0, W), true;
  if constexpr (W > 4)
    if (n == 4) return f(std::integral_constant<int, 4>(), 0, W), true;
  if constexpr (W > 8)
    if (n == 8) return f(std::integral_constant<int, 8>(), 0, W), true;
  return false;
}

// Turns rows (count, n) into columns (n, column_stride), and fills each column up with zeros.
template <class T>
void to_columns(const T* rows, std::int64_t count, std::int64_t n, T* columns, std::int64_t column_stride) {
  constexpr int W = lanes<T>;
  for (std::int64_t r = 0; r < column_stride; r += W) {
    const T* from = rows + r * n;
    const bool whole =
        r + W <= count && in_blocks<T>(n, [&](auto c, std::int64_t f, std::int64_t stride) {
          block_to_columns<T, c()>(from + f, stride, columns + f * column_stride + r, column_stride);
        });
    if (whole) continue;
    for (std::int64_t i = 0; i < W; ++i)
      for (std::int64_t f = 0; f < n; ++f)
        columns[f * column_stride + r + i] = r + i < count ? from[i * n + f] : T(0);
  }
}

// Turns columns (n, column_stride) into rows (count, n).
template <class T>
void to_rows(const T* columns, std::int64_t column_stride, T* rows, std::int64_t count, std::int64_t n) {
  constexpr int W = lanes<T>;
  for (std::int64_t r = 0; r < count; r += W) {
    T* to = rows + r * n;
    const bool whole =
        r + W <= count && in_blocks<T>(n, [&](auto c, std::int64_t f, std::int64_t stride) {
          block_to_rows<T, c()>(columns + f * column_stride + r, column_stride, to + f, stride);
        });
    if (whole) continue;
    for (std::int64_t i = 0; i < W && r + i < count; ++i)
      for (std::int64_t f = 0; f < n; ++f) to[i * n + f] = columns[f * column_stride + r + i];
  }
}

// to[c][r] = from[r][c], for rows that start `stride` and columns that start `to_stride` numbers apart.
template <class T>
void transpose(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t columns, T* to,
               std::int64_t to_stride) {
  constexpr int W = lanes<T>;
  if (rows < W || columns < W) {
    for (std::int64_t c = 0; c < columns; ++c)
      for (std::int64_t r = 0; r < rows; ++r) to[c * to_stride + r] = from[r * stride + c];
    return;
  }
  for (std::int64_t r = 0; r < rows; r += W) {
    const std::int64_t row = min(r, rows - W);  // the last blocks overlap those before
    for (std::int64_t c = 0; c < columns; c += W) {
      const std::int64_t column = min(c, columns - W);
      transpose_block(from + row * stride + column, stride, to + column * to_stride + row, to_stride);
    }
  }
}

}  // namespace jaxneuron::ISA
