// AArch64 and x86 differ in which results are subnormal, and taken for 0. This file gives AArch64 x86's
// results.
//
// A fused multiply-add c + a b is rounded to 24 bits; a result below the smallest normal number, 2^-126, is
// taken for 0. x86 compares after rounding, AArch64 before. So if c + a b lies less than 2^-151 below 2^-126,
// x86 gives 2^-126 and AArch64 gives 0. That can only happen if a b has bits below 2^-149, since c has none;
// for bfloat16 a and b it then is smaller than 2^-134. A layer in which all products are larger is computed
// as it is; another, which is rare, by the fused multiply-add of this file.
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

// Returns the smallest |x| of n numbers, a multiple of lanes<float>. Zeros and subnormal numbers are left
// out.
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

// A float whose fused multiply-adds compare after rounding, as x86 does.
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

// Computes the sum once more, scaled by 2^64 so that nothing is subnormal: if it is 2^-126, that is the
// result. A sum that becomes infinite by the scaling is far from it.
inline Vector<float> fma(ExactVector a, ExactVector b, Vector<float> c) {
  const Vector<float> scaled = fma(a.numbers * 0x1p64f, b.numbers, c * 0x1p64f);
  const Vector<float> size = bit_cast<float>(bit_cast<float>(scaled) & 0x7fffffff);
  return size == SMALLEST * 0x1p64f ? scaled * 0x1p-64f : fma(a.numbers, b.numbers, c);
}

}  // namespace jaxneuron::ISA
