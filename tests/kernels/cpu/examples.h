// Random networks for the driver, and functions that compare outputs and report a failure.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "network.h"
#include "reference.h"

namespace jaxneuron {
namespace {

using reference::Real;
using Bytes = std::unique_ptr<char[]>;

std::mt19937_64 source;

std::int64_t random(std::int64_t low, std::int64_t high) {
  return std::uniform_int_distribution<std::int64_t>(low, high)(source);
}

struct Example {
  Network network{};
  Batch batch{};
  std::vector<Layer> layers;
  std::vector<Bytes> arrays;
  std::int64_t strange = -1;  // a row of infinities, NaNs, subnormal and huge numbers

  // Returns `count` random numbers of about `size`. They are the same on every machine.
  void* array(std::int64_t count, double size) {
    arrays.emplace_back(new char[count * reference::size_of(network.dtype)]);
    for (std::int64_t i = 0; i < count; ++i) {
      double sum = 0;
      for (int times = 0; times < 3; ++times) sum += random(-(1 << 24), 1 << 24);
      reference::put(arrays.back().get(), network.dtype, i, sum * 0x1p-24 * size);
    }
    return arrays.back().get();
  }

  std::int64_t bytes() const {
    return network.members * batch.rows * layers.back().n_out * reference::size_of(network.dtype);
  }
};

[[noreturn]] void fail(const Kernel& kernel, const Example& example, const char* what) {
  const Network& network = example.network;
  std::fprintf(stderr, "%s: %s\n  dtype %d, %lld members, %lld rows", kernel.name, what, int(network.dtype),
               (long long)network.members, (long long)example.batch.rows);
  for (std::int64_t l = 0; l < network.depth; ++l) {
    const Layer& layer = network.layers[l];
    std::fprintf(stderr, "; %lld to %lld, activation %lld%s%s", (long long)layer.n_in, (long long)layer.n_out,
                 (long long)layer.activation, layer.b ? "" : ", no bias", layer.w_stride ? "" : ", shared");
  }
  std::fprintf(stderr, "\n");
  std::exit(1);
}

std::vector<const Kernel*> kernels() {
  std::vector<const Kernel*> found;
  for (int i = 0; i < kernel_count(); ++i) found.push_back(&kernel_of(i));
  return found;
}

bool fuses(const Kernel& kernel) { return std::strcmp(kernel.name, "baseline") != 0; }

std::int64_t random_width() {
  static const std::int64_t beside[] = {7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 133};
  switch (random(0, 9)) {
    case 0:
      return random(150, 300);
    case 1:
    case 2:
    case 3:
      return beside[random(0, 14)];
    default:
      return random(1, 24);
  }
}

// Returns a random activation. Only the last layer may have a softmax, as the error bound needs no slope
// there. Only the last layer may have exp or square, because networks with two of them may overflow.
Activation random_activation(bool last) {
  std::vector<Activation> candidates;
  for (std::int64_t code = 0; code < ACTIVATIONS; ++code) {
    const Activation activation{code};
    const bool grows = activation == Activation::exp || activation == Activation::square;
    if (last || !(is_of_rows(activation) || grows)) candidates.push_back(activation);
  }
  return candidates[random(0, std::int64_t(candidates.size()) - 1)];
}

Example random_example() {
  Example example;
  Network& network = example.network;
  Batch& batch = example.batch;
  network.dtype = Dtype(random(0, 3));
  network.members = random(0, 2) ? 1 : random(2, 4);
  network.depth = random(1, 5);
  const std::int64_t most = random(0, 3) ? 20 : 200;
  batch.rows = random(1, most);
  const std::int64_t n_in = random_width();
  const double tiny = random(0, 5) ? 1 : std::ldexp(1.0, random(-135, -60));  // gives subnormal numbers
  std::int64_t width = n_in;
  for (std::int64_t l = 0; l < network.depth; ++l) {
    Layer layer{};
    layer.n_in = width;
    const bool last = l + 1 == network.depth;
    layer.n_out = width = last && random(0, 3) == 0 ? n_in : random_width();
    const bool population = network.members > 1;
    layer.activation = random_activation(last);
    for (int i = 0; i < parameters_of(layer.activation); ++i)  // random floats; the second is larger
      layer.parameters[i] = i + random(1, 1 << 12) * 0x1p-11;
    layer.w_stride = population && random(0, 2) ? layer.n_in * layer.n_out : 0;
    layer.w = example.array(layer.n_in * layer.n_out * (layer.w_stride ? network.members : 1),
                            (l == 0 ? tiny : 1) * 1.5 / std::sqrt(double(layer.n_in)));
    if (random(0, 3)) {
      layer.b_stride = population && random(0, 2) ? layer.n_out : 0;
      layer.b = example.array(layer.n_out * (layer.b_stride ? network.members : 1), 1);
    }
    example.layers.push_back(layer);
  }
  network.layers = example.layers.data();
  batch.x_stride = network.members > 1 && random(0, 1) ? batch.rows * n_in : 0;
  const double size = tiny < 1 && random(0, 1) ? std::ldexp(1.0, random(0, 90)) : 2;
  void* x = example.array(batch.rows * n_in * (batch.x_stride ? network.members : 1), size);
  batch.x = x;
  if (random(0, 3) == 0) {
    static const double strange[] = {INFINITY, -INFINITY, NAN, 3e38, -3e38, 1e-40, -1e-7, -0.0};
    example.strange = random(0, batch.rows - 1);
    for (std::int64_t i = 0; i < n_in; ++i)
      reference::put(x, network.dtype, example.strange * n_in + i, strange[random(0, 7)]);
  }
  return example;
}

std::unique_ptr<void, decltype(&std::free)> aligned(std::size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, bytes)) std::abort();
  return {memory, &std::free};
}

// Returns whether two arrays have the same bits. Any NaN equals any other.
bool same(Dtype dtype, std::int64_t bytes, const Bytes& a, const Bytes& b) {
  if (std::memcmp(a.get(), b.get(), bytes) == 0) return true;
  const std::int64_t width = reference::size_of(dtype);
  for (std::int64_t i = 0; i < bytes / width; ++i)
    if (std::memcmp(a.get() + i * width, b.get() + i * width, width) != 0 &&
        !(std::isnan(reference::get(a.get(), dtype, i)) && std::isnan(reference::get(b.get(), dtype, i))))
      return false;
  return true;
}

bool same(const Example& example, const Bytes& a, const Bytes& b) {
  return same(example.network.dtype, example.bytes(), a, b);
}

// Adds an array to a hash (FNV-1a). All NaNs have the same hash.
void add_to_hash(std::uint64_t& hash, Dtype dtype, std::int64_t bytes, const Bytes& y) {
  const std::int64_t width = reference::size_of(dtype);
  for (std::int64_t i = 0; i < bytes; ++i) {
    const bool nan = std::isnan(reference::get(y.get(), dtype, i / width));
    hash = (hash ^ (nan ? 0xff : y[i] & 0xff)) * 0x100000001b3u;
  }
}

// Returns the outputs for all rows of all members, evaluated in tiles of `rows` rows, or of random sizes if
// that is 0. If in_place, 16-bit weights are read in place, where the kernel can do that.
Bytes evaluate(const Kernel& kernel, const Example& example, std::int64_t rows, bool in_place = false) {
  const Network& network = example.network;
  Bytes y(new char[example.bytes()]);
  Batch batch = example.batch;
  batch.y = y.get();
  std::uint64_t state = 1;
  const auto weights = aligned(kernel.packed_bytes(network));
  void* const packed = in_place && kernel.reads_in_place(network, 1) ? nullptr : weights.get();
  for (std::int64_t member = 0; member < network.members; ++member) {
    for (std::int64_t layer = 0; packed && layer < network.depth; ++layer)
      kernel.pack(network, member, layer, packed);
    Tile tile{member, 0, 0};
    for (; tile.first < batch.rows; tile.first += tile.count) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      tile.count = rows ? rows : 1 + std::int64_t(state >> 33) % tile_rows(network);
      tile.count = std::min(tile.count, batch.rows - tile.first);
      const auto memory = aligned(kernel.scratch(network, tile.count, packed));
      kernel.run(network, batch, tile, memory.get(), packed);
    }
  }
  return y;
}

}  // namespace
}  // namespace jaxneuron
