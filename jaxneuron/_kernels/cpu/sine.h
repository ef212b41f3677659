// The sine and the cosine of frequency z. The product frequency z is kept as a sum of two parts.
#pragma once

#include "arithmetic.h"
#include "network.h"

namespace jaxneuron::ISA {

// In lanes with a large argument, replaces y by the C library's sine or cosine. That takes some 20 ns a lane,
// and is rare.
template <class T>
__attribute__((noinline)) Vector<T> with_large_sines(Vector<T> y, Vector<T> x, Vector<T> low,
                                                     bool is_cosine) {
  for (int i = 0; i < lanes<T>; ++i)
    if (!(x[i] <= Format<T>::large_sine && x[i] >= -Format<T>::large_sine))
      y[i] = T(is_cosine ? cosine_of_large(x[i], low[i]) : sine_of_large(x[i], low[i]));
  return y;
}

// Returns sin(frequency z), or cos(frequency z), which is the sine a quarter turn later. Let
// |frequency z| = k (pi / 2) + r. The result is sin(r), cos(r) or the negative of one of them; k tells which.
// sin(r) and cos(r) have a polynomial each.
template <class T, bool is_cosine>
inline Vector<T> sine(Vector<T> z, T frequency) {
  using F = Format<T>;
  using Integer = typename Lanes<T>::Integer;
  if constexpr (sizeof(T) == 4 && !has_fma) {  // without FMA, three parts of pi / 2 are too few
    return by_double<sine<double, is_cosine>>(z, double(frequency));
  } else {
    constexpr T shift =
        T(1.5) * power<T>(F::fraction_bits);  // adding it rounds to an integer, kept in the low bits
    const auto [x, x_rest] = two_product<T>(z, splat<T>(frequency));
    const Integers<T> sign = bit_cast<T>(x) & bit_cast<T>(splat<T>(T(-0.0)));
    const Vector<T> a = absolute<T>(x);
    const Vector<T> low = bit_cast<T>(bit_cast<T>(x_rest) ^ sign);
    const Vector<T> shifted = fma(a, splat<T>(F::two_over_pi), splat<T>(shift));
    const Vector<T> k = shifted - shift;
    const Integers<T> bits = bit_cast<T>(shifted) + Integer(is_cosine);
    const Vector<T> difference = residual<T>(k, splat<T>(-F::half_pi[0]), a);  // without a rounding error
    const auto [second, second_rest] = two_product<T>(k, splat<T>(-F::half_pi[1]));
    const auto [near, near_rest] = two_sum<T>(difference, second);
    const Vector<T> third = fma(k, splat<T>(-F::half_pi[2]), second_rest + low);
    const auto [r, rest] = fast_two_sum<T>(near, near_rest + third);
    const Vector<T> square = r * r;
    const Vector<T> sine = r + fma(r * square, polynomial<T>(F::sin, square), rest);
    const Vector<T> half = T(0.5) * square;
    const Vector<T> first = 1 - half;
    const Vector<T> first_rest = fma(-r, rest, (1 - first) - half);
    const Vector<T> cosine = first + fma(square * square, polynomial<T>(F::cos, square), first_rest);
    const Vector<T> size = (bits & 1) != 0 ? cosine : sine;
    const Integers<T> turned = (bits & 2) << (8 * sizeof(Integer) - 2);
    const Vector<T> y = bit_cast<T>(bit_cast<T>(size) ^ turned ^ (is_cosine ? Integers<T>{} : sign));
    const auto is_large = !(a <= F::large_sine);
    return any<T>(is_large) ? with_large_sines<T>(y, x, x_rest, is_cosine) : y;
  }
}

template <class T>
inline Vector<T> sin(Vector<T> z, T frequency) {
  return sine<T, false>(z, frequency);
}

}  // namespace jaxneuron::ISA
