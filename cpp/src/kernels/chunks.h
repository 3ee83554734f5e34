// SPDX-License-Identifier: MIT
// Where the sums of weight gradients over rows are cut.
//
// Rows are summed in pieces of a fixed height, each from zero: that bounds the rounding error of long sums and makes
// the result independent of the number of threads. Chunks of steps that fit a piece run back through time in one go,
// while their gradients are in cache; where they begin depends on the rows alone, counted from the last step.
#pragma once

#include "kernels/tile.h"

namespace rnnfast::RNNFAST_ISA {

inline constexpr Index kPieceRows = 512;

/// Gradients of the pre-activations of a chunk's rows.
template <class Real>
struct ChunkGradients {
  Real* data;
  Index first_row;  // of the chunk
  Index stride;

  Real* operator[](Index row) const { return data + (row - first_row) * stride; }
};

/// First step of the chunk that ends before step `last`: as many steps as fit a piece, at least one.
inline Index first_of_chunk(const Dims& d, Index last) {
  Index first = last - 1;
  while (first > 0 && d.row(last) - d.row(first - 1) <= kPieceRows) --first;
  return first;
}

/// The last beginning of a chunk at or before step `wanted`, for steps that end at `last`.
inline Index cut_of_chunks(const Dims& d, Index last, Index wanted) {
  Index first = last;
  while (first > wanted && first > 0) first = first_of_chunk(d, first);
  return first;
}

}  // namespace rnnfast::RNNFAST_ISA
