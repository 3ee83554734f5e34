// SPDX-License-Identifier: MIT
// GRU, reset-after form: the gate maths of one step and its derivative.
// Cho et al. (2014); the form with r applied after the recurrent product is cuDNN's and PyTorch's.
#pragma once

#include "simd/math.h"

namespace rnnfast::RNNFAST_ISA {

struct Gru {
  // Planes q, r, z, n with q = w_hn h + b_hn. In this order the products with h (q, r, z) and those with x
  // (r, z, n) are contiguous runs of planes.
  static constexpr int kPlanes = 4;
  static constexpr int kProducts = 3;
  static constexpr int kInputPlane = 1;
  static constexpr int kRecurrentPlane = 0;
  static constexpr int kInputGate[kProducts] = {0, 1, 2};  // gate whose weights a product takes
  static constexpr int kRecurrentGate[kProducts] = {2, 0, 1};
  static constexpr bool kHasCellState = false;
  static constexpr bool kKeepsGates = true;
  static constexpr bool kPassesStateOn = true;  // part of h goes past the gates: dL/dh starts from the carry

  /// a: pre-activations in; r and z, and the pre-activation of n out.
  template <class Real>
  static RNNFAST_INLINE void open_gates(Vec<Real> (&a)[kPlanes], Vec<Real>& /*c*/) {
    auto& [q, r, z, n] = a;
    r = sigmoid<Real>(r);
    z = sigmoid<Real>(z);
    n = fma(r, q, n);
  }

  /// h, from what open_gates() left; n becomes the gate.
  template <class Real>
  static RNNFAST_INLINE Vec<Real> output(Vec<Real> (&a)[kPlanes], Vec<Real> h_prev, Vec<Real> /*c*/) {
    auto& [q, r, z, n] = a;
    n = tanh<Real>(n);
    return fma(z, h_prev - n, n);
  }

  /// carry: dL/dh of this step that bypassed the gates of the next one in, the same for the step before out.
  /// It is the start of the chain that sums dL/dh, so `dh` already contains it.
  template <class Real>
  static RNNFAST_INLINE void derivative(Vec<Real> (&gates)[kPlanes], Vec<Real> dh, Vec<Real> h_prev, Vec<Real> /*h*/,
                                        Vec<Real> /*c_prev*/, Vec<Real> /*c*/, Vec<Real>& carry) {
    auto& [q, r, z, n] = gates;
    const Vec<Real> dn = dh * (splat(Real(1)) - z) * tanh_slope<Real>(n);
    const Vec<Real> dz = dh * (h_prev - n) * sigmoid_slope<Real>(z);
    const Vec<Real> dr = dn * q * sigmoid_slope<Real>(r);
    carry = dh * z;
    q = dn * r;
    r = dr;
    z = dz;
    n = dn;
  }
};

}  // namespace rnnfast::RNNFAST_ISA
