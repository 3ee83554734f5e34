// SPDX-License-Identifier: MIT
// Forward of cells with options, step by step: products of all rows, then the cell of each row.
#pragma once

#include "cells/gru_options.h"
#include "cells/lstm_options.h"
#include "cells/rnn_options.h"
#include "kernels/crew.h"
#include "kernels/option_layout.h"

namespace rnnfast::RNNFAST_ISA {

/// Sequences are divided among threads for all steps. Those that leave half of the threads without work are computed by
/// all as one crew, if the products of a step, of so many weights, repay that they wait for each other.
template <class Real>
Split option_split(const OptionCell& cell, const Dims& d, StepRange steps, Index weights, Team& team) {
  const Split split = Split::choose<Real>(d, static_cast<int>(cell.gates()), team.size());
  if (!split.by_units) return split;
  const bool pays = 2 * d.N <= team.size() && static_cast<double>(d.N * weights) >= Split::kWorthBarrier;
  const double multiply_adds = static_cast<double>((d.row(steps.last) - d.row(steps.first)) * weights);
  if (pays && team.assemble(split.threads, multiply_adds)) return split;
  return {static_cast<int>(least<Index>(d.N, team.size())), false};
}

/// With whom a member goes through its rows. The simple cell needs no other unit of its own step.
template <class Real>
Crew crew_of(const Split& split, int member, const OptionCell& cell, const OptionMasks<Real>& masks,
             const Matrix<Real>& w_hh, Barrier& barrier) {
  if (!split.by_units) return Crew();
  const bool divides = cell.kind == CellKind::rnn && masks.recurrent == nullptr;
  return divides ? Crew(w_hh.share_of(member, split.threads), &barrier) : Crew(member, split.threads, &barrier);
}

template <class Real>
class OptionForward {
 public:
  static Index work_size(const OptionCell& cell, const Dims& d, int threads) {
    return threads * Scratch(cell, d, nullptr).size;
  }

  static void run(const OptionCell& cell, const OptionParameters<Real>& parameters, const Dims& d,
                  const OptionForwardArgs<Real>& args, bool training, StepRange steps, Team& team) {
    const OptionForward self(cell, parameters, d, args, training);
    const Split split = option_split<Real>(cell, d, steps, self.pack.size, team);
    const Index scratch = split.by_units ? 0 : work_size(cell, d, 1);
    Barrier barrier(split.threads);
    for (Index first = steps.first; first < steps.last;) {
      const StepRange stretch = split.stretch(d, first, steps.last);
      parallel(team, split.threads, [&](int member) {
        const Range rows = split.part(d, stretch, 0, member).rows;
        const Crew crew = crew_of(split, member, cell, args.masks, self.pack.w_hh, barrier);
        self.run_part(stretch, rows, crew, Scratch(cell, d, args.work + member * scratch));
      });
      first = stretch.last;
    }
  }

 private:
  /// Steps whose products with x are made together: for few rows, which would leave the tile waiting for each product.
  static Index chunk_steps(const OptionCell& cell, const Dims& d) {
    return d.slots == nullptr && d.N <= kFewRows && !cell.layer_norm ? 16 : 1;
  }

  /// Memory of one thread, or of one crew.
  struct Scratch {
    Real* kept;       // (chunk_steps, N, S)  inference
    Real* operand;    // (N, K)  masked hidden states
    Real* recurrent;  // (N, M)  gru: products with h for n, or with normalisation for all gates
    Real* output;     // (N, H)  before the projection; with the reset gate before, r u
    Real* candidate;  // (H)
    Index size;

    Scratch(const OptionCell& cell, const Dims& d, Real* work) {
      Carver<Real> carver{work};
      kept = carver.take(chunk_steps(cell, d) * d.N * KeptRow(cell).size);
      operand = carver.take(d.N * cell.K());
      recurrent = carver.take(d.N * cell.M());
      output = carver.take(d.N * d.H);
      candidate = carver.take(d.H);
      size = carver.used;
    }
  };

  const OptionCell& cell;
  const OptionParameters<Real>& parameters;
  const Dims& d;
  const OptionForwardArgs<Real>& args;
  const bool training;
  const KeptRow kept;
  const OptionPack<Real> pack;
  const LstmOptions<Real> lstm;
  const GruOptions<Real> gru;
  const RnnOptions<Real> rnn;

  OptionForward(const OptionCell& c, const OptionParameters<Real>& p, const Dims& dims,
                const OptionForwardArgs<Real>& a, bool keep)
      : cell(c),
        parameters(p),
        d(dims),
        args(a),
        training(keep),
        kept(c),
        pack(c, p, a.packed, false),
        lstm(c, p),
        gru(c),
        rnn(c) {}

  /// Some steps of some rows.
  void run_part(StepRange steps, Range rows, const Crew& crew, const Scratch& scratch) const {
    const bool together = rows.size() == d.N && chunk_steps(cell, d) > 1;
    const Index chunk = together ? chunk_steps(cell, d) : 1;
    for (Index first = steps.first; first < steps.last; first += chunk) {
      const Index last = least(first + chunk, steps.last);
      if (together) {
        const RowsOut<Real> row = rows_of_step(first, first, 0, scratch);
        add_inputs(crew, (last - first) * d.N, RowsIn<Real>{args.x + d.row(first) * d.I, d.I}, row);
      }
      for (Index t = first; t < last; ++t) {
        const Range active = intersection(rows, {0, d.rows(t)});
        const RowsOut<Real> row = rows_of_step(t, first, active.first, scratch);
        if (active.size() > 0) advance(crew, t, active, row, together, scratch);
      }
    }
  }

  /// Where a step's values are kept; in inference, of a chunk that begins with step `first`.
  RowsOut<Real> rows_of_step(Index t, Index first, Index row, const Scratch& scratch) const {
    Real* const data =
        training ? args.kept + (d.row(t) + row) * kept.size : scratch.kept + (t - first) * d.N * kept.size;
    return {data, kept.size};
  }

  /// a = b + w_ih x.
  void add_inputs(const Crew& crew, Index count, RowsIn<Real> x, RowsOut<Real> row) const {
    const Range own = crew.columns<Real>(cell.M());
    for (Index n = 0; n < crew.own(count); ++n) copy_row(row[n] + own.first, pack.bias_ih + own.first, own.size());
    crew.add_products(pack.w_ih, count, x, row);
  }

  /// Step t of some rows; has_inputs: add_inputs has been called for them.
  void advance(const Crew& crew, Index t, Range rows, RowsOut<Real> row, bool has_inputs,
               const Scratch& scratch) const {
    const Index count = rows.size();
    const Index own = crew.own(count);
    const Index K = cell.K();
    const RowsIn<Real> x{args.x + (d.row(t) + rows.first) * d.I, d.I};
    const RowsIn<Real> h_prev{args.h + (d.slot(t) + rows.first) * K, K};
    const RowsOut<Real> h{args.h + (d.slot(t + 1) + rows.first) * K, K};
    RowsIn<Real> u = h_prev;
    if (args.masks.recurrent != nullptr) {
      u = {scratch.operand, K};
      for (Index n = 0; n < own; ++n) {
        multiply_row(scratch.operand + n * K, h_prev[n], args.masks.recurrent + (rows.first + n) * K, K);
      }
    }
    const auto keep = [&](const Real* mask, double share, Index n) {
      return Keep<Real>{mask == nullptr ? nullptr : mask + (d.row(t) + rows.first + n) * d.H,
                        mask == nullptr && !training ? static_cast<Real>(share) : Real(0)};
    };
    if (cell.kind == CellKind::gru) {
      gate_gru(crew, count, x, u, row, has_inputs, scratch);
      for (Index n = 0; n < own; ++n) {
        const Real* q = kept.q == 0 ? nullptr : row[n] + kept.q;
        gru.step(row[n], q, h_prev[n], h[n], keep(args.masks.zoneout_h, cell.zoneout_h, n));
      }
      return;
    }
    sum_products(crew, count, x, u, row, has_inputs);
    for (Index n = 0; n < own; ++n) {
      const Keep<Real> keep_h = keep(args.masks.zoneout_h, cell.zoneout_h, n);
      if (cell.kind == CellKind::rnn) {
        rnn.step(row[n], h_prev[n], h[n], keep_h, crew.columns<Real>(d.H));
      } else {
        Real* v = cell.P > 0 ? scratch.output + n * d.H : h[n];
        const Index sequence = rows.first + n;
        Real* c = args.c + ((training ? d.slot(t + 1) : 0) + sequence) * d.H;
        lstm.step(row[n], args.c + ((training ? d.slot(t) : 0) + sequence) * d.H, h_prev[n], scratch.candidate, c, v,
                  keep(args.masks.zoneout_c, cell.zoneout_c, n), keep_h);
      }
    }
    if (cell.P > 0) {
      for (Index n = 0; n < own; ++n) clear(h[n], K);
      crew.add_products(pack.w_hr, count, RowsIn<Real>{scratch.output, d.H}, h);
    }
  }

  /// a = b + w_ih x + w_hh u, or with both products normalised.
  void sum_products(const Crew& crew, Index count, RowsIn<Real> x, RowsIn<Real> u, RowsOut<Real> row,
                    bool has_inputs) const {
    if (!cell.layer_norm) {
      if (!has_inputs) add_inputs(crew, count, x, row);
      crew.add_products(pack.w_hh, count, u, row);
      return;
    }
    const Index M = cell.M();
    const Index own = crew.own(count);
    for (Index n = 0; n < own; ++n) copy_row(row[n], pack.bias_ih, M);
    normalized_products(crew, count, x, u, row);
    for (Index n = 0; n < own; ++n) {
      add_row(row[n], row[n] + kept.normalized, parameters.norm_ih, M);
      add_row(row[n], row[n] + kept.normalized + M, parameters.norm_hh, M);
    }
  }

  void normalized_products(const Crew& crew, Index count, RowsIn<Real> x, RowsIn<Real> u, RowsOut<Real> row) const {
    const Index M = cell.M();
    const Index own = crew.own(count);
    const RowsOut<Real> of_x{row.data + kept.normalized, kept.size};
    const RowsOut<Real> of_h{of_x.data + M, kept.size};
    for (Index n = 0; n < own; ++n) clear(of_x[n], 2 * M);
    crew.add_products(pack.w_ih, count, x, of_x);
    crew.add_products(pack.w_hh, count, u, of_h);
    for (Index n = 0; n < own; ++n) {
      Real* scales = of_h[n] + M;
      scales[0] = normalize(of_x[n], M);
      scales[1] = normalize(of_h[n], M);
    }
  }

  /// r, z and the pre-activation of n; q with the reset gate behind the product.
  void gate_gru(const Crew& crew, Index count, RowsIn<Real> x, RowsIn<Real> u, RowsOut<Real> row, bool has_inputs,
                const Scratch& scratch) const {
    const Index H = d.H;
    const Index own = crew.own(count);
    if (cell.layer_norm) {
      const Index M = cell.M();
      for (Index n = 0; n < own; ++n) copy_row(row[n], pack.bias_ih, M);
      const RowsOut<Real> of_h{scratch.recurrent, M};
      normalized_products(crew, count, x, u, row);
      for (Index n = 0; n < own; ++n) {
        copy_row(of_h[n], pack.bias_hh, M);
        add_row(row[n], row[n] + kept.normalized, parameters.norm_ih, M);
        add_row(of_h[n], row[n] + kept.normalized + M, parameters.norm_hh, M);
        add_row(row[n], of_h[n], static_cast<const Real*>(nullptr), 2 * H);
        gru.gate(row[n]);
        copy_row(row[n] + kept.q, of_h[n] + 2 * H, H);
      }
      return;
    }
    if (!has_inputs) add_inputs(crew, count, x, row);
    crew.add_products(pack.w_hh, count, u, row);
    for (Index n = 0; n < own; ++n) gru.gate(row[n]);
    if (resets_before(cell)) {
      const RowsOut<Real> s{scratch.output, H};
      for (Index n = 0; n < own; ++n) multiply_row(s[n], row[n], u[n], d.H);
      crew.add_products(pack.w_hn, count, RowsIn<Real>{s.data, H}, RowsOut<Real>{row.data + 2 * H, row.stride});
    } else {
      const RowsOut<Real> q{row.data + kept.q, row.stride};
      for (Index n = 0; n < own; ++n) copy_row(q[n], pack.bias_hh + 2 * H, H);
      crew.add_products(pack.w_hn, count, u, q);
    }
  }
};

}  // namespace rnnfast::RNNFAST_ISA
