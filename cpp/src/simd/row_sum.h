// SPDX-License-Identifier: MIT
// Sums over the numbers of a row.
#pragma once

#include "simd/vec.h"

namespace rnnfast::RNNFAST_ISA {

/// Partial sums, as many as the widest register has lanes, so that the bits are the same for narrower ones.
template <class Real>
class RowSum {
 public:
  /// The partial sums that the register of a row at element j, a multiple of its lanes, belongs to.
  RNNFAST_INLINE Vec<Real>& at(Index j) { return sums[j / kLanes<Real> % kSums]; }

  template <class Total = Real>
  RNNFAST_INLINE Total total() const {
    Total total = 0;
    for (const Vec<Real>& sum : sums) {
      for (int j = 0; j < kLanes<Real>; ++j) total += static_cast<Total>(sum[j]);
    }
    return total;
  }

 private:
  static constexpr Index kSums = 64 / kVectorBytes;
  Vec<Real> sums[kSums]{};
};

}  // namespace rnnfast::RNNFAST_ISA
