// The activations on vectors, within the bounds of jaxneuron/_activations.py: the mathematics of each.
#pragma once

#include "arithmetic.h"
#include "network.h"

namespace jaxneuron::ISA {

template <class T>
inline Vector<T> identity(Vector<T> z) {
  return z;
}

template <class T>
inline Vector<T> relu(Vector<T> z) {
  return at_least<T>(z, 0);
}

template <class T>
inline Vector<T> leaky_relu(Vector<T> z) {
  return greater(z, T(0.01) * z);
}

template <class T>
inline Vector<T> hard_sigmoid(Vector<T> z) {
  return at_most<T>(at_least<T>(z + 3, 0), 6) * T(1.0 / 6);
}

// 1 / (1 + exp(-z)), from the smaller of sigmoid(z) and sigmoid(-z): c / d, d = 1 + exp(u) + c, c = 2^k
template <class T>
inline Vector<T> sigmoid(Vector<T> z) {
  constexpr T one = -power<T>(Format<T>::up);  // scales all parts of d, so that c is never subnormal
  const auto [c, u, unused] = reduced<T, -1, Format<T>::up>(at_most<T>(absolute<T>(z), Format<T>::zero));
  const Vector<T> first = u * one, tail = first * u * polynomial<T>(Format<T>::exp, u);
  const Vector<T> d = (one - c) + (first + tail), d_rest = ((one - d) - c) + first + tail;
  const Vector<T> q = -1 / d, e = fma(q, d_rest, residual<T>(q, d, all<T>(1)));
  const Vector<T> small = fma(q, e, q) * c;
  return z < 0 ? small : 1 - small;
}

// sigmoid of 16-bit numbers, never in the middle of two: near 0 it is less a little, as is the exact value
template <class T>
inline Vector<T> sigmoid_16(Vector<T> z) {
  return absolute<T>(z) < power<T>(-5) ? fma(z, all<T>(T(0.25) - power<T>(-14)), all<T>(T(0.5)))
                                       : sigmoid<T>(z);
}

// z + z^3 TANH(z^2), and 1 - 2 / (1 + exp(2z)) for large z
template <class T>
inline Vector<T> tanh(Vector<T> z) {
  const Vector<T> a = absolute<T>(z);
  const auto [c, p] = exp_parts<T, -1, 1>(at_most<T>(a + a, Format<T>::one));
  const Vector<T> large = 1 - c / (fma(c, all<T>(T(0.5)), all<T>(1)) + p);
  const Vector<T> square = a * a;
  const Vector<T> small = fma(a * square, polynomial<T>(Format<T>::tanh, square), a);
  return with_sign<T>(a < T(0.55) ? small : large, z);
}

// max(z, 0) - x / (1 + exp(a + low)), for x = |z| and gates, functions that are 1 - gate(-z)
template <class T, class... Low>
inline Vector<T> gated(Vector<T> z, Vector<T> x, Vector<T> a, Low... low) {
  const auto [scaled, p] = exp_parts<T, -1, Format<T>::up>(a, low...);
  const Vector<T> c = scaled * power<T>(-Format<T>::up);
  const Vector<T> d = (-1 - c) - p, d_rest = ((-1 - d) - c) - p;
  const Vector<T> q = -1 / d, e = fma(q, d_rest, residual<T>(q, d, all<T>(1)));
  return at_least<T>(z, T(-0.0)) - product_and_rest<T>(x, q, x * q * e) * scaled * power<T>(-Format<T>::up);
}

// z sigmoid(z)
template <class T>
inline Vector<T> silu(Vector<T> z) {
  const Vector<T> a = at_most<T>(absolute<T>(z), Format<T>::gated_zero);
  return gated<T>(z, a, a);
}

// z sigmoid(u), u = sqrt(8 / pi) (z + 0.044715 z^3) = z k
template <class T>
inline Vector<T> gelu_tanh(Vector<T> z) {
  constexpr T k1 = T(1.595703125), k1_rest = T(1.5957691216057308 - 1.595703125 - 9.96930880911092e-17);
  constexpr T k3 = T(0.07135481627260025),
              k3_rest = T(0.07135481627260025 - double(k3) - 6.175149918155315e-19);
  const Vector<T> a = at_most<T>(absolute<T>(z), Format<T>::gelu_tanh_zero);
  const Vector<T> square = a * a, square_rest = residual<T>(a, a, -square);
  const Vector<T> k = fma(square, all<T>(k3), all<T>(k1));
  const Vector<T> k_rest = residual<T>(square, all<T>(k3), k1 - k) +
                           fma(square, all<T>(k3_rest), fma(square_rest, all<T>(k3), all<T>(k1_rest)));
  const Vector<T> u = a * k;
  return gated<T>(z, a, u, fma(a, k_rest, residual<T>(a, k, -u)));
}

// The float nearest to function(z), by two vectors of double.
template <Vector<double> function(Vector<double>)>
inline Vector<float> by_double(Vector<float> z) {
  typedef float Half __attribute__((vector_size(BYTES / 2)));
  Half halves[2];
  std::memcpy(halves, &z, sizeof z);
  for (Half& half : halves) {
    half = __builtin_convertvector(function(__builtin_convertvector(half, Vector<double>)), Half);
  }
  std::memcpy(&z, halves, sizeof z);
  return z;
}

// z/2 erfc(-z / sqrt(2)), from a/2 erfc(a / sqrt(2)) = a/2 exp(-a^2/2) (13/16 + t GELU) / (13/16 + a)
template <class T>
inline Vector<T> gelu(Vector<T> z) {
  if constexpr (sizeof(T) == 4 && !has_fma)
    return by_double<gelu<double>>(z);  // its polynomial loses too much
  constexpr T place = T(13.0 / 16);
  const Vector<T> a = at_most<T>(absolute<T>(z), Format<T>::gelu_zero);
  const Vector<T> h = T(-0.5) * a, square = h * a;
  const auto [c, u, rest] = reduced<T, 1, Format<T>::up>(square, residual<T>(h, a, -square));
  const Vector<T> tail = u * u * polynomial<T>(Format<T>::exp, u);
  const Vector<T> d = -place - a, d_rest = -place - d - a;
  const Vector<T> q = -1 / d, e = fma(q, d_rest, residual<T>(q, d, all<T>(T(1))));
  const Vector<T> t = a / (a + 4);
  const Vector<T> scale = fma(t, polynomial<T>(Format<T>::gelu, t - T(0.375)), all<T>(place - 1));
  // (1 + u + tail) (1 + e) (1 + scale) = 1 + u + s
  const Vector<T> s = fma(1 + (u + tail), scale + fma(scale, e, e), tail);
  const Vector<T> y = 1 + (u + s), y_rest = ((1 - y) + u) + s;
  const Vector<T> x = a * q, x_rest = residual<T>(a, q, -x);
  const Vector<T> small = product_and_rest<T>(x, y, fma(x, y_rest, x_rest * y));
  return at_least<T>(z, T(-0.0)) - small * c * power<T>(-Format<T>::up - 1);
}

// max(z, 0) + log1p(x), x = exp(-|z|), where log1p(x) = ln 2 + log1p((x - 1) / 2) for x > 1/2 and
// log1p(f) = f + s (s^2 LOG(s^2) - f), s = f / (2 + f)
template <class T>
inline Vector<T> softplus(Vector<T> z) {
  constexpr double ln2 = 0.6931471805599453, ln2_rest = 2.3190468138462996e-17;
  const Vector<T> a = at_most<T>(absolute<T>(z), Format<T>::zero);
  const auto [scaled, u, unused] = reduced<T, 1, Format<T>::up>(-a);
  const Vector<T> tail = u * u * polynomial<T>(Format<T>::exp, u), p = u + tail, p_rest = tail - (p - u);
  const auto large = a < T(0.6931472);
  const Vector<T> unscaled = scaled * power<T>(-Format<T>::up);
  const Vector<T> c = large ? T(0.5) * unscaled : unscaled, c_part = large ? c - T(0.5) : c;
  const Vector<T> f = fma(c, p, c_part), f_rest = fma(c, p_rest, fma(c, p, c_part - f));
  const Vector<T> s = f / (2 + f), square = s * s;
  const Vector<T> slope = fma(square, polynomial<T>(Format<T>::log, square), -f);
  const Vector<T> base = large ? all<T>(T(ln2)) : all<T>(0);
  const Vector<T> base_rest = large ? f_rest + T(ln2 - double(T(ln2)) + ln2_rest) : f_rest;
  const Vector<T> log = base + f, log_rest = f - (log - base);
  const Vector<T> rest = fma(s, fma(f_rest, all<T>(-2), slope), base_rest) + log_rest;
  // The two larger terms, their sum, its error: all else is small, and is rounded once with it.
  const Vector<T> positive = at_least<T>(z, 0);
  const Vector<T> larger = greater(positive, log), smaller = lesser(positive, log), sum = larger + smaller;
  return greater(sum + ((smaller - (sum - larger)) + rest), z);
}

// z, and exp(z) - 1 below 0
template <class T>
inline Vector<T> elu(Vector<T> z) {
  const auto [c, p] = exp_parts<T, 1>(at_least<T>(at_most<T>(z, 0), -Format<T>::one));
  return z > -power<T>(-Format<T>::digits - 2) ? z : fma(c, p, c - 1);
}

// 1.0507 z, and 1.7581 (exp(z) - 1) below 0
template <class T>
inline Vector<T> selu(Vector<T> z) {
  constexpr double full = 1.7580993408473768, full_scale = 1.0507009873554805;
  constexpr T alpha = T(full), scale = sizeof(T) == 4 ? T(1.0507009029388428) : T(full_scale);  // cut off
  constexpr T scale_rest = T(full_scale - double(scale) + 3.9874847667154144e-17);
  const auto [c, u, rest] = reduced<T, 1>(at_least<T>(at_most<T>(z, 0), -Format<T>::one));
  const Vector<T> tail = fma(u, alpha * polynomial<T>(Format<T>::exp, u), all<T>(T(full - double(alpha))));
  const Vector<T> p = product_and_rest<T>(u, all<T>(alpha), u * tail);
  const Vector<T> positive = fma(z, all<T>(scale), z * scale_rest);
  // exp(z) itself less a rounded number where it is below 1/2; else with all digits of exp(z) - 1
  const auto far = c < T(0.5);
  const Vector<T> start = far ? all<T>(-alpha) : fma(c, all<T>(alpha), all<T>(-alpha));
  return z > 0 ? positive : fma(c, far ? p + alpha : p, start);
}

// exp(z - greatest), with the rounding error of the difference
template <class T>
inline Vector<T> exp_of_difference(Vector<T> z, Vector<T> greatest) {
  const Vector<T> d = z - greatest, z_part = d + greatest;
  const Vector<T> error = (z - z_part) - (greatest + (d - z_part));
  const auto [c, p] = exp_parts<T, 1, Format<T>::up>(at_least<T>(d, -Format<T>::zero),
                                                     d < -Format<T>::zero ? all<T>(0) : error);
  return fma(c, p, c) * power<T>(-Format<T>::up);
}

// sigmoid of a float. Near 0 the difference from 1/2 is rounded to float's digits, by the series: added to
// 1/2 it would lose the digits that tell which way a tie goes.
inline Vector<double> sigmoid_of_float(Vector<double> z) {
  const Vector<double> a = absolute<double>(z), square = z * z;
  const auto [c, p] = exp_parts<double, -1>(at_most<double>(a, Format<float>::zero));
  const Vector<double> small = c / ((1 + p) + c);
  const Vector<double> slope = 0.25 - square * (1.0 / 48 - square * (1.0 / 480));
  const Vector<double> shift = z < 0 ? all<double>(0x1.8p27) : all<double>(0x1.8p28);  // no place for less
  const Vector<double> near_0 = 0.5 + (fma(z, slope, shift) - shift);
  return a < 0x1p-8 ? near_0 : z < 0 ? small : 1 - small;
}

// sigmoid with more parts of exp, of the denominator and of the larger half: each result is rounded once
inline Vector<double> sigmoid_in_parts(Vector<double> z) {
  using F = Format<double>;
  const auto [scaled, u, u_rest] = reduced<double, -1, F::up>(at_most<double>(absolute<double>(z), F::zero));
  // exp(u) = 1 + u + u^2/2 + u^3 EXP
  const Vector<double> square = 0.5 * u * u, square_rest = residual<double>(0.5 * u, u, -square);
  const Vector<double> cubic = 2 * square * u * polynomial<double, 12, 1>(F::exp, u);
  const Vector<double> rest = fma(u_rest, 1 + u, square_rest + cubic);
  const Vector<double> c = scaled * power<double>(-F::up), first = 1 + c;
  const Vector<double> d = first + (u + (square + rest));
  const Vector<double> d_rest = ((first - d) + u + square) + (rest + (c - (first - 1)));
  const Vector<double> q = -1 / d, e = fma(q, d_rest, residual<double>(q, d, all<double>(1)));
  const Vector<double> y = -power<double>(-F::up) * q, half = y * scaled;
  const Vector<double> large = 1 - half, large_rest = (1 - large) - half;
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

template <class T, Vector<T> function(Vector<T>)>
__attribute__((flatten)) void apply(T* y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; i += lanes<T>) store<T>(y + i, function(load<T>(y + i)));
}

// y = activation(y) for n numbers, a multiple of lanes<T>; narrow: they are to be rounded to 16 bits
template <class T>
inline void activate(Activation activation, bool narrow, T* y, std::int64_t n) {
  switch (activation) {
    case Activation::identity:
    case Activation::softmax:
      return;
    case Activation::relu:
      return apply<T, relu<T>>(y, n);
    case Activation::leaky_relu:
      return apply<T, leaky_relu<T>>(y, n);
    case Activation::hard_sigmoid:
      return apply<T, hard_sigmoid<T>>(y, n);
    case Activation::sigmoid:
      return narrow ? apply<T, sigmoid_16<T>>(y, n) : apply<T, sigmoid<T>>(y, n);
    case Activation::tanh:
      return apply<T, tanh<T>>(y, n);
    case Activation::silu:
      return apply<T, silu<T>>(y, n);
    case Activation::cr_sigmoid:
      return narrow ? apply<T, sigmoid_16<T>>(y, n) : apply<T, cr_sigmoid<T>>(y, n);
    case Activation::cr_tanh:
      return apply<T, cr_tanh<T>>(y, n);
    case Activation::gelu:
      return apply<T, gelu<T>>(y, n);
    case Activation::gelu_tanh:
      return apply<T, gelu_tanh<T>>(y, n);
    case Activation::softplus:
      return apply<T, softplus<T>>(y, n);
    case Activation::elu:
      return apply<T, elu<T>>(y, n);
    case Activation::selu:
      return apply<T, selu<T>>(y, n);
  }
}

}  // namespace jaxneuron::ISA
