// SPDX-License-Identifier: MIT
// Elman's simple recurrent network (1990): h = f(w_ih x + b + w_hh h_prev), f = tanh or relu.
#pragma once

#include "simd/math.h"

namespace rnnfast::RNNFAST_ISA {

struct Tanh {
  template <class Real>
  static RNNFAST_INLINE Vec<Real> value(Vec<Real> a) {
    return tanh<Real>(a);
  }
  template <class Real>
  static RNNFAST_INLINE Vec<Real> pull_back(Vec<Real> dh, Vec<Real> h) {
    return dh * tanh_slope<Real>(h);
  }
};

struct Relu {
  template <class Real>
  static RNNFAST_INLINE Vec<Real> value(Vec<Real> a) {
    return select<Real>(a < Vec<Real>{}, Vec<Real>{}, a);  // this operand order passes NaN on
  }
  template <class Real>
  static RNNFAST_INLINE Vec<Real> pull_back(Vec<Real> dh, Vec<Real> h) {
    return select<Real>(h == Vec<Real>{}, Vec<Real>{}, dh);
  }
};

template <class Nonlinearity>
struct Rnn {
  static constexpr int kPlanes = 1;
  static constexpr int kProducts = 1;
  static constexpr int kInputPlane = 0;
  static constexpr int kRecurrentPlane = 0;
  static constexpr int kInputGate[kProducts] = {0};  // gate whose weights a product takes
  static constexpr int kRecurrentGate[kProducts] = {0};
  static constexpr bool kHasCellState = false;
  static constexpr bool kKeepsGates = false;  // h is all that the derivative needs
  static constexpr bool kPassesStateOn = false;

  template <class Real>
  static RNNFAST_INLINE void open_gates(Vec<Real> (& /*a*/)[kPlanes], Vec<Real>& /*c*/) {}

  template <class Real>
  static RNNFAST_INLINE Vec<Real> output(Vec<Real> (&a)[kPlanes], Vec<Real> /*h_prev*/, Vec<Real> /*c*/) {
    return Nonlinearity::template value<Real>(a[0]);
  }

  template <class Real>
  static RNNFAST_INLINE void derivative(Vec<Real> (&gates)[kPlanes], Vec<Real> dh, Vec<Real> /*h_prev*/, Vec<Real> h,
                                        Vec<Real> /*c_prev*/, Vec<Real> /*c*/, Vec<Real>& /*carry*/) {
    gates[0] = Nonlinearity::template pull_back<Real>(dh, h);
  }
};

}  // namespace rnnfast::RNNFAST_ISA
