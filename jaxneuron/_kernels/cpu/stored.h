// The formats in which numbers are stored in memory. The kernel computes with float32 and float64 numbers
// directly. It converts bfloat16 and float16 numbers to float32, and rounds results back, half to even.
#pragma once

#include <utility>

#include "vector.h"

namespace jaxneuron::ISA {

// A format has two types: `Stored` is an element in memory, `Number` the type to compute with. It has
// functions of a vector: `load`; `round`, which returns the nearest numbers of the format, as Numbers; and
// `store`, which takes a rounded vector. load_first and store_first do the same for the first n lanes; the
// others are loaded as 0.
//
// Products multiply numbers of the type `Factor`: floats, or pairs of bfloat16 numbers. GROUP numbers make a
// factor. If odd_first, each two factors are added in reverse: the order of bfloat16's sums (packed.h). The
// 16-bit formats have `pack_row`, which rounds a vector of numbers to factors. If GROUP is 2 there are also
// `pack`, which rounds the first and the second numbers of pairs; `joined`, which takes stored ones; and
// clear_second, which sets the second number of a pair to 0.
template <class T>
struct Plain {
  using Stored = T;
  using Number = T;
  using Factor = T;
  static constexpr int GROUP = 1;
  static constexpr bool odd_first = false;
  static constexpr bool is_16_bit = false;
  static Vector<T> load(const T* from) { return ISA::load(from); }
  static Vector<T> load_first(const T* from, std::int64_t n) { return ISA::load_first(from, n); }
  static Vector<T> round(Vector<T> y) { return y; }
  static void store(T* to, Vector<T> y) { ISA::store<T>(to, y); }
  static void store_first(T* to, Vector<T> y, std::int64_t n) { ISA::store_first(to, y, n); }
};

typedef std::uint16_t Halves __attribute__((vector_size(BYTES / 2)));

inline Halves load_halves(const std::uint16_t* from) {
  Halves h;
  std::memcpy(&h, from, sizeof h);
  return h;
}

// Convert 16-bit numbers to 32 bits, and back. g++ 12 would take the vectors apart.
inline Integers<float> to_32_bits(Halves h) {
#if defined(__AVX512F__)
  return (Integers<float>)_mm512_maskz_cvtepu16_epi32(65535, (__m256i)h);
#elif defined(__AVX2__)
  return (Integers<float>)_mm256_cvtepu16_epi32((__m128i)h);
#else
  return __builtin_convertvector(h, Integers<float>);
#endif
}

inline Halves to_16_bits(Integers<float> bits) {
#if defined(__AVX512F__)
  return (Halves)_mm512_maskz_cvtepi32_epi16(65535, (__m512i)bits);
#elif defined(__AVX2__)
  const __m256i low = _mm256_and_si256((__m256i)bits, _mm256_set1_epi32(0xffff));
  const __m256i halves = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, low), 0x08);
  return (Halves)_mm256_castsi256_si128(halves);
#else
  return __builtin_convertvector(bits, Halves);
#endif
}

inline Halves load_first_halves(const std::uint16_t* from, std::int64_t n) {
#if defined(__AVX512F__)
  return (Halves)_mm256_maskz_loadu_epi16((1u << n) - 1, from);
#else
  std::uint16_t numbers[BYTES / 4] = {};
  for (std::int64_t i = 0; i < n; ++i) numbers[i] = from[i];
  return load_halves(numbers);
#endif
}

// A 16-bit format F has from_bits and to_bits: the floats of stored numbers, and the other way for floats
// that were rounded. The 16 bits are the low ones of a lane.
template <class F>
struct Format16 {
  using Stored = std::uint16_t;
  using Number = float;
  static constexpr bool is_16_bit = true;

  static Vector<float> load(const std::uint16_t* from) { return F::widened(load_halves(from)); }
  static Vector<float> load_first(const std::uint16_t* from, std::int64_t n) {
    return F::widened(load_first_halves(from, n));
  }
  static void store(std::uint16_t* to, Vector<float> y) {
    const Halves h = F::narrowed(y);
    std::memcpy(to, &h, sizeof h);
  }
  static void store_first(std::uint16_t* to, Vector<float> y, std::int64_t n) {
    const Halves h = F::narrowed(y);
#if defined(__AVX512F__)
    _mm256_mask_storeu_epi16(to, (1u << n) - 1, (__m256i)h);
#else
    for (std::int64_t i = 0; i < n; ++i) to[i] = h[i];
#endif
  }

  static Vector<float> widened(Halves h) { return F::from_bits(to_32_bits(h)); }
  static Halves narrowed(Vector<float> y) { return to_16_bits(F::to_bits(y)); }
};

// Returns the bits of y, rounded half to even so that the last `count` bits are 0. NaN stays NaN: its first
// bits are those of a stored NaN or of the CPU's own, so that no rounding carries into the sign.
inline Integers<float> rounded_bits(Vector<float> y, int count) {
  const Integers<float> bits = bit_cast<float>(y);
  const Integers<float> odd = (bits >> count) & 1;
  return (bits + odd + ((1 << (count - 1)) - 1)) & -(1 << count);
}

struct BFloat16 : Format16<BFloat16> {
  static Vector<float> from_bits(Integers<float> bits) { return bit_cast<float>(bits << 16); }
  static Integers<float> to_bits(Vector<float> y) { return (bit_cast<float>(y) >> 16) & 0xffff; }
  static Vector<float> round(Vector<float> y) { return bit_cast<float>(rounded_bits(y, 16)); }

#if defined(__AVX512BF16__)  // the conversion treats subnormal numbers as 0, as the products do
  using Factor = Pair;
  static constexpr int GROUP = 2;
  static constexpr bool odd_first = false;
  static void pack(Vector<float> first, Vector<float> second, Pair* to) {
    const auto both =
        (Numbers)_mm512_cvtne2ps_pbh(second, first);  // all first numbers, then all second numbers
    ISA::store<Pair>(to,
                     (Vector<Pair>)halves_joined(both, both, std::make_integer_sequence<int, BYTES / 2>()));
  }
  static void pack_row(Vector<float> y, Pair* to) {
    const auto rounded = _mm512_cvtneps_pbh(y);
    std::memcpy(to, &rounded, sizeof rounded);
  }
  static Vector<Pair> joined(Halves first, Halves second) {
    return (Vector<Pair>)halves_joined(first, second, std::make_integer_sequence<int, BYTES / 2>());
  }
  static void clear_second(Pair* pair) { *pair &= 0xffff; }

 private:
  typedef std::uint16_t Numbers __attribute__((vector_size(BYTES)));

  template <class V, int... I>
  static Numbers halves_joined(V first, V second, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(first, second, (I / 2 + I % 2 * int(sizeof...(I)) / 2)...);
  }
#else
  using Factor = float;
  static constexpr int GROUP = 1;
  static constexpr bool odd_first = true;
  static void pack_row(Vector<float> y, float* to) { ISA::store<float>(to, round(y)); }
#endif
};

// The CPU's own conversions from float16, and to the nearest float16 number, half to even.
#if defined(__AVX512F__)
inline Vector<float> from_float16(Halves h) { return _mm512_maskz_cvtph_ps(65535, (__m256i)h); }
inline Halves to_float16(Vector<float> y) {
  return (Halves)_mm512_maskz_cvtps_ph(65535, y, _MM_FROUND_TO_NEAREST_INT);
}
#elif defined(__F16C__)
inline Vector<float> from_float16(Halves h) { return _mm256_cvtph_ps((__m128i)h); }
inline Halves to_float16(Vector<float> y) { return (Halves)_mm256_cvtps_ph(y, _MM_FROUND_TO_NEAREST_INT); }
#elif defined(__aarch64__)
inline Vector<float> from_float16(Halves h) { return vcvt_f32_f16((float16x4_t)h); }
inline Halves to_float16(Vector<float> y) { return (Halves)vcvt_f16_f32(y); }
#endif

struct Float16 : Format16<Float16> {
  using Factor = float;
  static constexpr int GROUP = 1;
  static constexpr bool odd_first = false;
  static void pack_row(Vector<float> y, float* to) { ISA::store<float>(to, round(y)); }

#if defined(__AVX512F__) || defined(__F16C__) || defined(__aarch64__)
  static Vector<float> widened(Halves h) { return from_float16(h); }
  static Halves narrowed(Vector<float> y) { return to_float16(y); }
  static Vector<float> round(Vector<float> y) { return from_float16(to_float16(y)); }
#else
  static constexpr std::int32_t SIGN = -0x7fffffff - 1;

  static Vector<float> from_bits(Integers<float> h) {
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

  static Integers<float> to_bits(Vector<float> y) {
    const Integers<float> size = bit_cast<float>(y) & ~SIGN;
    const Integers<float> finite = bit_cast<float>(bit_cast<float>(size) * 0x1p-112f) >> 13;
    const Integers<float> bits = size >= 0x7f800000 ? (0x7c00 | ((size >> 13) & 0x3ff)) : finite;
    return bits | ((bit_cast<float>(y) >> 16) & 0x8000);
  }
#endif
};

}  // namespace jaxneuron::ISA
