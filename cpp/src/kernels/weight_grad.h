// SPDX-License-Identifier: MIT
// Weight gradients: dw_ih = sum da x', dw_hh = sum da h_prev', db = sum da, over rows (t, n), or += (overwrite).
//
// One product serves both matrices: the columns of x and h_prev stand side by side, so that few inputs waste no
// lanes. Rows are summed piece by piece (chunks.h); threads divide the gates among them. Rows of the first step add
// nothing to dw_hh if it begins with states of zeros.
#pragma once

#include "kernels/outer.h"
#include "kernels/team.h"
#include "rnnfast/chunks.h"

namespace rnnfast::RNNFAST_ISA {

/// Gradients of the pre-activations of a chunk's rows.
template <class Real>
struct ChunkGradients {
  Real* data;
  Index first_row;  // of the chunk
  Index stride;

  Real* operator[](Index row) const { return data + (row - first_row) * stride; }
};

template <class CellMath, class Real>
class WeightGrad {
 public:
  static Index work_size(const Dims& d) { return blocks_of<Real>(columns(d)) * height(d) * L; }

  /// Adds, or writes, the gradient of some steps.
  ///   gates   the units-of-gates range (of planes * H) this thread is responsible for
  static void add(const Dims& d, const BackwardArgs<Real>& args, const ChunkGradients<Real>& da, StepRange steps,
                  Range gates, Real* work) {
    WeightGrad piece(d, args, da.stride, work);
    piece.adds = !args.overwrite || steps.last < d.T;
    Index zero_rows = steps.first == 0 && is_zero(args.h, d.rows(0) * d.H) ? d.rows(0) : 0;
    Index rows = 0;
    const auto add_rows = [&](Index end) {
      const Index zeros = least(rows, zero_rows);
      piece.add_piece(da[end - rows], rows, zeros, gates);
      zero_rows -= zeros;
      piece.adds = true;
      rows = 0;
    };
    for (Index t = steps.first; t < steps.last; ++t) {
      for (Index n = 0; n < d.rows(t); ++n) {
        piece.h_row[rows] = d.slot(t) + n;
        piece.x_row[rows++] = d.place(d.row(t) + n);
        if (rows == kPieceRows) add_rows(d.row(t) + n + 1);
      }
    }
    if (rows > 0) add_rows(d.row(steps.last));
  }

 private:
  static constexpr int L = kLanes<Real>;
  const Dims& d;
  const BackwardArgs<Real>& args;
  const Index row_size;     // from row to row of the gates' gradients
  Real* const inputs;       // [blocks of columns][height][lanes] of [x, h_prev]
  Index h_row[kPieceRows];  // row of h that comes before a row of the piece
  Index x_row[kPieceRows];  // its row of x
  bool adds = true;         // to what stands in the gradients

  WeightGrad(const Dims& dims, const BackwardArgs<Real>& a, Index da_stride, Real* work)
      : d(dims), args(a), row_size(da_stride), inputs(work) {}

  static Index columns(const Dims& d) { return d.I + d.H; }
  /// Rows that a piece has at most.
  static Index height(const Dims& d) { return least(kPieceRows, d.row(d.T)); }

  /// The first `zero_rows` of the rows have a previous state of zeros.
  void add_piece(const Real* da, Index rows, Index zero_rows, Range gates) const {
    assert(0 < rows && rows <= kPieceRows && 0 <= zero_rows && zero_rows <= rows);
    if (args.db_ih != nullptr) add_bias(da, rows, gates);
    if (rows <= kUnpackedRows) {
      add_unpacked(da, rows, zero_rows, gates);
      return;
    }
    // Two products cost more than few rows of zeros.
    if (zero_rows < rows / 8) zero_rows = 0;
    const Index input_blocks = blocks_of<Real>(d.I);
    const Index all_blocks = blocks_of<Real>(d.I + d.H);
    pack_inputs(rows, zero_rows == rows ? input_blocks : all_blocks);
    const Panels<Real> panels{inputs, rows, height(d) * L};
    const Panels<Real> moving{inputs + zero_rows * L, rows - zero_rows, panels.stride};
    for (int plane = 0; plane < CellMath::kPlanes; ++plane) {
      // A plane without an input product has no part in dw_ih, one without a recurrent product none in dw_hh.
      const Range blocks{has_input(plane) ? 0 : d.I / L, has_recurrent(plane) ? all_blocks : input_blocks};
      const Range positions = intersection(gates, {plane * d.H, (plane + 1) * d.H});
      if (positions.size() <= 0) continue;
      if (zero_rows == 0) {
        add_tiles({da, row_size}, positions, blocks, panels);
        continue;
      }
      const Range of_inputs = intersection(blocks, {0, input_blocks});
      if (of_inputs.size() > 0) add_tiles({da, row_size}, positions, of_inputs, panels);
      const Range of_states = intersection(blocks, {input_blocks, all_blocks});
      if (of_states.size() > 0 && (moving.depth > 0 || !adds)) {
        add_tiles({da + zero_rows * row_size, row_size}, positions, of_states, moving);
      }
    }
  }

  void add_unpacked(const Real* da, Index rows, Index zero_rows, Range gates) const {
    const Real* x[kUnpackedRows];
    const Real* h_prev[kUnpackedRows];
    for (Index m = 0; m < rows; ++m) {
      x[m] = args.x + x_row[m] * d.I;
      h_prev[m] = args.h + h_row[m] * d.H;
    }
    for (Index position = gates.first; position < gates.last; ++position) {
      Real a[kUnpackedRows];
      for (Index m = 0; m < rows; ++m) a[m] = da[m * row_size + position];
      for_each_target(position, 0, columns(d), [&](Real* to, Index skip, Index count) {
        if (skip == 0) {
          add_outer_row(to, count, rows, a, x, adds);
        } else if (zero_rows < rows || !adds) {
          add_outer_row(to, count, rows - zero_rows, a + zero_rows, h_prev + zero_rows, adds);
        }
      });
    }
  }

  void add_tiles(const LeftColumns<Real>& da, Range positions, Range blocks, const Panels<Real>& panels) const {
    for_each_tile<1>(positions.size(), blocks, [&](const TileRange& tile) {
      Accumulators<Real> acc;
      const Index first = positions.first + tile.first_row;
      for (Index r = 0; r < tile.rows; ++r) {
        for_each_target(first + r, tile.first_block * L, tile.blocks * L, prefetch_columns);
      }
      multiply(tile, acc.data, LeftColumns<Real>{da.data + first, da.stride}, panels);
      for (Index r = 0; r < tile.rows; ++r) {
        const Real* sums = acc.at(tile, r, 0, 1);
        for_each_target(first + r, tile.first_block * L, tile.blocks * L,
                        [&](Real* to, Index skip, Index count) { add_columns(to, sums + skip, count); });
      }
    });
  }

  static constexpr bool has_input(int plane) { return input_product<CellMath>(plane) >= 0; }
  static constexpr bool has_recurrent(int plane) { return recurrent_product<CellMath>(plane) >= 0; }

  void pack_inputs(Index rows, Index blocks) const {
    for (Index block = 0; block < blocks; ++block) {
      Real* to = inputs + block * height(d) * L;
      const Index first = block * L;
      for (Index m = 0; m < rows; ++m, to += L) {
        const Real* x = args.x + x_row[m] * d.I;
        const Real* h_prev = args.h + h_row[m] * d.H;
        if (first + L <= d.I) {
          store(to, load(x + first));
        } else if (first >= d.I && first + L <= d.I + d.H) {
          store(to, load(h_prev + first - d.I));
        } else {
          for (Index j = 0; j < L; ++j) to[j] = input(x, h_prev, first + j);
        }
      }
    }
  }

  Real input(const Real* x, const Real* h_prev, Index column) const {
    if (column < d.I) return x[column];
    return column < d.I + d.H ? h_prev[column - d.I] : Real(0);
  }

  /// Where the products of the gate at `position` in (planes, H) with the columns first..first+count-1 belong:
  /// calls body(address, columns to skip, columns) for its rows of dw_ih and dw_hh.
  template <class Body>
  RNNFAST_INLINE void for_each_target(Index position, Index first, Index count, const Body& body) const {
    const int plane = static_cast<int>(position / d.H);
    const Index unit = position % d.H;
    const Index end = least(first + count, columns(d));
    if (has_input(plane) && first < d.I) {
      const Index row = CellMath::kInputGate[input_product<CellMath>(plane)] * d.H + unit;
      body(args.dw_ih + row * d.I + first, Index{0}, least(end, d.I) - first);
    }
    if (has_recurrent(plane) && end > d.I) {
      const Index row = CellMath::kRecurrentGate[recurrent_product<CellMath>(plane)] * d.H + unit;
      const Index skip = most<Index>(0, d.I - first);
      body(args.dw_hh + row * d.H + first + skip - d.I, skip, end - first - skip);
    }
  }

  static RNNFAST_INLINE void prefetch_columns(Real* to, Index /*skip*/, Index count) {
    for (Index j = 0; j < count; j += L) __builtin_prefetch(to + j, 1);
  }

  RNNFAST_INLINE void add_columns(Real* to, const Real* sums, Index count) const {
    for (Index j = 0; j < count; j += L) {
      const Index width = lanes_left<Real>(j, count);
      const Vec<Real> before = adds ? load_lanes(to + j, width) : Vec<Real>{};
      store_lanes(to + j, before + load_lanes(sums + j, width), width);
    }
  }

  void add_bias(const Real* da, Index rows, Range gates) const {
    for (Index position = gates.first; position < gates.last;) {
      const Index unit = position % d.H;
      Index width = lanes_left<Real>(position, gates.last);
      if (width > d.H - unit) width = d.H - unit;
      Vec<Real> sum{};
      for (Index m = 0; m < rows; ++m) sum = sum + load_lanes(da + m * row_size + position, width);
      Real sums[L];
      store(sums, sum);
      const int plane = static_cast<int>(position / d.H);
      if (has_input(plane)) {
        add_columns(args.db_ih + CellMath::kInputGate[input_product<CellMath>(plane)] * d.H + unit, sums, width);
      }
      if (has_recurrent(plane)) {
        add_columns(args.db_hh + CellMath::kRecurrentGate[recurrent_product<CellMath>(plane)] * d.H + unit, sums,
                    width);
      }
      position += width;
    }
  }
};

}  // namespace rnnfast::RNNFAST_ISA
