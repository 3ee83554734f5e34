// SPDX-License-Identifier: MIT
// Sums of outer products over few rows: bound by the memory of the sums, so nothing is packed.
#pragma once

#include "kernels/rows.h"

namespace rnnfast::RNNFAST_ISA {

/// to[k] = or, if `adds`, += sum over m of a[m] b[m][k], for m < rows in this order, each sum from zero, as tiles have
/// it.
///   to  io  (width)
///   a   in  `rows` numbers, rows <= kUnpackedRows
///   b   in  pointers to `width` numbers each
template <class Real>
RNNFAST_INLINE void add_outer_row(Real* to, Index width, Index rows, const Real* a, const Real* const* b, bool adds) {
  constexpr int L = kLanes<Real>;
  Vec<Real> factor[kUnpackedRows];
  for (Index m = 0; m < rows; ++m) factor[m] = splat(a[m]);
  for (Index k = 0; k < width; k += L) {
    const Index left = lanes_left<Real>(k, width);
    Vec<Real> sum{};
    for (Index m = 0; m < rows; ++m) sum = fma(factor[m], load_lanes(b[m] + k, left), sum);
    store_lanes(to + k, (adds ? load_lanes(to + k, left) : Vec<Real>{}) + sum, left);
  }
}

}  // namespace rnnfast::RNNFAST_ISA
