// SPDX-License-Identifier: MIT
// Where things lie for cells with options: packed parameters, and what is kept of a row for backward.
#pragma once

#include "kernels/product.h"

namespace rnnfast::RNNFAST_ISA {

/// Numbers kept per row: gates, then for gru with the reset gate behind the product q, then with normalisation the
/// normalised products with x and h and their two scales.
struct KeptRow {
  Index gates;       // G*H, at 0
  Index q;           // where q is, 0 if it is not kept
  Index normalized;  // where the first normalised product is; the second follows, then the scales
  Index size;

  explicit KeptRow(const OptionCell& cell) : gates(cell.M()), q(0), normalized(0), size(cell.M()) {
    if (cell.kind == CellKind::gru && cell.reset_after) {
      q = size;
      size += cell.dims.H;
    }
    if (cell.layer_norm) {
      normalized = size;
      size += 2 * cell.M() + 2;
    }
  }
};

inline bool resets_before(const OptionCell& cell) { return cell.kind == CellKind::gru && !cell.reset_after; }
/// Whether b_hh is not added where b_ih is: for all gates (gru with normalisation), or for n.
inline bool keeps_biases_apart(const OptionCell& cell) { return cell.kind == CellKind::gru && cell.reset_after; }

/// The parameters of a layer, as views of one packed buffer.
template <class Real>
struct OptionPack {
  Matrix<Real> w_ih, w_hh;
  Matrix<Real> w_hn;  // the rows of n, if they are a matrix of their own
  Matrix<Real> w_hr;
  const Real* bias_ih = nullptr;  // (M)  with that of w_hh in it where both are added to the same. Forward only
  const Real* bias_hh = nullptr;  // (M)  forward only
  Index size;

  /// Views of what pack_forward (`backwards` false) or pack_backward wrote.
  OptionPack(const OptionCell& cell, const OptionParameters<Real>& parameters, const Real* buffer, bool backwards) {
    size = 0;
    const auto place = [&] { return buffer == nullptr ? nullptr : buffer + size; };
    const auto next = [&](Index rows, Index columns, const Ranges* ranges) {
      const Index outputs = backwards ? columns : rows;
      const Index inputs = backwards ? rows : columns;
      const Matrix<Real> matrix{place(), outputs, inputs, ranges};
      size += Matrix<Real>::size(outputs, inputs, ranges);
      return matrix;
    };
    const Index H = cell.dims.H;
    w_ih = next(cell.M(), cell.dims.I, backwards ? parameters.ih.backward : parameters.ih.forward);
    const Index own = cell.splits_n() ? H : 0;  // rows of n
    w_hh = next(cell.M() - own, cell.K(), backwards ? parameters.hh.backward : parameters.hh.forward);
    w_hn = own > 0 ? next(own, cell.K(), backwards ? parameters.hn.backward : parameters.hn.forward) : Matrix<Real>{};
    w_hr = cell.P > 0 ? next(cell.P, H, nullptr) : Matrix<Real>{};
    if (backwards) return;
    bias_ih = place();
    size += cell.M();
    bias_hh = place();
    size += cell.M();
  }

  static Index forward_size(const OptionCell& cell, const OptionParameters<Real>& parameters) {
    return OptionPack(cell, parameters, nullptr, false).size;
  }
  static Index backward_size(const OptionCell& cell, const OptionParameters<Real>& parameters) {
    return OptionPack(cell, parameters, nullptr, true).size;
  }

  static void pack_forward(const OptionCell& cell, const OptionParameters<Real>& parameters, Real* to) {
    const Index H = cell.dims.H;
    const Index M = cell.M();
    to = pack_rows(to, parameters.w_ih, M, cell.dims.I, parameters.ih.forward);
    const Index own = cell.splits_n() ? H : 0;
    to = pack_rows(to, parameters.w_hh, M - own, cell.K(), parameters.hh.forward);
    if (own > 0) to = pack_rows(to, parameters.w_hh + (M - own) * cell.K(), own, cell.K(), parameters.hn.forward);
    if (cell.P > 0) to = pack_rows(to, parameters.w_hr, cell.P, H, static_cast<const Ranges*>(nullptr));
    for (Index m = 0; m < M; ++m) {
      const bool apart = keeps_biases_apart(cell) && (cell.layer_norm || m >= 2 * H);
      const Real of_x = parameters.b_ih == nullptr ? Real(0) : parameters.b_ih[m];
      const Real of_h = parameters.b_hh == nullptr ? Real(0) : parameters.b_hh[m];
      to[m] = apart ? of_x : of_x + of_h;
      to[M + m] = apart ? of_h : Real(0);
    }
  }

  static void pack_backward(const OptionCell& cell, const OptionParameters<Real>& parameters, Real* to) {
    const Index H = cell.dims.H;
    to = pack_columns(to, parameters.w_ih, cell.M(), cell.dims.I, parameters.ih.backward);
    const Index rest = cell.M() - (cell.splits_n() ? H : 0);
    to = pack_columns(to, parameters.w_hh, rest, cell.K(), parameters.hh.backward);
    if (rest < cell.M()) to = pack_columns(to, parameters.w_hh + rest * cell.K(), H, cell.K(), parameters.hn.backward);
    if (cell.P > 0) pack_columns(to, parameters.w_hr, cell.P, H, static_cast<const Ranges*>(nullptr));
  }
};

/// Hands out parts of a work buffer, or, without one, finds out how large it has to be.
template <class Real>
struct Carver {
  Real* base;
  Index used = 0;

  Real* take(Index count) {
    Real* part = base == nullptr ? nullptr : base + used;
    used += blocks_of<Real>(count) * kLanes<Real>;
    return part;
  }
};

/// to[j] = from[j] * factor[j]
template <class Real>
inline void multiply_row(Real* to, const Real* from, const Real* factor, Index count) {
  for (Index j = 0; j < count; j += kLanes<Real>) {
    const Index width = lanes_left<Real>(j, count);
    store_lanes(to + j, load_lanes(from + j, width) * load_lanes(factor + j, width), width);
  }
}

/// to[j] += from[j] * factor[j], factor null for ones
template <class Real>
inline void add_row(Real* to, const Real* from, const Real* factor, Index count) {
  for (Index j = 0; j < count; j += kLanes<Real>) {
    const Index width = lanes_left<Real>(j, count);
    const Vec<Real> value = load_lanes(from + j, width);
    const Vec<Real> sum = load_lanes(to + j, width);
    store_lanes(to + j, factor == nullptr ? sum + value : fma(value, load_lanes(factor + j, width), sum), width);
  }
}

}  // namespace rnnfast::RNNFAST_ISA
