// Values, slopes and curvatures of a tile, in one pass.
//
// The formulas for a value and for its derivatives are inlined next to each other, so that the compiler
// computes common parts, such as an exponential, only once. SHARED has the functions whose common parts the
// compiler does not find.
#pragma once

#include "curvatures.h"

namespace jaxneuron::ISA {

template <class T>
struct WithSlopes {
  Vector<T> value;
  Vector<T> slope;
  Vector<T> curvature;
};

// tanh, its slope and its curvature, from one exponential and one division. tanh divides c by D. Here the
// rounded 1 / D is multiplied by c, which gives the same bits, as c = 2^-k. For |z| beyond Format::one the
// value is 1, whatever c is.
template <class T>
inline WithSlopes<T> tanh_with_slopes(Vector<T> z) {
  const Vector<T> a = absolute<T>(z);
  const Exp<T> of_2a = exp_parts<T, -1, Format<T>::scale_exponent>(at_most<T>(a + a, Format<T>::gated_zero));
  const Vector<T> c = of_2a.c * UNSCALE<T>;
  const Vector<T> d = (-1 - c) - of_2a.p;
  const Vector<T> d_rest = ((-1 - d) - c) - of_2a.p;
  const auto [q, e] = negative_reciprocal<T>(d, d_rest);
  const Vector<T> large = 1 - (c + c) * q;
  const Vector<T> square = a * a;
  const Vector<T> small = fma(a * square, polynomial<T>(Format<T>::tanh, square), a);
  const Vector<T> value = with_sign<T>(a < Format<T>::large_tanh ? small : large, z);
  const Vector<T> slope = scaled_bell<T>(fma(q, e, q) * of_2a.c) * (4 * UNSCALE<T>);
  return {value, slope, -2 * slope * value};
}

// The function that computes value, slope and curvature together, or null if there is not one.
template <class T, auto formula>
constexpr std::nullptr_t SHARED = nullptr;
template <>
constexpr auto SHARED<float, tanh<float>> = tanh_with_slopes<float>;
template <>
constexpr auto SHARED<double, tanh<double>> = tanh_with_slopes<double>;

// Calls put(number, at, WithSlopes of these numbers) for each vector of y. y has `parts` stretches of `size`
// numbers, a multiple of lanes<T>, and they start `stride` numbers apart. `number` points to the vector; `at`
// is its index if the numbers between the stretches are not counted.
template <class T, auto formula, auto slope, auto curvature, class Put, class... Parameters>
__attribute__((flatten)) void apply_with_slopes(T* y, std::int64_t parts, std::int64_t size,
                                                std::int64_t stride, Put put, Parameters... parameters) {
  for (std::int64_t part = 0; part < parts; ++part)
    for (std::int64_t i = 0; i < size; i += lanes<T>) {
      T* const number = y + part * stride + i;
      const Vector<T> z = load<T>(number);
      if constexpr (std::is_same_v<decltype(SHARED<T, formula>), const std::nullptr_t>)
        put(number, part * size + i,
            WithSlopes<T>{formula(z, parameters...), slope(z, parameters...), curvature(z, parameters...)});
      else
        put(number, part * size + i, SHARED<T, formula>(z));
    }
}

// The same for the layer's activation. Does nothing for an activation that takes whole rows.
template <class T, class Put>
void activate_with_slopes(const Layer& layer, T* y, std::int64_t parts, std::int64_t size,
                          std::int64_t stride, Put put) {
  const T first = layer.parameters[0];
  const T second = layer.parameters[1];
  switch (layer.activation) {
#define CASE(name, parameters, of_rows)                                                                     \
  case Activation::name:                                                                                    \
    if constexpr (of_rows)                                                                                  \
      return;                                                                                               \
    else if constexpr (parameters == 2)                                                                     \
      return apply_with_slopes<T, name<T>, slope::name<T>, curvature::name<T>>(y, parts, size, stride, put, \
                                                                               first, second);              \
    else if constexpr (parameters == 1)                                                                     \
      return apply_with_slopes<T, name<T>, slope::name<T>, curvature::name<T>>(y, parts, size, stride, put, \
                                                                               first);                      \
    else                                                                                                    \
      return apply_with_slopes<T, name<T>, slope::name<T>, curvature::name<T>>(y, parts, size, stride, put);
    JAXNEURON_ACTIVATIONS(CASE)
#undef CASE
  }
}

}  // namespace jaxneuron::ISA
