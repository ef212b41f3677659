// The formats in which numbers are stored in memory. The kernel computes with float32 and float64 numbers
// directly. It converts bfloat16 and float16 numbers to float32, and rounds results back, half to even.
#pragma once

#include <utility>

#include "vector.h"

namespace jaxneuron::ISA {

// A format has two types: `Stored` is an element in memory, `Number` the type to compute with. It has
// functions of a whole vector: `load`; `round`, which returns the nearest numbers of the format, as Numbers;
// and `store`, which takes a rounded vector.
//
// Products multiply numbers of the type `Factor`. Each group of GROUP numbers is packed into GROUP_FACTORS
// factors, in the order in which they are summed. The 16-bit formats have two functions that round numbers
// and pack them:
//
// `pack` gets the first numbers of several groups in one vector, and their second numbers in another. If a
// group has two factors, it stores the second factors `stride` factors after the first ones.
//
// `pack_row` gets several groups in one vector, one after the other. It stores their factors in that order.
//
// clear_second sets the second number of a packed group to 0.
template <class T>
struct Plain {
  using Stored = T;
  using Number = T;
  using Factor = T;
  static constexpr int GROUP = 1;
  static constexpr int GROUP_FACTORS = 1;
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

// Stores the low 16 bits of each lane.
inline void store_16(std::uint16_t* to, Integers<float> bits) {
  const Halves h = __builtin_convertvector(bits, Halves);
  std::memcpy(to, &h, sizeof h);
}

// Returns the bits of y, rounded half to even so that the last `count` bits are 0. NaN becomes a quiet NaN.
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

  static constexpr int GROUP = 2;
#if defined(__AVX512BF16__)  // the conversion treats subnormal numbers as 0, as the products do
  using Factor = Pair;
  static constexpr int GROUP_FACTORS = 1;
  static void pack(Vector<float> first, Vector<float> second, Pair* to, std::int64_t) {
    typedef std::uint16_t Numbers __attribute__((vector_size(BYTES)));
    const auto numbers =
        (Numbers)_mm512_cvtne2ps_pbh(second, first);  // all first numbers, then all second numbers
    ISA::store<Pair>(to, (Vector<Pair>)halves_joined(numbers, std::make_integer_sequence<int, BYTES / 2>()));
  }
  static void pack_row(Vector<float> y, Pair* to) {
    const auto rounded = _mm512_cvtneps_pbh(y);
    std::memcpy(to, &rounded, sizeof rounded);
  }
  static void clear_second(Pair* group) { *group &= 0xffff; }

 private:
  template <class V, int... I>
  static V halves_joined(V v, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(v, v, (I / 2 + I % 2 * int(sizeof...(I)) / 2)...);
  }
#else
  using Factor = float;
  static constexpr int GROUP_FACTORS = 2;
  static void pack(Vector<float> first, Vector<float> second, float* to, std::int64_t stride) {
    ISA::store<float>(to, round(second));
    ISA::store<float>(to + stride, round(first));
  }
  static void pack_row(Vector<float> y, float* to) {
    ISA::store<float>(to, in_pairs_exchanged(round(y), std::make_integer_sequence<int, BYTES / 4>()));
  }
  static void clear_second(float* group) { group[0] = 0; }

 private:
  template <int... I>
  static Vector<float> in_pairs_exchanged(Vector<float> y, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(y, y, (I ^ 1)...);
  }
#endif
};

struct Float16 {
  using Stored = std::uint16_t;
  using Number = float;
  static constexpr bool is_16_bit = true;
  static constexpr std::int32_t SIGN = -0x7fffffff - 1;

  using Factor = float;
  static constexpr int GROUP = 1;
  static constexpr int GROUP_FACTORS = 1;
  static void pack(Vector<float> first, Vector<float>, float* to, std::int64_t) {
    ISA::store<float>(to, round(first));
  }
  static void pack_row(Vector<float> y, float* to) { ISA::store<float>(to, round(y)); }

  static Vector<float> load(const std::uint16_t* from) {
    const Integers<float> h = load_16(from);
    // The exponent bias of float16 is 112 less than that of float32. The product is exact, also for subnormal
    // numbers.
    const Integers<float> size = bit_cast<float>(bit_cast<float>((h & 0x7fff) << 13) * 0x1p112f);
    const Integers<float> or_infinite = (h & 0x7c00) == 0x7c00 ? (size | 0x7f800000) : size;
    return bit_cast<float>(or_infinite | ((h & 0x8000) << 16));
  }

  static Vector<float> round(Vector<float> y) {
    const Integers<float> sign = bit_cast<float>(y) & SIGN;
    const Vector<float> size = bit_cast<float>(bit_cast<float>(y) & ~SIGN);
    const Vector<float> near = bit_cast<float>(rounded_bits(size, 13));
    const Vector<float> subnormal = (size + 0.5f) - 0.5f;  // a multiple of 2^-24, float16's smallest number
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
