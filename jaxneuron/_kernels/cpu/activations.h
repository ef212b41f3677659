// The formula of each activation, on vectors, with the error bounds that the package's docstrings promise.
//
// A new activation needs a line in the table behind tables.h, and a function of the same name here. The
// comment above a function says what is computed; its steps are the ones of arithmetic.h.
#pragma once

#include "arithmetic.h"
#include "scaled.h"
#include "sine.h"

namespace jaxneuron::ISA {

template <class T>
inline Vector<T> identity(Vector<T> z) {
  return z;
}

template <class T>
inline Vector<T> relu(Vector<T> z) {
  return at_least<T>(z, 0);
}

// z, and slope z below 0
template <class T>
inline Vector<T> leaky_relu(Vector<T> z, T slope) {
  return z >= 0 ? z : slope * z;
}

template <class T>
inline Vector<T> hard_tanh(Vector<T> z, T low, T high) {
  return at_most<T>(at_least<T>(z, low), high);
}

template <class T>
inline Vector<T> hard_sigmoid(Vector<T> z) {
  return at_most<T>(at_least<T>(z + 3, 0), 6) * T(1.0 / 6);
}

// z w, w = (z + 3) / 6 from 0 to 1
template <class T>
inline Vector<T> hard_swish(Vector<T> z) {
  constexpr T sixth = T(1.0 / 6);
  constexpr T sixth_rest = T((1.0L - 6.0L * sixth) / 6);
  const Vector<T> x = at_least<T>(z, -3);
  const auto [t, t_rest] = fast_two_sum<T>(splat<T>(3), at_most<T>(x, 3));
  const Vector<T> w = t * sixth;
  const Vector<T> w_rest = residual<T>(t, splat<T>(sixth), -w) + (t * sixth_rest + t_rest * sixth);
  return z >= 3 ? z : accurate_fma<T>(x, w, x * w_rest);
}

template <class T>
inline Vector<T> square(Vector<T> z) {
  return z * z;
}

// z / (1 + |z|); from 2^60 on it is 1
template <class T>
inline Vector<T> softsign(Vector<T> z) {
  const Vector<T> a = at_most<T>(absolute<T>(z), power<T>(60));
  return with_sign<T>(a / (1 + a), z);
}

// (z + sqrt(z^2 + 4)) / 2. With d = (|z| + sqrt(z^2 + 4)) / 2 and t = 1 / d it is t below 0 and d above; far
// below, t = 1 / |z|. Exactly, d = |z| + t and t (|z| + t) = 1. The error of a rounded t is, to first order,
// t e / (1 + t^2) with e = 1 - t (|z| + t).
template <class T>
inline Vector<T> squareplus(Vector<T> z) {
  const Vector<T> a = absolute<T>(z);
  const Vector<T> x = at_most<T>(a, power<T>(60));
  const Vector<T> d = max(T(0.5) * (x + sqrt(fma(x, x, splat<T>(4)))), a);
  const Vector<T> t = 1 / d;
  const Vector<T> d_rest = (max(a, t) - d) + min(a, t);
  const Vector<T> e = fma(-t, d_rest, residual<T>(-t, d, splat<T>(1)));
  const Vector<T> t_rest = t * e * fma(T(-8.0 / 17) * t, t, splat<T>(T(16.0 / 17)));  // 1 / (1 + t^2) to 6 %
  const auto is_negative = z < 0;
  const Vector<T> y = is_negative ? t : d;
  return a > power<T>(60) ? y : y + (is_negative ? t_rest : d_rest + t_rest);
}

// 2^k (1 + p), computed as 2^(k + 64) (1 + p) 2^-64 below 0 and 2^(k - 64) (1 + p) 2^64 above, so that the
// first factor is a normal number wherever the result is one
template <class T>
inline Vector<T> exp(Vector<T> z) {
  using F = Format<T>;
  using Integer = typename Lanes<T>::Integer;
  const auto [c, p] = exp_parts<T, 1>(at_most<T>(at_least<T>(z, -F::zero), F::zero));
  const Integers<T> up = Integers<T>{} + (Integer{64} << F::fraction_bits);
  const auto is_negative = z < 0;
  using Unsigned = typename Lanes<T>::Unsigned;  // whose sums wrap: of NaN, c is any number
  const Vector<T> scaled = (Vector<T>)((Unsigned)c + (Unsigned)(is_negative ? up : -up));
  return fma(scaled, p, scaled) * (is_negative ? splat<T>(power<T>(-64)) : splat<T>(power<T>(64)));
}

// sigmoid(-|z|) = c / d, d = 1 + exp(u) + c, c = 2^k
template <class T>
inline Vector<T> smaller_sigmoid(Vector<T> z) {
  using F = Format<T>;
  constexpr T one = -power<T>(F::scale_exponent);  // scales all parts of d, so that c is never subnormal
  const Reduced<T> x = reduce<T, -1, F::scale_exponent>(at_most<T>(absolute<T>(z), F::zero));
  const Vector<T> first = x.u * one;
  const Vector<T> tail = first * x.u * polynomial<T>(F::exp, x.u);
  const Vector<T> d = (one - x.c) + (first + tail);
  const Vector<T> d_rest = ((one - d) - x.c) + first + tail;
  const auto [q, e] = negative_reciprocal<T>(d, d_rest);
  return fma(q, e, q) * x.c;
}

// 1 / (1 + exp(-z)), from the smaller of sigmoid(z) and sigmoid(-z)
template <class T>
inline Vector<T> sigmoid(Vector<T> z) {
  const Vector<T> small = smaller_sigmoid<T>(z);
  return z < 0 ? small : 1 - small;
}

// sigmoid, for results that will be rounded to 16 bits. For a z of 16 bits, 1/2 + z/4 may be a midpoint
// between two 16-bit numbers, and the exact value lies a little closer to 1/2. So does or_near_0's, which
// then decides the rounding; it replaces y for |z| < 2^-5.
template <class T>
inline Vector<T> or_near_0(Vector<T> z, Vector<T> y) {
  const Vector<T> near_0 = fma(z, splat<T>(T(0.25) - power<T>(-14)), splat<T>(T(0.5)));
  return absolute<T>(z) < power<T>(-5) ? near_0 : y;
}

template <class T>
inline Vector<T> sigmoid_16(Vector<T> z) {
  return or_near_0<T>(z, sigmoid<T>(z));
}

// z + z^3 TANH(z^2), and 1 - 2 / (1 + exp(2z)) for large z
template <class T>
inline Vector<T> tanh(Vector<T> z) {
  const Vector<T> a = absolute<T>(z);
  const auto [c, p] = exp_parts<T, -1, 1>(at_most<T>(a + a, Format<T>::one));
  const Vector<T> large = 1 - c / (fma(c, splat<T>(T(0.5)), splat<T>(1)) + p);
  const Vector<T> square = a * a;
  const Vector<T> small = fma(a * square, polynomial<T>(Format<T>::tanh, square), a);
  return with_sign<T>(a < Format<T>::large_tanh ? small : large, z);
}

// max(z, 0) - x / (1 + exp(a)), from exp(a). With x = |z| this is z gate(z), for a gate with gate(-z) =
// 1 - gate(z) = 1 / (1 + exp(a))
template <class T>
inline Vector<T> gated(Vector<T> z, Vector<T> x, Exp<T> of_a) {
  constexpr T unscale = power<T>(-Format<T>::scale_exponent);
  const Vector<T> c = of_a.c * unscale;
  const Vector<T> d = (-1 - c) - of_a.p;
  const Vector<T> d_rest = ((-1 - d) - c) - of_a.p;
  const auto [q, e] = negative_reciprocal<T>(d, d_rest);
  return at_least<T>(z, T(-0.0)) - accurate_fma<T>(x, q, x * q * e) * of_a.c * unscale;
}

// z sigmoid(z)
template <class T>
inline Vector<T> silu(Vector<T> z) {
  using F = Format<T>;
  const Vector<T> a = at_most<T>(absolute<T>(z), F::gated_zero);
  return gated<T>(z, a, exp_parts<T, -1, F::scale_exponent>(a));
}

// exp(u) for u = sqrt(8 / pi) (a + 0.044715 a^3) = a k
template <class T>
inline Exp<T> exp_of_cubic(Vector<T> a) {
  using F = Format<T>;
  constexpr T k1 = F::sqrt_8_pi[0];
  constexpr T k1_rest = F::sqrt_8_pi[1];
  constexpr T k3 = F::sqrt_8_pi_cubic[0];
  constexpr T k3_rest = F::sqrt_8_pi_cubic[1];
  const auto [square, square_rest] = two_product<T>(a, a);
  const Vector<T> k = fma(square, splat<T>(k3), splat<T>(k1));
  const Vector<T> k_rest = residual<T>(square, splat<T>(k3), k1 - k) +
                           fma(square, splat<T>(k3_rest), fma(square_rest, splat<T>(k3), splat<T>(k1_rest)));
  const auto [u, u_rest] = two_product<T>(a, k);
  return exp_parts<T, -1, F::scale_exponent>(u, fma(a, k_rest, u_rest));
}

// z sigmoid(u)
template <class T>
inline Vector<T> gelu_tanh(Vector<T> z) {
  const Vector<T> a = at_most<T>(absolute<T>(z), Format<T>::gelu_tanh_zero);
  return gated<T>(z, a, exp_of_cubic<T>(a));
}

// erfc(a / sqrt(2)) = c q (y + y_rest) 2^-scale_exponent, and exp(-a^2/2) = c (1 + p) 2^-scale_exponent
template <class T>
struct NormalTail {
  Vector<T> c;
  Vector<T> p;
  Vector<T> q;
  Vector<T> y;
  Vector<T> y_rest;
};

// erfc(a / sqrt(2)) = exp(-a^2/2) (13/16 + t GELU) / (13/16 + a)
template <class T>
inline NormalTail<T> normal_tail(Vector<T> a) {
  using F = Format<T>;
  const auto [square, square_rest] = two_product<T>(T(-0.5) * a, a);
  const Reduced<T> x = reduce<T, 1, F::scale_exponent>(square, square_rest);
  const Vector<T> tail = x.u * x.u * polynomial<T>(F::exp, x.u);
  const Vector<T> d = -F::gelu_place - a;
  const Vector<T> d_rest = -F::gelu_place - d - a;
  const auto [q, e] = negative_reciprocal<T>(d, d_rest);
  const Vector<T> t = a / (a + 4);
  const Vector<T> scale = fma(t, polynomial<T>(F::gelu, t - T(0.375)), splat<T>(F::gelu_place - 1));
  // (1 + u + tail) (1 + e) (1 + scale) = 1 + u + s = y
  const Vector<T> p = x.u + tail;
  const Vector<T> s = fma(1 + p, scale + fma(scale, e, e), tail);
  const Vector<T> y = 1 + (x.u + s);
  return {x.c, p, q, y, ((1 - y) + x.u) + s};
}

// z/2 erfc(-z / sqrt(2)), from a/2 erfc(a / sqrt(2))
template <class T>
inline Vector<T> gelu(Vector<T> z) {
  using F = Format<T>;
  if constexpr (sizeof(T) == 4 && !has_fma)
    return by_double<gelu<double>>(z);  // without FMA a float's polynomial loses too much
  const Vector<T> a = at_most<T>(absolute<T>(z), F::gelu_zero);
  const NormalTail<T> tail = normal_tail<T>(a);
  const auto [aq, aq_rest] = two_product<T>(a, tail.q);
  const Vector<T> small = accurate_fma<T>(aq, tail.y, fma(aq, tail.y_rest, aq_rest * tail.y));
  return at_least<T>(z, T(-0.0)) - small * tail.c * power<T>(-F::scale_exponent - 1);
}

// max(z, 0) + log1p(exp(-|z|))
template <class T>
inline Vector<T> softplus(Vector<T> z) {
  const Vector<T> a = at_most<T>(absolute<T>(z), Format<T>::zero);
  const Reduced<T> x = reduce<T, 1, Format<T>::scale_exponent>(-a);
  const auto [sum, rest] = softplus_parts<T>(at_least<T>(z, 0), a, x);
  return max(sum + rest, z);
}

// -softplus(-z)
template <class T>
inline Vector<T> log_sigmoid(Vector<T> z) {
  return -softplus<T>(-z);
}

// z tanh(softplus(z)) = max(z, 0) - |z| N / D with E = exp(-|z|): N / D = E (2 + E) / (2 + 2 E + E^2) below
// 0, 2 E^2 / (1 + 2 E + 2 E^2) above
template <class T>
inline Vector<T> mish(Vector<T> z) {
  using F = Format<T>;
  constexpr T unscale = power<T>(-F::scale_exponent);
  const Vector<T> a = at_most<T>(absolute<T>(z), F::gated_zero);
  const auto [scaled, p] = exp_parts<T, 1, F::scale_exponent>(-a);
  const Vector<T> c = scaled * unscale;
  const Vector<T> e = fma(c, p, c);
  const Vector<T> e_rest = fma(c, p, c - e);
  const auto is_negative = z < 0;
  const Vector<T> first = is_negative ? splat<T>(2) : splat<T>(1);
  const Vector<T> factor = is_negative ? splat<T>(1) : splat<T>(2);
  // D = first + e (2 + factor e)
  const Vector<T> w = fma(factor, e, splat<T>(2));
  const Vector<T> w_rest = fma(factor, e_rest, fma(factor, e, 2 - w));
  const Vector<T> d = fma(e, w, first);
  const Vector<T> d_rest = residual<T>(e, w, first - d) + fma(e, w_rest, e_rest * w);
  const auto [q, q_rest] = negative_reciprocal<T>(-d, -d_rest);
  // N = 2^k (1 + p) m
  const Vector<T> m = is_negative ? w : 2 * e;
  const Vector<T> m_rest = is_negative ? w_rest : 2 * e_rest;
  const Vector<T> y = 1 + p;
  const auto [ay, ay_rest] = two_product<T>(a, y);
  const auto [n, n_rest] = two_product<T>(ay, m);
  const Vector<T> n_low = fma(ay, m_rest, fma(fma(a, (1 - y) + p, ay_rest), m, n_rest));
  const Vector<T> small = accurate_fma<T>(n, q, fma(n * q, q_rest, n_low * q));
  return at_least<T>(z, T(-0.0)) - small * scaled * unscale;
}

// z, and exp(z) - 1 below 0
template <class T>
inline Vector<T> elu(Vector<T> z) {
  using F = Format<T>;
  const auto [c, p] = exp_parts<T, 1>(at_least<T>(at_most<T>(z, 0), -F::one));
  return z > -power<T>(-F::fraction_bits - 2) ? z : fma(c, p, c - 1);
}

// 1.0507 z, and 1.7581 (exp(z) - 1) below 0
template <class T>
inline Vector<T> selu(Vector<T> z) {
  using F = Format<T>;
  constexpr T scale = F::selu_scale[0];
  constexpr T scale_rest = F::selu_scale[1];
  constexpr T full = F::selu_full[0];  // scale alpha
  const Reduced<T> x = reduce<T, 1>(at_least<T>(at_most<T>(z, 0), -F::one));
  const Vector<T> tail = fma(x.u, full * polynomial<T>(F::exp, x.u), splat<T>(F::selu_full[1]));
  const Vector<T> p = accurate_fma<T>(x.u, splat<T>(full), x.u * tail);
  const Vector<T> positive = fma(z, splat<T>(scale), z * scale_rest);
  // exp(z) itself less a rounded number where it is below 1/2; else with all bits of exp(z) - 1
  const auto far = x.c < T(0.5);
  const Vector<T> start = far ? splat<T>(-full) : fma(x.c, splat<T>(full), splat<T>(-full));
  return z > 0 ? positive : fma(x.c, far ? p + full : p, start);
}

// exp(z - greatest), with the rounding error of the difference: softmax's, for z <= greatest
template <class T>
inline Vector<T> exp_of_difference(Vector<T> z, Vector<T> greatest) {
  using F = Format<T>;
  const auto [d, d_rest] = two_sum<T>(z, -greatest);
  const Vector<T> low = d < -F::zero ? splat<T>(0) : d_rest;  // of -infinity it is NaN
  const auto [c, p] = exp_parts<T, 1, F::scale_exponent>(at_least<T>(d, -F::zero), low);
  return fma(c, p, c) * power<T>(-F::scale_exponent);
}

// log(s) for s >= 1: s = 2^k (1 + f), f from -1/4 to 1/2
template <class T>
inline Vector<T> log(Vector<T> s) {
  using F = Format<T>;
  const Integers<T> bits = bit_cast<T>(s);
  const Integers<T> k = (bits - bit_cast<T>(splat<T>(T(0.75)))) >> F::fraction_bits;
  const Vector<T> f = (bit_cast<T>(bits - (k << F::fraction_bits)) - 1) + (s - s);  // NaN stays NaN
  const Vector<T> ratio = f / (2 + f);
  const Vector<T> square = ratio * ratio;
  const Vector<T> rest = ratio * fma(square, polynomial<T>(F::log, square), -f);
  const Vector<T> times = __builtin_convertvector(k, Vector<T>);
  return fma(times, splat<T>(F::ln2[0]), f + fma(times, splat<T>(F::ln2[1]), rest));
}

// (z - greatest) - log_sum: log_softmax's
template <class T>
inline Vector<T> less(Vector<T> z, Vector<T> greatest, Vector<T> log_sum) {
  const auto [d, d_rest] = two_sum<T>(z, -greatest);
  return d + ((d < -power<T>(100) ? splat<T>(0) : d_rest) - log_sum);
}

// sigmoid of a float. Near 0 the difference from 1/2 comes from the series, and is rounded to a float before
// it is added to 1/2: the sum in double would lose the bits that decide ties.
inline Vector<double> sigmoid_of_float(Vector<double> z) {
  const Vector<double> a = absolute<double>(z);
  const Vector<double> square = z * z;
  const auto [c, p] = exp_parts<double, -1>(at_most<double>(a, Format<float>::zero));
  const Vector<double> small = c / ((1 + p) + c);
  const Vector<double> slope = 0.25 - square * (1.0 / 48 - square * (1.0 / 480));
  const Vector<double> shift =
      z < 0 ? splat<double>(0x1.8p27) : splat<double>(0x1.8p28);  // rounds off the rest
  const Vector<double> near_0 = 0.5 + (fma(z, slope, shift) - shift);
  return a < 0x1p-8 ? near_0 : z < 0 ? small : 1 - small;
}

// sigmoid with exp, the denominator and the larger of both halves in more parts, so that the result is
// rounded once
inline Vector<double> sigmoid_in_parts(Vector<double> z) {
  using F = Format<double>;
  const Vector<double> a = at_most<double>(absolute<double>(z), F::zero);
  const auto [scaled, u, u_rest] = reduce<double, -1, F::scale_exponent>(a);
  // exp(u) = 1 + u + u^2/2 + u^3 EXP
  const Vector<double> square = 0.5 * u * u;
  const Vector<double> square_rest = residual<double>(0.5 * u, u, -square);
  const Vector<double> cubic = 2 * square * u * polynomial<double, 12, 1>(F::exp, u);
  const Vector<double> rest = fma(u_rest, 1 + u, square_rest + cubic);
  const Vector<double> c = scaled * power<double>(-F::scale_exponent);
  const Vector<double> first = 1 + c;
  const Vector<double> d = first + (u + (square + rest));
  const Vector<double> d_rest = ((first - d) + u + square) + (rest + (c - (first - 1)));
  const auto [q, e] = negative_reciprocal<double>(d, d_rest);
  const Vector<double> y = -power<double>(-F::scale_exponent) * q;
  const Vector<double> half = y * scaled;
  const Vector<double> large = 1 - half;
  const Vector<double> large_rest = (1 - large) - half;
  // Below the normal numbers the sum is rounded as it becomes one of them.
  const Vector<double> small = z > -708 ? fma(y, e, y) * scaled : fma(y, scaled, y * e * scaled);
  return z < 0 ? small : large + (large_rest - half * e);
}

template <class T>
inline Vector<T> cr_tanh(Vector<T> z) {
  if constexpr (sizeof(T) == 4) {
    return by_double<tanh<double>>(z);
  } else {
    return tanh<double>(z);
  }
}

template <class T>
inline Vector<T> cr_sigmoid(Vector<T> z) {
  if constexpr (sizeof(T) == 4) {
    return by_double<sigmoid_of_float>(z);
  } else {
    return sigmoid_in_parts(z);
  }
}

}  // namespace jaxneuron::ISA
