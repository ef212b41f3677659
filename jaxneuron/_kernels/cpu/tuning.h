// Every constant that was chosen by measurement, with its unit and what was measured. None changes a result's
// bits.
//
// Unless a comment says otherwise, measured in float32 with g++ 12, tiles in the caches
// (tests/kernels/cpu/speed), on two virtual cores of a server with AVX-512 that have 48 KB of L1 and 1 MB of
// L2 each. README.md has more figures, and what was tried in vain.
#pragma once

#include <cstdint>

namespace jaxneuron {

// --- products ---

// The sums that a product keeps in registers: so many rows of so many vectors. A row of weights and one splat
// number need registers too, 6 * 4 + 4 + 1 of 32 in all, or 6 * 2 + 2 + 1 of 16. 24 independent chains of
// sums hide the latency of a fused multiply-add (4 cycles, two a cycle): 91 to 98 % of the throughput is
// reached.
constexpr int ACCUMULATOR_ROWS = 6;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int ACCUMULATOR_VECTORS = 4;
#else
constexpr int ACCUMULATOR_VECTORS = 2;
#endif

// The vectors of a product of one row: so many chains of sums hide the latency. In AVX-512, one row of
// 100-100-100-100 takes 0.95 us with 8 vectors and 1.4 us with 4, and in AVX2 1.2 us with 8, 1.4 us with 6
// and 2.2 us with 2. (Zen 5)
constexpr int ROW_VECTORS = 8;

// Bytes of a row of weights. Longer rows are copied before use: read in place, a column of them falls into
// few sets of the caches, since the rows lie 4 KB or more apart. 512 units (2048 bytes) reach 113 GFLOP/s in
// place and 102 to 107 copied; 1024 units 55 to 86 in place and 101 copied.
constexpr std::int64_t LONG_ROW = 2048;

// Rows of x from which copying or packing long rows of weights is worthwhile.
constexpr std::int64_t PACK_ROWS = 24;

// Rows of weights in a copied or packed panel, which is to stay in L2. 1024 units and 256 rows of x: 97, 101
// and 101 GFLOP/s for panels of 96, 128 and 256 rows, 54 for 4096. On Zen 5, 512 rows instead of 256 take 2 %
// less time with pairs of bfloat16 numbers, 5 % less for bfloat16 without the instruction for pairs, 2 % less
// for float16, and as much for float32.
constexpr std::int64_t PANEL_ROWS = 512;

// --- costs ---

// Vector instructions that an activation is assumed to take when the kernel chooses between rows and units in
// lanes; a product counts as one. relu takes 1, tanh about 30 and a division, sigmoid 45 and a division.
constexpr std::int64_t ACTIVATION_COST = 32;

// Vector instructions that packing a vector of 16-bit weights is assumed to take. With 64 units it takes 3
// cycles, as long as 6 fused multiply-adds, and in narrow layers up to 14. If products read such weights in
// place, they take 1 / IN_PLACE_COST more time: with 64 to 256 units 2 to 5 %.
constexpr std::int64_t PACKING_COST = 10;
constexpr std::int64_t IN_PLACE_COST = 24;

// Chains of sums that hide the latency of a fused multiply-add, and vector instructions that transpose a
// vector of weights.
constexpr std::int64_t CHAINS = 8;
constexpr std::int64_t TRANSPOSE_COST = 7;

// --- tiles ---

// Rows of a tile if weights are read in place, and if they are copied: then more rows share a copy (1024
// units: 101 GFLOP/s with 256 rows, 85 with 64).
constexpr std::int64_t TILE_ROWS = 64;
constexpr std::int64_t PACKED_TILE_ROWS = 256;

// Bytes of a 16-bit tile up to which it may have more than TILE_ROWS rows: in narrow networks the fixed cost
// of each pass over a tile counts. bfloat16, sigmoid, Zen 5, tiles of 64, 128 and 256 rows: 2-3-1
// takes 1.8, 1.6 and 1.5 ns a row, 8-8-8-8-8 11.3, 11.0 and 10.8. From 64 units on there is no difference,
// except that 1024 units without AVX512-BF16 take 29 us a row in tiles of 64 rows and 58 in tiles of 256.
constexpr std::int64_t SMALL_TILE_BYTES = std::int64_t{1} << 16;

// Numbers of a 16-bit layer whose activations are computed, and then rounded, at a time: 4 KB, so that they
// stay in L1. Two units of all rows of a tile must fit.
constexpr std::int64_t ACTIVATION_BLOCK = 1024;
static_assert(ACTIVATION_BLOCK >= 2 * PACKED_TILE_ROWS);

// Bytes of a tile between two layers: the size of L2. The rows of a tile are halved until it takes no more,
// but not below MIN_TILE_ROWS.
constexpr std::int64_t TILE_BYTES = std::int64_t{1} << 20;
constexpr std::int64_t MIN_TILE_ROWS = 16;

// The most columns of a tile of cotangents; each column is a cotangent of one row. As many directions go back
// through the layers together as fit, at least one: into DIRECTION_COLUMNS with rows in lanes, and into
// DIRECTION_ROWS with units in lanes. Forward, DIRECTION_ROWS is used too if it is more than DIRECTION_BYTES.
constexpr std::int64_t DIRECTION_COLUMNS = 64;
constexpr std::int64_t DIRECTION_ROWS = 256;

// Bytes of a tile between two layers, with its tangents and Laplacian; L2 holds two such tiles. As many
// directions go forward together as fit, at least one. The Laplacian of 64 rows of QLKNN takes 900, 500 and
// 453 us with 128, 256 and 512 KB. Once all directions fit, a row takes the same time in larger tiles.
constexpr std::int64_t DIRECTION_BYTES = std::int64_t{1} << 19;

// Bytes of stack that a thread has for its tile; for a larger tile it allocates memory. 64 rows of 32 units
// fit twice. An allocation takes some 0.1 us, as long as one row of a small network.
constexpr std::int64_t STACK_SCRATCH = std::int64_t{1} << 14;

// --- threads ---

// Work is counted in multiplications. One core does some 50 in a nanosecond (117 GFLOP/s is its limit).

// Work of an activation: half of its assumed instructions, so that threads are also worthwhile with the cheap
// ones.
constexpr double ACTIVATION_WORK = ACTIVATION_COST / 2;

// Work of a layer in each tile beside its products and activations: some 30 ns.
constexpr double LAYER_WORK = 1500;

// Work for each thread of XLA's pool, some 10 us: enough if it is awake, as it is in a loop of calls; waking
// it takes up to 50 us. A call with less than twice this work stays on the calling thread.
constexpr double AWAKE_THREAD_WORK = 1 << 19;

// Work for each thread of pool.h, which sleeps between calls: some 20 us. Waking it takes the caller 7 us,
// and it starts 3 to 16 us later. 64-64-64-64 takes one thread 42 us for 300 rows and two threads 34; for 200
// rows 29 and
// 31. A thread that watched for work between calls would save 10 us in a loop of calls, but take a CPU from
// other programs. Starting a thread for each call takes at least 25 us, and 3 ms if it waits for its
// starter's CPU.
constexpr double ASLEEP_THREAD_WORK = 1 << 21;

// Work from which a call from Python releases the interpreter's lock (the GIL): some 10 us. Another thread
// that takes the lock may keep it for 5 ms, which is too long to wait after a call of 1 us.
constexpr double GIL_WORK = 1 << 19;

// Tiles for each thread, as long as a tile keeps THREAD_TILE_ROWS rows: then a thread that starts late does
// fewer.
constexpr std::int64_t THREAD_TILES = 4;
constexpr std::int64_t THREAD_TILE_ROWS = 64;

// Chunks of tiles for each thread. A thread claims a chunk by an atomic addition; a population of 4096
// networks of one row would otherwise pay for one with every row.
constexpr std::int64_t THREAD_CHUNKS = 16;

// How often a caller without tiles left yields before it goes to sleep: some 50 us, the time that falling
// asleep and waking take. It yields instead of pausing, as a helper may be waiting for its CPU.
constexpr int YIELDS = 100;

}  // namespace jaxneuron
