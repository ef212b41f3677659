// In a mode that treats subnormal numbers as 0, AArch64 and x86 disagree on which results are subnormal. This
// file makes AArch64 give the results of x86.
//
// A fused multiply-add c + a b is rounded to 24 bits; a size below the smallest normal number, 2^-126,
// becomes 0. x86 compares with 2^-126 after rounding, AArch64 before. So if the size of c + a b is below
// 2^-126, but by at most 2^-151, x86 gives 2^-126 and AArch64 gives 0. That needs a product a b with bits
// below 2^-149, since c has none; a product of two bfloat16 numbers with such bits is smaller than 2^-134. If
// all products of a layer are at least that large, the layer needs nothing from this file. The other layers,
// which are rare, use the fused multiply-add below.
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

// Returns the smallest |x| of n numbers, leaving out zeros and subnormal numbers. n is a multiple of
// lanes<float>.
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

// A float whose fused multiply-adds compare with 2^-126 after rounding, as those of x86 do.
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

// Computes the sum also scaled by 2^64, so that nothing is subnormal. If the scaled sum is 2^-126 2^64, the
// result is 2^-126. A sum that the scaling makes infinite is far larger.
inline Vector<float> fma(ExactVector a, ExactVector b, Vector<float> c) {
  const Vector<float> scaled = fma(a.numbers * 0x1p64f, b.numbers, c * 0x1p64f);
  const Vector<float> size = bit_cast<float>(bit_cast<float>(scaled) & 0x7fffffff);
  return size == SMALLEST * 0x1p64f ? scaled * 0x1p-64f : fma(a.numbers, b.numbers, c);
}

}  // namespace jaxneuron::ISA
