// SPDX-License-Identifier: MIT
// Sums of outer products over few rows: bound by the memory of the sums, so nothing is packed.
#pragma once

#include "kernels/rows.h"

namespace rnnfast::RNNFAST_ISA {

/// Rows of which outer products are summed as they stand: from more of them on, tiles read less.
inline constexpr Index kOuterRows = 12;

/// add_outer_row for R rows, whose factors stay in registers.
template <int R, class Real>
__attribute__((noinline)) void add_outer_row_of(Real* to, Index width, const Real* a, const Real* const* b, bool adds) {
  constexpr int L = kLanes<Real>;
  Vec<Real> factor[R];
  const Real* from[R];
#pragma GCC unroll kOuterRows
  for (int m = 0; m < R; ++m) {
    factor[m] = splat(a[m]);
    from[m] = b[m];
  }
  const auto add = [&](Index k, Index left) __attribute__((always_inline)) {
    Vec<Real> sum{};
#pragma GCC unroll kOuterRows
    for (int m = 0; m < R; ++m) sum = fma(factor[m], load_lanes(from[m] + k, left), sum);
    store_lanes(to + k, (adds ? load_lanes(to + k, left) : Vec<Real>{}) + sum, left);
  };
  Index k = 0;
  for (; k + L <= width; k += L) add(k, L);
  if (k < width) add(k, width - k);
}

/// to[k] = or, if `adds`, += sum over m of a[m] b[m][k], for m < rows in this order, each sum from zero, as tiles have
/// it.
///   to  io  (width)
///   a   in  `rows` numbers, rows <= kOuterRows
///   b   in  pointers to `width` numbers each
template <int R = kOuterRows, class Real>
RNNFAST_INLINE void add_outer_row(Real* to, Index width, Index rows, const Real* a, const Real* const* b, bool adds) {
  if constexpr (R > 1) {
    if (rows < R) return add_outer_row<R - 1>(to, width, rows, a, b, adds);
  } else if (rows == 0) {
    if (!adds) clear(to, width);
    return;
  }
  add_outer_row_of<R>(to, width, a, b, adds);
}

}  // namespace rnnfast::RNNFAST_ISA
