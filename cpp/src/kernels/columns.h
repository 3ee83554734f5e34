// SPDX-License-Identifier: MIT
// Sums over rows of products of columns, of which weight gradients consist:
//
//   sum[m][k] = sum over rows of a[row][m] b[row][k]
#pragma once

#include "kernels/rows.h"
#include "rnnfast/chunks.h"

namespace rnnfast::RNNFAST_ISA {

/// Columns of some rows of numbers, in groups of as many as a tile multiplies: the columns of a group stay in the L1
/// cache while all of b passes.
///   data  [groups][height][kWidth]; one group is an odd number of cache lines after the other
template <class Real>
struct Columns {
  static constexpr int kWidth = kAccumulators == 24 ? 8 : 4;
  static constexpr int L = kLanes<Real>;
  static_assert(kWidth % L == 0 || L % kWidth == 0);

  Real* data;
  Index height;  // rows that there is memory for

  /// Groups that `count` columns take, written a register at a time.
  static constexpr Index groups_of(Index count) { return (blocks_of<Real>(count) * L + kWidth - 1) / kWidth; }
  static constexpr Index stride(Index height) { return odd_lines<Real>(height * kWidth); }
  static constexpr Index size(Index count, Index height) { return height == 0 ? 0 : groups_of(count) * stride(height); }

  /// Where a column of a row stands.
  RNNFAST_INLINE Real* at(Index row, Index column) const {
    return data + column / kWidth * stride(height) + row * kWidth + column % kWidth;
  }

  /// Writes `count` columns of a row to their places, the first of which is `to`, the place of a multiple of the lanes;
  /// perhaps also those that follow up to a whole group or register.
  RNNFAST_INLINE void put(Real* to, Vec<Real> v, Index count) const {
    if constexpr (L > kWidth) {
      static_assert(L == 2 * kWidth);
      put_half<0>(to, v, std::make_integer_sequence<int, kWidth>{});
      if (count > kWidth) put_half<kWidth>(to + stride(height), v, std::make_integer_sequence<int, kWidth>{});
    } else {
      store(to, v);
    }
  }

  /// Packs rows of a matrix, whose columns `some` become columns 0..
  void pack(const Real* from, Index from_stride, Index rows, Range some) const {
    for (Index row = 0; row < rows; ++row, from += from_stride) {
      for (Index j = some.first; j < some.last; j += L) {
        const Index count = lanes_left<Real>(j, some.last);
        put(at(row, j - some.first), load_lanes(from + j, count), count);
      }
    }
  }

 private:
  template <int First, int... J>
  static RNNFAST_INLINE void put_half(Real* to, Vec<Real> v, std::integer_sequence<int, J...>) {
    const auto half = __builtin_shufflevector(v, v, (First + J)...);
    std::memcpy(to, &half, sizeof half);
  }
};

/// So much of b stays in the L2 cache while all columns of a pass.
inline constexpr Index kPassingBytes = (kIsAvx2 ? 256 : 512) * 1024;

/// Calls fetch(tile), multiplies, and calls add(tile, sums) for all tiles of some columns of a and blocks of b. A
/// tile's first_row is the number of its first column.
///   first_row  in  of a, where b.depth rows begin
///   columns    in  begin with a group
template <class Real, class Fetch, class Add>
RNNFAST_INLINE void multiply_columns(const Columns<Real>& a, Index first_row, Range columns, Range blocks,
                                     const Panels<Real>& b, const Fetch& fetch, const Add& add) {
  constexpr Index kWidth = Columns<Real>::kWidth;
  constexpr Index kBlocks = blocks_at_once(kWidth, 1);
  constexpr Index kBlockBytes = kLanes<Real> * static_cast<Index>(sizeof(Real));
  assert(columns.first % kWidth == 0);
  if (blocks.size() <= 0) return;
  // Blocks are cut evenly into tiles, of which the first `wider` have one block more.
  const Index tiles = (blocks.size() + kBlocks - 1) / kBlocks;
  const Index width = blocks.size() / tiles;
  const Index wider = blocks.size() - tiles * width;
  const Index wanted = (blocks.size() * b.depth * kBlockBytes + kPassingBytes - 1) / kPassingBytes;
  const auto parts = static_cast<int>(most<Index>(1, least(wanted, tiles)));
  for (int part = 0; part < parts; ++part) {
    const Range some = share(tiles, part, parts);
    for (Index first = columns.first; first < columns.last; first += kWidth) {
      const Index count = least(kWidth, columns.last - first);
      const LeftColumns<Real> left{a.at(first_row, first), kWidth};
      Index block = blocks.first + some.first * width + least(some.first, wider);
      for (Index number = some.first; number < some.last; ++number) {
        const TileRange tile{first, count, block, width + (number < wider ? 1 : 0)};
        const Operands<Real, LeftColumns<Real>> operands{left, b.block(block), b.stride, b.depth};
        Accumulators<Real> acc;
        fetch(tile);
        const auto of_tile =
            Tiles<Real, 1, LeftColumns<Real>, Prefetch::kNear>::template get<kWidth>(count, tile.blocks);
        of_tile(acc.data, kLanes<Real>, from_zero<Real>(), &operands, 1);
        add(tile, acc);
        block += tile.blocks;
      }
    }
  }
}

}  // namespace rnnfast::RNNFAST_ISA
