// A network's outputs, computed by plain loops in long double, and the largest allowed error of the kernel's
// outputs.
//
// The bound is carried from layer to layer, as in jaxneuron/_math/oracle.py. u is the unit roundoff and s the
// smallest normal number. The error of a sum of n products is at most (n + 2) (u (|x| @ |w| + |b|) + s), plus
// |w| times the error of x. In bfloat16, where subnormal numbers may be treated as 0, s (sum |x| + sum |w|)
// is added. An activation multiplies the error by its slope and adds 2 ULP. Rounding to 16 bits adds half a
// ULP of that format.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "network.h"

namespace jaxneuron::reference {

using Real = long double;

inline std::int64_t size_of(Dtype dtype) {
  return dtype == Dtype::float64 ? 8 : dtype == Dtype::float32 ? 4 : 2;
}

// Returns element `at` of an array.
inline Real get(const void* from, Dtype dtype, std::int64_t at) {
  const char* bytes = static_cast<const char*>(from) + at * size_of(dtype);
  if (dtype == Dtype::float64) {
    double d;
    std::memcpy(&d, bytes, 8);
    return d;
  }
  std::uint32_t bits = 0;
  std::memcpy(&bits, bytes, size_of(dtype));
  if (dtype == Dtype::float16) {
    const Real sign = bits >> 15 ? -1 : 1;
    const int exponent = bits >> 10 & 31;
    const Real fraction = bits & 1023;
    if (exponent == 31) return fraction != 0 ? NAN : sign * INFINITY;
    return sign * std::ldexp(exponent != 0 ? fraction + 1024 : fraction, std::max(exponent, 1) - 25);
  }
  if (dtype == Dtype::bfloat16) bits <<= 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

// Stores x as element `at` of an array. Bits that the dtype does not have are cut off.
inline void put(void* to, Dtype dtype, std::int64_t at, double x) {
  char* bytes = static_cast<char*>(to) + at * size_of(dtype);
  if (dtype == Dtype::float64) {
    std::memcpy(bytes, &x, 8);
    return;
  }
  const float f = static_cast<float>(x);
  std::uint32_t bits;
  std::memcpy(&bits, &f, 4);
  if (dtype == Dtype::bfloat16) bits >>= 16;
  if (dtype == Dtype::float16) {
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
  std::memcpy(bytes, &bits, size_of(dtype));
}

// Returns the activation of a number. The driver does not compile if an activation has no case here.
inline Real formula(const Layer& layer, Real z) {
  const Real first = layer.parameters[0];
  const Real second = layer.parameters[1];
  const Real root = std::sqrt(std::acos(Real(-1)) / 2);  // the square root of pi / 2
  switch (layer.activation) {
    case Activation::identity:
      return z;
    case Activation::relu:
      return std::max(z, Real(0));
    case Activation::leaky_relu:
      return z >= 0 ? z : first * z;
    case Activation::hard_tanh:
      return std::min(std::max(z, first), second);
    case Activation::hard_swish:
      return z * std::min(std::max(z + 3, Real(0)), Real(6)) / 6;
    case Activation::softsign:
      return z / (1 + std::fabs(z));
    case Activation::square:
      return z * z;
    case Activation::squareplus:
      return z < 0 ? 2 / (std::sqrt(z * z + 4) - z) : (z + std::sqrt(z * z + 4)) / 2;
    case Activation::exp:
      return std::exp(z);
    case Activation::sin:
      return std::sin(first * z);
    case Activation::log_sigmoid:
      return -std::max(-z, Real(0)) - std::log1p(std::exp(-std::fabs(z)));
    case Activation::mish:
      return z * std::tanh(std::max(z, Real(0)) + std::log1p(std::exp(-std::fabs(z))));
    case Activation::scaled_elu:
      return z > 0 ? z : first * std::expm1(z);
    case Activation::celu:
      return z > 0 ? z : first * std::expm1(z / first);
    case Activation::scaled_softplus:
      return std::max(z, Real(0)) + std::log1p(std::exp(-std::fabs(first * z))) / first;
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
    case Activation::softmax:
    case Activation::log_softmax:
      break;  // take whole rows: `outputs` computes them
  }
  return NAN;
}

// Returns the largest slope of an activation. If its slopes are not bounded, returns the largest slope within
// `error` of z.
inline Real steepest(const Layer& layer, Real z, Real error) {
  switch (layer.activation) {
    case Activation::leaky_relu:
    case Activation::scaled_elu:
    case Activation::sin:
      return std::max(Real(1), std::fabs(Real(layer.parameters[0])));
    case Activation::hard_swish:
      return 1.5;
    case Activation::mish:
      return 1.09L;
    case Activation::square:
      return 2 * (std::fabs(z) + error);
    case Activation::exp:
      return std::exp(z + error);
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

// Returns the largest finite number of a dtype.
inline Real largest(Dtype dtype) {
  return dtype == Dtype::float64    ? std::numeric_limits<double>::max()
         : dtype == Dtype::float16  ? Real(65504)
         : dtype == Dtype::bfloat16 ? Real(0x1.fep127L)
                                    : Real(std::numeric_limits<float>::max());
}

struct Outputs {
  std::vector<Real> y;
  std::vector<Real> error;
};

inline Outputs outputs(const Network& network, const Batch& batch, std::int64_t member, std::int64_t row) {
  const Dtype dtype = network.dtype;
  const bool is_float64 = dtype == Dtype::float64;
  const bool is_16_bit = size_of(dtype) == 2;
  const Real u = is_float64 ? 0x1p-53L : 0x1p-24L;
  const Real s = is_float64 ? 0x1p-1022L : 0x1p-126L;
  const Real stored = dtype == Dtype::bfloat16 ? 0x1p-8L : 0x1p-11L;     // u of the 16-bit format,
  const Real spacing = dtype == Dtype::bfloat16 ? 0x1p-133L : 0x1p-24L;  // and its smallest number
  Outputs at;
  for (std::int64_t i = 0; i < network.layers[0].n_in; ++i)
    at.y.push_back(get(batch.x, dtype, member * batch.x_stride + row * network.layers[0].n_in + i));
  at.error.assign(at.y.size(), 0);
  for (std::int64_t l = 0; l < network.depth; ++l) {
    const Layer& layer = network.layers[l];
    Outputs next;
    Real largest = -INFINITY;
    Real lowest = INFINITY;
    Real error = 0;
    for (std::int64_t j = 0; j < layer.n_out; ++j) {
      Real z = layer.b ? get(layer.b, dtype, member * layer.b_stride + j) : Real(0);
      Real size = std::fabs(z);
      Real passed = 0;  // from the error of x
      Real dropped = 0;
      for (std::int64_t i = 0; i < layer.n_in; ++i) {
        const Real w = get(layer.w, dtype, member * layer.w_stride + i * layer.n_out + j);
        z += at.y[i] * w;
        size += (std::fabs(at.y[i]) + at.error[i]) * std::fabs(w);
        passed += at.error[i] * std::fabs(w);
        if (dtype == Dtype::bfloat16) dropped += s * (std::fabs(at.y[i]) + at.error[i] + std::fabs(w));
      }
      next.y.push_back(z);
      next.error.push_back(passed + dropped + (layer.n_in + 2) * (u * size + s));
      largest = std::max(largest, z);
      lowest = std::min(lowest, z);
      error = std::max(error, next.error.back());
    }
    Real sum = 0;
    for (const Real z : next.y) sum += std::exp(z - largest);
    for (std::int64_t j = 0; j < layer.n_out; ++j) {
      Real& y = next.y[j];
      Real& e = next.error[j];
      if (layer.activation == Activation::softmax) {
        y = std::exp(y - largest) / sum;
        e = y * (2 * std::expm1(2 * error) + u * (largest - lowest + 2 * layer.n_out + 16)) + 2 * s;
      } else if (layer.activation == Activation::log_softmax) {
        y = y - largest - std::log(sum);
        e = 2 * error + u * (largest - lowest + 2 * layer.n_out + 16 + 4 * std::fabs(y)) + 2 * s;
      } else {
        const Real slope = steepest(layer, y, e);
        y = formula(layer, y);
        e = e * slope + 4 * u * std::fabs(y) + 2 * s * u;
      }
      if (is_16_bit) e += stored * (std::fabs(y) + e) + spacing;
    }
    at = next;
  }
  return at;
}

// --- bfloat16's sums, bit for bit ---

inline float of_bits(std::uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

inline std::uint32_t bits_of(float f) {
  std::uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return bits;
}

inline float normal(float f) { return std::fabs(f) < 0x1p-126f ? std::copysign(0.0f, f) : f; }

// Returns a b + c, rounded once to 24 bits, or 0 if that is subnormal. Small sums are computed also scaled by
// 2^64, because unscaled subnormal numbers have less than 24 bits.
inline float fused(float a, float b, float c) {
  a = normal(a);
  b = normal(b);
  c = normal(c);
  const float sum = std::fma(a, b, c);
  if (!(std::fabs(sum) <= 0x1p-126f)) return sum;
  const float scaled = std::fma(a * 0x1p64f, b, c * 0x1p64f);
  return std::fabs(sum) < 0x1p-126f || std::fabs(scaled) < 0x1p-62f ? std::copysign(0.0f, sum) : sum;
}

// Returns `start` plus the products of x and w, bfloat16 numbers, summed in pairs: in each pair the product
// of the second numbers is added before that of the first. x may be longer than w; its rest is ignored.
inline float sum_in_pairs(float start, const std::vector<std::uint16_t>& x,
                          const std::vector<std::uint16_t>& w) {
  const auto step = [&](std::size_t i) {
    if (i < w.size()) start = fused(of_bits(x[i] << 16), of_bits(w[i] << 16), start);
  };
  for (std::size_t i = 0; i < w.size(); i += 2) {
    step(i + 1);
    step(i);
  }
  return start;
}

inline std::uint16_t to_bfloat16(float f) {
  const std::uint32_t bits = bits_of(f);
  if (std::isnan(f)) return 0x7fc0;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

}  // namespace jaxneuron::reference
