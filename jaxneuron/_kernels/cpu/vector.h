// Vectors of float or double, as wide as the CPU's registers, and the operations on them that C++ lacks.
//
// This file is compiled once for each instruction set. The macro ISA names a namespace of that instruction
// set alone, and BYTES is the width of its vectors in bytes. Without these namespaces the linker could keep
// only the copy of a function that was compiled for AVX-512, and use it on every CPU.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace jaxneuron::ISA {

template <class T>
struct Lanes;

template <>
struct Lanes<float> {
  typedef float Vector __attribute__((vector_size(BYTES)));
  typedef std::int32_t Integers __attribute__((vector_size(BYTES)));
  typedef std::uint32_t Unsigned __attribute__((vector_size(BYTES)));
  using Integer = std::int32_t;
};

template <>
struct Lanes<double> {
  typedef double Vector __attribute__((vector_size(BYTES)));
  typedef std::int64_t Integers __attribute__((vector_size(BYTES)));
  typedef std::uint64_t Unsigned __attribute__((vector_size(BYTES)));
  using Integer = std::int64_t;
};

// Two bfloat16 numbers, the first one in the lower 16 bits.
using Pair = std::uint32_t;

template <>
struct Lanes<Pair> {
  typedef Pair Vector __attribute__((vector_size(BYTES)));
};

template <class T>
using Vector = typename Lanes<T>::Vector;
template <class T>
using Integers = typename Lanes<T>::Integers;  // bits, or a mask: lanes that are true have all bits set
template <class T>
constexpr int lanes = BYTES / sizeof(T);

template <class T>
inline Vector<T> load(const T* from) {
  Vector<T> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class T>
inline void store(T* to, Vector<T> v) {
  std::memcpy(to, &v, sizeof v);
}

// Load and store the first n lanes, from 0 to all; the other lanes are loaded as 0.
#if defined(__AVX512F__)
inline Vector<float> load_first(const float* from, std::int64_t n) {
  return _mm512_maskz_loadu_ps((1u << n) - 1, from);
}
inline Vector<double> load_first(const double* from, std::int64_t n) {
  return _mm512_maskz_loadu_pd((1u << n) - 1, from);
}
inline void store_first(float* to, Vector<float> v, std::int64_t n) {
  _mm512_mask_storeu_ps(to, (1u << n) - 1, v);
}
inline void store_first(double* to, Vector<double> v, std::int64_t n) {
  _mm512_mask_storeu_pd(to, (1u << n) - 1, v);
}
#else
template <class T>
inline Vector<T> load_first(const T* from, std::int64_t n) {
  T numbers[lanes<T>] = {};
  for (std::int64_t i = 0; i < n; ++i) numbers[i] = from[i];
  return load(numbers);
}
template <class T>
inline void store_first(T* to, Vector<T> v, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = v[i];
}
#endif

// Returns x in every lane; -0 stays -0.
template <class T>
inline Vector<T> splat(T x) {
  return x - Vector<T>{};
}

// Returns the bits of a vector as integers, or the vector that has the bits of the given integers.
template <class T>
inline Integers<T> bit_cast(Vector<T> v) {
  return (Integers<T>)v;
}

template <class T>
inline Vector<T> bit_cast(Integers<T> v) {
  return (Vector<T>)v;
}

// Return a < b ? a : b (min) and a > b ? a : b (max) in one instruction. If a or b is NaN, that is b.
#if defined(__AVX512F__)  // masked intrinsics with every lane on, as g++ 12 warns that the others read an
                          // uninitialised vector
inline Vector<float> min(Vector<float> a, Vector<float> b) { return _mm512_maskz_min_ps(65535, a, b); }
inline Vector<float> max(Vector<float> a, Vector<float> b) { return _mm512_maskz_max_ps(65535, a, b); }
inline Vector<double> min(Vector<double> a, Vector<double> b) { return _mm512_maskz_min_pd(255, a, b); }
inline Vector<double> max(Vector<double> a, Vector<double> b) { return _mm512_maskz_max_pd(255, a, b); }
#elif defined(__AVX__)
inline Vector<float> min(Vector<float> a, Vector<float> b) { return _mm256_min_ps(a, b); }
inline Vector<float> max(Vector<float> a, Vector<float> b) { return _mm256_max_ps(a, b); }
inline Vector<double> min(Vector<double> a, Vector<double> b) { return _mm256_min_pd(a, b); }
inline Vector<double> max(Vector<double> a, Vector<double> b) { return _mm256_max_pd(a, b); }
#else
inline Vector<float> min(Vector<float> a, Vector<float> b) { return a < b ? a : b; }
inline Vector<float> max(Vector<float> a, Vector<float> b) { return a > b ? a : b; }
inline Vector<double> min(Vector<double> a, Vector<double> b) { return a < b ? a : b; }
inline Vector<double> max(Vector<double> a, Vector<double> b) { return a > b ? a : b; }
#endif

// The square root, correctly rounded.
#if defined(__AVX512F__)  // masked, as above
inline Vector<float> sqrt(Vector<float> x) { return _mm512_maskz_sqrt_ps(65535, x); }
inline Vector<double> sqrt(Vector<double> x) { return _mm512_maskz_sqrt_pd(255, x); }
#elif defined(__AVX__)
inline Vector<float> sqrt(Vector<float> x) { return _mm256_sqrt_ps(x); }
inline Vector<double> sqrt(Vector<double> x) { return _mm256_sqrt_pd(x); }
#elif defined(__x86_64__)
inline Vector<float> sqrt(Vector<float> x) { return _mm_sqrt_ps(x); }
inline Vector<double> sqrt(Vector<double> x) { return _mm_sqrt_pd(x); }
#elif defined(__aarch64__)
inline Vector<float> sqrt(Vector<float> x) { return vsqrtq_f32(x); }
inline Vector<double> sqrt(Vector<double> x) { return vsqrtq_f64(x); }
#else
inline Vector<float> sqrt(Vector<float> x) {
  for (int i = 0; i < lanes<float>; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
}
inline Vector<double> sqrt(Vector<double> x) {
  for (int i = 0; i < lanes<double>; ++i) x[i] = __builtin_sqrt(x[i]);
  return x;
}
#endif

// Returns the lesser of x and the bound (at_most) or the greater (at_least); NaN stays NaN.
template <class T>
inline Vector<T> at_most(Vector<T> x, T bound) {
  return min(splat<T>(bound), x);
}

template <class T>
inline Vector<T> at_least(Vector<T> x, T bound) {
  return max(splat<T>(bound), x);
}

// Returns whether any lane of a mask is set.
template <class T>
inline bool any(Integers<T> mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi64_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX__)
  return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#else
  bool found = false;
  for (int i = 0; i < lanes<T>; ++i) found |= mask[i] != 0;
  return found;
#endif
}

// Return the minimum and the maximum of two sizes. The linker could take the copies of std::min and std::max
// from another instruction set.
constexpr std::int64_t min(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
constexpr std::int64_t max(std::int64_t a, std::int64_t b) { return a > b ? a : b; }

#if defined(__FMA__) || defined(__aarch64__)
constexpr bool has_fma = true;
#else
constexpr bool has_fma = false;
#endif

// Returns a b + c, rounded once. On a CPU without FMA it is rounded twice.
inline Vector<float> fma(Vector<float> a, Vector<float> b, Vector<float> c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}

inline Vector<double> fma(Vector<double> a, Vector<double> b, Vector<double> c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_pd(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_pd(a, b, c);
#elif defined(__aarch64__)
  return vfmaq_f64(c, a, b);
#else
  return a * b + c;
#endif
}

#if defined(__AVX512BF16__)
// Returns c + a1 b1 + a0 b0 for pairs a = (a0, a1) and b = (b0, b1), by two fused multiply-adds, first that
// of a1 b1. In every floating-point mode they treat subnormal numbers as 0, both operands and results.
inline Vector<float> fma(Vector<Pair> a, Vector<Pair> b, Vector<float> c) {
  return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
}
#endif

}  // namespace jaxneuron::ISA
