// What a network's outputs are, and how far from them a kernel may be: plain loops in long double.
//
// The error goes through the layers as in the package's oracle: a sum of n products is off by at most
// (n + 2) (u (|x| @ |w| + |b|) + s), and by |w| times the error of x; an activation by its slope times that
// and by 2 ULP of its own; 16-bit numbers by half an ULP of theirs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "network.h"

namespace jaxneuron::reference {

using Real = long double;

inline std::int64_t size_of(Number number) {
  return number == Number::float64 ? 8 : number == Number::float32 ? 4 : 2;
}

// One of the numbers that `number` has, by its place in an array.
inline Real get(const void* from, Number number, std::int64_t at) {
  const char* bytes = static_cast<const char*>(from) + at * size_of(number);
  if (number == Number::float64) {
    double d;
    std::memcpy(&d, bytes, 8);
    return d;
  }
  std::uint32_t bits = 0;
  std::memcpy(&bits, bytes, size_of(number));
  if (number == Number::float16) {
    const Real sign = bits >> 15 ? -1 : 1;
    const int exponent = bits >> 10 & 31;
    const Real fraction = bits & 1023;
    if (exponent == 31) return fraction != 0 ? NAN : sign * INFINITY;
    return sign * std::ldexp(exponent != 0 ? fraction + 1024 : fraction, std::max(exponent, 1) - 25);
  }
  if (number == Number::bfloat16) bits <<= 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

// The number, cut off where it has more digits than `number` has.
inline void put(void* to, Number number, std::int64_t at, double x) {
  char* bytes = static_cast<char*>(to) + at * size_of(number);
  if (number == Number::float64) {
    std::memcpy(bytes, &x, 8);
    return;
  }
  const float f = static_cast<float>(x);
  std::uint32_t bits;
  std::memcpy(&bits, &f, 4);
  if (number == Number::bfloat16) bits >>= 16;
  if (number == Number::float16) {
    const std::uint32_t sign = bits >> 16 & 0x8000;
    const double size = std::fabs(x);
    if (!(size < 65504)) {
      bits = std::isnan(x) ? 0x7e00 : 0x7c00;
    } else if (size < 0x1p-14) {
      bits = static_cast<std::uint32_t>(size * 0x1p24);
    } else {
      const int exponent = std::ilogb(size);
      bits = (exponent + 15) << 10 | static_cast<std::uint32_t>((std::ldexp(size, -exponent) - 1) * 1024);
    }
    bits |= sign;
  }
  std::memcpy(bytes, &bits, size_of(number));
}

inline Real formula(Activation activation, Real z) {
  const Real root = std::sqrt(std::acos(Real(-1)) / 2);  // of pi / 2
  switch (activation) {
    case Activation::relu:
      return std::max(z, Real(0));
    case Activation::leaky_relu:
      return z >= 0 ? z : z / 100;
    case Activation::hard_sigmoid:
      return std::min(std::max(z + 3, Real(0)), Real(6)) / 6;
    case Activation::sigmoid:
    case Activation::cr_sigmoid:
      return 1 / (1 + std::exp(-z));
    case Activation::tanh:
    case Activation::cr_tanh:
      return std::tanh(z);
    case Activation::silu:
      return z / (1 + std::exp(-z));
    case Activation::gelu:
      return z / 2 * std::erfc(-z / std::sqrt(Real(2)));
    case Activation::gelu_tanh:
      return z / (1 + std::exp(-2 / root * (z + Real(0.044715L) * z * z * z)));
    case Activation::softplus:
      return std::max(z, Real(0)) + std::log1p(std::exp(-std::fabs(z)));
    case Activation::elu:
      return z > 0 ? z : std::expm1(z);
    case Activation::selu:
      return Real(1.0507009873554804934L) * (z > 0 ? z : Real(1.6732632423543772848L) * std::expm1(z));
    default:
      return z;
  }
}

inline Real steepest(Activation activation) {
  switch (activation) {
    case Activation::hard_sigmoid:
    case Activation::sigmoid:
    case Activation::cr_sigmoid:
      return 0.25;
    case Activation::silu:
    case Activation::gelu:
    case Activation::gelu_tanh:
      return 1.13;
    case Activation::selu:
      return 1.7582;
    default:
      return 1;
  }
}

struct Outputs {
  std::vector<Real> y, error;
};

inline Outputs outputs(const Network& network, std::int64_t member, std::int64_t row) {
  const Number number = network.number;
  const bool wide = number == Number::float64, narrow = size_of(number) == 2;
  const Real u = wide ? 0x1p-53L : 0x1p-24L, s = wide ? 0x1p-1022L : 0x1p-126L;
  const Real stored = number == Number::bfloat16 ? 0x1p-8L : 0x1p-11L;     // u of 16-bit numbers,
  const Real spacing = number == Number::bfloat16 ? 0x1p-133L : 0x1p-24L;  // and their smallest
  Outputs at;
  for (std::int64_t i = 0; i < network.layers[0].n_in; ++i)
    at.y.push_back(get(network.x, number, member * network.x_step + row * network.layers[0].n_in + i));
  at.error.assign(at.y.size(), 0);
  for (std::int64_t l = 0; l < network.depth; ++l) {
    const Layer& layer = network.layers[l];
    Outputs next;
    Real largest = -INFINITY, error = 0, sum = 0, lowest = INFINITY;
    for (std::int64_t j = 0; j < layer.n_out; ++j) {
      Real z = layer.b ? get(layer.b, number, member * layer.b_step + j) : Real(0);
      Real size = std::fabs(z), passed = 0;
      for (std::int64_t i = 0; i < layer.n_in; ++i) {
        const Real w = get(layer.w, number, member * layer.w_step + i * layer.n_out + j);
        z += at.y[i] * w;
        size += (std::fabs(at.y[i]) + at.error[i]) * std::fabs(w);
        passed += at.error[i] * std::fabs(w);
      }
      next.y.push_back(z);
      next.error.push_back(passed + (layer.n_in + 2) * (u * size + s));
      largest = std::max(largest, z);
      lowest = std::min(lowest, z);
      error = std::max(error, next.error.back());
    }
    for (const Real z : next.y) sum += std::exp(z - largest);
    for (std::int64_t j = 0; j < layer.n_out; ++j) {
      Real &y = next.y[j], &e = next.error[j];
      if (layer.activation == Activation::softmax) {
        y = std::exp(y - largest) / sum;
        e = y * (2 * std::expm1(2 * error) + u * (largest - lowest + 2 * layer.n_out + 16)) + 2 * s;
      } else {
        y = formula(layer.activation, y);
        e = e * steepest(layer.activation) + 4 * u * std::fabs(y) + 2 * s * u;
      }
      if (narrow) e += stored * (std::fabs(y) + e) + spacing;
    }
    at = next;
  }
  return at;
}

}  // namespace jaxneuron::reference
