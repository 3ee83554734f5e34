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

/// Gradients of the pre-activations of a chunk's rows, (rows, planes * H).
template <class Real>
struct ChunkGradients {
  Real* data;
  Index first_row;  // of the chunk
  Index stride;
  Columns<Real> columns;  // the same of more than kOuterRows rows, each plane beginning with a group; else of no memory

  /// Columns of a plane of H units.
  RNNFAST_INLINE Columns<Real> plane(int number, Index H) const {
    return {columns.data + number * Columns<Real>::size(H, columns.height), columns.height};
  }

  Real* operator[](Index row) const { return data + (row - first_row) * stride; }
};

/// The gradient of one chunk of steps, piece by piece: each thread packs its share of the piece's rows and, when all
/// have, adds its gates.
template <class CellMath, class Real>
class WeightGrad {
 public:
  /// Memory that the threads share, without the gradients.
  static Index work_size(const Dims& d) { return blocks_of<Real>(columns(d)) * block_stride(d); }
  /// Rows of a chunk whose gradients are needed as columns; 0 if they are few.
  static Index columns_height(const Dims& d) { return chunk_rows(d) > kOuterRows ? chunk_rows(d) : 0; }
  static Index columns_size(const Dims& d) { return CellMath::kPlanes * Columns<Real>::size(d.H, columns_height(d)); }
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
  ///   member  of `members` threads, which share the groups of units of all planes
  void add(Index number, int member, int members) const {
    const Piece piece = piece_at(number);
    constexpr Index kWidth = Columns<Real>::kWidth;
    const Index of_plane = (d.H + kWidth - 1) / kWidth;
    const Range groups = share(CellMath::kPlanes * of_plane, member, members);
    for (int plane = 0; plane < CellMath::kPlanes; ++plane) {
      const Range mine = intersection(groups, {plane * of_plane, (plane + 1) * of_plane});
      const Range units{(mine.first - plane * of_plane) * kWidth, least((mine.last - plane * of_plane) * kWidth, d.H)};
      if (units.size() <= 0) continue;
      if (args.db_ih != nullptr) add_bias(piece, plane, units);
      if (piece.is_packed()) {
        add_packed(piece, plane, units);
      } else {
        add_unpacked(piece, plane, units);
      }
    }
  }

 private:
  static constexpr int L = kLanes<Real>;
  static constexpr Index kRowsAtOnce = 16;  // that are packed

  const Dims& d;
  const BackwardArgs<Real>& args;
  const ChunkGradients<Real>& da;
  const StepRange steps;
  const Index rows;  // of the steps
  const Index zero_rows;  // the first ones, whose previous state is zero
  Real* const inputs;  // [blocks of columns][rows][lanes] of a piece's [x, h_prev], block_stride() apart

  struct Piece {
    Range rows;  // of the chunk
    Index zero_rows;  // the first ones of them
    bool adds;  // to what stands in the gradients

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
  static Index block_stride(const Dims& d) { return odd_lines<Real>(height(d) * L); }

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

  void add_packed(const Piece& piece, int plane, Range units) const {
    const Index count = piece.rows.size();
    // Two products cost more than few rows of zeros.
    const Index zeros = piece.zero_rows < count / 8 ? 0 : piece.zero_rows;
    const Index input_blocks = blocks_of<Real>(d.I);
    const Index all_blocks = blocks_of<Real>(columns(d));
    const Panels<Real> panels{inputs, count, block_stride(d)};
    // A plane without an input product has no part in dw_ih, one without a recurrent product none in dw_hh.
    const Range blocks{has_input(plane) ? 0 : d.I / L, has_recurrent(plane) ? all_blocks : input_blocks};
    if (zeros == 0) {
      add_products(piece, plane, units, 0, blocks, panels);
      return;
    }
    add_products(piece, plane, units, 0, intersection(blocks, {0, input_blocks}), panels);
    if (zeros == count && piece.adds) return;
    const Panels<Real> moving{inputs + zeros * L, count - zeros, panels.stride};
    add_products(piece, plane, units, zeros, intersection(blocks, {input_blocks, all_blocks}), moving);
  }

  /// The products of a piece's rows from its row `first` on.
  void add_products(const Piece& piece, int plane, Range units, Index first, Range blocks,
                    const Panels<Real>& panels) const {
    const auto for_each_target_of = [&](const TileRange& tile, const auto& body) {
      for (Index r = 0; r < tile.rows; ++r) {
        for_each_target(plane, tile.first_row + r, tile.first_block * L, tile.blocks * L,
                        [&](Real* to, Index skip, Index count) { body(to, r, skip, count); });
      }
    };
    multiply_columns(
        da.plane(plane, d.H), piece.rows.first + first, units, blocks, panels,
        [&](const TileRange& tile) {
          for_each_target_of(tile, [](Real* to, Index, Index, Index count) { prefetch_columns(to, count); });
        },
        [&](const TileRange& tile, Accumulators<Real>& acc) {
          for_each_target_of(tile, [&](Real* to, Index r, Index skip, Index count) {
            add_columns(to, acc.at(tile, r, 0, 1) + skip, count, piece.adds);
          });
        });
  }

  void add_unpacked(const Piece& piece, int plane, Range units) const {
    const Real* x[kOuterRows];
    const Real* h_prev[kOuterRows];
    const Real* gradients[kOuterRows];
    const Index count = piece.rows.size();
    for_each_row(piece.rows, [&](Index row, const Real* x_row, const Real* h_row) {
      const Index m = row - piece.rows.first;
      x[m] = x_row;
      h_prev[m] = h_row;
      gradients[m] = da[da.first_row + row] + plane * d.H;
    });
    const Index zeros = piece.zero_rows;
    for (Index unit = units.first; unit < units.last; ++unit) {
      Real a[kOuterRows];
      for (Index m = 0; m < count; ++m) a[m] = gradients[m][unit];
      for_each_target(plane, unit, 0, columns(d), [&](Real* to, Index skip, Index width) {
        if (skip == 0) {
          add_outer_row(to, width, count, a, x, piece.adds);
        } else if (zeros < count || !piece.adds) {
          add_outer_row(to, width, count - zeros, a + zeros, h_prev + zeros, piece.adds);
        }
      });
    }
  }

  static constexpr bool has_input(int plane) { return input_product<CellMath>(plane) >= 0; }
  static constexpr bool has_recurrent(int plane) { return recurrent_product<CellMath>(plane) >= 0; }

  void pack_rows(const Piece& piece, const SomeRows& some) const {
    const Index width = piece.zero_rows == piece.rows.size() ? d.I : columns(d);
    for (Index block = 0; block < blocks_of<Real>(width); ++block) {
      Real* to = inputs + block * block_stride(d) + (some.first - piece.rows.first) * L;
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

  /// Where the products of a plane's unit with the columns first..first+count-1 belong: calls body(address, columns to
  /// skip, columns) for its rows of dw_ih and dw_hh.
  template <class Body>
  RNNFAST_INLINE void for_each_target(int plane, Index unit, Index first, Index count, const Body& body) const {
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

  void add_bias(const Piece& piece, int plane, Range units) const {
    for (Index unit = units.first; unit < units.last; unit += L) {
      const Index width = lanes_left<Real>(unit, units.last);
      Vec<Real> sum{};
      const Real* from = da[da.first_row + piece.rows.first] + plane * d.H + unit;
      for (Index m = 0; m < piece.rows.size(); ++m, from += da.stride) sum = sum + load_lanes(from, width);
      Real sums[L];
      store(sums, sum);
      if (has_input(plane)) {
        const Index gate = CellMath::kInputGate[input_product<CellMath>(plane)];
        add_columns(args.db_ih + gate * d.H + unit, sums, width, piece.adds);
      }
      if (has_recurrent(plane)) {
        const Index gate = CellMath::kRecurrentGate[recurrent_product<CellMath>(plane)];
        add_columns(args.db_hh + gate * d.H + unit, sums, width, piece.adds);
      }
    }
  }
};

}  // namespace rnnfast::RNNFAST_ISA
