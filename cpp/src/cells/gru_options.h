// SPDX-License-Identifier: MIT
// GRU with the reset gate before or after the recurrent product, other functions, zoneout: one row of one step, and
// its derivative.
//
//   after:  r, z = f(a),  n = g(a + r q),   q = w_hn h[t-1] + b_hn
//   before: r, z = f(a),  n = g(a),         a contains w_hn (r h[t-1]) + b_hn
//   v = (1 - z) n + z h[t-1],  h[t] = v or, by zoneout, some of h[t-1]
//
// Cho et al. (2014). Zoneout: Krueger et al. (2017).
#pragma once

#include "cells/zoneout.h"
#include "simd/functions.h"

namespace rnnfast::RNNFAST_ISA {

template <class Real>
class GruOptions {
 public:
  explicit GruOptions(const OptionCell& cell) : H_(cell.dims.H), f_(cell.f, cell.clip), g_(cell.g, cell.clip) {}

  /// r and z of a row, (2H): pre-activations in, gates out.
  void gate(Real* r_z) const {
    for (Index j = 0; j < 2 * H_; j += L) {
      const Index width = lanes_left<Real>(j, 2 * H_);
      store_lanes(r_z + j, f_(load_lanes(r_z + j, width)), width);
    }
  }

  /// Rest of a row's step. gates: r, z and the pre-activation of n in, n out. q: null with the reset gate before.
  void step(Real* gates, const Real* q, const Real* h_prev, Real* h, Keep<Real> keep) const {
    for (Index j = 0; j < H_; j += L) {
      const Index width = lanes_left<Real>(j, H_);
      Vec<Real> a = load_lanes(gates + 2 * H_ + j, width);
      if (q != nullptr) a = fma(load_lanes(gates + j, width), load_lanes(q + j, width), a);
      const Vec<Real> n = g_(a);
      store_lanes(gates + 2 * H_ + j, n, width);
      const Vec<Real> old = load_lanes(h_prev + j, width);
      const Vec<Real> v = fma(load_lanes(gates + H_ + j, width), old - n, n);
      store_lanes(h + j, keep.any() ? keep.mix(old, v, j, width) : v, width);
    }
  }

  /// da (3H) of a row; with the reset gate before, that of r is left for finish_before. dq (H): gradient of q.
  /// dh: dL/dh[t] in, the part of dL/dh[t-1] that passes the gates by out.
  void derivative(const Real* gates, const Real* q, const Real* h_prev, Real* dh, Real* da, Real* dq,
                  Keep<Real> keep) const {
    for (Index j = 0; j < H_; j += L) {
      const Index width = lanes_left<Real>(j, H_);
      const Vec<Real> r = load_lanes(gates + j, width);
      const Vec<Real> z = load_lanes(gates + H_ + j, width);
      const Vec<Real> n = load_lanes(gates + 2 * H_ + j, width);
      Vec<Real> dv = load_lanes(dh + j, width);
      Vec<Real> past{};
      if (keep.any()) past = keep.part(dv, j, width);
      const Vec<Real> dn = dv * (splat(Real(1)) - z) * g_.slope(n);
      store_lanes(da + H_ + j, dv * (load_lanes(h_prev + j, width) - n) * f_.slope(z), width);
      store_lanes(da + 2 * H_ + j, dn, width);
      if (q != nullptr) {
        store_lanes(da + j, dn * load_lanes(q + j, width) * f_.slope(r), width);
        store_lanes(dq + j, dn * r, width);
      }
      store_lanes(dh + j, fma(dv, z, past), width);
    }
  }

  /// With the reset gate before: ds is the gradient of s = r u. Gives da of r; ds becomes the gradient of u.
  void finish_before(const Real* gates, const Real* u, Real* ds, Real* da) const {
    for (Index j = 0; j < H_; j += L) {
      const Index width = lanes_left<Real>(j, H_);
      const Vec<Real> r = load_lanes(gates + j, width);
      const Vec<Real> d = load_lanes(ds + j, width);
      store_lanes(da + j, d * load_lanes(u + j, width) * f_.slope(r), width);
      store_lanes(ds + j, d * r, width);
    }
  }

 private:
  static constexpr int L = kLanes<Real>;
  const Index H_;
  const ActivationOf<Real> f_, g_;
};

}  // namespace rnnfast::RNNFAST_ISA
