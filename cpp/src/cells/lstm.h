// SPDX-License-Identifier: MIT
// LSTM with forget gate: the gate maths of one step and its derivative.
// Hochreiter & Schmidhuber (1997); forget gate, Gers, Schmidhuber & Cummins (2000). Gate order i, f, g, o.
#pragma once

#include "simd/math.h"

namespace rnnfast::RNNFAST_ISA {

struct Lstm {
  static constexpr int kPlanes = 4;          // values kept per unit: i, f, g, o
  static constexpr int kProducts = 4;        // rows of w_ih and of w_hh per unit
  static constexpr int kInputPlane = 0;      // first plane that a product with x adds to
  static constexpr int kRecurrentPlane = 0;  // first plane that a product with h adds to
  static constexpr int kInputGate[kProducts] = {0, 1, 2, 3};  // gate whose weights a product takes
  static constexpr int kRecurrentGate[kProducts] = {0, 1, 2, 3};
  static constexpr bool kHasCellState = true;
  static constexpr bool kKeepsGates = true;
  static constexpr bool kPassesStateOn = false;

  /// a: pre-activations in, gates out; c is replaced by the new cell state.
  template <class Real>
  static RNNFAST_INLINE void open_gates(Vec<Real> (&a)[kPlanes], Vec<Real>& c) {
    auto& [i, f, g, o] = a;
    i = sigmoid<Real>(i);
    f = sigmoid<Real>(f);
    g = tanh<Real>(g);
    o = sigmoid<Real>(o);
    c = fma(f, c, i * g);
  }

  /// h, from what open_gates() left.
  template <class Real>
  static RNNFAST_INLINE Vec<Real> output(Vec<Real> (&a)[kPlanes], Vec<Real> /*h_prev*/, Vec<Real> c) {
    return a[3] * tanh<Real>(c);
  }

  /// gates: activated in, gradients of the pre-activations out.
  /// carry: dL/dc of this step through the later ones in, dL/dc of the step before out.
  template <class Real>
  static RNNFAST_INLINE void derivative(Vec<Real> (&gates)[kPlanes], Vec<Real> dh, Vec<Real> /*h_prev*/,
                                        Vec<Real> /*h*/, Vec<Real> c_prev, Vec<Real> c, Vec<Real>& carry) {
    auto& [i, f, g, o] = gates;
    const Vec<Real> tanh_c = tanh<Real>(c);
    const Vec<Real> dc = fma(dh * o, tanh_slope<Real>(tanh_c), carry);
    const Vec<Real> di = dc * g * sigmoid_slope<Real>(i);
    const Vec<Real> df = dc * c_prev * sigmoid_slope<Real>(f);
    const Vec<Real> dg = dc * i * tanh_slope<Real>(g);
    const Vec<Real> d_o = dh * tanh_c * sigmoid_slope<Real>(o);
    carry = dc * f;
    i = di;
    f = df;
    g = dg;
    o = d_o;
  }
};

}  // namespace rnnfast::RNNFAST_ISA
