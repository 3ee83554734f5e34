// SPDX-License-Identifier: MIT
// Backpropagation through time of cells with options, the mirror of option_forward.h. After a chunk of steps, while
// its gradients are in cache, come dx and the sums over rows for the parameters.
#pragma once

#include "kernels/option_forward.h"

namespace rnnfast::RNNFAST_ISA {

template <class Real>
class OptionBackward {
 public:
  static Index work_size(const OptionCell& cell, const Dims& d, int threads) {
    return Chunk(cell, d, nullptr).size + threads * Scratch(cell, d, nullptr).size;
  }

  static void run(const OptionCell& cell, const OptionParameters<Real>& parameters, const Dims& d,
                  const OptionBackwardArgs<Real>& args, StepRange steps, Team& team) {
    const OptionBackward self(cell, parameters, d, args);
    const Split split = option_split<Real>(cell, d, steps, self.pack.size, team);
    Barrier barrier(split.threads);
    // Sums over rows are divided by parameters, so a single sequence has work for all threads.
    const int members =
        Split::multiply_adds(d, static_cast<int>(cell.gates()), {0, d.T}) < kWorthWaking ? 1 : team.size();
    const Index own = Scratch(cell, d, nullptr).size;
    const auto scratch = [&](int member) { return Scratch(cell, d, args.work + self.chunk.size + member * own); };
    for (Index last = steps.last; last > steps.first;) {
      const Index first = most(first_of_chunk(d, last), steps.first);
      parallel(team, split.threads, [&](int member) {
        const Range rows = split.part(d, {first, last}, 0, member).rows;
        const Scratch mine = scratch(split.by_units ? 0 : member);
        const Crew crew = crew_of(split, member, cell, args.masks, self.pack.w_hh, barrier);
        for (Index t = last - 1; t >= first; --t) {
          const Range active = intersection(rows, {0, d.rows(t)});
          if (active.size() > 0) self.retreat(crew, t, d.row(first), active, mine);
        }
      });
      parallel(team, members,
               [&](int member) { self.add_parameter_grads(first, last, member, members, scratch(member)); });
      last = first;
    }
  }

 private:
  /// What the sums over the rows of a chunk need. Where nothing is normalised, and where products with x and h do not
  /// stay apart, some of these are the same.
  struct Chunk {
    Index stride;      // of the first four: odd_lines(M)
    Real* da;          // (rows, M)  gradient of what is added to b_ih
    Real* da_hh;       // (rows, M)  of what is added to b_hh
    Real* dx_product;  // (rows, M)  of w_ih x
    Real* dh_product;  // (rows, M)  of w_hh u
    Real* operand;     // (rows, K)  u
    Real* reset;       // (rows, H)  r u, with the reset gate before the product
    Real* c_prev;      // (rows, H)  lstm with peepholes
    Real* candidate;   // (rows, H)  lstm
    Real* normalized;  // (rows, H)  lstm with normalisation
    Real* dnorm;       // (rows, H)
    Real* output;      // (rows, H)  before the projection
    Real* dh;          // (rows, K)  of the projection
    Index size;

    Chunk(const OptionCell& cell, const Dims& d, Real* work) {
      const Index rows = most(d.N, kPieceRows);
      const bool lstm = cell.kind == CellKind::lstm;
      Carver<Real> carver{work};
      const auto take = [&](bool wanted, Index columns) { return wanted ? carver.take(rows * columns) : nullptr; };
      stride = odd_lines<Real>(cell.M());
      da = carver.take(rows * stride);
      da_hh = keeps_biases_apart(cell) ? carver.take(rows * stride) : da;
      dx_product = cell.layer_norm ? carver.take(rows * stride) : da;
      dh_product = cell.layer_norm ? carver.take(rows * stride) : da_hh;
      operand = carver.take(rows * cell.K());
      reset = take(resets_before(cell), d.H);
      c_prev = take(lstm && cell.peephole, d.H);
      candidate = take(lstm, d.H);
      normalized = take(lstm && cell.layer_norm, d.H);
      dnorm = take(lstm && cell.layer_norm, d.H);
      output = take(cell.P > 0, d.H);
      dh = take(cell.P > 0, cell.K());
      size = carver.used;
    }
  };

  /// Memory of one thread.
  struct Scratch {
    Real* dv;    // (N, H)
    Real* du;    // (N, K)
    Real* sums;  // for sums of outer products
    Index size;

    Scratch(const OptionCell& cell, const Dims& d, Real* work) {
      Carver<Real> carver{work};
      dv = carver.take(d.N * d.H);
      du = carver.take(d.N * cell.K());
      sums = carver.take(outer_work_size<Real>(most(d.H, most(d.I, cell.K()))));
      size = carver.used;
    }
  };

  const OptionCell& cell;
  const OptionParameters<Real>& parameters;
  const Dims& d;
  const OptionBackwardArgs<Real>& args;
  const KeptRow kept;
  const OptionPack<Real> pack;
  const LstmOptions<Real> lstm;
  const GruOptions<Real> gru;
  const RnnOptions<Real> rnn;
  const Chunk chunk;

  OptionBackward(const OptionCell& c, const OptionParameters<Real>& p, const Dims& dims,
                 const OptionBackwardArgs<Real>& a)
      : cell(c),
        parameters(p),
        d(dims),
        args(a),
        kept(c),
        pack(c, p, a.packed, true),
        lstm(c, p),
        gru(c),
        rnn(c),
        chunk(c, dims, a.work) {}

  static Real* at(Real* rows, Index row, Index columns) { return rows == nullptr ? nullptr : rows + row * columns; }

  /// Step t of some rows: their gradients go to the chunk that begins with row `base` of the batch, args.dh and args.dc
  /// become those of the states before the step.
  void retreat(const Crew& crew, Index t, Index base, Range rows, const Scratch& scratch) const {
    const Index count = rows.size();
    const Index own = crew.own(count);
    const Index K = cell.K();
    const Index H = d.H;
    const Index row0 = d.row(t) + rows.first;  // in the batch
    const Index local = row0 - base;           // in the chunk
    const RowsOut<Real> dh{args.dh + rows.first * K, K};
    const Range units = crew.columns<Real>(K);
    for (Index n = 0; n < own; ++n) {
      const Real* h_prev = args.h + (d.slot(t) + rows.first + n) * K;
      Real* u = at(chunk.operand, local + n, K);
      if (args.masks.recurrent != nullptr) {
        multiply_row(u, h_prev, args.masks.recurrent + (rows.first + n) * K, K);
      } else {
        copy_row(u + units.first, h_prev + units.first, units.size());
      }
      if (args.dy != nullptr) {
        add_row(dh[n] + units.first, args.dy + (row0 + n) * K + units.first, static_cast<const Real*>(nullptr),
                units.size());
      }
    }
    RowsOut<Real> dv = dh;
    if (cell.P > 0) {
      dv = {scratch.dv, H};
      for (Index n = 0; n < own; ++n) {
        clear(dv[n], H);
        copy_row(at(chunk.dh, local + n, K), dh[n], K);
      }
      crew.add_products(pack.w_hr, count, RowsIn<Real>{dh.data, K}, dv);
    }
    for (Index n = 0; n < own; ++n) differentiate(t, rows.first + n, row0 + n, local + n, dv[n], dh[n], units);

    const RowsIn<Real> through{at(chunk.dh_product, local, chunk.stride), chunk.stride};
    const bool aside = args.masks.recurrent != nullptr || resets_before(cell);
    const RowsOut<Real> du = aside ? RowsOut<Real>{scratch.du, K} : dh;
    if (aside) clear(scratch.du, own * K);
    if (cell.splits_n()) crew.add_products(pack.w_hn, count, RowsIn<Real>{through.data + 2 * H, chunk.stride}, du);
    if (resets_before(cell)) {
      for (Index n = 0; n < own; ++n) {
        const Real* gates = args.kept + (row0 + n) * kept.size;
        multiply_row(at(chunk.reset, local + n, H), gates, at(chunk.operand, local + n, K), H);
        gru.finish_before(gates, at(chunk.operand, local + n, K), du[n], at(chunk.da, local + n, chunk.stride));
      }
    }
    crew.add_products(pack.w_hh, count, through, du);
    for (Index n = 0; aside && n < own; ++n) {
      const Real* mask = args.masks.recurrent == nullptr ? nullptr : args.masks.recurrent + (rows.first + n) * K;
      add_row(dh[n], du[n], mask, K);
    }
  }

  /// The derivative of the cell of one row, or of some units of the simple cell. dv: gradient of the cell's output; dh:
  /// becomes what bypasses the cell.
  void differentiate(Index t, Index sequence, Index row, Index local, Real* dv, Real* dh, Range units) const {
    const Index M = cell.M();
    const Index H = d.H;
    const Real* values = args.kept + row * kept.size;
    const auto keep = [&](const Real* mask) { return Keep<Real>{mask == nullptr ? nullptr : mask + row * H, Real(0)}; };
    const Keep<Real> keep_h = keep(args.masks.zoneout_h);
    Real* da = at(chunk.da, local, chunk.stride);
    if (cell.kind == CellKind::lstm) {
      Real* dc = args.dc + sequence * H;
      if (args.dcells != nullptr) add_row(dc, args.dcells + row * H, static_cast<const Real*>(nullptr), H);
      const Real* c_prev = args.c + (d.slot(t) + sequence) * H;
      if (chunk.c_prev != nullptr) copy_row(at(chunk.c_prev, local, H), c_prev, H);
      lstm.derivative(values, c_prev, dv, dc, da, dh,
                      {at(chunk.candidate, local, H), at(chunk.normalized, local, H), at(chunk.dnorm, local, H),
                       at(chunk.output, local, H)},
                      keep(args.masks.zoneout_c), keep_h);
      if (!keep_h.any()) clear(dh, cell.K());
    } else if (cell.kind == CellKind::rnn) {
      rnn.derivative(values, dh, da, keep_h, units);
    } else {
      const Real* h_prev = args.h + (d.slot(t) + sequence) * H;
      Real* da_hh = at(chunk.da_hh, local, chunk.stride);
      gru.derivative(values, kept.q == 0 ? nullptr : values + kept.q, h_prev, dh, da, da_hh + 2 * H, keep_h);
      if (keeps_biases_apart(cell)) copy_row(da_hh, da, 2 * H);
    }
    if (cell.layer_norm) {
      const Real* normalized = values + kept.normalized;
      const Real* scales = normalized + 2 * M;
      Real* of_x = at(chunk.dx_product, local, chunk.stride);
      Real* of_h = at(chunk.dh_product, local, chunk.stride);
      copy_row(of_x, da, M);
      copy_row(of_h, at(chunk.da_hh, local, chunk.stride), M);
      normalization_gradient(normalized, parameters.norm_ih, scales[0], of_x, M);
      normalization_gradient(normalized + M, parameters.norm_hh, scales[1], of_h, M);
    }
  }

  /// dx, and the sums over the rows of a chunk. Threads share rows of dx and rows of the weights.
  void add_parameter_grads(Index first, Index last, int member, int threads, const Scratch& scratch) const {
    const Index base = d.row(first);
    const Index rows = d.row(last) - base;
    const Index M = cell.M();
    const Index K = cell.K();
    const Index H = d.H;
    if (args.dx != nullptr) {
      const Range own = share(rows, member, threads);
      const RowsOut<Real> dx{args.dx + (base + own.first) * d.I, d.I};
      for (Index n = 0; n < own.size(); ++n) clear(dx[n], d.I);
      add_products(pack.w_ih, pack.w_ih.blocks(), own.size(),
                   RowsIn<Real>{at(chunk.dx_product, own.first, chunk.stride), chunk.stride}, dx);
    }
    const Range own = share(M, member, threads);
    const auto row_of = [](const Real* data, Index columns) {
      return [data, columns](Index row) { return data + row * columns; };
    };
    const auto outer = [&](Real* to, Index right, RowsIn<Real> a, const Real* b, const Ranges* ranges, Range part) {
      add_outer_products(to, right, rows, a, row_of(b, right), ranges, {part, {0, blocks_of<Real>(right)}},
                         scratch.sums);
    };
    outer(args.dw_ih, d.I, {chunk.dx_product, chunk.stride}, args.x + base * d.I, parameters.ih.gradient, own);
    if (cell.splits_n()) {
      const Range units = share(H, member, threads);
      const Real* operand = resets_before(cell) ? chunk.reset : chunk.operand;
      outer(args.dw_hh, K, {chunk.da, chunk.stride}, chunk.operand, parameters.hh.gradient,
            share(2 * H, member, threads));
      outer(args.dw_hh + 2 * H * K, K, {chunk.da_hh + 2 * H, chunk.stride}, operand, parameters.hn.gradient, units);
    } else {
      outer(args.dw_hh, K, {chunk.dh_product, chunk.stride}, chunk.operand, parameters.hh.gradient, own);
    }
    if (cell.P > 0) outer(args.dw_hr, H, {chunk.dh, K}, chunk.output, nullptr, share(K, member, threads));

    const auto ones = [](Index) -> const Real* { return nullptr; };
    if (args.db_ih != nullptr) {
      add_sums(args.db_ih, rows, row_of(chunk.da, chunk.stride), ones, own);
      add_sums(args.db_hh, rows, row_of(chunk.da_hh, chunk.stride), ones, own);
    }
    if (cell.layer_norm) {
      const Real* normalized = args.kept + base * kept.size + kept.normalized;
      add_sums(args.dnorm_ih, rows, row_of(chunk.da, chunk.stride), row_of(normalized, kept.size), own);
      add_sums(args.dnorm_hh, rows, row_of(chunk.da_hh, chunk.stride), row_of(normalized + M, kept.size), own);
    }
    if (cell.kind != CellKind::lstm) return;
    const Range units = share(H, member, threads);
    if (cell.layer_norm) {
      add_sums(args.dnorm_c, rows, row_of(chunk.dnorm, H), row_of(chunk.normalized, H), units);
      add_sums(args.dnorm_c_bias, rows, row_of(chunk.dnorm, H), ones, units);
    }
    if (cell.peephole) {
      Real* to = args.dpeephole;
      const auto peephole = [&](Index gate, const Real* c) {
        add_sums(to, rows, row_of(chunk.da + gate * H, chunk.stride), row_of(c, H), units);
        to += H;
      };
      if (!cell.coupled) peephole(lstm.gate_of_i(), chunk.c_prev);
      peephole(lstm.gate_of_f(), chunk.c_prev);
      peephole(lstm.gate_of_o(), chunk.candidate);
    }
  }
};

template <class Real>
constexpr OptionKernels<Real> option_kernels() {
  return {
      .lanes = kLanes<Real>,
      .kept_size = [](const OptionCell& cell) { return KeptRow(cell).size; },
      .forward_pack_size = OptionPack<Real>::forward_size,
      .pack_forward = OptionPack<Real>::pack_forward,
      .backward_pack_size = OptionPack<Real>::backward_size,
      .pack_backward = OptionPack<Real>::pack_backward,
      .forward_work_size = OptionForward<Real>::work_size,
      .forward = OptionForward<Real>::run,
      .backward_work_size = OptionBackward<Real>::work_size,
      .backward = OptionBackward<Real>::run,
  };
}

}  // namespace rnnfast::RNNFAST_ISA
