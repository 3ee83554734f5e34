// SPDX-License-Identifier: MIT
// Sums over rows of products of columns, of which weight gradients consist:
//
//   sum[m][k] = sum over rows of a[row][m] b[row][k]
#pragma once

#include "kernels/team.h"
#include "rnnfast/chunks.h"

namespace rnnfast::RNNFAST_ISA {

/// Columns of a that all of b passes together: two cache lines, so that what is read of them stays in the L2 cache
/// meanwhile.
template <class Real>
inline constexpr Index kColumnsAtOnce = 2 * kLine<Real>;

/// Tiles whose columns are gathered together: some three cache lines of floats.
inline constexpr Index kTilesGathered = 8;

/// Gathering columns pays from so many bytes of a, b and the sums on, about two L2 caches, and so many blocks of b.
inline constexpr Index kWorthGathering = (kIsAvx2 ? 1 : 2) * 1024 * 1024;
inline constexpr Index kBlocksWorthGathering = 24;

/// From one tile of gathered columns to the next, which whole registers at the end of the one before must not reach.
template <class Real>
inline constexpr Index kGatheredTile = kPieceRows * kTallest<1> + kLanes<Real>;

/// Memory that multiply_columns needs.
template <class Real>
constexpr Index gathered_size() {
  return kTilesGathered * kGatheredTile<Real>;
}

/// to[tile][row][column of the tile] = columns of a, which `cuts` divide into tiles; a few rows at a time, so that each
/// cache line of them is fetched once.
template <class Real>
inline void gather_columns(Real* to, const LeftColumns<Real>& a, Index depth, const Index* cuts, Index tiles) {
  constexpr int L = kLanes<Real>;
  constexpr Index kRows = 16;
  for (Index first = 0; first < depth; first += kRows) {
    const Index rows = least(kRows, depth - first);
    for (Index tile = 0; tile < tiles; ++tile) {
      const Index width = cuts[tile + 1] - cuts[tile];
      // The last register of a row reaches into the next one, so the first ones are written later.
      for (Index j = (width - 1) / L * L; j >= 0; j -= L) {
        const Index left = cuts[tiles] - cuts[tile] - j;
        const Real* from = a.data + first * a.stride + cuts[tile] + j;
        Real* at = to + tile * kGatheredTile<Real> + first * width + j;
        for (Index row = 0; row < rows; ++row, from += a.stride, at += width) store(at, load_lanes(from, left));
      }
    }
  }
}

/// Calls fetch(tile), multiplies, and calls add(tile, sums) for all tiles of some columns of a and blocks of b. A
/// tile's first_row is the number of its first column.
///
/// If there is much of it, the columns of a tile are gathered first: they stay in the L1 cache while all of b passes,
/// and the rows of sums are written from end to end.
///   a     in  b.depth <= kPieceRows rows
///   work      gathered_size() numbers
template <class Real, class Fetch, class Add>
RNNFAST_INLINE void multiply_columns(const LeftColumns<Real>& a, Range columns, Range blocks, const Panels<Real>& b,
                                     Real* work, const Fetch& fetch, const Add& add) {
  const auto multiply_tile = [&](const TileRange& tile, const LeftColumns<Real>& left) {
    Accumulators<Real> acc;
    fetch(tile);
    multiply(tile, acc.data, from_zero<Real>(), left, b);
    add(tile, acc);
  };
  const Index width = blocks.size() * kLanes<Real>;
  const Index size = b.depth * (a.stride + width) + a.stride * width;
  if (size * static_cast<Index>(sizeof(Real)) < kWorthGathering || blocks.size() < kBlocksWorthGathering) {
    for (Index first = columns.first; first < columns.last; first += kColumnsAtOnce<Real>) {
      for_each_tile<1>(least(kColumnsAtOnce<Real>, columns.last - first), blocks, [&](TileRange tile) {
        tile.first_row += first;
        multiply_tile(tile, {a.data + tile.first_row, a.stride});
      });
    }
    return;
  }
  constexpr Index kWidth = blocks_at_once(kTallest<1>, 1);
  const Index tiles = (columns.size() + kTallest<1> - 1) / kTallest<1>;
  for (Index number = 0; number < tiles; number += kTilesGathered) {
    const Index some = least(kTilesGathered, tiles - number);
    Index cuts[kTilesGathered + 1];
    for (Index j = 0; j <= some; ++j) cuts[j] = columns.first + columns.size() * (number + j) / tiles;
    gather_columns(work, a, b.depth, cuts, some);
    for (Index j = 0; j < some; ++j) {
      const Index count = cuts[j + 1] - cuts[j];
      const LeftColumns<Real> gathered{work + j * kGatheredTile<Real>, count};
      for (Index block = blocks.first; block < blocks.last; block += kWidth) {
        multiply_tile({cuts[j], count, block, least(kWidth, blocks.last - block)}, gathered);
      }
    }
  }
}

}  // namespace rnnfast::RNNFAST_ISA
