// SPDX-License-Identifier: MIT
// Backpropagation through time, generic over cell, float type and instruction set.
//
// Per step and tile: dL/dh[t] = da[t+1] w_hh + dy[t] is summed in registers and the derivative of the cell follows
// at once; da[t] overwrites the gates. After a chunk of steps, while its da are in cache, come dx = da w_ih and the
// weight gradients.
#pragma once

#include "kernels/weight_grad.h"

namespace rnnfast::RNNFAST_ISA {

template <class CellMath, class Real>
class Backward {
 public:
  /// Steps of a chunk, a function of N alone: the pieces of the weight gradient's sums must not depend on anything
  /// else.
  static Index chunk_steps(Index N) {
    const Index steps = WeightGrad<CellMath, Real>::kPieceRows / N;
    return steps < 1 ? 1 : steps;
  }

  static Index work_size(const Dims& d, int threads) { return threads * WeightGrad<CellMath, Real>::work_size(d); }

  static void run(const Dims& d, const BackwardArgs<Real>& args, Team& team) {
    const Split split = Split::choose<Real>(d, CellMath::kProducts, team.size()).confirmed(team);
    const Backward self(d, args);
    const Index blocks = blocks_of<Real>(d.H);
    const Index chunk = chunk_steps(d.N);
    Barrier barrier(split.threads);
    for (Index last = d.T; last > 0; last -= chunk) {
      const Index first = last > chunk ? last - chunk : 0;
      parallel(team, split.threads, [&](int member) {
        self.run_part(first, last, split.part(d, blocks, member), split.by_units ? &barrier : nullptr);
      });
      parallel(team, split.threads, [&](int member) {
        if (args.dx != nullptr) self.write_input_grad(first, last, member, split.threads);
        self.add_weight_grad(first, last, member, split.threads);
      });
    }
  }

 private:
  static constexpr int L = kLanes<Real>;
  static constexpr int kPlanes = CellMath::kPlanes;

  const Dims& d;
  const BackwardArgs<Real>& args;
  const BackwardPack<CellMath, Real> pack;

  Backward(const Dims& dims, const BackwardArgs<Real>& a) : d(dims), args(a), pack({d.I, d.H}, a.packed) {}

  Real* da(Index t, Index row) const { return args.gates + (t * d.N + row) * kPlanes * d.H; }

  /// Steps last-1 .. first of one thread's part: da, and dL/dh, dL/dc before `first`.
  void run_part(Index first, Index last, const Part& part, Barrier* barrier) const {
    const Range rows = part.rows;
    for (Index t = last - 1; t >= first; --t) {
      for_each_tile<1>(rows.size(), part.blocks, t % 2 == 1,
                       [&](const TileRange& tile) { retreat(tile, t, rows.first, t + 1 < last); });
      if (barrier != nullptr) barrier->wait();
    }
    for_each_tile<1>(rows.size(), part.blocks, [&](const TileRange& tile) { pass_on(tile, first, rows.first); });
  }

  /// acc = dL/dh of the step before t, through step t: what passed the gates of t by, then da[t] w_hh.
  void gradient_through_gates(const TileRange& tile, Index t, Index first_row, Accumulators<Real>& acc) const {
    const Real* from[kMaxRows<1>];
    for (Index r = 0; r < tile.rows; ++r) {
      const Index row = first_row + tile.first_row + r;
      from[r] = da(t, row) + CellMath::kRecurrentPlane * d.H;
      for (Index u = 0; u < tile.blocks; ++u) {
        const Index unit = (tile.first_block + u) * L;
        const Vec<Real> start = CellMath::kPassesStateOn
                                    ? load_lanes(args.dh + row * d.H + unit, lanes_left<Real>(unit, d.H))
                                    : Vec<Real>{};
        store(acc.at(tile, r, u, 1), start);
      }
    }
    multiply<1>(tile, acc.data, 1, from, pack.w_hh);
  }

  /// The derivative of step t. `inner`: dL/dh[t] comes through step t + 1; otherwise it stands in args.dh.
  void retreat(const TileRange& tile, Index t, Index first_row, bool inner) const {
    Accumulators<Real> acc;
    if (inner) {
      for (Index r = 0; r < tile.rows; ++r) prefetch_step(t, first_row + tile.first_row + r, tile);
      gradient_through_gates(tile, t + 1, first_row, acc);
    }
    for (Index r = 0; r < tile.rows; ++r) {
      const Index row = first_row + tile.first_row + r;
      for (Index u = 0; u < tile.blocks; ++u) {
        const Index unit = (tile.first_block + u) * L;
        const Vec<Real> dh =
            inner ? load(acc.at(tile, r, u, 1)) : load_lanes(args.dh + row * d.H + unit, lanes_left<Real>(unit, d.H));
        differentiate(t, row, unit, dh);
      }
    }
  }

  /// What differentiate() will read and write, fetched while the products are summed.
  RNNFAST_INLINE void prefetch_step(Index t, Index row, const TileRange& tile) const {
    for (Index u = 0; u < tile.blocks; ++u) {
      const Index unit = (tile.first_block + u) * L;
      const Index state = (t * d.N + row) * d.H + unit;
      for (int plane = 0; plane < kPlanes; ++plane) __builtin_prefetch(da(t, row) + plane * d.H + unit, 1);
      if (args.dy != nullptr) __builtin_prefetch(args.dy + state);
      if (CellMath::kHasCellState) __builtin_prefetch(args.c + state);
    }
  }

  void differentiate(Index t, Index row, Index unit, Vec<Real> dh) const {
    const Index width = lanes_left<Real>(unit, d.H);
    const Index state = row * d.H + unit;
    const Index step_size = d.N * d.H;
    if (args.dy != nullptr) dh = dh + load_lanes(args.dy + t * step_size + state, width);
    const Vec<Real> h_prev = load_lanes(args.h + t * step_size + state, width);
    const Vec<Real> h = load_lanes(args.h + (t + 1) * step_size + state, width);
    Real* gate_row = da(t, row) + unit;
    Vec<Real> gates[kPlanes];
    if constexpr (CellMath::kKeepsGates) {
      for (int plane = 0; plane < kPlanes; ++plane) gates[plane] = load_lanes(gate_row + plane * d.H, width);
    }
    Vec<Real> c_prev{};
    Vec<Real> c{};
    Vec<Real> carry{};
    if constexpr (CellMath::kHasCellState) {
      c_prev = load_lanes(args.c + t * step_size + state, width);
      c = load_lanes(args.c + (t + 1) * step_size + state, width);
      carry = load_lanes(args.dc + state, width);
    }
    CellMath::template derivative<Real>(gates, dh, h_prev, h, c_prev, c, carry);
    if constexpr (CellMath::kHasCellState) store_lanes(args.dc + state, carry, width);
    if constexpr (CellMath::kPassesStateOn) store_lanes(args.dh + state, carry, width);
    for (int plane = 0; plane < kPlanes; ++plane) store_lanes(gate_row + plane * d.H, gates[plane], width);
  }

  /// args.dh = dL/dh before step t.
  void pass_on(const TileRange& tile, Index t, Index first_row) const {
    Accumulators<Real> acc;
    gradient_through_gates(tile, t, first_row, acc);
    for (Index r = 0; r < tile.rows; ++r) {
      for (Index u = 0; u < tile.blocks; ++u) {
        const Index unit = (tile.first_block + u) * L;
        store_lanes(args.dh + (first_row + tile.first_row + r) * d.H + unit, load(acc.at(tile, r, u, 1)),
                    lanes_left<Real>(unit, d.H));
      }
    }
  }

  /// dx = da w_ih for the rows (t, n) of a chunk, which all threads share.
  void write_input_grad(Index first, Index last, int member, int threads) const {
    const Range rows = share((last - first) * d.N, member, threads);
    if (rows.size() == 0) return;
    for_each_tile<1>(rows.size(), Range{0, blocks_of<Real>(d.I)},
                     [&](const TileRange& tile) { input_gradient(tile, first * d.N + rows.first); });
  }

  void input_gradient(const TileRange& tile, Index first_row) const {
    Accumulators<Real> acc{};
    const Real* from[kMaxRows<1>];
    first_row += tile.first_row;
    for (Index r = 0; r < tile.rows; ++r) {
      from[r] = args.gates + ((first_row + r) * kPlanes + CellMath::kInputPlane) * d.H;
    }
    multiply<1>(tile, acc.data, 1, from, pack.w_ih);
    for (Index r = 0; r < tile.rows; ++r) {
      for (Index u = 0; u < tile.blocks; ++u) {
        const Index column = (tile.first_block + u) * L;
        store_lanes(args.dx + (first_row + r) * d.I + column, load(acc.at(tile, r, u, 1)),
                    lanes_left<Real>(column, d.I));
      }
    }
  }

  void add_weight_grad(Index first, Index last, int member, int threads) const {
    const Index start = first * d.N;
    WeightGrad<CellMath, Real>::add(d, args, args.x + start * d.I, args.h + start * d.H,
                                    args.gates + start * kPlanes * d.H, (last - first) * d.N,
                                    share(kPlanes * d.H, member, threads),
                                    args.work + member * WeightGrad<CellMath, Real>::work_size(d));
  }
};

}  // namespace rnnfast::RNNFAST_ISA
