// Checks the derivatives of the driver's networks: Jacobians computed forward and backward agree, and a row
// has the same bits in every tile and with every instruction set that has FMA. The Python tests compare
// derivatives with exact ones.
#pragma once

#include <string>

#include "examples.h"
#include "plan.h"

namespace jaxneuron {
namespace {

// The derivatives wanted of an example, and how many numbers they are.
struct Wanted {
  Wanted(const Example& example, bool backward, std::int64_t directions, const void* given, bool laplacian) {
    const std::int64_t n_in = example.layers.front().n_in;
    const std::int64_t n_out = example.layers.back().n_out;
    rows = example.network.members * example.batch.rows;
    of.backward = backward;
    of.directions = directions;
    of.given = given;
    numbers = rows * (given ? directions * (backward ? n_in : n_out) : n_in * n_out);
    with_laplacian = laplacian ? rows * n_out : 0;
  }
  Derivatives of{};
  std::int64_t rows;
  std::int64_t numbers;
  std::int64_t with_laplacian;
};

// Returns one array of the outputs, then the Jacobians or products, then the Laplacians. They are computed in
// tiles of `tile_size` rows, or of random sizes if that is 0.
Bytes differentiate(const Kernel& kernel, const Example& example, const Wanted& wanted,
                    std::int64_t tile_size, std::int64_t* bytes) {
  const Network& network = example.network;
  const std::int64_t width = reference::size_of(network.dtype);
  const std::int64_t of_y = wanted.rows * example.layers.back().n_out;
  *bytes = (of_y + wanted.numbers + wanted.with_laplacian) * width;
  Bytes found(new char[*bytes]);
  Batch batch = example.batch;
  Derivatives of = wanted.of;
  batch.y = found.get();
  of.result = found.get() + of_y * width;
  of.laplacian = wanted.with_laplacian ? found.get() + (of_y + wanted.numbers) * width : nullptr;
  const std::int64_t most = derivative_tile_rows(network, of);
  std::uint64_t state = 1;
  for (std::int64_t member = 0; member < network.members; ++member) {
    Tile tile{member, 0, 0};
    for (; tile.first < batch.rows; tile.first += tile.count) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      tile.count = tile_size ? std::min(tile_size, most) : 1 + std::int64_t(state >> 33) % most;
      tile.count = std::min(tile.count, batch.rows - tile.first);
      const auto memory = aligned(kernel.derivative_scratch(network, of, tile.count));
      kernel.differentiate(network, batch, of, tile, memory.get());
    }
  }
  return found;
}

void check_derivatives(const Example& drawn, std::uint64_t& hash) {
  const Dtype dtype = drawn.network.dtype;
  if (reference::size_of(dtype) == 2) return;
  Example example;  // the same network with at most 20 rows
  example.network = drawn.network;
  example.batch = drawn.batch;
  example.layers = drawn.layers;
  example.network.layers = example.layers.data();
  if (!example.batch.x_stride) example.batch.rows = std::min<std::int64_t>(example.batch.rows, 20);
  const std::int64_t n_in = example.layers.front().n_in;
  const std::int64_t n_out = example.layers.back().n_out;
  source.seed(n_in + n_out);  // how often other checks have drawn numbers depends on the CPU
  const std::int64_t directions = random(1, 12);
  const void* const tangents = example.array(example.batch.rows * directions * std::max(n_in, n_out), 1);
  const Wanted cases[] = {{example, false, n_in, nullptr, false},
                          {example, true, n_out, nullptr, false},
                          {example, false, n_in, nullptr, true},
                          {example, false, directions, tangents, false},
                          {example, true, directions, tangents, false}};
  Bytes forward;
  for (const Wanted& wanted : cases) {
    if (wanted.numbers > 1 << 18) continue;
    const bool backward = wanted.of.backward;
    std::int64_t bytes;
    Bytes fused;
    for (int set = 0; set < kernel_count(); ++set) {
      const Kernel& kernel = kernel_of(set);
      Bytes found = differentiate(kernel, example, wanted, 1 << 20, &bytes);
      for (const std::int64_t tile : {1, 0}) {
        const Bytes other = differentiate(kernel, example, wanted, tile, &bytes);
        if (!same(dtype, bytes, found, other))
          fail(kernel, example, "a row's derivatives depend on its tile");
      }
      if (set == 0 && kernel_count() > 1) continue;  // the baseline, which has no FMA
      if (fused && !same(dtype, bytes, found, fused))
        fail(kernel, example, "the derivatives' bits are not those of the other instruction sets");
      fused = std::move(found);
    }
    add_to_hash(hash, dtype, bytes, fused);
    const bool is_jacobian = !wanted.of.given && !wanted.with_laplacian;
    if (is_jacobian && backward && forward && drawn.strange < 0) {
      Real largest = 1;
      Real error = 0;
      for (std::int64_t i = 0; i < bytes / reference::size_of(dtype); ++i) {
        const Real a = reference::get(forward.get(), dtype, i);
        const Real b = reference::get(fused.get(), dtype, i);
        if (!std::isfinite(a) || !std::isfinite(b)) continue;
        largest = std::max(largest, std::fabs(a));
        error = std::max(error, std::fabs(a - b));
      }
      if (error > largest * (dtype == Dtype::float64 ? 1e-9L : 1e-2L))
        fail(kernel_of(0), example, "forward and backward disagree");
    }
    if (is_jacobian && !backward) forward = std::move(fused);
  }
}

}  // namespace
}  // namespace jaxneuron
