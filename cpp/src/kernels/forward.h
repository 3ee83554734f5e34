// SPDX-License-Identifier: MIT
// Forward over a whole sequence, generic over cell, float type and instruction set.
//
// Step by step a tile sums the input and the recurrent product and computes the cell from the accumulators. For a
// single row with many inputs the input products of a chunk of steps come first (project), since several rows use each
// weight then. Chunks are small enough that what is projected is still in the L2 cache when its step comes. In
// training the projections are written to where the gates will be kept, so the gates overwrite them; the simple RNN
// projects into h itself.
#pragma once

#include "kernels/pack.h"
#include "kernels/team.h"

namespace rnnfast::RNNFAST_ISA {

template <class CellMath, class Real>
class Forward {
 public:
  static Index work_size(const Dims& d, bool training, int threads) {
    return needs_scratch(training) ? threads * scratch_size(d, choose(d, threads)) : 0;
  }

  static void run(const Dims& d, const ForwardArgs<Real>& args, bool training, Team& team) {
    const Split split = choose(d, team.size()).confirmed(team);
    const Forward self(d, args, training, chunk_steps(d, split));
    // Threads that share the rows share their pre-activations, too.
    const Index scratch = needs_scratch(training) && !split.by_units ? scratch_size(d, split) : 0;
    Barrier barrier(split.threads);
    parallel(team, split.threads, [&](int member) {
      self.run_part(split.part(d, self.pack.blocks, member), args.work + member * scratch,
                    split.by_units ? &barrier : nullptr);
    });
  }

 private:
  static constexpr int L = kLanes<Real>;
  static constexpr int P = CellMath::kProducts;
  static constexpr int kPlanes = CellMath::kPlanes;
  static constexpr int kInputPlane = CellMath::kInputPlane;
  static constexpr int kRecurrentPlane = CellMath::kRecurrentPlane;
  static constexpr Index kChunkBytes = 256 * 1024;  // of pre-activations: a part of any L2 cache

  const Dims& d;
  const ForwardArgs<Real>& args;
  const bool training;
  const Index chunk;  // steps that are projected at once
  const ForwardPack<CellMath, Real> pack;

  Forward(const Dims& dims, const ForwardArgs<Real>& a, bool keep, Index chunk_size)
      : d(dims), args(a), training(keep), chunk(chunk_size), pack({d.I, d.H}, a.packed) {}

  static Split choose(const Dims& d, int available) { return Split::choose<Real>(d, P, available); }

  static bool needs_scratch(bool training) { return CellMath::kKeepsGates && !training; }

  static Index rows_of_a_thread(const Dims& d, Split split) {
    return split.by_units ? d.N : (d.N + split.threads - 1) / split.threads;
  }

  static Index chunk_steps(const Dims& d, Split split) {
    const Index steps = kChunkBytes / (rows_of_a_thread(d, split) * kPlanes * d.H * static_cast<Index>(sizeof(Real)));
    return steps < 1 ? 1 : (steps > d.T ? d.T : steps);
  }

  static Index scratch_size(const Dims& d, Split split) {
    return chunk_steps(d, split) * rows_of_a_thread(d, split) * kPlanes * d.H;
  }

  /// Pre-activations of some rows of a chunk of steps.
  struct GateRows {
    Real* data;
    Index step_stride;
    Index row_stride;
    Index plane_stride;

    Real* at(Index step, Index row) const { return data + step * step_stride + row * row_stride; }
  };

  GateRows gate_rows(Index t0, Range rows, Real* scratch) const {
    if (!CellMath::kKeepsGates) return {args.h + ((t0 + 1) * d.N + rows.first) * d.H, d.N * d.H, d.H, d.H};
    const Index row = kPlanes * d.H;
    if (training) return {args.gates + (t0 * d.N + rows.first) * row, d.N * row, row, d.H};
    return {scratch, rows.size() * row, row, d.H};
  }

  /// Whether input and recurrent products are summed in one go, step by step, instead of chunk by chunk: it saves
  /// the way of the pre-activations through memory, but reads w_ih at every step, which one row alone does not repay.
  /// The bits are the same.
  bool sum_at_once(Index rows) const { return d.T == 1 || d.I <= 2 + 32 * (rows - 1); }

  /// One thread's part, from the first step to the last.
  void run_part(const Part& part, Real* scratch, Barrier* barrier) const {
    const Range rows = part.rows;
    const bool at_once = sum_at_once(rows.size());
    for (Index t0 = 0; t0 < d.T; t0 += chunk) {
      const Index steps = d.T - t0 < chunk ? d.T - t0 : chunk;
      const GateRows gates = gate_rows(t0, rows, scratch);
      if (!at_once) {
        for_each_tile<P>(steps * rows.size(), part.blocks,
                         [&](const TileRange& tile) { project(tile, t0, rows, gates); });
      }
      for (Index step = 0; step < steps; ++step) {
        for_each_tile<P>(rows.size(), part.blocks, step % 2 == 1,
                         [&](const TileRange& tile) { advance(tile, t0 + step, step, rows, gates, at_once); });
        if (barrier != nullptr) barrier->wait();
      }
    }
  }

  /// a[t, n, plane] = b + w_ih x[t, n], for the planes with an input product.
  void project(const TileRange& tile, Index t0, Range rows, const GateRows& gates) const {
    Accumulators<Real> acc;
    const Real* x[kMaxRows<P>];
    Real* to[kMaxRows<P>];
    const Index height = rows.size();
    for (Index r = 0; r < tile.rows; ++r) {
      const Index step = (tile.first_row + r) / height;
      const Index row = (tile.first_row + r) % height;
      x[r] = args.x + ((t0 + step) * d.N + rows.first + row) * d.I;
      to[r] = gates.at(step, row) + kInputPlane * gates.plane_stride;
      for (Index u = 0; u < tile.blocks; ++u) {
        for (int p = 0; p < P; ++p) {
          store(acc.at(tile, r, u, P) + p * L, load(bias(kInputPlane + p, tile.first_block + u)));
        }
      }
    }
    multiply<P>(tile, acc.data, P, x, pack.w_ih);
    for (Index r = 0; r < tile.rows; ++r) {
      for (Index u = 0; u < tile.blocks; ++u) {
        const Index unit = (tile.first_block + u) * L;
        for (int p = 0; p < P; ++p) {
          store_lanes(to[r] + p * gates.plane_stride + unit, load(acc.at(tile, r, u, P) + p * L),
                      lanes_left<Real>(unit, d.H));
        }
      }
    }
  }

  /// One time step of one tile: adds w_hh h[t-1] to the pre-activations and computes the cell.
  void advance(const TileRange& tile, Index t, Index step, Range rows, const GateRows& gates, bool at_once) const {
    Accumulators<Real> acc;
    const Real* x[kMaxRows<P>];
    const Real* h_prev[kMaxRows<P>];
    for (Index r = 0; r < tile.rows; ++r) {
      const Index row = tile.first_row + r;
      x[r] = args.x + (t * d.N + rows.first + row) * d.I;
      h_prev[r] = args.h + (t * d.N + rows.first + row) * d.H;
      const Real* from = gates.at(step, row);
      for (Index u = 0; u < tile.blocks; ++u) {
        const Index unit = (tile.first_block + u) * L;
        prefetch_states(t, rows.first + row, unit);
        for (int plane = 0; plane < kPlanes; ++plane) {
          const bool projected = !at_once && plane >= kInputPlane && plane < kInputPlane + P;
          store(acc.at(tile, r, u, kPlanes) + plane * L,
                projected ? load_lanes(from + plane * gates.plane_stride + unit, lanes_left<Real>(unit, d.H))
                          : load(bias(plane, tile.first_block + u)));
        }
      }
    }
    if (at_once && kInputPlane == kRecurrentPlane) {
      multiply<P>(tile, acc.data + kInputPlane * L, kPlanes, x, pack.w_ih, h_prev, pack.w_hh);
    } else {
      if (at_once) multiply<P>(tile, acc.data + kInputPlane * L, kPlanes, x, pack.w_ih);
      multiply<P>(tile, acc.data + kRecurrentPlane * L, kPlanes, h_prev, pack.w_hh);
    }
    for (Index r = 0; r < tile.rows; ++r) {
      const Index row = rows.first + tile.first_row + r;
      for (Index u = 0; u < tile.blocks; ++u) {
        const Index unit = (tile.first_block + u) * L;
        finish(acc.at(tile, r, u, kPlanes), t, row, unit, gates.at(step, tile.first_row + r), gates.plane_stride);
      }
    }
  }

  /// The cell of one row and one block of units, from its pre-activations.
  void finish(const Real* acc, Index t, Index row, Index unit, Real* gate_row, Index plane_stride) const {
    const Index width = lanes_left<Real>(unit, d.H);
    Vec<Real> a[kPlanes];
    for (int plane = 0; plane < kPlanes; ++plane) a[plane] = load(acc + plane * L);
    const Index state = row * d.H + unit;
    const Index step_size = d.N * d.H;
    const Vec<Real> h_prev = load_lanes(args.h + t * step_size + state, width);
    Vec<Real> c{};
    if constexpr (CellMath::kHasCellState) {
      Real* c_slot = args.c + (training ? t * step_size : 0) + state;
      c = load_lanes(c_slot, width);
      const Vec<Real> h = CellMath::template step<Real>(a, h_prev, c);
      store_lanes(c_slot + (training ? step_size : 0), c, width);
      store_lanes(args.h + (t + 1) * step_size + state, h, width);
    } else {
      store_lanes(args.h + (t + 1) * step_size + state, CellMath::template step<Real>(a, h_prev, c), width);
    }
    if (CellMath::kKeepsGates && training) {
      for (int plane = 0; plane < kPlanes; ++plane)
        store_lanes(gate_row + plane * plane_stride + unit, a[plane], width);
    }
  }

  /// The cache lines that finish() will write, fetched while the products are summed.
  RNNFAST_INLINE void prefetch_states(Index t, Index row, Index unit) const {
    const Index state = row * d.H + unit;
    __builtin_prefetch(args.h + (t + 1) * d.N * d.H + state, 1);
    if (CellMath::kHasCellState) __builtin_prefetch(args.c + (training ? (t + 1) * d.N * d.H : 0) + state, 1);
  }

  const Real* bias(int plane, Index block) const { return pack.bias + (plane * pack.blocks + block) * L; }
};

}  // namespace rnnfast::RNNFAST_ISA
