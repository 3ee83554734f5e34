// SPDX-License-Identifier: MIT
// Backpropagation through time, generic over cell, float type and instruction set.
//
// Per step and tile: dL/dh[t] = da[t+1] w_hh + dy[t] is summed in registers and the derivative of the cell follows
// at once. After a chunk of steps, while its da are in cache, come dx = da w_ih and the weight gradients.
#pragma once

#include "kernels/slices.h"
#include "kernels/weight_grad.h"

namespace rnnfast::RNNFAST_ISA {

template <class CellMath, class Real>
class Backward {
  using Gradient = WeightGrad<CellMath, Real>;

 public:
  static Index work_size(const Dims& d, int threads) {
    return chunk_size(d) + Gradient::columns_size(d) + Gradient::work_size(d) + threads * own_size(d);
  }

  static void run(const Dims& d, const BackwardArgs<Real>& args, StepRange steps, Team& team) {
    assert(0 <= steps.first && steps.first < steps.last && steps.last <= d.T);
    assert(args.packed != nullptr || backward_runs_unpacked(d));
    if (args.packed == nullptr) {
      run_unpacked(d, args, team);
      return;
    }
    constexpr int P = CellMath::kProducts;
    const Split split = Split::choose<Real>(d, P, team.size()).confirmed(team, d, P, steps);
    const Index blocks = blocks_of<Real>(d.H);
    Barrier barrier(split.threads);
    for (Index last = steps.last; last > steps.first;) {
      const Index first = most(first_of_chunk(d, last), steps.first);
      const Backward self(d, args, d.row(first));
      const Gradient weight_grad = self.weight_grad({first, last});
      parallel(team, split.threads, [&](int member) {
        self.run_part(first, last, split.part(d, {first, last}, blocks, member), split.by_units ? &barrier : nullptr);
        weight_grad.pack(0, member, split.threads);
      });
      parallel(team, split.threads, [&](int member) {
        if (args.dx != nullptr) self.write_input_grad(first, last, member, split.threads);
        weight_grad.add(0, member, split.threads);
      });
      for (Index piece = 1; piece < weight_grad.pieces(); ++piece) {
        parallel(team, split.threads, [&](int member) { weight_grad.pack(piece, member, split.threads); });
        parallel(team, split.threads, [&](int member) { weight_grad.add(piece, member, split.threads); });
      }
      last = first;
    }
  }

 private:
  /// One step: dL/dh before it and dx straight from the weights, which pass once.
  static void run_unpacked(const Dims& d, const BackwardArgs<Real>& args, Team& team) {
    const int members = Split::choose<Real>(d, CellMath::kProducts, team.size()).threads;
    const Backward self(d, args, 0);
    const Gradient weight_grad = self.weight_grad({0, 1});
    const Index blocks = blocks_of<Real>(d.H);
    parallel(team, members, [&](int member) {
      const Step only = self.step_at(0);
      for_each_tile<1>(d.N, share(blocks, member, members),
                       [&](const TileRange& tile) { self.retreat_from_end(tile, 0, only); });
      weight_grad.pack(0, member, members);
    });
    parallel(team, members, [&](int member) {
      const RowsOut<Real> dh{args.dh, d.H};
      const RowsOut<Real> dx{args.dx, d.I};
      const Range of_dh = share(blocks, member, members);
      const Range of_dx = share(blocks_of<Real>(d.I), member, members);
      Real* const work = self.work_of(member);
      const auto add_products = [&](const Real* w, Index columns, RowsIn<Real> in, RowsOut<Real> out, Range share) {
        if (d.N <= kUnpackedRows) {
          add_unpacked_products(w, d.H, columns, d.N, in, out, share);
        } else {
          add_products_by_parts(w, d.H, columns, d.N, in, out, share, work);
        }
      };
      if (!CellMath::kPassesStateOn) clear_rows(dh, d.N, columns_of<Real>(of_dh, d.H));
      if (args.dx != nullptr) clear_rows(dx, d.N, columns_of<Real>(of_dx, d.I));
      for (int p = 0; p < CellMath::kProducts; ++p) {
        const RowsIn<Real> of_h{self.gradients[0] + (CellMath::kRecurrentPlane + p) * d.H, self.gradients.stride};
        const RowsIn<Real> of_x{self.gradients[0] + (CellMath::kInputPlane + p) * d.H, self.gradients.stride};
        add_products(args.raw->w_hh + CellMath::kRecurrentGate[p] * d.H * d.H, d.H, of_h, dh, of_dh);
        if (args.dx != nullptr) {
          add_products(args.raw->w_ih + CellMath::kInputGate[p] * d.H * d.I, d.I, of_x, dx, of_dx);
        }
      }
      weight_grad.add(0, member, members);
    });
  }

  static void clear_rows(RowsOut<Real> rows, Index count, Range columns) {
    for (Index row = 0; row < count; ++row) clear(rows[row] + columns.first, columns.size());
  }

  static constexpr int L = kLanes<Real>;
  static constexpr int kPlanes = CellMath::kPlanes;

  const Dims& d;
  const BackwardArgs<Real>& args;
  const BackwardPack<CellMath, Real> pack;
  const ChunkGradients<Real> gradients;

  Backward(const Dims& dims, const BackwardArgs<Real>& a, Index first_row)
      : d(dims),
        args(a),
        pack({d.I, d.H}, a.packed),
        gradients{a.work, first_row, gradient_stride(d), {a.work + chunk_size(d), Gradient::columns_height(d)}} {}

  static Index gradient_stride(const Dims& d) { return odd_lines<Real>(kPlanes * d.H); }
  static Index chunk_size(const Dims& d) { return Gradient::chunk_rows(d) * gradient_stride(d); }
  /// What a thread needs for itself, for dh and dx of a single step.
  static Index own_size(const Dims& d) {
    if (!backward_runs_unpacked(d) || d.N <= kUnpackedRows) return 0;
    return most(part_work_size<Real>(d.I), part_work_size<Real>(d.H));
  }

  /// Where one step reads and writes. Pointers are to the first row of the batch.
  struct Step {
    Index row;  // of dy and dcells, before it is placed
    const Real* gates;   // null if none are kept
    const Real* h_prev;
    const Real* h;
    const Real* c_prev;  // null without cell states, like c
    const Real* c;
    Real* da;
  };

  Step step_at(Index t) const {
    const Index row = d.row(t);
    const Index before = d.slot(t) * d.H;
    const Index after = d.slot(t + 1) * d.H;
    Step step{.row = row,
              .gates = nullptr,
              .h_prev = args.h + before,
              .h = args.h + after,
              .c_prev = nullptr,
              .c = nullptr,
              .da = gradients[row]};
    if constexpr (CellMath::kKeepsGates) step.gates = args.gates + row * kPlanes * d.H;
    if constexpr (CellMath::kHasCellState) {
      step.c_prev = args.c + before;
      step.c = args.c + after;
    }
    return step;
  }

  /// Steps last-1 .. first of one thread's part: da, and dL/dh, dL/dc before `first`.
  void run_part(Index first, Index last, const Part& part, Barrier* barrier) const {
    const Index begin = part.rows.first;
    Step steps[2] = {};  // by t % 2: not copied, since a copy that is read at once waits for its own writes
    for (Index t = last - 1; t >= first; --t) {
      const Step& next = steps[(t + 1) % 2];
      Step& step = steps[t % 2];
      step = step_at(t);
      const Range rows = intersection(part.rows, {0, d.rows(t)});
      // Rows whose gradient comes through the next step; for the others it stands in args.dh.
      const Range inner = t + 1 < last ? intersection(rows, {0, d.rows(t + 1)}) : Range{begin, begin};
      const Index through = most<Index>(0, inner.size());
      const bool last_units_first = t % 2 == 1;
      if (worth_slices<1, Real>(through, CellMath::kProducts * d.H * d.H)) {
        retreat_in_slices(through, part.blocks, last_units_first, rows.first, step, next);
      } else {
        for_each_tile<1>(through, part.blocks, last_units_first,
                         [&](const TileRange& tile)
                             __attribute__((always_inline)) { retreat(tile, rows.first, step, next); });
      }
      for_each_tile<1>(rows.size() - through, part.blocks, last_units_first,
                       [&](const TileRange& tile) { retreat_from_end(tile, rows.first + through, step); });
      if (barrier != nullptr) barrier->wait();
    }
    const Range rows = intersection(part.rows, {0, d.rows(first)});
    if (rows.size() > 0) {
      for_each_tile<1>(rows.size(), part.blocks,
                       [&](const TileRange& tile) { pass_on(tile, begin, steps[first % 2]); });
    }
  }

  /// acc = dL/dh of the step before `step`, through it: what passed its gates by, then da w_hh.
  void gradient_through_gates(const TileRange& tile, Index first_row, const Step& step, Accumulators<Real>& acc) const {
    const Real* from[kMaxRows<1>];
    for (Index r = 0; r < tile.rows; ++r) from[r] = recurrent_gradient(step, first_row + tile.first_row + r);
    if (CellMath::kPassesStateOn) load_passed(tile, first_row, acc);
    const Start<Real> start = CellMath::kPassesStateOn ? from_accumulators(tile, acc.data, 1) : from_zero<Real>();
    multiply<1>(tile, acc.data, 1, start, from, pack.w_hh);
  }

  const Real* recurrent_gradient(const Step& step, Index row) const {
    return step.da + row * gradients.stride + CellMath::kRecurrentPlane * d.H;
  }

  /// acc = what passed the gates by.
  void load_passed(const TileRange& tile, Index first_row, Accumulators<Real>& acc) const {
    for (Index r = 0; r < tile.rows; ++r) {
      const Index row = first_row + tile.first_row + r;
      for (Index u = 0; u < tile.blocks; ++u) {
        const Index unit = (tile.first_block + u) * L;
        store(acc.at(tile, r, u, 1), load_lanes(args.dh + row * d.H + unit, lanes_left<Real>(unit, d.H)));
      }
    }
  }

  /// retreat() for rows first_row.. and many weights.
  __attribute__((noinline)) void retreat_in_slices(Index rows, Range blocks, bool last_units_first, Index first_row,
                                                   const Step& step, const Step& next) const {
    Factor<Real> factors[] = {{pack.w_hh, 0, {}}};
    for (Index row = 0; row < rows; ++row) factors[0].a[row] = recurrent_gradient(next, first_row + row);
    multiply_in_slices<1>(
        rows, blocks, last_units_first, factors, 1,
        [&](const TileRange& tile, Accumulators<Real>& acc) {
          if (CellMath::kPassesStateOn) {
            load_passed(tile, first_row, acc);
          } else {
            clear(acc.data, tile.rows * tile.blocks * L);
          }
        },
        [&](const TileRange& tile) {
          for (Index r = 0; r < tile.rows; ++r) prefetch_operands(step, first_row + tile.first_row + r, tile);
        },
        [&](const TileRange& tile, Accumulators<Real>& acc) {
          differentiate_units(tile, first_row, step, acc.data, tile.blocks * L);
        });
  }

  /// The derivative of a step, whose dL/dh comes through the next one.
  RNNFAST_INLINE void retreat(const TileRange& tile, Index first_row, const Step& step, const Step& next) const {
    Accumulators<Real> acc;
    for (Index r = 0; r < tile.rows; ++r) prefetch_operands(step, first_row + tile.first_row + r, tile);
    gradient_through_gates(tile, first_row, next, acc);
    differentiate_units(tile, first_row, step, acc.data, tile.blocks * L);
  }

  /// The derivative of a step that has no next one here: dL/dh stands in args.dh.
  void retreat_from_end(const TileRange& tile, Index first_row, const Step& step) const {
    const Index at = (first_row + tile.first_row) * d.H + tile.first_block * L;
    differentiate_units(tile, first_row, step, args.dh + at, d.H);
  }

  RNNFAST_INLINE void differentiate_units(const TileRange& tile, Index first_row, const Step& step, const Real* dh,
                                          Index dh_stride) const {
    for (Index u = 0; u < tile.blocks; ++u, dh += L) {
      const Index unit = (tile.first_block + u) * L;
      if (d.H - unit >= L) {
        differentiate<true>(dh, dh_stride, tile.rows, step, first_row + tile.first_row, unit);
      } else {
        differentiate<false>(dh, dh_stride, tile.rows, step, first_row + tile.first_row, unit);
      }
    }
  }

  /// What differentiate() will read, fetched while the products are summed.
  RNNFAST_INLINE void prefetch_operands(const Step& step, Index row, const TileRange& tile) const {
    for (Index u = 0; u < tile.blocks; ++u) {
      const Index unit = (tile.first_block + u) * L;
      const Index at = row * d.H + unit;
      if (CellMath::kKeepsGates) {
        for (int plane = 0; plane < kPlanes; ++plane) {
          __builtin_prefetch(step.gates + (row * kPlanes + plane) * d.H + unit);
        }
      }
      if (args.dy != nullptr) __builtin_prefetch(args.dy + d.place(step.row + row) * d.H + unit);
      // Of the hidden states around a step, cells without cell state need one.
      if (CellMath::kHasCellState) {
        __builtin_prefetch(step.c_prev + at);
      } else {
        __builtin_prefetch((CellMath::kPassesStateOn ? step.h_prev : step.h) + at);
      }
    }
  }

  /// The derivative of some rows and one block of units; dL/dh without dy is in dh, rows dh_stride apart. Not inlined,
  /// so that the constants of the activations stay in registers from row to row.
  template <bool Full>
  __attribute__((noinline)) void differentiate(const Real* dh, Index dh_stride, Index rows, const Step& step,
                                               Index first_row, Index unit) const {
    const Index width = Full ? L : d.H - unit;
    const Index columns_of_plane = Columns<Real>::size(d.H, gradients.columns.height);
    Real* columns = gradients.columns.at(step.row + first_row - gradients.first_row, unit);
    for (Index r = 0; r < rows; ++r, dh += dh_stride) {
      const Index row = first_row + r;
      const Index at = row * d.H + unit;
      const Index given = d.place(step.row + row) * d.H + unit;
      Vec<Real> dh_row = load_lanes(dh, width);
      if (args.dy != nullptr) dh_row = dh_row + load_lanes(args.dy + given, width);
      const Vec<Real> h_prev = load_lanes(step.h_prev + at, width);
      const Vec<Real> h = load_lanes(step.h + at, width);
      Vec<Real> planes[kPlanes];
      if constexpr (CellMath::kKeepsGates) {
        const Real* kept = step.gates + row * kPlanes * d.H + unit;
        for (int plane = 0; plane < kPlanes; ++plane) planes[plane] = load_lanes(kept + plane * d.H, width);
      }
      Vec<Real> c_prev{};
      Vec<Real> c{};
      Vec<Real> carry{};
      if constexpr (CellMath::kHasCellState) {
        c_prev = load_lanes(step.c_prev + at, width);
        c = load_lanes(step.c + at, width);
        carry = load_lanes(args.dc + at, width);
        if (args.dcells != nullptr) carry = carry + load_lanes(args.dcells + given, width);
      }
      CellMath::template derivative<Real>(planes, dh_row, h_prev, h, c_prev, c, carry);
      if constexpr (CellMath::kHasCellState) store_lanes(args.dc + at, carry, width);
      if constexpr (CellMath::kPassesStateOn) store_lanes(args.dh + at, carry, width);
      Real* const to = step.da + row * gradients.stride + unit;
      for (int plane = 0; plane < kPlanes; ++plane) store_lanes(to + plane * d.H, planes[plane], width);
      if (gradients.columns.height == 0) continue;
      for (int plane = 0; plane < kPlanes; ++plane) {
        gradients.columns.put(columns + plane * columns_of_plane, planes[plane], width);
      }
      columns += Columns<Real>::kWidth;
    }
  }

  /// args.dh = dL/dh before a step.
  void pass_on(const TileRange& tile, Index first_row, const Step& step) const {
    Accumulators<Real> acc;
    gradient_through_gates(tile, first_row, step, acc);
    for (Index r = 0; r < tile.rows; ++r) {
      for (Index u = 0; u < tile.blocks; ++u) {
        const Index unit = (tile.first_block + u) * L;
        store_lanes(args.dh + (first_row + tile.first_row + r) * d.H + unit, load(acc.at(tile, r, u, 1)),
                    lanes_left<Real>(unit, d.H));
      }
    }
  }

  /// dx = da w_ih for the rows of a chunk, which all threads share.
  void write_input_grad(Index first, Index last, int member, int threads) const {
    const Range rows = share(d.row(last) - d.row(first), member, threads);
    const Range blocks{0, blocks_of<Real>(d.I)};
    const Index first_row = d.row(first) + rows.first;
    if (!worth_slices<1, Real>(least(rows.size(), kRowsInSlices), CellMath::kProducts * d.H * d.I)) {
      for_each_tile<1>(rows.size(), blocks, [&](const TileRange& tile) { input_gradient(tile, first_row); });
      return;
    }
    const int parts = static_cast<int>((rows.size() + kRowsInSlices - 1) / kRowsInSlices);
    for (int part = 0; part < parts; ++part) {
      const Range some = share(rows.size(), part, parts);
      input_gradient_in_slices(some.size(), blocks, part % 2 == 1, first_row + some.first);
    }
  }

  const Real* input_gradient_of(Index row) const { return gradients[row] + CellMath::kInputPlane * d.H; }
  Real* dx_of(Index row, Index block) const { return args.dx + d.place(row) * d.I + block * L; }

  void fetch_dx(const TileRange& tile, Index first_row) const {
    for (Index r = 0; r < tile.rows; ++r) {
      const Real* to = dx_of(first_row + tile.first_row + r, tile.first_block);
      for (Index u = 0; u < tile.blocks; ++u) __builtin_prefetch(to + u * L, 1);
    }
  }

  void store_dx(const TileRange& tile, Index first_row, Accumulators<Real>& acc) const {
    for (Index r = 0; r < tile.rows; ++r) {
      Real* to = dx_of(first_row + tile.first_row + r, tile.first_block);
      for (Index u = 0; u < tile.blocks; ++u) {
        store_lanes(to + u * L, load(acc.at(tile, r, u, 1)), lanes_left<Real>((tile.first_block + u) * L, d.I));
      }
    }
  }

  void input_gradient(const TileRange& tile, Index first_row) const {
    Accumulators<Real> acc;
    const Real* from[kMaxRows<1>];
    for (Index r = 0; r < tile.rows; ++r) from[r] = input_gradient_of(first_row + tile.first_row + r);
    fetch_dx(tile, first_row);
    multiply<1>(tile, acc.data, 1, from_zero<Real>(), from, pack.w_ih);
    store_dx(tile, first_row, acc);
  }

  /// The same for rows first_row.. and many weights.
  __attribute__((noinline)) void input_gradient_in_slices(Index rows, Range blocks, bool backwards,
                                                          Index first_row) const {
    Factor<Real> factors[] = {{pack.w_ih, 0, {}}};
    for (Index row = 0; row < rows; ++row) factors[0].a[row] = input_gradient_of(first_row + row);
    multiply_in_slices<1>(
        rows, blocks, backwards, factors, 1,
        [&](const TileRange& tile, Accumulators<Real>& acc) { clear(acc.data, tile.rows * tile.blocks * L); },
        [&](const TileRange& tile) { fetch_dx(tile, first_row); },
        [&](const TileRange& tile, Accumulators<Real>& acc) { store_dx(tile, first_row, acc); });
  }

  Gradient weight_grad(StepRange steps) const {
    return {d, args, gradients, steps, args.work + chunk_size(d) + Gradient::columns_size(d)};
  }

  Real* work_of(int member) const {
    return args.work + chunk_size(d) + Gradient::columns_size(d) + Gradient::work_size(d) + member * own_size(d);
  }
};

}  // namespace rnnfast::RNNFAST_ISA
