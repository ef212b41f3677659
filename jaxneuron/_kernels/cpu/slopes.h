// The first derivatives of the activations, on vectors. slope::name takes the same arguments as the formula
// `name` of activations.h. This file also has the parts that curvatures.h shares.
//
//     sigmoid' = bell(z)                        bell(z) = sigmoid(z) sigmoid(-z),  bell' = -bell tanh(z / 2)
//     tanh'    = 4 bell(2z)
//     silu'    = sigmoid(z) + z bell(z)
//     gelu'    = Phi(z) + z phi(z)              phi(z) = exp(-z^2 / 2) / sqrt(2 pi),  phi' = -z phi
//
// The textbook's y (1 - y) is 0 where y has been rounded to 1. Here each slope is a product of factors whose
// relative error stays small far into the tails; where a slope is a sum, the error is small relative to its
// terms. Far out bell(z) is subnormal while z bell(z) is still a normal number. Therefore exp, and the
// smaller of sigmoid(z) and sigmoid(-z), are kept multiplied by 2^scale_exponent.
#pragma once

#include "activate.h"

namespace jaxneuron::ISA {

template <class T>
constexpr T UNSCALE = power<T>(-Format<T>::scale_exponent);

// Returns y, but 0 where a >= zero. If a is NaN, it returns y.
template <class T>
inline Vector<T> zero_from(Vector<T> a, T zero, Vector<T> y) {
  return a >= zero ? splat<T>(0) : y;
}

// 1 / (1 + exp(a)) times 2^scale, for a >= 0
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

// bell times 2^scale_exponent, from half, which is scaled_half
template <class T>
inline Vector<T> scaled_bell(Vector<T> half) {
  return half * (1 - half * UNSCALE<T>);
}

// A parameter of an activation may be as large as 1e37. A number that it multiplies is therefore kept
// multiplied by 2^FAR_SCALE. `Factor` removes that scale: scaled * first * last = scaled * factor *
// 2^-FAR_SCALE, in an order in which only the last product may be subnormal.
template <class T>
constexpr int FAR_SCALE = sizeof(T) == 4 ? 126 : 900;
template <class T>
constexpr T FAR = T(1.67) * Format<T>::zero;  // from here on 1e37 exp(-a) is taken as 0

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

// factor exp(min(z, 0) / alpha); the quotient is kept as the sum of two numbers
template <class T>
inline Vector<T> times_exp(Factor<T> factor, Vector<T> z, T alpha) {
  const Vector<T> inverse = 1 / splat<T>(alpha);
  const Vector<T> x = at_least<T>(at_most<T>(z, 0), -FAR<T> * alpha);
  const Vector<T> q = at_least<T>(x * inverse, -FAR<T>);
  const Vector<T> q_rest = residual<T>(q, splat<T>(-alpha), x) * inverse;
  const auto [c, p] = exp_parts<T, 1, FAR_SCALE<T>>(q, q_rest);
  return zero_from<T>(-z, FAR<T> * alpha, factor * fma(c, p, c));
}

// 1 / (1 + exp(|beta z|)) times 2^FAR_SCALE; the product beta z is kept as the sum of two numbers
template <class T>
inline Vector<T> far_half(Vector<T> z, T beta) {
  const auto [x, x_rest] = two_product<T>(z, splat<T>(beta));
  const Vector<T> size = absolute<T>(x);
  const Vector<T> low = size < FAR<T> ? x_rest : splat<T>(0);
  const Vector<T> half = scaled_half<T, FAR_SCALE<T>>(
      exp_parts<T, -1, FAR_SCALE<T>>(at_most<T>(size, FAR<T>), x < 0 ? -low : low));
  return zero_from<T>(size, FAR<T>, half);
}

// f(z) of a function for which f(z) = 1 - f(-z), from below = f(-|z|)
template <class T>
inline Vector<T> either_side(Vector<T> z, Vector<T> below) {
  return z < 0 ? below : 1 - below;
}

// 1 / (1 + a), for a >= 0
template <class T>
inline Vector<T> reciprocal_of_one_more(Vector<T> a) {
  const auto [d, d_rest] = two_sum<T>(splat<T>(1), a);
  const auto [q, e] = negative_reciprocal<T>(-d, -d_rest);
  return fma(q, a < power<T>(60) ? e : splat<T>(0), q);  // for larger a, e is 0 or NaN
}

// u' = sqrt(8 / pi) + 3 * 0.044715 sqrt(8 / pi) a^2, the derivative of u in exp_of_cubic
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

// The parts of mish's derivatives, from E = exp(z) and e = exp(-|z|). For z < 0, with h = e + e^2 / 2:
//
//     tanh(softplus(z)) = e (1 - m),  its slope = e (1 - k),  its curvature = e (1 - n)
//
// m, k and n are small if e is small, so the formulas compute them and subtract them from 1. For z >= 0,
// D = 1 + 2 e + 2 e^2.
template <class T>
struct MishParts {
  Vector<T> a;
  Vector<T> e;
  Vector<T> scaled;  // e times 2^scale_exponent
  Vector<T> h;
  Vector<T> r;  // 1 / (1 + h) for z < 0, 1 / D for z >= 0
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

using ISA::log_softmax;  // these take whole rows: directions.h has their derivatives
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
  // At both ends the slope is the one that jax.nn gives its hard_tanh, which is from -1 to 1.
  const T at_ends = low == -1 && high == 1 ? 1 : 0;
  return z == low ? splat<T>(at_ends) : z == high ? splat<T>(at_ends) : inside;
}

template <class T>
inline Vector<T> hard_sigmoid(Vector<T> z) {
  return hard_tanh<T>(z, -3, 3) * T(1.0 / 6);
}

// z / 3 + 1 / 2 from -3 to 3, 0 below and 1 above
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

// s = squareplus(-|z|) / sqrt(z^2 + 4) for z < 0, 1 - s for z >= 0
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

// w + z w' for w = tanh(softplus(z)). With E = exp(z) and Q = 2 + 2 E + E^2, w = E (2 + E) / Q and
// w' = 4 E (1 + E) / Q^2; Q = D E^2.
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
