// The first derivatives of the activations on vectors, slope::name, of the same arguments as the formula
// `name` of activations.h, and the parts that curvatures.h shares with them.
//
//     sigmoid' = bell(z)                        bell(z) = sigmoid(z) sigmoid(-z),  bell' = -bell tanh(z / 2)
//     tanh'    = 4 bell(2z)
//     silu'    = sigmoid(z) + z bell(z)
//     gelu'    = Phi(z) + z phi(z)              phi(z) = exp(-z^2 / 2) / sqrt(2 pi),  phi' = -z phi
//
// The textbook's y (1 - y) is 0 where y has been rounded to 1. Here each slope is a product of factors that
// keep their relative error far into the tails; where it is a sum, that error is relative to its terms. The
// smaller of sigmoid(z) and sigmoid(-z), and exp, are kept times 2^scale_exponent, as z bell(z) is still a
// normal number where bell(z) is none.
#pragma once

#include "activate.h"

namespace jaxneuron::ISA {

template <class T>
constexpr T UNSCALE = power<T>(-Format<T>::scale_exponent);

// y, and 0 where a >= zero; NaN stays NaN.
template <class T>
inline Vector<T> zero_from(Vector<T> a, T zero, Vector<T> y) {
  return a >= zero ? splat<T>(0) : y;
}

// 1 / (1 + exp(a)) 2^scale, for a >= 0.
template <class T, int scale = Format<T>::scale_exponent>
inline Vector<T> scaled_half(Exp<T> of_a) {
  const Vector<T> c = of_a.c * power<T>(-scale);
  const Vector<T> d = (-1 - c) - of_a.p;
  const Vector<T> d_rest = ((-1 - d) - c) - of_a.p;
  const auto [q, e] = negative_reciprocal<T>(d, d_rest);
  return fma(q, e, q) * of_a.c;
}

template <class T>
inline Vector<T> scaled_half(Vector<T> a) {
  return scaled_half<T>(exp_parts<T, -1, Format<T>::scale_exponent>(a));
}

// bell 2^scale_exponent
template <class T>
inline Vector<T> scaled_bell(Vector<T> half) {
  return half * (1 - half * UNSCALE<T>);
}

// A factor and what else to multiply by: scaled * first * last = scaled * factor * 2^-FAR_SCALE, in an order
// in which only the last product may be subnormal. By FAR_SCALE are scaled what a parameter, of any size, is
// multiplied by.
template <class T>
constexpr int FAR_SCALE = sizeof(T) == 4 ? 100 : 900;
template <class T>
constexpr T FAR = T(1.4) * Format<T>::zero;  // from there on it is 0

template <class T>
struct Factor {
  explicit Factor(T factor)
      : first(factor >= 1 || factor <= -1 ? factor * power<T>(-FAR_SCALE<T>) : factor),
        last(factor >= 1 || factor <= -1 ? 1 : power<T>(-FAR_SCALE<T>)) {}
  Vector<T> operator*(Vector<T> scaled) const { return scaled * first * last; }
  T first;
  T last;
};

// factor exp(min(z, 0))
template <class T>
inline Vector<T> times_exp(Factor<T> factor, Vector<T> z) {
  const auto [c, p] = exp_parts<T, 1, FAR_SCALE<T>>(at_least<T>(at_most<T>(z, 0), -FAR<T>));
  return zero_from<T>(-z, FAR<T>, factor * fma(c, p, c));
}

// factor exp(min(z, 0) / alpha), the quotient in two parts
template <class T>
inline Vector<T> times_exp(Factor<T> factor, Vector<T> z, T alpha) {
  const Vector<T> inverse = 1 / splat<T>(alpha);
  const Vector<T> x = at_least<T>(at_most<T>(z, 0), -FAR<T> * alpha);
  const Vector<T> q = at_least<T>(x * inverse, -FAR<T>);
  const Vector<T> q_rest = residual<T>(q, splat<T>(-alpha), x) * inverse;
  const auto [c, p] = exp_parts<T, 1, FAR_SCALE<T>>(q, q_rest);
  return zero_from<T>(-z, FAR<T> * alpha, factor * fma(c, p, c));
}

// 1 / (1 + exp(|beta z|)) 2^FAR_SCALE, the product in two parts
template <class T>
inline Vector<T> far_half(Vector<T> z, T beta) {
  const auto [x, x_rest] = two_product<T>(z, splat<T>(beta));
  const Vector<T> size = absolute<T>(x);
  const Vector<T> low = size < FAR<T> ? x_rest : splat<T>(0);
  const Vector<T> half = scaled_half<T, FAR_SCALE<T>>(
      exp_parts<T, -1, FAR_SCALE<T>>(at_most<T>(size, FAR<T>), x < 0 ? -low : low));
  return zero_from<T>(size, FAR<T>, half);
}

// A function that is 1 - f(-z), from its value at -|z|
template <class T>
inline Vector<T> either_side(Vector<T> z, Vector<T> below) {
  return z < 0 ? below : 1 - below;
}

// 1 / (1 + a), for a >= 0
template <class T>
inline Vector<T> reciprocal_of_one_more(Vector<T> a) {
  const auto [d, d_rest] = two_sum<T>(splat<T>(1), a);
  const auto [q, e] = negative_reciprocal<T>(-d, -d_rest);
  return fma(q, a < power<T>(60) ? e : splat<T>(0), q);  // from there on e is 0, or NaN
}

// u' = sqrt(8 / pi) + 3 * 0.044715 sqrt(8 / pi) a^2, of exp_of_cubic's u
template <class T>
inline Vector<T> slope_of_cubic(Vector<T> a) {
  using F = Format<T>;
  const auto [square, square_rest] = two_product<T>(a, a);
  constexpr T triple = 3 * F::sqrt_8_pi_cubic[0];
  constexpr T triple_rest = T(3.0L * F::sqrt_8_pi_cubic[0] - triple + 3.0L * F::sqrt_8_pi_cubic[1]);
  const Vector<T> first = fma(square, splat<T>(triple), splat<T>(F::sqrt_8_pi[0]));
  const Vector<T> rest =
      residual<T>(square, splat<T>(triple), F::sqrt_8_pi[0] - first) +
      fma(square, splat<T>(triple_rest), fma(square_rest, splat<T>(triple), splat<T>(F::sqrt_8_pi[1])));
  return first + rest;
}

// mish's parts, from E = exp(z) and e = exp(-|z|). Below 0, with 1 + h = 1 + e + e^2 / 2, what is 1 for small
// e is kept as the difference from it: tanh(softplus(z)) = e (1 - m), its slope e (1 - k), its curvature e (1
// - n). Above, D = 1 + 2 e + 2 e^2.
template <class T>
struct MishParts {
  Vector<T> a;
  Vector<T> e;
  Vector<T> scaled;  // e 2^scale_exponent
  Vector<T> h;
  Vector<T> r;  // 1 / (1 + h) below, 1 / D above
};

template <class T>
inline MishParts<T> mish_parts(Vector<T> z) {
  using F = Format<T>;
  const Vector<T> a = at_most<T>(absolute<T>(z), F::gated_zero);
  const auto [c, p] = exp_parts<T, 1, F::scale_exponent>(-a);
  const Vector<T> scaled = fma(c, p, c);
  const Vector<T> e = scaled * UNSCALE<T>;
  const Vector<T> h = fma(e, T(0.5) * e, e);
  return {a, e, scaled, h, 1 / (z < 0 ? 1 + h : fma(e, fma(e, splat<T>(2), splat<T>(2)), splat<T>(1)))};
}

// 1 - k
template <class T>
inline Vector<T> slope_of_gate(const MishParts<T>& at) {
  const Vector<T> less = fma(-fma(at.h, at.h, fma(at.e, at.e, at.e)) * at.r, at.r, splat<T>(1));
  return at.e > T(0.25) ? (1 + at.e) * at.r * at.r : less;
}

namespace slope {

using ISA::log_softmax;  // of whole rows: directions.h has their derivatives
using ISA::softmax;

template <class T>
inline Vector<T> identity(Vector<T>) {
  return splat<T>(1);
}

template <class T>
inline Vector<T> relu(Vector<T> z) {
  return z > 0 ? splat<T>(1) : splat<T>(0);
}

template <class T>
inline Vector<T> leaky_relu(Vector<T> z, T slope) {
  return z >= 0 ? splat<T>(1) : splat<T>(slope);
}

template <class T>
inline Vector<T> hard_tanh(Vector<T> z, T low, T high) {
  const Vector<T> inside = z > low ? (z < high ? splat<T>(1) : splat<T>(0)) : splat<T>(0);
  // at its ends that of jax.nn, which has a hard_tanh from -1 to 1 alone
  const T at_ends = low == -1 && high == 1 ? 1 : 0;
  return z == low ? splat<T>(at_ends) : z == high ? splat<T>(at_ends) : inside;
}

template <class T>
inline Vector<T> hard_sigmoid(Vector<T> z) {
  return hard_tanh<T>(z, -3, 3) * T(1.0 / 6);
}

// z / 3 + 1 / 2 from -3 to 3
template <class T>
inline Vector<T> hard_swish(Vector<T> z) {
  const Vector<T> middle = fma(z, splat<T>(T(1.0 / 3)), splat<T>(T(0.5)));
  return z <= -3 ? splat<T>(0) : z >= 3 ? splat<T>(1) : middle;
}

template <class T>
inline Vector<T> square(Vector<T> z) {
  return z + z;
}

// 1 / (1 + |z|)^2
template <class T>
inline Vector<T> softsign(Vector<T> z) {
  const Vector<T> r = reciprocal_of_one_more<T>(absolute<T>(z));
  return r * r;
}

// t / sqrt(z^2 + 4), t = squareplus(-|z|), below 0, and 1 less that above
template <class T>
inline Vector<T> squareplus(Vector<T> z) {
  const Vector<T> small = ISA::squareplus<T>(-absolute<T>(z)) / sqrt(fma(z, z, splat<T>(4)));
  return z < 0 ? small : 1 - small;
}

template <class T>
inline Vector<T> exp(Vector<T> z) {
  return ISA::exp<T>(z);
}

template <class T>
inline Vector<T> sigmoid(Vector<T> z) {
  const Vector<T> small = smaller_sigmoid<T>(z);
  return small * (1 - small);
}

template <class T>
inline Vector<T> cr_sigmoid(Vector<T> z) {
  return sigmoid<T>(z);
}

template <class T>
inline Vector<T> tanh(Vector<T> z) {
  const Vector<T> a = absolute<T>(z);
  return scaled_bell<T>(scaled_half<T>(at_most<T>(a + a, Format<T>::gated_zero))) * (4 * UNSCALE<T>);
}

template <class T>
inline Vector<T> cr_tanh(Vector<T> z) {
  return tanh<T>(z);
}

template <class T>
inline Vector<T> silu(Vector<T> z) {
  const Vector<T> a = at_most<T>(absolute<T>(z), Format<T>::gated_zero);
  const Vector<T> half = scaled_half<T>(a);
  return either_side<T>(z, (half - a * scaled_bell<T>(half)) * UNSCALE<T>);
}

// sigmoid(u) + z bell(u) u'
template <class T>
inline Vector<T> gelu_tanh(Vector<T> z) {
  constexpr T zero = Format<T>::gelu_tanh_zero;
  const Vector<T> a = at_most<T>(absolute<T>(z), zero);
  const Vector<T> half = scaled_half<T>(exp_of_cubic<T>(a));
  const Vector<T> below = half - (a * slope_of_cubic<T>(a)) * scaled_bell<T>(half);
  return either_side<T>(z, zero_from<T>(a, zero, below * UNSCALE<T>));
}

constexpr long double INVERSE_ROOT_2_PI = 0.398942280401432677939946059934381868L;

template <class T>
inline Vector<T> gelu(Vector<T> z) {
  if constexpr (sizeof(T) == 4 && !has_fma) return by_double<gelu<double>>(z);
  constexpr T zero = Format<T>::gelu_zero;
  const Vector<T> a = at_most<T>(absolute<T>(z), zero);
  const NormalTail<T> tail = normal_tail<T>(a);
  const Vector<T> half = T(0.5) * fma(tail.q, tail.y, tail.q * tail.y_rest);
  const Vector<T> below = tail.c * (half - a * ((1 + tail.p) * T(INVERSE_ROOT_2_PI)));
  return either_side<T>(z, zero_from<T>(a, zero, below * UNSCALE<T>));
}

template <class T>
inline Vector<T> softplus(Vector<T> z) {
  return ISA::sigmoid<T>(z);
}

template <class T>
inline Vector<T> log_sigmoid(Vector<T> z) {
  return ISA::sigmoid<T>(-z);
}

// w + z w' for w = tanh(softplus(z)): with E = exp(z), w = E (2 + E) / D and w' = 4 E (1 + E) / D^2
template <class T>
inline Vector<T> mish(Vector<T> z) {
  if constexpr (sizeof(T) == 4 && !has_fma) return by_double<mish<double>>(z);
  const MishParts<T> at = mish_parts<T>(z);
  const Vector<T> gate = fma(-fma(at.e, T(0.5) * at.e, T(0.5) * at.e), at.r, splat<T>(1));  // 1 - m
  const Vector<T> below = fma(-at.a, slope_of_gate<T>(at), gate) * at.scaled * UNSCALE<T>;
  // 1 + e^2 (4 z (1 + e) - 2 D) / D^2
  const Vector<T> above = 1 + (4 * at.a * (1 + at.e) * at.r - 2) * at.r * (at.e * at.e);
  return z < 0 ? below : above;
}

template <class T>
inline Vector<T> scaled_elu(Vector<T> z, T alpha) {
  return z > 0 ? splat<T>(1) : times_exp<T>(Factor<T>(alpha), z);
}

template <class T>
inline Vector<T> elu(Vector<T> z) {
  return scaled_elu<T>(z, 1);
}

template <class T>
inline Vector<T> selu(Vector<T> z) {
  return z > 0 ? splat<T>(Format<T>::selu_scale[0]) : scaled_elu<T>(z, Format<T>::selu_full[0]);
}

template <class T>
inline Vector<T> celu(Vector<T> z, T alpha) {
  return z > 0 ? splat<T>(1) : times_exp<T>(Factor<T>(1), z, alpha);
}

template <class T>
inline Vector<T> scaled_softplus(Vector<T> z, T beta) {
  return either_side<T>(z * beta, far_half<T>(z, beta) * power<T>(-FAR_SCALE<T>));
}

template <class T>
inline Vector<T> sin(Vector<T> z, T frequency) {
  return frequency * sine<T, true>(z, frequency);
}

}  // namespace slope

}  // namespace jaxneuron::ISA
