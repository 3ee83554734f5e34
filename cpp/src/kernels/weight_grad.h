// SPDX-License-Identifier: MIT
// Weight gradients: dw_ih += sum da x', dw_hh += sum da h_prev', db += sum da, over rows (t, n).
//
// One product serves all of them: the columns x, h_prev and a column of ones stand side by side. Rows are summed
// in pieces of a fixed height, each in registers from zero: that bounds the rounding error of long sums and makes
// the result independent of the number of threads, which divide the gates among them.
#pragma once

#include "kernels/pack.h"
#include "kernels/team.h"

namespace rnnfast::RNNFAST_ISA {

template <class CellMath, class Real>
class WeightGrad {
 public:
  static constexpr Index kPieceRows = 256;

  static Index work_size(const Dims& d) {
    return CellMath::kPlanes * d.H * kPieceRows + blocks_of<Real>(columns(d)) * kPieceRows * L;
  }

  /// Adds the gradient of rows 0..rows-1, counted from the given pointers.
  ///   x       (rows, I),  h_prev (rows, H),  da (rows, planes, H)
  ///   gates   the units-of-gates range (of planes * H) this thread is responsible for
  static void add(const Dims& d, const BackwardArgs<Real>& args, const Real* x, const Real* h_prev, const Real* da,
                  Index rows, Range gates, Real* work) {
    for (Index first = 0; first < rows; first += kPieceRows) {
      const Index height = rows - first < kPieceRows ? rows - first : kPieceRows;
      WeightGrad(d, args, work).add_piece(x + first * d.I, h_prev + first * d.H, da + first * CellMath::kPlanes * d.H,
                                          height, gates);
    }
  }

 private:
  static constexpr int L = kLanes<Real>;
  const Dims& d;
  const BackwardArgs<Real>& args;
  Real* const da_columns;  // (planes * H, kPieceRows): a row of this is a gate's gradient over the piece
  Real* const inputs;      // [blocks of columns][kPieceRows][lanes] of [x, h_prev, 1]

  WeightGrad(const Dims& dims, const BackwardArgs<Real>& a, Real* work)
      : d(dims), args(a), da_columns(work), inputs(work + CellMath::kPlanes * d.H * kPieceRows) {}

  static Index columns(const Dims& d) { return d.I + d.H + 1; }

  void add_piece(const Real* x, const Real* h_prev, const Real* da, Index rows, Range gates) const {
    const Index row_size = CellMath::kPlanes * d.H;
    transpose(da_columns + gates.first * kPieceRows, kPieceRows, da + gates.first, row_size, rows,
              gates.last - gates.first);
    pack_inputs(x, h_prev, rows);
    const Panels<Real> panels{inputs, rows, kPieceRows * L};
    for_each_tile<1>(gates.last - gates.first, blocks_of<Real>(columns(d)), [&](const TileRange& tile) {
      Accumulators<Real> acc{};
      const Real* gate[kMaxRows<1>];
      for (Index r = 0; r < tile.rows; ++r) {
        gate[r] = da_columns + (gates.first + tile.first_row + r) * kPieceRows;
      }
      multiply<1>(tile, acc.data, 1, gate, panels);
      for (Index r = 0; r < tile.rows; ++r) {
        scatter(acc.at(tile, r, 0, 1), gates.first + tile.first_row + r, tile.first_block * L, tile.blocks * L);
      }
    });
  }

  void pack_inputs(const Real* x, const Real* h_prev, Index rows) const {
    const Index width = columns(d);
    for (Index block = 0; block < blocks_of<Real>(width); ++block) {
      Real* to = inputs + block * kPieceRows * L;
      const Index first = block * L;
      for (Index m = 0; m < rows; ++m, to += L) {
        if (first + L <= d.I) {
          store(to, load(x + m * d.I + first));
        } else if (first >= d.I && first + L <= d.I + d.H) {
          store(to, load(h_prev + m * d.H + first - d.I));
        } else {
          for (Index j = 0; j < L; ++j) to[j] = input(x + m * d.I, h_prev + m * d.H, first + j);
        }
      }
    }
  }

  Real input(const Real* x, const Real* h_prev, Index column) const {
    if (column < d.I) return x[column];
    if (column < d.I + d.H) return h_prev[column - d.I];
    return column == d.I + d.H ? Real(1) : Real(0);
  }

  /// Adds `count` columns from `first` on, of the gate that stands at `position` in (planes, H).
  void scatter(const Real* sums, Index position, Index first, Index count) const {
    const int plane = static_cast<int>(position / d.H);
    const Index unit = position % d.H;
    const int of_input = plane - CellMath::kInputPlane;
    const int of_recurrent = plane - CellMath::kRecurrentPlane;
    if (of_input >= 0 && of_input < CellMath::kProducts) {
      const Index row = CellMath::kInputGate[of_input] * d.H + unit;
      add_columns(args.dw_ih + row * d.I, d.I, sums, first, count);
      if (args.db_ih != nullptr) add_columns(args.db_ih + row, 1, sums, first - d.I - d.H, count);
    }
    if (of_recurrent >= 0 && of_recurrent < CellMath::kProducts) {
      const Index row = CellMath::kRecurrentGate[of_recurrent] * d.H + unit;
      add_columns(args.dw_hh + row * d.H, d.H, sums, first - d.I, count);
      if (args.db_hh != nullptr) add_columns(args.db_hh + row, 1, sums, first - d.I - d.H, count);
    }
  }

  /// to[first + j] += sums[j] for the j that fall into [0, size).
  static void add_columns(Real* to, Index size, const Real* sums, Index first, Index count) {
    const Index from = first < 0 ? -first : 0;
    const Index until = size - first < count ? size - first : count;
    for (Index j = from; j < until; ++j) to[first + j] += sums[j];
  }
};

}  // namespace rnnfast::RNNFAST_ISA
