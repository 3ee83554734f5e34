// SPDX-License-Identifier: MIT
// LSTM with peepholes, coupled gates, other functions, normalised cell state, zoneout: one row of one step, and its
// derivative.
//
//   i, f = f(a + p c[t-1])  (or i = 1 - f),  g = g(a),  q = f c[t-1] + i g,  o = f(a + p q),
//   v = o h(LN(q)),  h[t] = v or, by zoneout, some of h[t-1];  c[t] = q or some of c[t-1]
//
// Peepholes: Gers & Schmidhuber (2000). Coupled gates: Greff et al. (2017). Zoneout: Krueger et al. (2017).
// Normalisation: Ba et al. (2016).
#pragma once

#include "cells/normalize.h"
#include "cells/zoneout.h"
#include "simd/functions.h"

namespace rnnfast::RNNFAST_ISA {

template <class Real>
class LstmOptions {
 public:
  LstmOptions(const OptionCell& cell, const OptionParameters<Real>& parameters)
      : H_(cell.dims.H),
        f_(cell.f, cell.clip),
        g_(cell.g, cell.clip),
        h_(cell.h, __builtin_inf()),
        coupled_(cell.coupled),
        p_i_(cell.coupled ? nullptr : parameters.peephole),
        p_f_(parameters.peephole == nullptr || cell.coupled ? parameters.peephole : parameters.peephole + H_),
        p_o_(parameters.peephole == nullptr ? nullptr : p_f_ + H_),
        norm_(parameters.norm_c),
        norm_bias_(parameters.norm_c_bias) {}

  /// One row. gates: pre-activations in, gates out. c may be c_prev. candidate: tmp (H), q of above.
  void step(Real* gates, const Real* c_prev, const Real* h_prev, Real* candidate, Real* c, Real* v, Keep<Real> keep_c,
            Keep<Real> keep_h) const {
    for (Index unit = 0; unit < H_; unit += L) {
      const Index width = lanes_left<Real>(unit, H_);
      const Vec<Real> old = load_lanes(c_prev + unit, width);
      const Vec<Real> f = f_(peek(f_row(gates), p_f_, old, unit, width));
      const Vec<Real> i = coupled_ ? splat(Real(1)) - f : f_(peek(gates, p_i_, old, unit, width));
      const Vec<Real> g = g_(load_lanes(g_row(gates) + unit, width));
      const Vec<Real> q = fma(f, old, i * g);
      const Vec<Real> o = f_(peek(o_row(gates), p_o_, q, unit, width));
      if (!coupled_) store_lanes(gates + unit, i, width);
      store_lanes(f_row(gates) + unit, f, width);
      store_lanes(g_row(gates) + unit, g, width);
      store_lanes(o_row(gates) + unit, o, width);
      store_lanes(candidate + unit, q, width);
      store_lanes(c + unit, keep_c.any() ? keep_c.mix(old, q, unit, width) : q, width);
    }
    const Moments<Real> moments = norm_ != nullptr ? moments_of(candidate, H_) : Moments<Real>{};
    for (Index unit = 0; unit < H_; unit += L) {
      const Index width = lanes_left<Real>(unit, H_);
      Vec<Real> q = load_lanes(candidate + unit, width);
      if (norm_ != nullptr) {
        q = fma(moments.normalized(q), load_lanes(norm_ + unit, width), load_lanes(norm_bias_ + unit, width));
      }
      const Vec<Real> out = load_lanes(o_row(gates) + unit, width) * h_(q);
      store_lanes(v + unit, keep_h.any() ? keep_h.mix(load_lanes(h_prev + unit, width), out, unit, width) : out, width);
    }
  }

  /// What the sums of parameters' gradients need of a row; those that a cell has not are not written.
  struct Factors {
    Real* candidate;   // (H)  q
    Real* normalized;  // (H)  of q, before gain and bias
    Real* dnorm;       // (H)  gradient of what comes out of the normalisation
    Real* output;      // (H)  v, the input of the projection
  };

  /// gates are read, da is written. dv: dL/dv in. dc: dL/dc[t] in, dL/dc[t-1] out.
  /// carry: out, the part of dL/dh[t-1] that zoneout lets by; null without.
  void derivative(const Real* gates, const Real* c_prev, const Real* dv, Real* dc, Real* da, Real* carry,
                  const Factors& factors, Keep<Real> keep_c, Keep<Real> keep_h) const {
    Real* q_row = factors.candidate;
    for (Index unit = 0; unit < H_; unit += L) {
      const Index width = lanes_left<Real>(unit, H_);
      store_lanes(q_row + unit, candidate(gates, c_prev, unit, width), width);
    }
    const Moments<Real> moments = norm_ != nullptr ? moments_of(q_row, H_) : Moments<Real>{};
    // dL/dq through the output, in dq_row; with a normalisation first before and then behind it.
    Real* dq_row = g_row(da);
    for (Index unit = 0; unit < H_; unit += L) {
      const Index width = lanes_left<Real>(unit, H_);
      Vec<Real> q = load_lanes(q_row + unit, width);
      if (norm_ != nullptr) {
        const Vec<Real> normalized = moments.normalized(q);
        store_lanes(factors.normalized + unit, normalized, width);
        q = fma(normalized, load_lanes(norm_ + unit, width), load_lanes(norm_bias_ + unit, width));
      }
      Vec<Real> dout = load_lanes(dv + unit, width);
      if (keep_h.any()) {
        store_lanes(carry + unit, keep_h.part(dout, unit, width), width);
      }
      const Vec<Real> o = load_lanes(o_row(gates) + unit, width);
      const Vec<Real> value = h_(q);
      if (factors.output != nullptr) store_lanes(factors.output + unit, o * value, width);
      store_lanes(o_row(da) + unit, dout * value * f_.slope(o), width);
      const Vec<Real> dq = dout * o * h_.slope(value);
      store_lanes(dq_row + unit, dq, width);
      if (norm_ != nullptr) store_lanes(factors.dnorm + unit, dq, width);
    }
    if (norm_ != nullptr) normalization_gradient(factors.normalized, norm_, moments.scale, dq_row, H_);
    for (Index unit = 0; unit < H_; unit += L) {
      const Index width = lanes_left<Real>(unit, H_);
      const Vec<Real> old = load_lanes(c_prev + unit, width);
      const Vec<Real> f = load_lanes(f_row(gates) + unit, width);
      const Vec<Real> i = coupled_ ? splat(Real(1)) - f : load_lanes(gates + unit, width);
      const Vec<Real> g = load_lanes(g_row(gates) + unit, width);
      Vec<Real> dq = load_lanes(dq_row + unit, width);
      if (p_o_ != nullptr) dq = fma(load_lanes(o_row(da) + unit, width), load_lanes(p_o_ + unit, width), dq);
      Vec<Real> later = load_lanes(dc + unit, width);
      Vec<Real> dc_prev{};
      if (keep_c.any()) dc_prev = keep_c.part(later, unit, width);
      dq = dq + later;
      dc_prev = fma(dq, f, dc_prev);
      const Vec<Real> through_f = coupled_ ? old - g : old;
      const Vec<Real> df = dq * through_f * f_.slope(f);
      if (!coupled_) {
        const Vec<Real> di = dq * g * f_.slope(i);
        store_lanes(da + unit, di, width);
        if (p_i_ != nullptr) dc_prev = fma(di, load_lanes(p_i_ + unit, width), dc_prev);
      }
      if (p_f_ != nullptr) dc_prev = fma(df, load_lanes(p_f_ + unit, width), dc_prev);
      store_lanes(f_row(da) + unit, df, width);
      store_lanes(g_row(da) + unit, dq * i * g_.slope(g), width);
      store_lanes(dc + unit, dc_prev, width);
    }
  }

  /// Positions of the peepholes' gates among the H-blocks of da: i (not if coupled), f, o.
  Index gate_of_i() const { return 0; }
  Index gate_of_f() const { return coupled_ ? 0 : 1; }
  Index gate_of_o() const { return coupled_ ? 2 : 3; }

 private:
  static constexpr int L = kLanes<Real>;

  template <class Pointer>
  Pointer f_row(Pointer rows) const {
    return rows + gate_of_f() * H_;
  }
  template <class Pointer>
  Pointer g_row(Pointer rows) const {
    return rows + (gate_of_f() + 1) * H_;
  }
  template <class Pointer>
  Pointer o_row(Pointer rows) const {
    return rows + gate_of_o() * H_;
  }

  static RNNFAST_INLINE Vec<Real> peek(const Real* a, const Real* p, Vec<Real> c, Index unit, Index width) {
    const Vec<Real> sum = load_lanes(a + unit, width);
    return p == nullptr ? sum : fma(load_lanes(p + unit, width), c, sum);
  }

  RNNFAST_INLINE Vec<Real> candidate(const Real* gates, const Real* c_prev, Index unit, Index width) const {
    const Vec<Real> f = load_lanes(f_row(gates) + unit, width);
    const Vec<Real> i = coupled_ ? splat(Real(1)) - f : load_lanes(gates + unit, width);
    return fma(f, load_lanes(c_prev + unit, width), i * load_lanes(g_row(gates) + unit, width));
  }

  const Index H_;
  const ActivationOf<Real> f_, g_, h_;
  const bool coupled_;
  const Real* const p_i_;
  const Real* const p_f_;
  const Real* const p_o_;
  const Real* const norm_;
  const Real* const norm_bias_;
};

}  // namespace rnnfast::RNNFAST_ISA
