// SPDX-License-Identifier: MIT
// Weight gradients: dw_ih = sum da x', dw_hh = sum da h_prev', db = sum da, over rows (t, n), or += (overwrite).
//
// One product serves both matrices: the columns of x and h_prev stand side by side, so that few inputs waste no
// lanes. Threads pack them together, and then divide the gates among them. Rows are summed piece by piece (chunks.h).
// Those of the first step add nothing to dw_hh if it begins with states of zeros.
#pragma once

#include "kernels/columns.h"
#include "kernels/outer.h"

namespace rnnfast::RNNFAST_ISA {

/// Gradients of the pre-activations of a chunk's rows.
template <class Real>
struct ChunkGradients {
  Real* data;
  Index first_row;  // of the chunk
  Index stride;

  Real* operator[](Index row) const { return data + (row - first_row) * stride; }
};

/// The gradient of one chunk of steps, piece by piece: each thread packs its share of the piece's rows and, when all
/// have, adds its gates.
template <class CellMath, class Real>
class WeightGrad {
 public:
  /// Memory that the threads share.
  static Index work_size(const Dims& d) { return blocks_of<Real>(columns(d)) * height(d) * L; }
  /// Memory that each of them needs for itself.
  static Index own_size(const Dims& d) { return d.row(d.T) > kOuterRows ? gathered_size<Real>() : 0; }
  /// Rows that a chunk has at most.
  static Index chunk_rows(const Dims& d) { return most(d.N, height(d)); }

  WeightGrad(const Dims& dims, const BackwardArgs<Real>& a, const ChunkGradients<Real>& gradients, StepRange chunk,
             Real* work)
      : d(dims),
        args(a),
        da(gradients),
        steps(chunk),
        rows(d.row(chunk.last) - d.row(chunk.first)),
        zero_rows(chunk.first == 0 && is_zero(a.h, d.rows(0) * d.H) ? d.rows(0) : 0),
        inputs(work) {}

  Index pieces() const { return (rows + kPieceRows - 1) / kPieceRows; }

  /// Packs a member's share of a piece's rows of [x, h_prev].
  void pack(Index number, int member, int members) const {
    const Piece piece = piece_at(number);
    if (!piece.is_packed()) return;
    const Range part = share(piece.rows.size(), member, members);
    const Range mine{piece.rows.first + part.first, piece.rows.first + part.last};
    // While some rows are packed, the next ones are fetched.
    SomeRows fetched{};
    SomeRows next{};
    for_each_row(mine, [&](Index row, const Real* x, const Real* h_prev) {
      if (next.count == 0) next.first = row;
      next.x[next.count] = x;
      next.h_prev[next.count++] = h_prev;
      prefetch_row(x, d.I);
      prefetch_row(h_prev, d.H);
      if (next.count == kRowsAtOnce || row + 1 == mine.last) {
        pack_rows(piece, fetched);
        fetched = next;
        next.count = 0;
      }
    });
    pack_rows(piece, fetched);
  }

  /// Adds, or writes, what a piece is to the gradient of some gates.
  ///   gates  the range of planes * H this thread is responsible for
  ///   own    memory of this thread: own_size()
  void add(Index number, Range gates, Real* own) const {
    const Piece piece = piece_at(number);
    const Index count = piece.rows.size();
    const LeftColumns<Real> gradients{da[d.row(steps.first) + piece.rows.first], da.stride};
    if (args.db_ih != nullptr) add_bias(gradients, count, gates, piece.adds);
    if (piece.is_packed()) {
      add_packed(piece, gradients, gates, own);
    } else {
      add_unpacked(piece, gradients, gates);
    }
  }

 private:
  static constexpr int L = kLanes<Real>;
  static constexpr Index kRowsAtOnce = 16;  // that are packed

  const Dims& d;
  const BackwardArgs<Real>& args;
  const ChunkGradients<Real>& da;
  const StepRange steps;
  const Index rows;       // of the steps
  const Index zero_rows;  // the first ones, whose previous state is zero
  Real* const inputs;     // [blocks of columns][height][lanes] of a piece's [x, h_prev]

  struct Piece {
    Range rows;       // of the chunk
    Index zero_rows;  // the first ones of them
    bool adds;        // to what stands in the gradients

    bool is_packed() const { return rows.size() > kOuterRows; }
  };

  /// Consecutive rows, counted from the first one of the chunk.
  struct SomeRows {
    const Real* x[kRowsAtOnce];
    const Real* h_prev[kRowsAtOnce];
    Index first;
    Index count;
  };

  Piece piece_at(Index number) const {
    const Index first = number * kPieceRows;
    const Range range{first, least(rows, first + kPieceRows)};
    return {range, most<Index>(0, intersection({0, zero_rows}, range).size()),
            !args.overwrite || steps.last < d.T || first > 0};
  }

  static Index columns(const Dims& d) { return d.I + d.H; }
  /// Rows that a piece has at most.
  static Index height(const Dims& d) { return least(kPieceRows, d.row(d.T)); }

  /// Calls body(row, its x, its h_prev) for the rows of a range, counted from the first one of the chunk.
  template <class Body>
  RNNFAST_INLINE void for_each_row(Range range, const Body& body) const {
    for (Index t = steps.first; t < steps.last; ++t) {
      const Index first = d.row(t) - d.row(steps.first);
      const Range some = intersection(range, {first, first + d.rows(t)});
      for (Index row = some.first; row < some.last; ++row) {
        const Index n = row - first;
        body(row, args.x + d.place(d.row(t) + n) * d.I, args.h + (d.slot(t) + n) * d.H);
      }
    }
  }

  void add_packed(const Piece& piece, const LeftColumns<Real>& gradients, Range gates, Real* own) const {
    const Index count = piece.rows.size();
    // Two products cost more than few rows of zeros.
    const Index zeros = piece.zero_rows < count / 8 ? 0 : piece.zero_rows;
    const Index input_blocks = blocks_of<Real>(d.I);
    const Index all_blocks = blocks_of<Real>(columns(d));
    const Panels<Real> panels{inputs, count, height(d) * L};
    const Panels<Real> moving{inputs + zeros * L, count - zeros, panels.stride};
    for (int plane = 0; plane < CellMath::kPlanes; ++plane) {
      // A plane without an input product has no part in dw_ih, one without a recurrent product none in dw_hh.
      const Range blocks{has_input(plane) ? 0 : d.I / L, has_recurrent(plane) ? all_blocks : input_blocks};
      const Range positions = intersection(gates, {plane * d.H, (plane + 1) * d.H});
      if (positions.size() <= 0) continue;
      if (zeros == 0) {
        add_groups(gradients, positions, blocks, panels, piece.adds, own);
        continue;
      }
      const Range of_inputs = intersection(blocks, {0, input_blocks});
      if (of_inputs.size() > 0) add_groups(gradients, positions, of_inputs, panels, piece.adds, own);
      const Range of_states = intersection(blocks, {input_blocks, all_blocks});
      if (of_states.size() > 0 && (moving.depth > 0 || !piece.adds)) {
        add_groups({gradients.data + zeros * gradients.stride, gradients.stride}, positions, of_states, moving,
                   piece.adds, own);
      }
    }
  }

  void add_unpacked(const Piece& piece, const LeftColumns<Real>& gradients, Range gates) const {
    const Real* x[kOuterRows];
    const Real* h_prev[kOuterRows];
    const Index count = piece.rows.size();
    for_each_row(piece.rows, [&](Index row, const Real* x_row, const Real* h_row) {
      x[row - piece.rows.first] = x_row;
      h_prev[row - piece.rows.first] = h_row;
    });
    const Index zeros = piece.zero_rows;
    for (Index position = gates.first; position < gates.last; ++position) {
      Real a[kOuterRows];
      for (Index m = 0; m < count; ++m) a[m] = gradients.data[m * gradients.stride + position];
      for_each_target(position, 0, columns(d), [&](Real* to, Index skip, Index width) {
        if (skip == 0) {
          add_outer_row(to, width, count, a, x, piece.adds);
        } else if (zeros < count || !piece.adds) {
          add_outer_row(to, width, count - zeros, a + zeros, h_prev + zeros, piece.adds);
        }
      });
    }
  }

  void add_groups(const LeftColumns<Real>& gradients, Range positions, Range blocks, const Panels<Real>& panels,
                  bool adds, Real* own) const {
    const auto for_each_target_of = [&](const TileRange& tile, const auto& body) {
      for (Index r = 0; r < tile.rows; ++r) {
        for_each_target(tile.first_row + r, tile.first_block * L, tile.blocks * L,
                        [&](Real* to, Index skip, Index count) { body(to, r, skip, count); });
      }
    };
    multiply_columns(
        gradients, positions, blocks, panels, own,
        [&](const TileRange& tile) {
          for_each_target_of(tile, [](Real* to, Index, Index, Index count) { prefetch_columns(to, count); });
        },
        [&](const TileRange& tile, Accumulators<Real>& acc) {
          for_each_target_of(tile, [&](Real* to, Index r, Index skip, Index count) {
            add_columns(to, acc.at(tile, r, 0, 1) + skip, count, adds);
          });
        });
  }

  static constexpr bool has_input(int plane) { return input_product<CellMath>(plane) >= 0; }
  static constexpr bool has_recurrent(int plane) { return recurrent_product<CellMath>(plane) >= 0; }

  void pack_rows(const Piece& piece, const SomeRows& some) const {
    const Index width = piece.zero_rows == piece.rows.size() ? d.I : columns(d);
    for (Index block = 0; block < blocks_of<Real>(width); ++block) {
      Real* to = inputs + (block * height(d) + some.first - piece.rows.first) * L;
      const Index first = block * L;
      for (Index m = 0; m < some.count; ++m, to += L) {
        if (first + L <= d.I) {
          store(to, load(some.x[m] + first));
        } else if (first >= d.I && first + L <= columns(d)) {
          store(to, load(some.h_prev[m] + first - d.I));
        } else {
          for (Index j = 0; j < L; ++j) to[j] = input(some.x[m], some.h_prev[m], first + j);
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

  static RNNFAST_INLINE void prefetch_row(const Real* from, Index count) {
    for (Index j = 0; j < count; j += kLine<Real>) __builtin_prefetch(from + j);
  }

  static RNNFAST_INLINE void prefetch_columns(Real* to, Index count) {
    for (Index j = 0; j < count; j += L) __builtin_prefetch(to + j, 1);
  }

  static RNNFAST_INLINE void add_columns(Real* to, const Real* sums, Index count, bool adds) {
    for (Index j = 0; j < count; j += L) {
      const Index width = lanes_left<Real>(j, count);
      const Vec<Real> before = adds ? load_lanes(to + j, width) : Vec<Real>{};
      store_lanes(to + j, before + load_lanes(sums + j, width), width);
    }
  }

  void add_bias(const LeftColumns<Real>& gradients, Index count, Range gates, bool adds) const {
    for (Index position = gates.first; position < gates.last;) {
      const Index unit = position % d.H;
      Index width = lanes_left<Real>(position, gates.last);
      if (width > d.H - unit) width = d.H - unit;
      Vec<Real> sum{};
      const Real* from = gradients.data + position;
      for (Index m = 0; m < count; ++m, from += gradients.stride) sum = sum + load_lanes(from, width);
      Real sums[L];
      store(sums, sum);
      const int plane = static_cast<int>(position / d.H);
      if (has_input(plane)) {
        const Index gate = CellMath::kInputGate[input_product<CellMath>(plane)];
        add_columns(args.db_ih + gate * d.H + unit, sums, width, adds);
      }
      if (has_recurrent(plane)) {
        const Index gate = CellMath::kRecurrentGate[recurrent_product<CellMath>(plane)];
        add_columns(args.db_hh + gate * d.H + unit, sums, width, adds);
      }
      position += width;
    }
  }
};

}  // namespace rnnfast::RNNFAST_ISA
