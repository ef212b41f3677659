// AArch64's way to take subnormal results for 0, and how to get x86's.
//
// Both round c + a b to 24 bits and take for 0 what is smaller than the smallest normal number, 2^-126; but
// AArch64 looks at it before rounding. What lies less than 2^-151 below 2^-126 is 0 there and 2^-126 on x86.
// With bfloat16's a and b and float32's c, which have no part below 2^-149, that takes a product with such a
// part, and those are smaller than 2^-134. So products where none is that small are computed as they are, and
// others, which hardly occur, by the fused multiply-add of this file.
#pragma once

#include "vector.h"

namespace jaxneuron::ISA {

#if defined(__aarch64__)
constexpr bool flushes_before_rounding = true;
#else
constexpr bool flushes_before_rounding = false;
#endif

constexpr float SMALLEST = 0x1p-126f;
constexpr double LEAST_PRODUCT = 0x1p-134;

// The least size of n numbers, a multiple of lanes<float>; subnormal ones apart.
inline float least_size(const float* numbers, std::int64_t n) {
  Vector<float> least = splat(__builtin_inff());
  for (std::int64_t i = 0; i < n; i += lanes<float>) {
    const Vector<float> size = bit_cast<float>(bit_cast<float>(load(numbers + i)) & 0x7fffffff);
    least = size >= SMALLEST ? min(least, size) : least;
  }
  float found = least[0];
  for (int i = 1; i < lanes<float>; ++i) found = least[i] < found ? least[i] : found;
  return found;
}

// A float in products of which the results are rounded before they are looked at.
struct Exact {
  float number;
};

struct ExactVector {
  Vector<float> numbers;
};

template <>
struct Lanes<Exact> {
  using Vector = ExactVector;
};

template <>
inline ExactVector splat<Exact>(Exact x) {
  return {splat(x.number)};
}

// The same, scaled so that nothing is subnormal, tells whether it is 2^-126. What is scaled to infinity is
// not near that.
inline Vector<float> fma(ExactVector a, ExactVector b, Vector<float> c) {
  const Vector<float> scaled = fma(a.numbers * 0x1p64f, b.numbers, c * 0x1p64f);
  const Vector<float> size = bit_cast<float>(bit_cast<float>(scaled) & 0x7fffffff);
  return size == SMALLEST * 0x1p64f ? scaled * 0x1p-64f : fma(a.numbers, b.numbers, c);
}

}  // namespace jaxneuron::ISA
