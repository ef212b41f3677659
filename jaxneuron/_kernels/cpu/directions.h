// A tile of derivatives. It consists of groups: a group holds the values of all rows, or one tangent or
// cotangent of every row.
//
//     rows in lanes     (units, groups, padded rows)
//     units in lanes    (groups, rows, padded units)
//
// The numbers of a group are in parts, each contiguous: one part for each unit with rows in lanes, a single
// part with units in lanes. Slopes have the layout of a tile with one group, so number `at` of a part of the
// slopes belongs to number `at` of the same part of every group.
#pragma once

#include "kernel.h"

namespace jaxneuron::ISA {

inline float fma(float a, float b, float c) { return has_fma ? __builtin_fmaf(a, b, c) : a * b + c; }
inline double fma(double a, double b, double c) { return has_fma ? __builtin_fma(a, b, c) : a * b + c; }

// The layout of tiles with so many rows and groups.
template <class T, bool by_rows>
struct Groups {
  std::int64_t rows;
  std::int64_t groups;

  static std::int64_t parts(std::int64_t units) { return by_rows ? units : 1; }
  std::int64_t part(std::int64_t units) const { return by_rows ? padded<T>(rows) : rows * padded<T>(units); }
  std::int64_t stride(std::int64_t units) const { return groups * part(units); }         // from part to part
  std::int64_t numbers(std::int64_t units) const { return parts(units) * part(units); }  // of one group

  // In one group, from a row to the next row, and from a unit to the next unit.
  static std::int64_t row_stride(std::int64_t units) { return by_rows ? 1 : padded<T>(units); }
  std::int64_t unit_stride(std::int64_t units) const { return by_rows ? stride(units) : 1; }

  // Copies rows of units, which start `from_stride` numbers apart, to a group.
  void load(const T* from, std::int64_t from_stride, std::int64_t units, T* to) const {
    if constexpr (by_rows) {
      if (rows < part(units))  // padding
        for (std::int64_t j = 0; j < units; ++j)
          store<T>(to + j * stride(units) + part(units) - lanes<T>, Vector<T>{});
      transpose(from, from_stride, rows, units, to, stride(units));
    } else {
      for (std::int64_t r = 0; r < rows; ++r)
        load_row<Plain<T>>(from + r * from_stride, units, to + r * padded<T>(units));
    }
  }

  // Copies a group back to rows of units, which start `to_stride` numbers apart.
  void store_rows(const T* group, std::int64_t units, T* to, std::int64_t to_stride) const {
    if constexpr (by_rows)
      transpose(group, stride(units), units, rows, to, to_stride);
    else
      for (std::int64_t r = 0; r < rows; ++r)
        store_row<Plain<T>>(group + r * padded<T>(units), units, to + r * to_stride);
  }

  // Copies one row of units to every row of a group.
  void fill(const T* row, std::int64_t units, T* to) const {
    if constexpr (by_rows) {
      for (std::int64_t j = 0; j < units; ++j)
        for (std::int64_t r = 0; r < part(units); r += lanes<T>)
          store<T>(to + j * stride(units) + r, splat<T>(row[j]));
    } else {
      for (std::int64_t r = 0; r < rows; ++r) load_row<Plain<T>>(row, units, to + r * padded<T>(units));
    }
  }
};

// Computes the activation of a tile that has one group.
template <class T, bool by_rows>
void activate_group(const Layer& layer, T* y, std::int64_t rows) {
  if constexpr (by_rows)
    activate_rows<Plain<T>>(layer, y, padded<T>(rows));
  else
    activate_units<Plain<T>>(layer, y, rows);
}

// Derivatives of softmax and of log_softmax, from p, the values of softmax:
//
//     softmax        dy = p (dz - m),  m = the sum of p dz          L = p (s - the sum of p s),  s = L_z + S
//     log_softmax    dy = dz - m                                    L = L_z - the sum of p s
//
// Sums are over the units of a row, except S: that is the sum of (dz - m)^2 over the directions.

// The units of one row of a group or, with rows in lanes, of a vector of rows.
template <class T, bool by_rows>
struct Column {
  using Number = std::conditional_t<by_rows, Vector<T>, T>;

  Number get(std::int64_t unit) const {
    if constexpr (by_rows)
      return load(first + unit * stride);
    else
      return first[unit];
  }
  void put(std::int64_t unit, Number value) const {
    std::memcpy(first + unit * stride, &value, sizeof value);
  }

  T* first;
  std::int64_t stride;
};

// Calls f(column of p, column of `group`, column of `other`) for every row of a group. p and `other` are
// tiles of one group.
template <class T, bool by_rows, class F>
void over_columns(const Groups<T, by_rows>& of, std::int64_t units, T* p, T* group, T* other, F f) {
  const Groups<T, by_rows> one{of.rows, 1};
  const std::int64_t step = by_rows ? lanes<T> : padded<T>(units);
  for (std::int64_t i = 0; i < of.part(units); i += step)
    f(Column<T, by_rows>{p + i, one.unit_stride(units)}, Column<T, by_rows>{group + i, of.unit_stride(units)},
      Column<T, by_rows>{other + i, one.unit_stride(units)});
}

// Replaces dz by dy, for softmax or log_softmax. For softmax it also replaces dy by dz, because its Jacobian
// is symmetric. Adds (dz - m)^2 to S, `squares`, unless that is null.
template <class T, bool by_rows>
void through_softmax(const Groups<T, by_rows>& of, const Layer& layer, T* p, T* group, T* squares) {
  const bool is_log = layer.activation == Activation::log_softmax;
  over_columns(of, layer.n_out, p, group, squares, [&](auto p, auto y, auto squares_of) {
    typename decltype(p)::Number mean{};
    for (std::int64_t j = 0; j < layer.n_out; ++j) mean = fma(p.get(j), y.get(j), mean);
    for (std::int64_t j = 0; j < layer.n_out; ++j) {
      const auto less = y.get(j) - mean;
      if (squares) squares_of.put(j, fma(less, less, squares_of.get(j)));
      y.put(j, is_log ? less : p.get(j) * less);
    }
  });
}

// Replaces dy by dz for log_softmax: dz = dy - p times the sum of dy.
template <class T, bool by_rows>
void back_through_log_softmax(const Groups<T, by_rows>& of, const Layer& layer, T* p, T* group) {
  over_columns(of, layer.n_out, p, group, p, [&](auto p, auto y, auto) {
    typename decltype(p)::Number sum{};
    for (std::int64_t j = 0; j < layer.n_out; ++j) sum += y.get(j);
    for (std::int64_t j = 0; j < layer.n_out; ++j) y.put(j, fma(p.get(j), -sum, y.get(j)));
  });
}

// Replaces L_z by L, for softmax or log_softmax; `squares` is S.
template <class T, bool by_rows>
void laplacian_through_softmax(const Groups<T, by_rows>& of, const Layer& layer, T* p, T* group, T* squares) {
  const bool is_log = layer.activation == Activation::log_softmax;
  over_columns(of, layer.n_out, p, group, squares, [&](auto p, auto y, auto squares) {
    typename decltype(p)::Number mean{};
    for (std::int64_t j = 0; j < layer.n_out; ++j) mean = fma(p.get(j), y.get(j) + squares.get(j), mean);
    for (std::int64_t j = 0; j < layer.n_out; ++j)
      y.put(j, is_log ? y.get(j) - mean : p.get(j) * (y.get(j) + squares.get(j) - mean));
  });
}

}  // namespace jaxneuron::ISA
