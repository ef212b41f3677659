// Times the kernel's own functions on one thread, for tiles that stay in the CPU's caches.
//
//     speed [INSTRUCTION_SET [ACTIVATION [DTYPE]]]
//
// Prints a line for each of some networks, most of them cases of the bench: microseconds a tile, nanoseconds
// a row, and GFLOP/s of the products, from the fastest of 15 rounds. The first line is the upper limit of
// GFLOP/s: fused multiply-adds in registers, by AVX-512. Full tiles have TILE_ROWS rows (tuning.h). For
// float32, a second line has the times with the Jacobian, if the Jacobian has few rows or few columns. DTYPE
// may also be bfloat16 or float16; the line then ends in the time to pack the weights, and the time of a tile
// that reads them in place.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "network.h"
#include "reference.h"
#include "tuning.h"

using namespace jaxneuron;

template <class F>
double seconds(long repeats, F f) {
  double least = 1e9;
  for (int round = 0; round < 15; ++round) {
    const auto start = std::chrono::steady_clock::now();
    for (long i = 0; i < repeats; ++i) f();
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    least = std::min(least, time.count() / repeats);
  }
  return least;
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) void multiply_and_add(float* numbers) {
  __m512 sums[12];
  for (int i = 0; i < 12; ++i) sums[i] = _mm512_set1_ps(numbers[i]);
  const __m512 a = _mm512_set1_ps(0.999f);
  const __m512 b = _mm512_set1_ps(1e-3f);
  for (int k = 0; k < 100000; ++k) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) sums[i] = _mm512_fmadd_ps(sums[i], a, b);
  }
  for (int i = 0; i < 12; ++i) numbers[i] = _mm512_cvtss_f32(sums[i]);
}
#endif

struct Case {
  std::vector<std::int64_t> sizes;
  std::int64_t rows;
};

int main(int arguments, char** values) {
  const Kernel* kernel = &kernel_of(kernel_count() - 1);
  for (int i = 0; i < kernel_count(); ++i)
    if (arguments > 1 && !std::strcmp(values[1], kernel_of(i).name)) kernel = &kernel_of(i);
  Activation activation = Activation::relu;
  for (std::int64_t code = 0; code < ACTIVATIONS; ++code)
    if (arguments > 2 && !std::strcmp(values[2], ACTIVATION_NAMES[code])) activation = Activation(code);
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) {
    float numbers[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    std::printf("%.0f GFLOP/s in registers\n",
                12 * 32 * 1e-4 / seconds(1, [&] { multiply_and_add(numbers); }));
  }
#endif
  const std::vector<std::int64_t> qlknn{10, 133, 133, 133, 133, 133, 8};
  const std::vector<std::int64_t> policy{28, 128, 64, 8};
  Dtype dtype = Dtype::float32;
  if (arguments > 3 && !std::strcmp(values[3], "bfloat16")) dtype = Dtype::bfloat16;
  if (arguments > 3 && !std::strcmp(values[3], "float16")) dtype = Dtype::float16;
  for (const Case& c : std::vector<Case>{{{2, 3, 1}, TILE_ROWS},
                                         {{4, 16, 16, 2}, 1},
                                         {{4, 16, 16, 2}, TILE_ROWS},
                                         {{8, 8, 8, 8, 8}, TILE_ROWS},
                                         {{16, 16, 16, 16, 16}, TILE_ROWS},
                                         {{32, 32, 32, 32, 32}, TILE_ROWS},
                                         {{64, 64, 64, 64}, 1},
                                         {{64, 64, 64, 64}, 16},
                                         {{64, 64, 64, 64}, TILE_ROWS},
                                         {{256, 256, 256, 256, 256}, TILE_ROWS},
                                         {{512, 512, 512, 512}, TILE_ROWS},
                                         {{1024, 1024, 1024, 1024}, TILE_ROWS},
                                         {{1024, 1024, 1024, 1024}, PACKED_TILE_ROWS},
                                         {policy, 1},
                                         {qlknn, 1},
                                         {qlknn, 25},
                                         {qlknn, TILE_ROWS},
                                         {{784, 256, 128, 10}, TILE_ROWS},
                                         {{64, 64, 64, 1}, 1},
                                         {{64, 64, 64, 1}, TILE_ROWS},
                                         {{3, 64, 64, 64, 64, 1}, TILE_ROWS}}) {
    std::vector<std::vector<char>> arrays;
    const auto array = [&](std::int64_t size) {
      arrays.emplace_back(size * reference::size_of(dtype));
      for (std::int64_t i = 0; i < size; ++i)
        reference::put(arrays.back().data(), dtype, i, (std::rand() % 1000 - 500) / 5000.0);
      return static_cast<void*>(arrays.back().data());
    };
    std::vector<Layer> layers;
    double products = 0;
    for (std::size_t i = 0; i + 1 < c.sizes.size(); ++i) {
      const std::int64_t n_in = c.sizes[i];
      const std::int64_t n_out = c.sizes[i + 1];
      layers.push_back({array(n_in * n_out), array(n_out), n_in, n_out, 0, 0, activation, {0.5, 2}});
      products += 2.0 * n_in * n_out * c.rows;
    }
    const void* const x = array(c.rows * c.sizes.front());
    const Network network{layers.data(), std::int64_t(layers.size()), 1, dtype};
    const Batch batch{x, array(c.rows * c.sizes.back()), c.rows, 0};
    const Tile tile{0, 0, c.rows};
    const auto aligned = [](std::size_t bytes) {
      return std::unique_ptr<void, decltype(&std::free)>(std::aligned_alloc(64, (bytes / 64 + 1) * 64),
                                                         &std::free);
    };
    const auto memory = aligned(kernel->scratch(network, c.rows, true));
    const auto packed = aligned(kernel->packed_bytes(network));
    const double pack = seconds(1 + 1e6 * c.rows / products, [&] {
      for (std::int64_t layer = 0; layer < network.depth; ++layer)
        kernel->pack(network, 0, layer, packed.get());
    });
    const double time = seconds(1 + 4e7 / (products + 1e4),
                                [&] { kernel->run(network, batch, tile, memory.get(), packed.get()); });
    std::string name;
    for (std::int64_t size : c.sizes) name += (name.empty() ? "" : "-") + std::to_string(size);
    std::printf("%-30s x %-4lld %9.2f us %9.1f ns a row %7.1f GFLOP/s", name.c_str(), (long long)c.rows,
                time * 1e6, time * 1e9 / c.rows, products / time * 1e-9);
    if (kernel->packed_bytes(network)) {
      const auto in_place = aligned(kernel->scratch(network, c.rows, false));
      const double without = seconds(1 + 4e7 / (products + 1e4),
                                     [&] { kernel->run(network, batch, tile, in_place.get(), nullptr); });
      std::printf(", packed in %.2f us, in place %.2f us", pack * 1e6, without * 1e6);
    }
    std::printf("\n");
    if (dtype != Dtype::float32 || std::min(c.sizes.back(), c.sizes.front()) > 16) continue;
    Derivatives wanted{};
    wanted.backward = c.sizes.back() <= c.sizes.front();
    wanted.directions = std::min(c.sizes.back(), c.sizes.front());
    wanted.result = array(c.rows * c.sizes.front() * c.sizes.back());
    for (std::size_t i = 0; i < layers.size(); ++i)  // the first product, with unit vectors, costs nothing
      if (i != (wanted.backward ? layers.size() - 1 : 0))
        products += 2.0 * layers[i].n_in * layers[i].n_out * c.rows * wanted.directions;
    const auto room = aligned(kernel->derivative_scratch(network, wanted, c.rows));
    const double with_jacobian = seconds(
        1 + 4e7 / (products + 1e4), [&] { kernel->differentiate(network, batch, wanted, tile, room.get()); });
    std::printf("%30s and J  %9.2f us %9.1f ns a row %7.1f GFLOP/s\n",
                wanted.backward ? "backward" : "forward", with_jacobian * 1e6, with_jacobian * 1e9 / c.rows,
                products / with_jacobian * 1e-9);
  }
}
