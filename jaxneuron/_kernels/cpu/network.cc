#include "network.h"

#include <algorithm>

namespace jaxneuron {

std::int64_t widest(const Network& network) {
  std::int64_t most = network.layers[0].n_in;
  for (std::int64_t i = 0; i < network.depth; ++i) most = std::max(most, network.layers[i].n_out);
  return most;
}

std::int64_t tile_rows(const Network& network) {
  std::int64_t rows = 64;
  const std::int64_t row_bytes = widest(network) * (network.number == Number::float64 ? 8 : 4);
  while (rows > 16 && rows * row_bytes > 1 << 19) rows /= 2;
  return rows;
}

}  // namespace jaxneuron
