// SPDX-License-Identifier: MIT
// Simple recurrent network with any function and zoneout: one row of one step, and its derivative.
//   v = f(a),  h[t] = v or, by zoneout (Krueger et al. 2017), some of h[t-1]
#pragma once

#include "cells/zoneout.h"
#include "simd/functions.h"

namespace rnnfast::RNNFAST_ISA {

template <class Real>
class RnnOptions {
 public:
  explicit RnnOptions(const OptionCell& cell) : H_(cell.dims.H), f_(cell.f, cell.clip) {}

  /// Of some units, whole blocks of them. gates: pre-activations in, v out.
  void step(Real* gates, const Real* h_prev, Real* h, Keep<Real> keep, Range units) const {
    for (Index j = units.first; j < units.last; j += L) {
      const Index width = lanes_left<Real>(j, H_);
      const Vec<Real> v = f_(load_lanes(gates + j, width));
      store_lanes(gates + j, v, width);
      store_lanes(h + j, keep.any() ? keep.mix(load_lanes(h_prev + j, width), v, j, width) : v, width);
    }
  }

  /// Of some units. dh: dL/dh[t] in, the part of dL/dh[t-1] that zoneout lets by out.
  void derivative(const Real* gates, Real* dh, Real* da, Keep<Real> keep, Range units) const {
    for (Index j = units.first; j < units.last; j += L) {
      const Index width = lanes_left<Real>(j, H_);
      Vec<Real> dv = load_lanes(dh + j, width);
      Vec<Real> past{};
      if (keep.any()) past = keep.part(dv, j, width);
      store_lanes(da + j, dv * f_.slope(load_lanes(gates + j, width)), width);
      store_lanes(dh + j, past, width);
    }
  }

 private:
  static constexpr int L = kLanes<Real>;
  const Index H_;
  const ActivationOf<Real> f_;
};

}  // namespace rnnfast::RNNFAST_ISA
