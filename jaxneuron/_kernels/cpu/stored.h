// How numbers are stored and what they are computed in: float32 and float64 as they are, the narrow formats
// as float32, each result rounded to the nearest of its format, ties to even.
#pragma once

#include "vector.h"

namespace jaxneuron::ISA {

template <class T>
struct Same {
  using Stored = T;
  using Number = T;
  static constexpr bool narrow = false;
  static Vector<T> widen(const T* from) { return load(from); }
  static Vector<T> round(Vector<T> y) { return y; }
  static void put(T* to, Vector<T> y) { store(to, y); }
};

typedef std::uint16_t Halves __attribute__((vector_size(BYTES / 2)));

inline Integers<float> bits16(const std::uint16_t* from) {
  Halves h;
  std::memcpy(&h, from, sizeof h);
  return __builtin_convertvector(h, Integers<float>);
}

inline void put16(std::uint16_t* to, Integers<float> bits) {
  const Halves h = __builtin_convertvector(bits, Halves);
  std::memcpy(to, &h, sizeof h);
}

// The pattern of y without its last `digits` digits, rounded to even; NaN as it is, but quiet.
inline Integers<float> rounded_bits(Vector<float> y, int digits) {
  const Integers<float> bits = (Integers<float>)y;
  const Integers<float> odd = (bits >> digits) & 1;
  const Integers<float> near = (bits + odd + ((1 << (digits - 1)) - 1)) & -(1 << digits);
  return y == y ? near : (bits | (1 << 22)) & -(1 << digits);
}

struct BFloat16 {
  using Stored = std::uint16_t;
  using Number = float;
  static constexpr bool narrow = true;
  static Vector<float> widen(const std::uint16_t* from) { return (Vector<float>)(bits16(from) << 16); }
  static Vector<float> round(Vector<float> y) { return (Vector<float>)rounded_bits(y, 16); }
  static void put(std::uint16_t* to, Vector<float> y) { put16(to, ((Integers<float>)y >> 16) & 0xffff); }
};

struct Float16 {
  using Stored = std::uint16_t;
  using Number = float;
  static constexpr bool narrow = true;
  static constexpr std::int32_t SIGN = -0x7fffffff - 1;

  static Vector<float> widen(const std::uint16_t* from) {
    const Integers<float> h = bits16(from);
    // Its exponent lacks 112; the product is exact, subnormal numbers included.
    const Integers<float> size = (Integers<float>)((Vector<float>)((h & 0x7fff) << 13) * 0x1p112f);
    const Integers<float> top = (h & 0x7c00) == 0x7c00 ? (size | 0x7f800000) : size;
    return (Vector<float>)(top | ((h & 0x8000) << 16));
  }
  static Vector<float> round(Vector<float> y) {
    const Integers<float> sign = (Integers<float>)y & SIGN;
    const Vector<float> size = (Vector<float>)((Integers<float>)y & ~SIGN);
    const Vector<float> near = (Vector<float>)rounded_bits(size, 13);
    const Vector<float> small = (size + 0.5f) - 0.5f;  // multiples of 2^-24, the smallest there is
    const Vector<float> most = near > 65504.0f ? all<float>(__builtin_inff()) : near;
    return (Vector<float>)((Integers<float>)(size < 0x1p-14f ? small : most) | sign);
  }
  static void put(std::uint16_t* to, Vector<float> y) {
    const Integers<float> size = (Integers<float>)y & ~SIGN;
    const Integers<float> finite = (Integers<float>)((Vector<float>)size * 0x1p-112f) >> 13;
    const Integers<float> bits = size >= 0x7f800000 ? (0x7c00 | ((size >> 13) & 0x3ff)) : finite;
    put16(to, bits | (((Integers<float>)y >> 16) & 0x8000));
  }
};

}  // namespace jaxneuron::ISA
