// Activations that scale the argument and the result of an exponential or a logarithm. Both are kept as an
// unevaluated sum of two parts, so that only the last step rounds.
#pragma once

#include "arithmetic.h"

namespace jaxneuron::ISA {

// Returns softplus(x) in two parts, from `positive` = max(x, 0), a = min(|x|, zero) and the reduced argument
// of exp(-|x|):
//
//     max(x, 0) + log1p(e), e = exp(-|x|), where log1p(e) = ln 2 + log1p((e - 1) / 2) for e > 1/2 and
//     log1p(f) = f + s (s^2 LOG(s^2) - f), s = f / (2 + f)
template <class T>
inline TwoParts<T> softplus_parts(Vector<T> positive, Vector<T> a, const Reduced<T>& x) {
  using F = Format<T>;
  const auto [p, p_rest] = fast_two_sum<T>(x.u, x.u * x.u * polynomial<T>(F::exp, x.u));
  const auto large = a < T(0.6931472);  // e > 1/2; near 1/2 both formulas are accurate
  const Vector<T> unscaled = x.c * power<T>(-F::scale_exponent);
  const Vector<T> c = large ? T(0.5) * unscaled : unscaled;
  const Vector<T> c_part = large ? c - T(0.5) : c;
  const Vector<T> f = fma(c, p, c_part);
  const Vector<T> f_rest = fma(c, p_rest, fma(c, p, c_part - f));
  const Vector<T> s = f / (2 + f);
  const Vector<T> square = s * s;
  const Vector<T> slope = fma(square, polynomial<T>(F::log, square), -f);
  const Vector<T> base = large ? splat<T>(F::ln2[0]) : splat<T>(0);
  const Vector<T> base_rest = large ? f_rest + F::ln2[1] : f_rest;
  const auto [log, log_rest] = fast_two_sum<T>(base, f);
  const Vector<T> rest = fma(s, fma(f_rest, splat<T>(-2), slope), base_rest) + log_rest;
  // The sum of the two larger terms, and its rounding error. All other terms are small; they are added to
  // that error.
  const auto [sum, sum_rest] = fast_two_sum<T>(max(positive, log), min(positive, log));
  return {sum, sum_rest + rest};
}

// Returns softplus(beta z) / beta; that is z where beta z >= zero.
template <class T>
inline Vector<T> scaled_softplus(Vector<T> z, T beta) {
  using F = Format<T>;
  const auto [q, q_rest] = negative_reciprocal<T>(splat<T>(-beta), splat<T>(0));
  const auto [x, x_rest] = two_product<T>(z, splat<T>(beta));
  const Vector<T> size = absolute<T>(x);
  const Vector<T> low = size < F::zero ? x_rest : splat<T>(0);
  const Vector<T> a = at_most<T>(size, F::zero);
  const Reduced<T> reduced = reduce<T, 1, F::scale_exponent>(-a, x < 0 ? low : -low);
  const auto [sum, rest] = softplus_parts<T>(at_least<T>(x, 0), a, reduced);
  const Vector<T> sum_rest = rest + (x < 0 ? splat<T>(0) : low);
  const Vector<T> y = accurate_fma<T>(sum, q, fma(sum * q, q_rest, sum_rest * q));
  return x < F::zero ? max(y, z) : z;
}

// Returns c p + alpha (c - 1) for p = alpha (exp(u) - 1). That is alpha (c exp(u) - 1).
template <class T>
inline Vector<T> scaled_exp_minus_1(Vector<T> c, Vector<T> p, T alpha) {
  // For c < 1/2, p + alpha may be rounded before alpha is subtracted. Otherwise all bits of c exp(u) - 1 are
  // needed.
  const auto far = c < T(0.5);
  const Vector<T> start = far ? splat<T>(-alpha) : fma(c, splat<T>(alpha), splat<T>(-alpha));
  return fma(c, far ? p + alpha : p, start);
}

// Returns z where z >= 0, and alpha (exp(z) - 1) elsewhere.
template <class T>
inline Vector<T> scaled_elu(Vector<T> z, T alpha) {
  using F = Format<T>;
  const Reduced<T> x = reduce<T, 1>(at_least<T>(at_most<T>(z, 0), -F::one));
  const Vector<T> tail = x.u * (alpha * polynomial<T>(F::exp, x.u));
  const Vector<T> p = accurate_fma<T>(x.u, splat<T>(alpha), x.u * tail);
  return z >= 0 ? z : scaled_exp_minus_1<T>(x.c, p, alpha);
}

// Returns z where z >= 0, and alpha (exp(z / alpha) - 1) elsewhere, from z = k alpha ln 2 + v; there
// alpha (exp(v / alpha) - 1) is v plus a small term.
template <class T>
inline Vector<T> celu(Vector<T> z, T alpha) {
  using F = Format<T>;
  using Integer = typename Lanes<T>::Integer;
  constexpr T shift = T(1.5) * power<T>(F::fraction_bits) + F::exponent_bias;
  const Vector<T> inverse = 1 / splat<T>(alpha);
  // alpha ln 2 in two parts; the first has so few bits that its product with k is exact
  const auto [ln2, ln2_rest] = two_product<T>(splat<T>(alpha), splat<T>(F::ln2[0]));
  const Vector<T> first = bit_cast<T>(bit_cast<T>(ln2) & -(Integer{1} << 8));
  const Vector<T> second = (ln2 - first) + (ln2_rest + alpha * F::ln2[1]);
  const Vector<T> x = at_least<T>(at_most<T>(z, 0), -F::one * alpha);
  const Vector<T> shifted = fma(x, F::log2_e * inverse, splat<T>(shift));
  const Vector<T> k = shifted - shift;
  const Vector<T> c = bit_cast<T>(bit_cast<T>(shifted) << F::fraction_bits);
  const Vector<T> v = fma(-k, second, fma(-k, first, x));
  const Vector<T> u = v * inverse;
  const Vector<T> p = fma(v, u * polynomial<T>(F::exp, u), v);
  return z >= 0 ? z : scaled_exp_minus_1<T>(c, p, alpha);
}

}  // namespace jaxneuron::ISA
