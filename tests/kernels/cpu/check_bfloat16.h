// Checks the sums and the sigmoid of bfloat16 layers.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "examples.h"

namespace jaxneuron {
namespace {

// Kinds of numbers with which check_pairs tests sums. SMALL: most products are about 2^-126, the smallest
// normal number. SMALLER: all products are about 2^-150, half the distance between neighbouring floats near
// 2^-126.
enum Kind { ORDINARY, SMALL, SMALLER, ZEROS, ANY, EDGES, KINDS };

std::uint16_t random_bfloat16(Kind kind) {
  static const std::uint16_t edges[] = {0,      0x0001, 0x007f, 0x0080, 0x0081, 0x1f80, 0x2000,
                                        0x3380, 0x3f80, 0x3f81, 0x4b80, 0x7f7f, 0x7f80, 0x7fc0};
  const std::int64_t sign = random(0, 1) << 15;
  const std::int64_t fraction = random(0, 127);
  switch (kind == SMALLER || random(0, 9) ? kind : Kind(random(ANY, EDGES))) {
    case ORDINARY:
      return sign | random(120, 130) << 7 | fraction;
    case SMALL:
      return sign | random(55, 75) << 7 | fraction;
    case SMALLER:
      return sign | random(50, 54) << 7 | fraction;
    case ZEROS:
      return sign | random(0, 1) << 7;
    case ANY:
      return random(0, 0xffff);
    default:
      return sign | edges[random(0, 13)];
  }
}

// Compares the sums of bfloat16 layers with plain loops, for one row or several equal rows. An output has
// only 8 of the 24 bits of a sum. To check the other bits, some networks have one or two more inputs, of 1,
// whose weights subtract the first 8 or 16 bits from the sum.
void check_pairs() {
  for (int times = 0; times < 400; ++times) {
    const Kind kind = Kind(random(0, KINDS - 1));
    const std::int64_t cuts = random(0, 2);
    const std::int64_t before = cuts ? 2 * random(0, 12) : random(0, 25);
    const std::int64_t n_in = before + cuts;
    const std::int64_t n_out = random_width();
    std::vector<std::uint16_t> x(n_in, 0x3f80);
    for (std::int64_t i = 0; i < before; ++i) x[i] = random_bfloat16(kind);
    std::vector<std::uint16_t> w(n_in * n_out), b(n_out), expected(n_out);
    for (std::int64_t j = 0; j < n_out; ++j) {
      b[j] = kind == SMALLER ? 0x0080 | random(0, 1) << 15 : random_bfloat16(kind);
      std::vector<std::uint16_t> column;
      for (std::int64_t i = 0; i < before; ++i) column.push_back(random_bfloat16(kind));
      const float start = reference::of_bits(b[j] << 16);
      float left = reference::sum_in_pairs(start, x, column);
      for (std::int64_t i = 0; i < cuts; ++i) {
        column.push_back(reference::bits_of(left) >> 16 ^ 0x8000);
        left += reference::of_bits(column.back() << 16);
      }
      expected[j] = reference::to_bfloat16(reference::sum_in_pairs(start, x, column));
      for (std::int64_t i = 0; i < n_in; ++i) w[i * n_out + j] = column[i];
    }
    const std::int64_t rows = random(0, 1) ? 1 : random(2, 70);
    std::vector<std::uint16_t> all(rows * n_in);
    for (std::int64_t i = 0; i < rows * n_in; ++i) all[i] = x[i % n_in];
    Example example;
    example.layers.push_back({w.data(), b.data(), n_in, n_out, 0, 0, Activation::identity});
    example.network = {example.layers.data(), 1, 1, Dtype::bfloat16};
    example.batch = {all.data(), nullptr, rows, 0};
    for (const Kernel* kernel : kernels()) {
      if (!fuses(*kernel)) continue;
      for (const bool in_place : {false, true}) {
        const Bytes y = evaluate(*kernel, example, tile_rows(example.network), in_place);
        for (std::int64_t i = 0; i < rows * n_out; ++i) {
          std::uint16_t found;
          std::memcpy(&found, y.get() + 2 * i, 2);
          const std::uint16_t wanted = expected[i % n_out];
          if (found != wanted && !((found & 0x7fff) > 0x7f80 && (wanted & 0x7fff) > 0x7f80)) {
            std::fprintf(stderr, "unit %lld: %04x, not %04x\n", (long long)(i % n_out), found, wanted);
            fail(*kernel, example, "a sum's bits are not those of fused multiply-adds in pairs");
          }
        }
      }
    }
  }
}

// Checks that the sigmoid of a bfloat16 layer is that of a float32 layer, rounded. The inputs are those for
// which the fast formula of bfloat16 is most likely to be wrong: floats whose sigmoid is close to a midpoint
// between two bfloat16 numbers. Each float is the sum of three bfloat16 inputs. Floats near 0 are left out,
// because bfloat16 layers use another formula there.
void check_sigmoid() {
  std::vector<float> z;
  for (std::uint32_t bits = random(0, 4); bits < 0x3f80; bits += 5) {
    const double midpoint = reference::of_bits(bits << 16 | 0x8000);
    float near = std::log(midpoint / (1 - midpoint));
    if (std::fabs(near) < 0x1p-5) continue;
    for (int times = 0; times < 4; ++times) near = std::nextafter(near, -INFINITY);
    for (int times = 0; times < 7; ++times) z.push_back(near = std::nextafter(near, INFINITY));
  }
  const std::int64_t rows = z.size();
  std::vector<std::uint16_t> parts(3 * rows);
  for (std::int64_t r = 0; r < rows; ++r) {
    float rest = z[r];
    for (int i = 0; i < 3; ++i) {
      parts[3 * r + i] = reference::bits_of(rest) >> 16;
      rest -= reference::of_bits(parts[3 * r + i] << 16);
    }
  }
  const float one = 1;
  const std::uint16_t ones[3] = {0x3f80, 0x3f80, 0x3f80};
  Example plain, packed;
  plain.layers.push_back({&one, nullptr, 1, 1, 0, 0, Activation::sigmoid});
  plain.network = {plain.layers.data(), 1, 1, Dtype::float32};
  plain.batch = {z.data(), nullptr, rows, 0};
  packed.layers.push_back({ones, nullptr, 3, 1, 0, 0, Activation::sigmoid});
  packed.network = {packed.layers.data(), 1, 1, Dtype::bfloat16};
  packed.batch = {parts.data(), nullptr, rows, 0};
  for (const Kernel* kernel : kernels()) {
    const Bytes expected = evaluate(*kernel, plain, tile_rows(plain.network));
    const Bytes found = evaluate(*kernel, packed, tile_rows(packed.network));
    for (std::int64_t r = 0; r < rows; ++r) {
      float y;
      std::uint16_t rounded;
      std::memcpy(&y, expected.get() + 4 * r, 4);
      std::memcpy(&rounded, found.get() + 2 * r, 2);
      if (rounded == reference::to_bfloat16(y)) continue;
      std::fprintf(stderr, "sigmoid(%a): %04x, not %a rounded\n", z[r], rounded, y);
      fail(*kernel, packed, "a bfloat16 sigmoid is not the float32 one, rounded");
    }
  }
}

}  // namespace
}  // namespace jaxneuron
