// Numbers in two parts: the arithmetic under the activations.
//
//     exp(x) = 2^k (1 + p)                     k = round(x / ln 2),  u = x - k ln 2,  p = u + u^2 EXP(u)
//     1 / (1 + exp(a)) = c / D                 c = 2^-k,  D = 1 + c + p in two parts
//     1 / D = q + q e                          q = 1 / D rounded,  e = 1 - q D
//
// A rounding that would count is undone: the residual of a sum or of a quotient is a float, and is kept. The
// residual of a quotient is one fma where d is -D.
#pragma once

#include "format.h"
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

// The sum of coefficients[i] x^i, by Horner's rule.
template <class T, int n, int i = 0>
inline Vector<T> polynomial(const T (&coefficients)[n], Vector<T> x) {
  if constexpr (i == n - 1) {
    return all<T>(coefficients[i]);
  } else {
    return fma(polynomial<T, n, i + 1>(coefficients, x), x, all<T>(coefficients[i]));
  }
}

template <class T>
inline Vector<T> leading(Vector<T> x) {  // its first digits, half of them
  using F = Format<T>;
  return number<T>(bits<T>(x) & -(typename Lanes<T>::Integer{1} << (F::digits + 1 - F::few)));
}

// q d + n for q d near -n: then it is a float, and exact.
template <class T>
inline Vector<T> residual(Vector<T> q, Vector<T> d, Vector<T> n) {
  if constexpr (has_fma) {
    return fma(q, d, n);
  } else {
    const Vector<T> q1 = leading<T>(q), d1 = leading<T>(d);
    return (n + q1 * d1) + (q - q1) * d1 + q * (d - d1);
  }
}

// a b + c, rounded once, for c small beside a b.
template <class T>
inline Vector<T> product_and_rest(Vector<T> a, Vector<T> b, Vector<T> c) {
  if constexpr (has_fma) {
    return fma(a, b, c);
  } else {
    const Vector<T> product = a * b;
    return product + (residual<T>(a, b, -product) + c);
  }
}

template <class T>
inline Vector<T> absolute(Vector<T> x) {
  return number<T>(bits<T>(x) & ~bits<T>(all<T>(T(-0.0))));
}

template <class T>
inline Vector<T> with_sign(Vector<T> x, Vector<T> of) {  // for x >= 0
  return number<T>(bits<T>(x) | (bits<T>(of) & bits<T>(all<T>(T(-0.0)))));
}

// x + low = k ln 2 + u + rest, exp(x + low) = 2^k (1 + p), and c = 2^(sign k + up).
template <class T>
struct Reduced {
  Vector<T> c, u, rest;
};

template <class T>
struct Exp {
  Vector<T> c, p;
};

template <class T, int sign, int up = 0, class... Low>
inline Reduced<T> reduced(Vector<T> x, Low... low) {  // low: nothing, or one
  using F = Format<T>;
  // Added, it leaves no place for a fraction, and the exponent of c in the last bits.
  constexpr T shift = T(1.5) * power<T>(F::digits) + (F::bias + up);
  const Vector<T> shifted = fma(x, all<T>(T(sign * 1.4426950408889634)), all<T>(shift));
  const Vector<T> k = shifted - shift, c = number<T>(bits<T>(shifted) << F::digits);
  const Vector<T> r = fma(k, all<T>(-sign * F::ln2[0]), x);  // exact
  const Vector<T> ln2_rest = all<T>(-sign * F::ln2[1]);
  if constexpr (sizeof...(low) == 0) {
    const Vector<T> u = fma(k, ln2_rest, r);
    return {c, u, fma(k, ln2_rest, r - u)};
  } else {
    const Vector<T> s = fma(k, ln2_rest, low...), u = r + s;
    return {c, u, (r - u) + s};
  }
}

template <class T, int sign, int up = 0, class... Low>
inline Exp<T> exp_parts(Vector<T> x, Low... low) {
  const auto [c, u, rest] = reduced<T, sign, up>(x, low...);
  return {c, fma(u * u, polynomial<T>(Format<T>::exp, u), u)};
}

}  // namespace jaxneuron::ISA
