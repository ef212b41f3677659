// The second derivatives of the activations, on vectors. curvature::name takes the same arguments as the
// formula `name` of activations.h. slopes.h has the first derivatives, and the symbols used here.
#pragma once

#include "slopes.h"

namespace jaxneuron::ISA {

namespace curvature {

using ISA::log_softmax;
using ISA::softmax;

template <class T>
inline Vector<T> identity(Vector<T>) {
  return splat<T>(0);
}

template <class T>
inline Vector<T> relu(Vector<T>) {
  return splat<T>(0);
}

template <class T>
inline Vector<T> leaky_relu(Vector<T>, T) {
  return splat<T>(0);
}

template <class T>
inline Vector<T> hard_tanh(Vector<T>, T, T) {
  return splat<T>(0);
}

template <class T>
inline Vector<T> hard_sigmoid(Vector<T>) {
  return splat<T>(0);
}

template <class T>
inline Vector<T> hard_swish(Vector<T> z) {
  return z <= -3 ? splat<T>(0) : z >= 3 ? splat<T>(0) : splat<T>(T(1.0 / 3));
}

template <class T>
inline Vector<T> square(Vector<T>) {
  return splat<T>(2);
}

// -2 sign(z) / (1 + |z|)^3
template <class T>
inline Vector<T> softsign(Vector<T> z) {
  const Vector<T> r = reciprocal_of_one_more<T>(absolute<T>(z));
  const Vector<T> size = 2 * r * r * r;
  return z > 0 ? -size : z < 0 ? size : z;
}

template <class T>
inline Vector<T> squareplus(Vector<T> z) {
  const Vector<T> square = fma(z, z, splat<T>(4));
  return 2 / (square * sqrt(square));
}

template <class T>
inline Vector<T> exp(Vector<T> z) {
  return ISA::exp<T>(z);
}

template <class T>
inline Vector<T> sigmoid(Vector<T> z) {
  return -slope::sigmoid<T>(z) * ISA::tanh<T>(T(0.5) * z);
}

template <class T>
inline Vector<T> cr_sigmoid(Vector<T> z) {
  return sigmoid<T>(z);
}

template <class T>
inline Vector<T> tanh(Vector<T> z) {
  return -2 * slope::tanh<T>(z) * ISA::tanh<T>(z);
}

template <class T>
inline Vector<T> cr_tanh(Vector<T> z) {
  return tanh<T>(z);
}

// bell (2 - z tanh(z / 2))
template <class T>
inline Vector<T> silu(Vector<T> z) {
  const Vector<T> a = at_most<T>(absolute<T>(z), Format<T>::gated_zero);
  const Vector<T> half = scaled_half<T>(a);
  return scaled_bell<T>(half) * (2 - a * (1 - half * (2 * UNSCALE<T>))) * UNSCALE<T>;
}

// bell(u) (2 u' + z u'' - z u'^2 tanh(u / 2))
template <class T>
inline Vector<T> gelu_tanh(Vector<T> z) {
  using F = Format<T>;
  constexpr T zero = F::gelu_tanh_zero;
  constexpr T first = T(2.0L * F::sqrt_8_pi[0] + 2.0L * F::sqrt_8_pi[1]);
  constexpr T second = T(12.0L * F::sqrt_8_pi_cubic[0] + 12.0L * F::sqrt_8_pi_cubic[1]);
  const Vector<T> a = at_most<T>(absolute<T>(z), zero);
  const Vector<T> half = scaled_half<T>(exp_of_cubic<T>(a));
  const Vector<T> slope = slope_of_cubic<T>(a);
  const Vector<T> bent = a * (slope * slope) * (1 - half * (2 * UNSCALE<T>));
  const Vector<T> terms = fma(a * a, splat<T>(second), splat<T>(first)) - bent;
  return zero_from<T>(a, zero, scaled_bell<T>(half) * terms * UNSCALE<T>);
}

// phi(z) (2 - z^2)
template <class T>
inline Vector<T> gelu(Vector<T> z) {
  if constexpr (sizeof(T) == 4 && !has_fma) return by_double<gelu<double>>(z);
  constexpr T zero = Format<T>::gelu_zero;
  const Vector<T> a = at_most<T>(absolute<T>(z), zero);
  const NormalTail<T> tail = normal_tail<T>(a);
  const Vector<T> phi = tail.c * ((1 + tail.p) * T(slope::INVERSE_ROOT_2_PI));
  return zero_from<T>(a, zero, phi * fma(-a, a, splat<T>(2)) * UNSCALE<T>);
}

template <class T>
inline Vector<T> softplus(Vector<T> z) {
  return slope::sigmoid<T>(z);
}

template <class T>
inline Vector<T> log_sigmoid(Vector<T> z) {
  return -slope::sigmoid<T>(z);
}

// 2 w' + z w'', where w'' = 4 E (2 + 2 E - 3 E^2 - 2 E^3) / Q^3; see slope::mish
template <class T>
inline Vector<T> mish(Vector<T> z) {
  if constexpr (sizeof(T) == 4 && !has_fma) return by_double<mish<double>>(z);
  const MishParts<T> at = mish_parts<T>(z);
  const auto [a, e, scaled, h, r] = at;
  // n (1 + h)^3 = 2 e + 3 e^2 + e^3 + h^2 (3 + h)
  const Vector<T> n = fma(h * h, 3 + h, e * fma(e, e + 3, splat<T>(2)));
  const Vector<T> bend = fma(-n * r * r, r, splat<T>(1));
  const Vector<T> below = fma(-a, bend, 2 * slope_of_gate<T>(at)) * scaled * UNSCALE<T>;
  // 4 e^2 (2 (1 + e) D - z (2 + 3 e - 2 e^2 - 2 e^3)) / D^3
  const Vector<T> cubic = fma(e, fma(e, fma(e, splat<T>(-2), splat<T>(-2)), splat<T>(3)), splat<T>(2));
  const Vector<T> above = 4 * (2 * (1 + e) - a * cubic * r) * r * r * (scaled * e) * UNSCALE<T>;
  return z < 0 ? below : above;
}

template <class T>
inline Vector<T> scaled_elu(Vector<T> z, T alpha) {
  return z > 0 ? splat<T>(0) : slope::scaled_elu<T>(z, alpha);
}

template <class T>
inline Vector<T> elu(Vector<T> z) {
  return scaled_elu<T>(z, 1);
}

template <class T>
inline Vector<T> selu(Vector<T> z) {
  return z > 0 ? splat<T>(0) : slope::selu<T>(z);
}

template <class T>
inline Vector<T> celu(Vector<T> z, T alpha) {
  return z > 0 ? splat<T>(0) : times_exp<T>(Factor<T>(1 / alpha), z, alpha);
}

template <class T>
inline Vector<T> scaled_softplus(Vector<T> z, T beta) {
  const Vector<T> half = far_half<T>(z, beta);
  return Factor<T>(beta) * (half * (1 - half * power<T>(-FAR_SCALE<T>)));
}

template <class T>
inline Vector<T> sin(Vector<T> z, T frequency) {
  return -frequency * frequency * ISA::sin<T>(z, frequency);
}

}  // namespace curvature

}  // namespace jaxneuron::ISA
