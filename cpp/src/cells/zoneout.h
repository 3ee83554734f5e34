// SPDX-License-Identifier: MIT
// Zoneout (Krueger et al. 2017): in a step of training some units keep their old state; otherwise all keep a share of
// it.
#pragma once

#include "simd/vec.h"

namespace rnnfast::RNNFAST_ISA {

/// Where the old state stays: a row of a mask, or the mean of it, or nowhere.
template <class Real>
struct Keep {
  const Real* mask;
  Real share;

  bool any() const { return mask != nullptr || share != 0; }

  /// The old state where it is kept, else the fresh one.
  RNNFAST_INLINE Vec<Real> mix(Vec<Real> old, Vec<Real> fresh, Index unit, Index width) const {
    const Vec<Real> kept = at(unit, width);
    return fma(kept, old, (splat(Real(1)) - kept) * fresh);
  }

  /// The derivative of mix(): gives that by the old state and leaves that by the fresh one in `d`.
  RNNFAST_INLINE Vec<Real> part(Vec<Real>& d, Index unit, Index width) const {
    const Vec<Real> kept = at(unit, width);
    const Vec<Real> of_old = d * kept;
    d = d * (splat(Real(1)) - kept);
    return of_old;
  }

 private:
  RNNFAST_INLINE Vec<Real> at(Index unit, Index width) const {
    return mask != nullptr ? load_lanes(mask + unit, width) : splat(share);
  }
};

}  // namespace rnnfast::RNNFAST_ISA
