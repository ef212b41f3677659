// The formats that numbers are stored in, and the format that each is computed in: float32 and float64 in
// themselves, bfloat16 and float16 in float32, each result rounded to nearest, ties to even.
#pragma once

#include "vector.h"

namespace jaxneuron::ISA {

// Every format has `Stored`, an element in memory; `Number`, what it's computed in; and, for a whole vector,
// load, round (to a number that the format has, kept as a Number) and store (of a rounded one).
template <class T>
struct Plain {
  using Stored = T;
  using Number = T;
  static constexpr bool is_16_bit = false;
  static Vector<T> load(const T* from) { return ISA::load(from); }
  static Vector<T> round(Vector<T> y) { return y; }
  static void store(T* to, Vector<T> y) { ISA::store<T>(to, y); }
};

typedef std::uint16_t Halves __attribute__((vector_size(BYTES / 2)));

inline Integers<float> load_16(const std::uint16_t* from) {
  Halves h;
  std::memcpy(&h, from, sizeof h);
  return __builtin_convertvector(h, Integers<float>);
}

// The low 16 bits of each lane.
inline void store_16(std::uint16_t* to, Integers<float> bits) {
  const Halves h = __builtin_convertvector(bits, Halves);
  std::memcpy(to, &h, sizeof h);
}

// The bits of y with the last `count` rounded off, half to even; NaN is kept, and made quiet.
inline Integers<float> rounded_bits(Vector<float> y, int count) {
  const Integers<float> bits = bit_cast<float>(y);
  const Integers<float> odd = (bits >> count) & 1;
  const Integers<float> near = (bits + odd + ((1 << (count - 1)) - 1)) & -(1 << count);
  return y == y ? near : (bits | (1 << 22)) & -(1 << count);
}

struct BFloat16 {
  using Stored = std::uint16_t;
  using Number = float;
  static constexpr bool is_16_bit = true;
  static Vector<float> load(const std::uint16_t* from) { return bit_cast<float>(load_16(from) << 16); }
  static Vector<float> round(Vector<float> y) { return bit_cast<float>(rounded_bits(y, 16)); }
  static void store(std::uint16_t* to, Vector<float> y) { store_16(to, (bit_cast<float>(y) >> 16) & 0xffff); }
};

struct Float16 {
  using Stored = std::uint16_t;
  using Number = float;
  static constexpr bool is_16_bit = true;
  static constexpr std::int32_t SIGN = -0x7fffffff - 1;

  static Vector<float> load(const std::uint16_t* from) {
    const Integers<float> h = load_16(from);
    // float16's exponent bias is 112 less than float32's; the product is exact, subnormal numbers included.
    const Integers<float> size = bit_cast<float>(bit_cast<float>((h & 0x7fff) << 13) * 0x1p112f);
    const Integers<float> or_infinite = (h & 0x7c00) == 0x7c00 ? (size | 0x7f800000) : size;
    return bit_cast<float>(or_infinite | ((h & 0x8000) << 16));
  }

  static Vector<float> round(Vector<float> y) {
    const Integers<float> sign = bit_cast<float>(y) & SIGN;
    const Vector<float> size = bit_cast<float>(bit_cast<float>(y) & ~SIGN);
    const Vector<float> near = bit_cast<float>(rounded_bits(size, 13));
    const Vector<float> subnormal = (size + 0.5f) - 0.5f;  // a multiple of 2^-24, the smallest number
    const Vector<float> finite_or_not = near > 65504.0f ? splat<float>(__builtin_inff()) : near;
    return bit_cast<float>(bit_cast<float>(size < 0x1p-14f ? subnormal : finite_or_not) | sign);
  }

  static void store(std::uint16_t* to, Vector<float> y) {
    const Integers<float> size = bit_cast<float>(y) & ~SIGN;
    const Integers<float> finite = bit_cast<float>(bit_cast<float>(size) * 0x1p-112f) >> 13;
    const Integers<float> bits = size >= 0x7f800000 ? (0x7c00 | ((size >> 13) & 0x3ff)) : finite;
    store_16(to, bits | ((bit_cast<float>(y) >> 16) & 0x8000));
  }
};

}  // namespace jaxneuron::ISA
