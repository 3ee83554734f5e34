// SPDX-License-Identifier: MIT
// Where the sums of weight gradients over rows are cut.
//
// Rows are summed in pieces of a fixed height, each from zero: that bounds the rounding error of long sums and makes
// the result independent of the number of threads. Chunks of steps that fit a piece run back through time in one go,
// while their gradients are in cache; where they begin depends on the rows alone, counted from the last step.
#pragma once

#include "rnnfast/types.h"

namespace rnnfast {

inline constexpr Index kPieceRows = 512;

/// First step of the chunk that ends before step `last`: as many steps as fit a piece, at least one.
Index first_of_chunk(const Dims& d, Index last) noexcept;

/// The last beginning of a chunk at or before step `wanted`, for steps that end at `last`, itself a beginning or T.
Index cut_of_chunks(const Dims& d, Index last, Index wanted) noexcept;

}  // namespace rnnfast
