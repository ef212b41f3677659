// Every number that was chosen by measurement, with its unit. None changes a result's bits.
//
// Measured, unless another machine is named, on two virtual cores of a server with AVX-512, 48 KB of L1 and
// 1 MB of L2 for each core, float32, g++ 12, tiles in the caches (tests/kernels/cpu/speed). README.md beside
// this file has the figures, and what did not pay.
#pragma once

#include <cstdint>

namespace jaxneuron {

// --- products ---

// Accumulators kept in registers: so many rows, each of so many vectors. Beside them stand a row of weights
// and a splat number: 6 * 4 + 4 + 1 of 32 registers, 6 * 2 + 2 + 1 of 16. 24 chains of sums hide the latency
// of a fused multiply-add (4 cycles, two a cycle); 91 to 98 % of their throughput is reached.
constexpr int ACCUMULATOR_ROWS = 6;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int ACCUMULATOR_VECTORS = 4;
#else
constexpr int ACCUMULATOR_VECTORS = 2;
#endif

// Bytes: longer rows of weights are 4 KB or more apart for every other row, so that a column of them falls
// into few sets of the caches, and they are copied first. 512 units (2048 bytes) reach 113 GFLOP/s in place
// and 102 to 107 copied; 1024 units 55 to 86 in place and 101 copied.
constexpr std::int64_t LONG_ROW = 2048;

// Rows of x: fewer don't repay the copy of long rows of weights.
constexpr std::int64_t PACK_ROWS = 24;

// Rows of weights in a copied or packed panel, so that it stays in the caches. 1024 units and 256 rows: 97,
// 101 and 101 GFLOP/s for 96, 128 and 256 rows, 54 for 4096; with 64 rows of x, 86 to 91 whichever. Rows of
// pairs of bfloat16 numbers, 64 rows of x, Zen 5: 476, 485, 499 and 506 GFLOP/s for 96, 128, 192 and 256.
constexpr std::int64_t PANEL_ROWS = 256;

// --- costs ---

// Vector instructions of an activation, beside one for each product: those of relu are 1, of tanh some 30 and
// a division, of sigmoid 45 and a division. By it rows or units are chosen to stand side by side in a vector.
constexpr std::int64_t ACTIVATION_COST = 32;

// Chains of sums that hide the latency of a fused multiply-add, and vector instructions that transpose a
// vector of weights.
constexpr std::int64_t CHAINS = 8;
constexpr std::int64_t TRANSPOSE_COST = 7;

// --- tiles ---

// Rows of a tile: where weights are read in place, and where they are copied, which more rows repay (1024
// units: 101 GFLOP/s with 256 rows, 85 with 64).
constexpr std::int64_t TILE_ROWS = 64;
constexpr std::int64_t PACKED_TILE_ROWS = 256;

// Bytes up to which a tile of 16-bit rows, whose weights are packed before, has more than TILE_ROWS: what
// each pass over a tile costs beside its numbers shows in narrow networks. 2-3-1, sigmoid, bfloat16, Zen
// 5: 1.8, 1.6 and 1.5 ns a row for 64, 128 and 256 rows, 8-8-8-8-8 11.3, 11.0 and 10.8; from 64 units on no
// difference, but at 1024 units without AVX512-BF16 29 us a row for 64 rows and 58 for 256.
constexpr std::int64_t SMALL_TILE_BYTES = std::int64_t{1} << 16;

// Bytes of a tile between two layers, as large as L2: the rows are halved until they take no more, down to
// MIN_TILE_ROWS.
constexpr std::int64_t TILE_BYTES = std::int64_t{1} << 20;
constexpr std::int64_t MIN_TILE_ROWS = 16;

// Columns of a tile of cotangents, each of them a row and a cotangent of it: as many directions go back
// through the layers together as fit, at least one. Of rows side by side, and of units.
constexpr std::int64_t DIRECTION_COLUMNS = 64;
constexpr std::int64_t DIRECTION_ROWS = 256;

// Bytes of a tile between two layers, with its tangents and Laplacian; there are two of them in L2. As many
// directions go forward together as fit, at least one. The Laplacian of 64 rows of QLKNN: 900, 500 and 453 us
// for 128, 256 and 512 KB; of tiles in which all directions fit, the same for each row.
constexpr std::int64_t DIRECTION_BYTES = std::int64_t{1} << 19;

// Bytes of the stack that a thread uses for its tile; it allocates memory for a larger one. 64 rows of 32
// units fit twice. One row of a small network is a matter of 0.1 us, as long as an allocation.
constexpr std::int64_t STACK_SCRATCH = std::int64_t{1} << 14;

// --- threads ---

// Work is counted in multiplications; one core does some 50 in a nanosecond (117 GFLOP/s is the ceiling).

// An activation counts as half of its instructions, each as wide as a multiplication: threads must be repaid
// by the cheap ones too.
constexpr double ACTIVATION_WORK = ACTIVATION_COST / 2;

// What a layer costs in every tile beside its products: some 30 ns.
constexpr double LAYER_WORK = 1500;

// Work that repays a helper of XLA's pool, some 10 us: in a row of calls it is awake. One that sleeps takes
// up to 50 us to wake. A call with less than two of them stays on the calling thread.
constexpr double AWAKE_THREAD_WORK = 1 << 19;

// Work that repays a helper of pool.h, which sleeps between calls, some 20 us: waking it takes the caller 7
// us, and it comes after 3 to 16. 64-64-64-64 takes one thread 42 us for 300 rows and two 34, for 200 rows 29
// and 31. To look out for work between calls would spare 10 us in a row of calls, and take a CPU from whoever
// runs next. To start a thread for each call takes 25 us at best, and 3 ms where it waits for its starter's
// CPU.
constexpr double ASLEEP_THREAD_WORK = 1 << 21;

// Work, some 10 us, from which a call out of Python lets other threads of Python run. It gets its turn back
// when they give way, which they do every 5 ms: too long a wait for a call of 1 us.
constexpr double GIL_WORK = 1 << 19;

// Tiles for each thread, where they keep THREAD_TILE_ROWS rows: so that a thread that comes late takes fewer.
constexpr std::int64_t THREAD_TILES = 4;
constexpr std::int64_t THREAD_TILE_ROWS = 64;

// Chunks for each thread that the tiles are claimed in: each claim is one atomic addition, which a population
// of 4096 networks of one row would else pay for every row.
constexpr std::int64_t THREAD_CHUNKS = 16;

// Times that a caller who has no more tiles gives way before it sleeps: some 50 us, as long as a thread takes
// to fall asleep and to wake. It yields rather than pauses, as a helper may be waiting for this very CPU.
constexpr int YIELDS = 100;

}  // namespace jaxneuron
