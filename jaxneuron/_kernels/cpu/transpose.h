// Turns rows into columns and back, by perfect shuffles.
//
// C vectors hold W rows of C features, one row after the other: feature f of row r has the index r C + f. C
// is a power of two. One step moves the numbers with even indices to the front and those with odd indices to
// the back: the bits of each number's index are rotated right by one. After log2(C) steps that number has the
// index f W + r, so vector f holds feature f of all W rows. The inverse steps turn columns back into rows.
#pragma once

#include <utility>

#include "vector.h"

namespace jaxneuron::ISA {

// The numbers with even indices (even) or odd indices (odd) of a followed by b.
template <class V, int... I>
inline V even(V a, V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, 2 * I...);
}

template <class V, int... I>
inline V odd(V a, V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, 2 * I + 1 ...);
}

// The first halves (first_halves) or second halves (second_halves) of a and b, interleaved: a number of a, a
// number of b, and so on.
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

// On entry v holds W rows of C features; on return vector f holds feature f of all W rows.
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

// The inverse of `separate`.
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

// A part of a vector is 16 bytes; PART is how many numbers it holds.
template <class T>
constexpr int PART = 16 / sizeof(T);

template <class V, class H, int... I>
inline V joined(H a, H b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, I...);
}

// Loads `count` parts into one vector. Part i starts at from + i * stride.
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

// Interleaves each part of a with the same part of b: groups of `size` numbers are taken from a and b in
// turn. With half = 0 the numbers come from the first halves of the parts, with half = 1 from the second
// halves.
template <class T, int size, int half, int... I>
inline Vector<T> interleaved(Vector<T> a, Vector<T> b, std::integer_sequence<int, I...>) {
  constexpr int Q = PART<T>;
  return __builtin_shufflevector(
      a, b, (I / Q * Q + half * Q / 2 + I % Q / (2 * size) * size + I % size + I / size % 2 * lanes<T>)...);
}

// to[c][r] = from[r][c] for a block of W rows and W columns, in steps of Q columns. Row p Q + r is loaded
// into part p of v[r]. Part p of the Q vectors then holds a block of Q rows and Q columns. The rest of the
// step transposes that block, within the parts.
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

// Turns C features of W rows into columns. The vectors of the rows start `stride` numbers apart, the columns
// `column_stride` numbers apart.
template <class T, int C>
inline void block_to_columns(const T* rows, std::int64_t stride, T* columns, std::int64_t column_stride) {
  Vector<T> v[C];
  for (int i = 0; i < C; ++i) v[i] = load(rows + i * stride);
  separate<T, C>(v);
  for (int f = 0; f < C; ++f) store(columns + f * column_stride, v[f]);
}

// The inverse of `block_to_columns`.
template <class T, int C>
inline void block_to_rows(const T* columns, std::int64_t column_stride, T* rows, std::int64_t stride) {
  Vector<T> v[C];
  for (int f = 0; f < C; ++f) v[f] = load(columns + f * column_stride);
  join<T, C>(v);
  for (int i = 0; i < C; ++i) store(rows + i * stride, v[i]);
}

// Divides n features of W rows into blocks of C features, and calls f(C, first feature, stride of the rows'
// vectors) for each; the last block may overlap the one before. Returns false, without calling f, if n is
// less than W and not a power of two.
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

// Turns rows (count, n) into columns (n, column_stride). Each column is padded with zeros.
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

// to[c][r] = from[r][c]. The rows start `stride` numbers apart, the columns `to_stride` numbers apart.
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
