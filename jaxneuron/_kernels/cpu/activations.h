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
  return z >= 0 ? z : T(0.01) * z;
}

template <class T>
inline Vector<T> hard_sigmoid(Vector<T> z) {
  return at_most<T>(at_least<T>(z + 3, 0), 6) * T(1.0 / 6);
}

// 1 / (1 + exp(-z)), from the smaller of sigmoid(z) and sigmoid(-z)
template <class T>
inline Vector<T> sigmoid(Vector<T> z) {
  const auto [c, q, e] = smaller_half<T>(at_most<T>(absolute<T>(z), Format<T>::zero));
  const Vector<T> small = fma(q, e, q) * c * power<T>(-Format<T>::up);
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
  const Vector<T> large = 1 - c / fma(c, all<T>(T(0.5)), 1 + p);
  const Vector<T> square = z * z;
  const Vector<T> small = fma(z * square, polynomial<T>(Format<T>::tanh, square), z);
  return a < T(0.55) ? small : with_sign<T>(large, z);
}

// z sigmoid(z), from the smaller of it and -z sigmoid(-z)
template <class T>
inline Vector<T> silu(Vector<T> z) {
  const Vector<T> a = at_most<T>(absolute<T>(z), Format<T>::gated_zero);
  const auto [c, q, e] = smaller_half<T>(a);
  const Vector<T> y = a * q;
  const Vector<T> y_rest = fma(y, e, -residual<T>(a, q, y));
  const Vector<T> small = (y + y_rest) * c * power<T>(-Format<T>::up);
  return at_least<T>(z, T(-0.0)) - small;
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
    default:
      return;
  }
}

}  // namespace jaxneuron::ISA
