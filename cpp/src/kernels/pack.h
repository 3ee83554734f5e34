// SPDX-License-Identifier: MIT
// Packing: weights and chunks of activations, rearranged so that the micro-kernel reads them in sequence.
//
// Padding lives here only: lanes beyond the last unit are zero in packed buffers, arrays of callers have none.
#pragma once

#include <utility>

#include "kernels/tile.h"
#include "rnnfast/recurrent.h"

namespace rnnfast::RNNFAST_ISA {

template <class Real>
RNNFAST_INLINE Index lanes_left(Index unit, Index units) {
  return units - unit < kLanes<Real> ? units - unit : kLanes<Real>;
}

/// One step of the transposition below: exchanges lanes `Step` apart between two registers.
template <class Real, int Step, int... J>
RNNFAST_INLINE void exchange(Vec<Real>& a, Vec<Real>& b, std::integer_sequence<int, J...>) {
  constexpr int L = kLanes<Real>;
  const Vec<Real> low = __builtin_shufflevector(a, b, ((J & Step) == 0 ? J : L + J - Step)...);
  const Vec<Real> high = __builtin_shufflevector(a, b, ((J & Step) == 0 ? J + Step : L + J)...);
  a = low;
  b = high;
}

template <class Real, int Step>
RNNFAST_INLINE void exchange_all(Vec<Real> (&v)[kLanes<Real>]) {
  constexpr int L = kLanes<Real>;
  if constexpr (Step < L) {
#pragma GCC unroll 16
    for (int j = 0; j < L; ++j) {
      if ((j & Step) == 0) exchange<Real, Step>(v[j], v[j + Step], std::make_integer_sequence<int, L>{});
    }
    exchange_all<Real, 2 * Step>(v);
  }
}

/// to[c * to_stride + r] = from[r * from_stride + c] for r < rows, c < columns; zero up to the next full register
/// in r. to_stride must leave room for that.
template <class Real>
inline void transpose(Real* to, Index to_stride, const Real* from, Index from_stride, Index rows, Index columns) {
  constexpr int L = kLanes<Real>;
  for (Index r = 0; r < rows; r += L) {
    const Index height = lanes_left<Real>(r, rows);
    for (Index c = 0; c < columns; c += L) {
      const Index width = lanes_left<Real>(c, columns);
      Vec<Real> v[L];
      if (height == L && width == L) {
#pragma GCC unroll 16
        for (int j = 0; j < L; ++j) v[j] = load(from + (r + j) * from_stride + c);
        exchange_all<Real, 1>(v);
#pragma GCC unroll 16
        for (int j = 0; j < L; ++j) store(to + (c + j) * to_stride + r, v[j]);
      } else {
        for (int j = 0; j < L; ++j) {
          v[j] = j < height ? load_lanes(from + (r + j) * from_stride + c, width) : Vec<Real>{};
        }
        exchange_all<Real, 1>(v);
        for (Index j = 0; j < width; ++j) store(to + (c + j) * to_stride + r, v[j]);
      }
    }
  }
}

/// Panels for products whose results run over units: w rows become lanes.
///   to    out  [blocks of H][depth][P][lanes]
///   w     in   (G*H, depth); gate[p] is the row block of product p
template <class Real, int P>
inline void pack_units_by_depth(Real* to, const Real* w, const int (&gate)[P], Index H, Index depth) {
  constexpr int L = kLanes<Real>;
  for (Index block = 0; block < blocks_of<Real>(H); ++block) {
    for (int p = 0; p < P; ++p) {
      transpose(to + block * depth * P * L + p * L, P * L, w + (gate[p] * H + block * L) * depth, depth,
                lanes_left<Real>(block * L, H), depth);
    }
  }
}

/// Panels for products whose sum runs over the gates: w columns become lanes.
///   to    out  [blocks of columns][P * H][lanes]
///   w     in   (G*H, columns); gate[p] is the row block of the p-th part of the sum
template <class Real, int P>
inline void pack_columns_by_gates(Real* to, const Real* w, const int (&gate)[P], Index H, Index columns) {
  constexpr int L = kLanes<Real>;
  for (Index block = 0; block < blocks_of<Real>(columns); ++block) {
    const Index width = lanes_left<Real>(block * L, columns);
    for (int p = 0; p < P; ++p) {
      const Real* from = w + gate[p] * H * columns + block * L;
      for (Index j = 0; j < H; ++j, to += L) store(to, load_lanes(from + j * columns, width));
    }
  }
}

/// The packed weights of a layer, as views of one buffer.
template <class CellMath, class Real>
struct ForwardPack {
  static constexpr int P = CellMath::kProducts;
  static constexpr int L = kLanes<Real>;
  Index blocks;
  Panels<Real> w_ih;  // [blocks][I][P][lanes]
  Panels<Real> w_hh;  // [blocks][H][P][lanes]
  const Real* bias;   // [planes][blocks * lanes]

  ForwardPack(LayerDims d, const Real* buffer)
      : blocks(blocks_of<Real>(d.H)),
        w_ih{buffer, d.I, d.I * P * L},
        w_hh{buffer + blocks * w_ih.stride, d.H, d.H * P * L},
        bias(w_hh.data + blocks * w_hh.stride) {}

  static Index size(LayerDims d) { return blocks_of<Real>(d.H) * L * ((d.I + d.H) * P + CellMath::kPlanes); }

  static void pack(LayerDims d, const Parameters<Real>& parameters, Real* buffer) {
    const ForwardPack views(d, buffer);
    Real* at = buffer;
    pack_units_by_depth<Real, P>(at, parameters.w_ih, CellMath::kInputGate, d.H, d.I);
    at += views.blocks * views.w_ih.stride;
    pack_units_by_depth<Real, P>(at, parameters.w_hh, CellMath::kRecurrentGate, d.H, d.H);
    at += views.blocks * views.w_hh.stride;
    const Index padded = views.blocks * L;
    for (int plane = 0; plane < CellMath::kPlanes; ++plane) {
      const int of_input = plane - CellMath::kInputPlane;
      const int of_recurrent = plane - CellMath::kRecurrentPlane;
      for (Index j = 0; j < padded; ++j) {
        Real sum = 0;
        if (j < d.H && parameters.b_ih != nullptr) {
          if (of_input >= 0 && of_input < P) sum += parameters.b_ih[CellMath::kInputGate[of_input] * d.H + j];
          if (of_recurrent >= 0 && of_recurrent < P) {
            sum += parameters.b_hh[CellMath::kRecurrentGate[of_recurrent] * d.H + j];
          }
        }
        at[plane * padded + j] = sum;
      }
    }
  }
};

template <class CellMath, class Real>
struct BackwardPack {
  static constexpr int P = CellMath::kProducts;
  static constexpr int L = kLanes<Real>;
  Panels<Real> w_hh;  // [blocks of H][P * H][lanes]
  Panels<Real> w_ih;  // [blocks of I][P * H][lanes]

  BackwardPack(LayerDims d, const Real* buffer)
      : w_hh{buffer, P * d.H, P * d.H * L}, w_ih{buffer + blocks_of<Real>(d.H) * w_hh.stride, P * d.H, P * d.H * L} {}

  static Index size(LayerDims d) { return (blocks_of<Real>(d.H) + blocks_of<Real>(d.I)) * P * d.H * L; }

  static void pack(LayerDims d, const Parameters<Real>& parameters, Real* buffer) {
    pack_columns_by_gates<Real, P>(buffer, parameters.w_hh, CellMath::kRecurrentGate, d.H, d.H);
    buffer += blocks_of<Real>(d.H) * P * d.H * L;
    pack_columns_by_gates<Real, P>(buffer, parameters.w_ih, CellMath::kInputGate, d.H, d.I);
  }
};

}  // namespace rnnfast::RNNFAST_ISA
