// bfloat16 with vdpbf16ps, the product of pairs of AVX512-BF16. Other dtypes and derivatives are left to
// avx512.
#define ISA isa_avx512_bf16
#define BYTES 64

#include "kernel.h"

namespace jaxneuron {
namespace {

using ISA::Pair;

bool is_ours(const Network& network) { return network.dtype == Dtype::bfloat16; }

std::size_t scratch(const Network& network, std::int64_t rows, bool packed) {
  return is_ours(network) ? ISA::scratch_of<ISA::BFloat16>(network, rows, packed)
                          : avx512.scratch(network, rows, packed);
}

std::size_t packed_bytes(const Network& network) {
  return is_ours(network) ? ISA::packed_bytes_of<ISA::BFloat16>(network) : avx512.packed_bytes(network);
}

bool reads_in_place(const Network& network, std::int64_t rows) {
  return is_ours(network) ? ISA::reads_in_place<ISA::BFloat16>(network, rows)
                          : avx512.reads_in_place(network, rows);
}

void pack(const Network& network, std::int64_t member, std::int64_t layer, void* packed) {
  is_ours(network) ? ISA::pack_of<ISA::BFloat16>(network, member, layer, packed)
                   : avx512.pack(network, member, layer, packed);
}

void run(const Network& network, const Batch& batch, const Tile& tile, void* memory, const void* packed) {
  is_ours(network) ? ISA::run_of<ISA::BFloat16>(network, batch, tile, memory, packed)
                   : avx512.run(network, batch, tile, memory, packed);
}

std::size_t derivative_scratch(const Network& network, const Derivatives& wanted, std::int64_t rows) {
  return avx512.derivative_scratch(network, wanted, rows);
}

void differentiate(const Network& network, const Batch& batch, const Derivatives& wanted, const Tile& tile,
                   void* memory) {
  avx512.differentiate(network, batch, wanted, tile, memory);
}

// Numbers to try: at the limits of the format, and about 2^-75, whose products are half the spacing of the
// smallest sums. Each is tried with both signs.
constexpr std::uint16_t EDGES[] = {0,      0x0001, 0x007f, 0x0080, 0x0081, 0x00ff, 0x1a00,
                                   0x1a01, 0x1a80, 0x1aff, 0x2000, 0x3380, 0x3f80, 0x3f81,
                                   0x3fff, 0x4b80, 0x5f7f, 0x7f7f, 0x7f80, 0x7fc0};

// Adds the products of the pairs a and b to the sums, by two fused multiply-adds.
__attribute__((noinline)) void add_in_two_steps(const Pair* a, const Pair* b, float* sums) {
  using namespace ISA;
  const Mode mode(Mode::FLUSH);
  const Vector<Pair> x = load(a);
  const Vector<Pair> y = load(b);
  const Pair second = 0xffff0000;
  const Vector<float> sum = fma((Vector<float>)(x & second), (Vector<float>)(y & second), load(sums));
  store<float>(sums, fma((Vector<float>)(x << 16), (Vector<float>)(y << 16), sum));
}

}  // namespace

bool pairs_are_exact() {
  using namespace ISA;
  std::uint64_t state = 1;
  const auto random = [&state](std::uint32_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return std::uint32_t(state >> 33) % below;
  };
  const auto number = [&] {
    return random(2) ? random(1 << 16) : EDGES[random(sizeof EDGES / sizeof *EDGES)] | random(2) << 15;
  };
  for (int times = 0; times < 200; ++times) {
    Pair a[lanes<Pair>];
    Pair b[lanes<Pair>];
    Pair bits[lanes<Pair>];
    for (int i = 0; i < lanes<Pair>; ++i) {
      a[i] = number() | number() << 16;
      b[i] = number() | number() << 16;
      bits[i] = number() << 16 | (random(2) ? random(1 << 16) : 0);
    }
    float sums[lanes<float>];
    std::memcpy(sums, bits, sizeof sums);
    const Vector<float> found = fma(load(a), load(b), load(sums));
    add_in_two_steps(a, b, sums);
    const Vector<float> expected = load(sums);
    const Integers<float> same =
        (bit_cast<float>(found) == bit_cast<float>(expected)) | ((found != found) & (expected != expected));
    for (int i = 0; i < lanes<float>; ++i)
      if (!same[i]) return false;
  }
  return true;
}

const Kernel avx512_bf16 = {"avx512_bf16", scratch, packed_bytes,       reads_in_place,
                            pack,          run,     derivative_scratch, differentiate};

}  // namespace jaxneuron
