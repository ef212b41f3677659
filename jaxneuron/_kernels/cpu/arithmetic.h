// Numbers in two parts: the arithmetic that the activations are made of.
//
// Where a rounding error matters, a value is kept as the unevaluated sum of two floats: the rounded value and
// its error, which is a float too. two_sum is Knuth's (The Art of Computer Programming 2, 4.2.2), two_product
// and fast_two_sum are Dekker's (A floating-point technique for extending the available precision, 1971), and
// the reduction of exp's argument is Cody and Waite's (Software Manual for the Elementary Functions, 1980):
//
//     exp(x) = 2^k (1 + p)                     k = round(x / ln 2),  u = x - k ln 2,  p = u + u^2 EXP(u)
//     1 / (1 + exp(a)) = c / D                 c = 2^-k,  D = 1 + c + p in two parts
//     1 / D = q + q e                          q = 1 / D rounded,  e = 1 - q D
#pragma once

#include "tables.h"
#include "vector.h"

namespace jaxneuron::ISA {

// 2^n
template <class T>
constexpr T power(int n) {
  T p = 1;
  for (; n > 0; --n) p *= 2;
  for (; n < 0; ++n) p /= 2;
  return p;
}

// Returns the sum over i of coefficients[i] x^i, by Horner's rule.
template <class T, int n, int i = 0>
inline Vector<T> polynomial(const T (&coefficients)[n], Vector<T> x) {
  if constexpr (i == n - 1) {
    return splat<T>(coefficients[i]);
  } else {
    return fma(polynomial<T, n, i + 1>(coefficients, x), x, splat<T>(coefficients[i]));
  }
}

template <class T>
inline Vector<T> absolute(Vector<T> x) {
  return bit_cast<T>(bit_cast<T>(x) & ~bit_cast<T>(splat<T>(T(-0.0))));
}

// Returns x with the sign of `of`, for x >= 0.
template <class T>
inline Vector<T> with_sign(Vector<T> x, Vector<T> of) {
  return bit_cast<T>(bit_cast<T>(x) | (bit_cast<T>(of) & bit_cast<T>(splat<T>(T(-0.0)))));
}

// Returns x with the lower half of its significand cut off, so that the product of two such numbers is exact
// (Veltkamp's splitting, as Dekker uses it).
template <class T>
inline Vector<T> upper_half(Vector<T> x) {
  using F = Format<T>;
  using Integer = typename Lanes<T>::Integer;
  return bit_cast<T>(bit_cast<T>(x) & -(Integer{1} << (F::fraction_bits + 1 - F::half_bits)));
}

// Returns q d + n. If q d is close to -n the result is exact, because it is a float.
template <class T>
inline Vector<T> residual(Vector<T> q, Vector<T> d, Vector<T> n) {
  if constexpr (has_fma) {
    return fma(q, d, n);
  } else {
    const Vector<T> q1 = upper_half<T>(q);
    const Vector<T> d1 = upper_half<T>(d);
    return (n + q1 * d1) + (q - q1) * d1 + q * (d - d1);
  }
}

// A number as the unevaluated sum of two.
template <class T>
struct TwoParts {
  Vector<T> value;
  Vector<T> rest;
};

// a + b = value + rest, exactly. 6 operations.
template <class T>
inline TwoParts<T> two_sum(Vector<T> a, Vector<T> b) {
  const Vector<T> sum = a + b;
  const Vector<T> a_part = sum - b;
  const Vector<T> b_part = sum - a_part;
  return {sum, (a - a_part) + (b - b_part)};
}

// The same for |a| >= |b|. 3 operations.
template <class T>
inline TwoParts<T> fast_two_sum(Vector<T> a, Vector<T> b) {
  const Vector<T> sum = a + b;
  return {sum, b - (sum - a)};
}

// a b = value + rest, exactly. 2 operations with FMA.
template <class T>
inline TwoParts<T> two_product(Vector<T> a, Vector<T> b) {
  const Vector<T> product = a * b;
  return {product, residual<T>(a, b, -product)};
}

// a b + c, rounded once with or without FMA, for c small beside a b.
template <class T>
inline Vector<T> accurate_fma(Vector<T> a, Vector<T> b, Vector<T> c) {
  if constexpr (has_fma) {
    return fma(a, b, c);
  } else {
    const auto [product, rest] = two_product<T>(a, b);
    return product + (rest + c);
  }
}

// -1 / (d + d_rest) = q + q e. With the minus sign, the residual 1 + q d is one fused multiply-add.
template <class T>
struct Reciprocal {
  Vector<T> q;
  Vector<T> e;
};

template <class T>
inline Reciprocal<T> negative_reciprocal(Vector<T> d, Vector<T> d_rest) {
  const Vector<T> q = -1 / d;
  return {q, fma(q, d_rest, residual<T>(q, d, splat<T>(1)))};
}

// x = k ln 2 + u + rest and c = 2^(sign k + scale).
template <class T>
struct Reduced {
  Vector<T> c;
  Vector<T> u;
  Vector<T> rest;
};

// The integer k = round(sign x / ln 2), c, and x - k ln2_reduction[0], which is exact.
template <class T>
struct Multiple {
  Vector<T> k;
  Vector<T> c;
  Vector<T> difference;
};

template <class T, int sign, int scale>
inline Multiple<T> nearest_multiple(Vector<T> x) {
  using F = Format<T>;
  // Adding `shift` rounds to an integer, and leaves c's biased exponent in the low bits.
  constexpr T shift = T(1.5) * power<T>(F::fraction_bits) + (F::exponent_bias + scale);
  const Vector<T> shifted = fma(x, splat<T>(sign * F::log2_e), splat<T>(shift));
  const Vector<T> k = shifted - shift;
  const Vector<T> c = bit_cast<T>(bit_cast<T>(shifted) << F::fraction_bits);
  return {k, c, fma(k, splat<T>(-sign * F::ln2_reduction[0]), x)};
}

// Reduces x: rest is what rounding takes from u.
template <class T, int sign, int scale = 0>
inline Reduced<T> reduce(Vector<T> x) {
  const auto [k, c, difference] = nearest_multiple<T, sign, scale>(x);
  const Vector<T> ln2_rest = splat<T>(-sign * Format<T>::ln2_reduction[1]);
  const Vector<T> u = fma(k, ln2_rest, difference);
  return {c, u, fma(k, ln2_rest, difference - u)};
}

// Reduces x + low.
template <class T, int sign, int scale = 0>
inline Reduced<T> reduce(Vector<T> x, Vector<T> low) {
  const auto [k, c, difference] = nearest_multiple<T, sign, scale>(x);
  const Vector<T> small = fma(k, splat<T>(-sign * Format<T>::ln2_reduction[1]), low);
  const auto [u, rest] = fast_two_sum<T>(difference, small);
  return {c, u, rest};
}

// exp(x) = 2^k (1 + p), c = 2^(sign k + scale).
template <class T>
struct Exp {
  Vector<T> c;
  Vector<T> p;
};

template <class T>
inline Exp<T> exp_of_reduced(const Reduced<T>& x) {
  return {x.c, fma(x.u * x.u, polynomial<T>(Format<T>::exp, x.u), x.u)};
}

// Returns exp(x) in these parts.
template <class T, int sign, int scale = 0>
inline Exp<T> exp_parts(Vector<T> x) {
  return exp_of_reduced<T>(reduce<T, sign, scale>(x));
}

// Returns exp(x + low) in these parts.
template <class T, int sign, int scale = 0>
inline Exp<T> exp_parts(Vector<T> x, Vector<T> low) {
  return exp_of_reduced<T>(reduce<T, sign, scale>(x, low));
}

// Returns function(z, parameters...), computed in two vectors of double and rounded to float.
template <auto function, class... Parameters>
inline Vector<float> by_double(Vector<float> z, Parameters... parameters) {
  typedef float Half __attribute__((vector_size(BYTES / 2)));
  Half halves[2];
  std::memcpy(halves, &z, sizeof z);
  for (Half& half : halves) {
    const Vector<double> y = function(__builtin_convertvector(half, Vector<double>), parameters...);
    half = __builtin_convertvector(y, Half);
  }
  std::memcpy(&z, halves, sizeof z);
  return z;
}

}  // namespace jaxneuron::ISA
