// SPDX-License-Identifier: MIT
// Products of rows with more weights than the L2 cache holds.
//
// All rows pass one slice of the weights, then the next one, with the accumulators in memory in between. While a slice
// is in the L2 cache, each tile fetches some lines of the one after it; otherwise the first rows would wait for memory,
// which would stand still while the others pass. Each element stays one chain in the order of k, so the bits are those
// of tiles that sum in one go.
#pragma once

#include "kernels/team.h"

namespace rnnfast::RNNFAST_ISA {

/// AVX2 fetches in its own way (kPartsHelp).
inline constexpr bool kHasSlices = kAccumulators == 24;

/// Two slices and the rows that pass them are a part of an L2 cache of 1 MB.
inline constexpr Index kSliceBytes = 128 * 1024;

/// So few rows make too few tiles to fetch a slice.
template <int P>
inline constexpr Index kTooFewForSlices = 2 * kWholeRows<P>;

/// Rows that may pass: more of them use each weight so often that reading it hardly counts.
inline constexpr Index kRowsInSlices = 128;

/// Whether so many rows pass so many weights slice by slice.
template <int P, class Real>
RNNFAST_INLINE bool worth_slices(Index rows, Index weights) {
  return kHasSlices && rows > kTooFewForSlices<P> && rows <= kRowsInSlices &&
         weights * static_cast<Index>(sizeof(Real)) > kFarBytes;
}

/// Products a b of which P go to the planes plane, plane + 1, ...
template <class Real>
struct Factor {
  Panels<Real> b;
  int plane;
  const Real* a[kRowsInSlices];
};

/// For all tiles of some rows and blocks: begin(tile, acc), acc += all factors, end(tile, acc).
///   planes  in  vectors of an accumulator
///   fetch   in  fetch(tile) comes before the last products of a tile
template <int P, class Real, int F, class Begin, class Fetch, class End>
inline void multiply_in_slices(Index rows, Range blocks, bool backwards, const Factor<Real> (&factors)[F], int planes,
                               const Begin& begin, const Fetch& fetch, const End& end) {
  constexpr int L = kLanes<Real>;
  constexpr Index kRows = kWholeRows<P>;
  constexpr Index kWidth = blocks_at_once(kRows, P);
  constexpr Index kDepth = kSliceBytes / (kWidth * P * kVectorBytes);

  // Either all factors at once, or slices of one after the other.
  struct Slice {
    int factor;
    int count;  // of factors
    Range k;  // of each factor, as far as it goes
  };
  Index depth = 0;
  bool alike = true;
  for (const Factor<Real>& factor : factors) {
    depth += factor.b.depth;
    alike = alike && factor.plane == factors[0].plane;
  }
  const bool at_once = alike && depth <= kDepth;
  const auto slices_of = [&](int factor) { return static_cast<int>((factors[factor].b.depth + kDepth - 1) / kDepth); };
  const auto slice_at = [&](int number) {
    if (at_once) return Slice{0, F, {0, depth}};
    int factor = 0;
    for (; number >= slices_of(factor); ++factor) number -= slices_of(factor);
    return Slice{factor, 1, share(factors[factor].b.depth, number, slices_of(factor))};
  };
  int slices = at_once ? 1 : 0;
  for (int factor = 0; factor < F && !at_once; ++factor) slices += slices_of(factor);

  Index cuts[kRowsInSlices];
  const Index tiles = (rows + kRows - 1) / kRows;
  for (Index j = 0; j <= tiles; ++j) cuts[j] = rows * j / tiles;
  const auto groups = static_cast<int>((blocks.size() + kWidth - 1) / kWidth);
  const auto group_at = [&](int number) {
    const Range some = share(blocks.size(), backwards ? groups - 1 - number : number, groups);
    return Range{blocks.first + some.first, blocks.first + some.last};
  };
  Accumulators<Real> acc[kRowsInSlices / kRows + 1];
  // What a tile fetches: a part of one block of the next slice.
  struct {
    Index block;
    int part;
    int parts;
  } fetched[kRowsInSlices / kRows + 1];
  for (int number = 0; number < groups; ++number) {
    const Range group = group_at(number);
    // The tiles fetch the next slice evenly and in the order in which it stands in memory, which the core's own
    // prefetcher then runs ahead of: some of them each block.
    for (Index block = 0; block < group.size(); ++block) {
      const Range some = share(tiles, static_cast<int>(block), static_cast<int>(group.size()));
      for (Index j = some.first; j < some.last; ++j) {
        fetched[j] = {block, static_cast<int>(j - some.first), static_cast<int>(some.size())};
      }
    }
    const auto tile_at = [&](Index j) { return TileRange{cuts[j], cuts[j + 1] - cuts[j], group.first, group.size()}; };
    for (int pass = 0; pass < slices; ++pass) {
      const Slice slice = slice_at(pass);
      const Slice next = slice_at(pass + 1 < slices ? pass + 1 : 0);
      const Range next_group = pass + 1 < slices || number + 1 == groups ? group : group_at(number + 1);
      for (Index j = 0; j < tiles; ++j) {
        const TileRange tile = tile_at(j);
        if (pass == 0) begin(tile, acc[j]);
        if (pass + 1 == slices) fetch(tile);
        const Real* a[F][kRows];
        Operands<Real> operands[F];
        for (int f = 0; f < slice.count; ++f) {
          const Factor<Real>& factor = factors[slice.factor + f];
          for (Index r = 0; r < tile.rows; ++r) a[f][r] = factor.a[tile.first_row + r] + slice.k.first;
          const Panels<Real>& ahead = factors[next.factor + f].b;
          const Index depth_of_slice = least(slice.k.size(), factor.b.depth);
          const Range part = share(least(next.k.size(), ahead.depth), fetched[j].part, fetched[j].parts);
          const Index steps = most<Index>(1, depth_of_slice);  // a first step may have nothing to multiply
          operands[f] = {{a[f]},
                         factor.b.block(group.first) + slice.k.first * P * L,
                         factor.b.stride,
                         depth_of_slice,
                         ahead.block(next_group.first + fetched[j].block) + (next.k.first + part.first) * P * L,
                         (part.size() * P * L + steps - 1) / steps};
        }
        Real* const sums = acc[j].data + factors[slice.factor].plane * L;
        const auto of_tile = Tiles<Real, P, LeftRows<Real>, Prefetch::kAhead>::get(tile.rows, tile.blocks);
        of_tile(sums, planes * L, from_accumulators(tile, sums, planes), operands, slice.count);
        if (pass + 1 == slices) end(tile, acc[j]);
      }
    }
  }
}

}  // namespace rnnfast::RNNFAST_ISA
