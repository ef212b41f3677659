// One pass of an activation over a tile.
#pragma once

#include "activations.h"

namespace jaxneuron::ISA {

// Of whole rows (is_of_rows in network.h), so that they have no formula for a number; kernel.h computes them.
template <class T>
Vector<T> softmax(Vector<T> z);
template <class T>
Vector<T> log_softmax(Vector<T> z);

// The formula to use where the result will be rounded to 16 bits: the same one, but for these.
template <class T, Vector<T> formula(Vector<T>)>
constexpr auto FOR_16_BITS = formula;
template <>
constexpr auto FOR_16_BITS<float, sigmoid<float>> = sigmoid_16<float>;
template <>
constexpr auto FOR_16_BITS<float, cr_sigmoid<float>> = sigmoid_16<float>;

// y = formula(y, parameters...) for n numbers, a multiple of lanes<T>.
template <class T, auto formula, class... Parameters>
__attribute__((flatten)) void apply(T* y, std::int64_t n, Parameters... parameters) {
  for (std::int64_t i = 0; i < n; i += lanes<T>) store<T>(y + i, formula(load<T>(y + i), parameters...));
}

// y = activation(y) for n numbers, a multiple of lanes<T>. `is_16_bit`: they will be rounded to 16 bits.
template <class T, bool is_16_bit>
inline void activate(const Layer& layer, T* y, std::int64_t n) {
  const T first = layer.parameters[0];
  const T second = layer.parameters[1];
  switch (layer.activation) {
#define CASE(name, parameters, of_rows)                                \
  case Activation::name:                                               \
    if constexpr (of_rows || Activation::name == Activation::identity) \
      return;                                                          \
    else if constexpr (parameters == 2)                                \
      return apply<T, name<T>>(y, n, first, second);                   \
    else if constexpr (parameters == 1)                                \
      return apply<T, name<T>>(y, n, first);                           \
    else                                                               \
      return apply<T, is_16_bit ? FOR_16_BITS<T, name<T>> : name<T>>(y, n);
    JAXNEURON_ACTIVATIONS(CASE)
#undef CASE
  }
}

}  // namespace jaxneuron::ISA
