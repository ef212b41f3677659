#include "network.h"

#include <algorithm>
#include <cmath>

#include "tuning.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace jaxneuron {
namespace {

#if defined(__x86_64__)
const Kernel* const KERNELS[] = {
    &baseline,
    &avx2,
    &avx512,
#if defined(JAXNEURON_AVX512_BF16)
    &avx512_bf16,
#endif
};

// Whether the CPU converts float16 numbers. Not every compiler's __builtin_cpu_supports knows it.
bool has_f16c() {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C;
}

int count() {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !has_f16c()) return 1;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512dq") ||
      !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512bw"))
    return 2;
#if defined(JAXNEURON_AVX512_BF16)
  if (__builtin_cpu_supports("avx512bf16") && pairs_are_exact()) return 4;
#endif
  return 3;
}
#elif defined(__aarch64__)
const Kernel* const KERNELS[] = {&neon};
#else
const Kernel* const KERNELS[] = {&baseline};
#endif

}  // namespace

int kernel_count() {
#if defined(__x86_64__)
  static const int found = count();
  return found;
#else
  return 1;
#endif
}

const Kernel& kernel_of(int i) { return *KERNELS[i]; }

double sine_of_large(double x, double low) {
  return low == 0 ? std::sin(x) : std::sin(x) * std::cos(low) + std::cos(x) * std::sin(low);
}

double cosine_of_large(double x, double low) {
  return low == 0 ? std::cos(x) : std::cos(x) * std::cos(low) - std::sin(x) * std::sin(low);
}

std::int64_t widest(const Network& network) {
  std::int64_t most = network.layers[0].n_in;
  for (std::int64_t i = 0; i < network.depth; ++i) most = std::max(most, network.layers[i].n_out);
  return most;
}

std::int64_t width(const Network& network, const Derivatives& wanted) {
  if (wanted.given || wanted.backward) return widest(network);
  std::int64_t most = 1;
  for (std::int64_t i = 0; i < network.depth; ++i) most = std::max(most, network.layers[i].n_out);
  return most;
}

std::int64_t tile_rows(const Network& network) {
  const bool is_16_bit = network.dtype == Dtype::bfloat16 || network.dtype == Dtype::float16;
  const std::int64_t row_bytes = widest(network) * (network.dtype == Dtype::float64 ? 8 : 4);
  std::int64_t rows = is_16_bit || row_bytes > LONG_ROW ? PACKED_TILE_ROWS : TILE_ROWS;
  while (is_16_bit && rows > TILE_ROWS && rows * row_bytes > SMALL_TILE_BYTES) rows /= 2;
  while (rows > MIN_TILE_ROWS && rows * row_bytes > TILE_BYTES) rows /= 2;
  return rows;
}

std::int64_t derivative_tile_rows(const Network& network, const Derivatives& wanted) {
  std::int64_t numbers =
      width(network, wanted);  // a row needs: forward between two layers, backward with all slopes
  std::int64_t most = DIRECTION_BYTES;
  if (wanted.backward) {
    most = TILE_BYTES;
    numbers *= 2;
    for (std::int64_t i = 0; i < network.depth; ++i) numbers += network.layers[i].n_out;
  } else {
    numbers *= 1 + wanted.directions + (wanted.laplacian ? 1 : 0);
  }
  const std::int64_t row_bytes = numbers * (network.dtype == Dtype::float64 ? 8 : 4);
  std::int64_t rows = TILE_ROWS;
  while (rows > MIN_TILE_ROWS && rows * row_bytes > most) rows /= 2;
  return rows;
}

}  // namespace jaxneuron
