// One pass of an activation over a tile.
#pragma once

#include <type_traits>

#include "activations.h"
#include "network.h"
#include "stored.h"

namespace jaxneuron::ISA {

// These take whole rows (is_of_rows in network.h) and have no formula for one number. kernel.h computes them;
// the macro below needs their names.
template <class T>
Vector<T> softmax(Vector<T> z);
template <class T>
Vector<T> log_softmax(Vector<T> z);

// The formula for results that will be rounded to 16 bits: the same one, except for sigmoids.
template <class T, Vector<T> formula(Vector<T>)>
constexpr auto FOR_16_BITS = formula;
template <>
constexpr auto FOR_16_BITS<float, sigmoid<float>> = sigmoid_16<float>;
template <>
constexpr auto FOR_16_BITS<float, cr_sigmoid<float>> = sigmoid_16<float>;

// Computes y = formula(z, parameters...) for n numbers, a multiple of lanes<T>. y may be z.
template <class T, auto formula, class... Parameters>
__attribute__((flatten)) void apply(const T* z, T* y, std::int64_t n, Parameters... parameters) {
  for (std::int64_t i = 0; i < n; i += lanes<T>) store<T>(y + i, formula(load<T>(z + i), parameters...));
}

// Whether there is a quicker way to the same bfloat16 numbers than a formula.
template <auto formula>
constexpr bool HAS_QUICK = false;
template <>
constexpr bool HAS_QUICK<sigmoid_16<float>> = has_fma;

// The quick sigmoid, 1 / (1 + exp(-z)) without further parts, differs from sigmoid_16 by at most QUICK_ERROR
// ULP for |z| <= QUICK_SIGMOID. Every float was tried.
constexpr std::int32_t QUICK_ERROR = 2;
constexpr float QUICK_SIGMOID = 87;

// Does what apply<float, sigmoid_16<float>> does, in 0.6 of its time. The results differ from it by up to
// QUICK_ERROR ULP, but are rounded to the same bfloat16 numbers. y must not be z.
//
// This is Ziv's test (Fast evaluation of elementary mathematical functions with correctly rounded last bit,
// 1991). A quick result that is farther than QUICK_ERROR from every midpoint between two bfloat16 numbers is
// rounded as the accurate result would be. If a block of numbers has another result, or an input beyond
// QUICK_SIGMOID, it is computed again by the accurate formula: about one in 64 blocks of 128 numbers.
__attribute__((flatten)) inline void apply_quick_sigmoid(const float* z, float* y, std::int64_t n) {
  constexpr std::int64_t BLOCK = 8 * lanes<float>;
  constexpr std::int32_t NEAR = 4;  // a power of 2
  static_assert(NEAR > QUICK_ERROR);
  for (std::int64_t i = 0; i < n; i += BLOCK) {
    const std::int64_t end = min(i + BLOCK, n);
    for (std::int64_t k = i; k < end; k += lanes<float>) {
      const auto [c, p] = exp_parts<float, 1>(-load(z + k));
      store<float>(y + k, fma(c, p, c));
    }
    Integers<float> least_distance = Integers<float>{} + 1;
    Integers<float> greatest_size{};
    for (std::int64_t k = i; k < end; k += lanes<float>) {  // loops of their own hide the latency better
      const Vector<float> quick = or_near_0<float>(load(z + k), 1 / (load(y + k) + 1));
      store<float>(y + k, quick);
      // The low 16 bits will be rounded off; 0x8000 is a midpoint. 0 if they are within NEAR of it.
      const Integers<float> distance = (bit_cast<float>(quick) + (0x8000 + NEAR)) & (0xffff & -(2 * NEAR));
      const Integers<float> size = bit_cast<float>(absolute<float>(load(z + k)));
      least_distance = distance < least_distance ? distance : least_distance;
      greatest_size = size > greatest_size ? size : greatest_size;
    }
    if (__builtin_expect(
            any<float>((least_distance == 0) | (greatest_size > bit_cast<float>(splat(QUICK_SIGMOID)))), 0))
      apply<float, sigmoid_16<float>>(z + i, y + i, end - i);
  }
}

// Computes a layer's activation of n numbers z, a multiple of lanes<T>, for results that will be rounded to
// the format S. Returns where the results are: y, or z if they equal z (identity, or a softmax that kernel.h
// has computed). y may be z, except in BFloat16.
template <class S, class T = typename S::Number>
inline const T* activate(const Layer& layer, const T* z, T* y, std::int64_t n) {
  const T first = layer.parameters[0];
  const T second = layer.parameters[1];
  switch (layer.activation) {
#define CASE(name, parameters, of_rows)                                                   \
  case Activation::name:                                                                  \
    if constexpr (of_rows || Activation::name == Activation::identity)                    \
      return z;                                                                           \
    else if constexpr (parameters == 2)                                                   \
      apply<T, name<T>>(z, y, n, first, second);                                          \
    else if constexpr (parameters == 1)                                                   \
      apply<T, name<T>>(z, y, n, first);                                                  \
    else if constexpr (!S::is_16_bit)                                                     \
      apply<T, name<T>>(z, y, n);                                                         \
    else if constexpr (std::is_same_v<S, BFloat16> && HAS_QUICK<FOR_16_BITS<T, name<T>>>) \
      apply_quick_sigmoid(z, y, n);                                                       \
    else                                                                                  \
      apply<T, FOR_16_BITS<T, name<T>>>(z, y, n);                                         \
    return y;
    JAXNEURON_ACTIVATIONS(CASE)
#undef CASE
  }
  return z;
}

}  // namespace jaxneuron::ISA
