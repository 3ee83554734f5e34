// SPDX-License-Identifier: MIT
// Forward of cells with options, step by step: products of all rows, then the cell of each row.
#pragma once

#include "cells/gru_options.h"
#include "cells/lstm_options.h"
#include "cells/rnn_options.h"
#include "kernels/option_layout.h"
#include "kernels/team.h"

namespace rnnfast::RNNFAST_ISA {

/// Sequences are divided among threads for all steps; the few products of a single one stay on one thread.
template <class Real>
Split option_split(const OptionCell& cell, const Dims& d, int available) {
  Split split = Split::choose<Real>(d, static_cast<int>(cell.gates()), available);
  if (split.by_units) split = {d.N < available ? static_cast<int>(d.N) : available, false};
  return split;
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
    const Split split = option_split<Real>(cell, d, team.size());
    const Index scratch = work_size(cell, d, 1);
    for (Index first = steps.first; first < steps.last;) {
      const StepRange stretch = split.stretch(d, first, steps.last);
      parallel(team, split.threads, [&](int member) {
        const Range rows = split.part(d, stretch, 0, member).rows;
        const Scratch own(cell, d, args.work + member * scratch);
        for (Index t = stretch.first; t < stretch.last; ++t) {
          const Range active = intersection(rows, {0, d.rows(t)});
          if (active.size() > 0) self.advance(t, active, own);
        }
      });
      first = stretch.last;
    }
  }

 private:
  /// Memory of one thread.
  struct Scratch {
    Real* kept;       // (N, S)  inference
    Real* operand;    // (N, K)  masked hidden states
    Real* recurrent;  // (N, M)  gru: products with h for n, or with normalisation for all gates
    Real* output;     // (N, H)  before the projection; with the reset gate before, r u
    Real* candidate;  // (H)
    Index size;

    Scratch(const OptionCell& cell, const Dims& d, Real* work) {
      Carver<Real> carver{work};
      kept = carver.take(d.N * KeptRow(cell).size);
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

  /// Step t of some rows.
  void advance(Index t, Range rows, const Scratch& scratch) const {
    const Index count = rows.size();
    const Index K = cell.K();
    const RowsIn<Real> x{args.x + (d.row(t) + rows.first) * d.I, d.I};
    const RowsIn<Real> h_prev{args.h + (d.slot(t) + rows.first) * K, K};
    const RowsOut<Real> h{args.h + (d.slot(t + 1) + rows.first) * K, K};
    const RowsOut<Real> row{training ? args.kept + (d.row(t) + rows.first) * kept.size : scratch.kept, kept.size};
    RowsIn<Real> u = h_prev;
    if (args.masks.recurrent != nullptr) {
      u = {scratch.operand, K};
      for (Index n = 0; n < count; ++n) {
        multiply_row(scratch.operand + n * K, h_prev[n], args.masks.recurrent + (rows.first + n) * K, K);
      }
    }
    const auto keep = [&](const Real* mask, double share, Index n) {
      return Keep<Real>{mask == nullptr ? nullptr : mask + (d.row(t) + rows.first + n) * d.H,
                        mask == nullptr && !training ? static_cast<Real>(share) : Real(0)};
    };
    if (cell.kind == CellKind::gru) {
      gate_gru(count, x, u, row, scratch);
      for (Index n = 0; n < count; ++n) {
        const Real* q = kept.q == 0 ? nullptr : row[n] + kept.q;
        gru.step(row[n], q, h_prev[n], h[n], keep(args.masks.zoneout_h, cell.zoneout_h, n));
      }
      return;
    }
    sum_products(count, x, u, row);
    for (Index n = 0; n < count; ++n) {
      const Keep<Real> keep_h = keep(args.masks.zoneout_h, cell.zoneout_h, n);
      if (cell.kind == CellKind::rnn) {
        rnn.step(row[n], h_prev[n], h[n], keep_h);
      } else {
        Real* v = cell.P > 0 ? scratch.output + n * d.H : h[n];
        const Index sequence = rows.first + n;
        Real* c = args.c + ((training ? d.slot(t + 1) : 0) + sequence) * d.H;
        lstm.step(row[n], args.c + ((training ? d.slot(t) : 0) + sequence) * d.H, h_prev[n], scratch.candidate, c, v,
                  keep(args.masks.zoneout_c, cell.zoneout_c, n), keep_h);
      }
    }
    if (cell.P > 0) {
      for (Index n = 0; n < count; ++n) clear(h[n], K);
      add_products(pack.w_hr, count, RowsIn<Real>{scratch.output, d.H}, h);
    }
  }

  /// a = b + w_ih x + w_hh u, or with both products normalised.
  void sum_products(Index count, RowsIn<Real> x, RowsIn<Real> u, RowsOut<Real> row) const {
    const Index M = cell.M();
    for (Index n = 0; n < count; ++n) copy_row(row[n], pack.bias_ih, M);
    if (!cell.layer_norm) {
      add_products(pack.w_ih, count, x, row);
      add_products(pack.w_hh, count, u, row);
      return;
    }
    normalized_products(count, x, u, row);
    for (Index n = 0; n < count; ++n) {
      add_row(row[n], row[n] + kept.normalized, parameters.norm_ih, M);
      add_row(row[n], row[n] + kept.normalized + M, parameters.norm_hh, M);
    }
  }

  void normalized_products(Index count, RowsIn<Real> x, RowsIn<Real> u, RowsOut<Real> row) const {
    const Index M = cell.M();
    const RowsOut<Real> of_x{row.data + kept.normalized, kept.size};
    const RowsOut<Real> of_h{of_x.data + M, kept.size};
    for (Index n = 0; n < count; ++n) clear(of_x[n], 2 * M);
    add_products(pack.w_ih, count, x, of_x);
    add_products(pack.w_hh, count, u, of_h);
    for (Index n = 0; n < count; ++n) {
      Real* scales = of_h[n] + M;
      scales[0] = normalize(of_x[n], M);
      scales[1] = normalize(of_h[n], M);
    }
  }

  /// r, z and the pre-activation of n; q with the reset gate behind the product.
  void gate_gru(Index count, RowsIn<Real> x, RowsIn<Real> u, RowsOut<Real> row, const Scratch& scratch) const {
    const Index H = d.H;
    const Index M = cell.M();
    for (Index n = 0; n < count; ++n) copy_row(row[n], pack.bias_ih, M);
    if (cell.layer_norm) {
      const RowsOut<Real> of_h{scratch.recurrent, M};
      normalized_products(count, x, u, row);
      for (Index n = 0; n < count; ++n) {
        copy_row(of_h[n], pack.bias_hh, M);
        add_row(row[n], row[n] + kept.normalized, parameters.norm_ih, M);
        add_row(of_h[n], row[n] + kept.normalized + M, parameters.norm_hh, M);
        add_row(row[n], of_h[n], static_cast<const Real*>(nullptr), 2 * H);
        gru.gate(row[n]);
        copy_row(row[n] + kept.q, of_h[n] + 2 * H, H);
      }
      return;
    }
    add_products(pack.w_ih, count, x, row);
    add_products(pack.w_hh, count, u, row);
    for (Index n = 0; n < count; ++n) gru.gate(row[n]);
    if (resets_before(cell)) {
      const RowsOut<Real> s{scratch.output, H};
      for (Index n = 0; n < count; ++n) gru.reset(row[n], u[n], s[n]);
      add_products(pack.w_hn, count, RowsIn<Real>{s.data, H}, RowsOut<Real>{row.data + 2 * H, row.stride});
    } else {
      const RowsOut<Real> q{row.data + kept.q, row.stride};
      for (Index n = 0; n < count; ++n) copy_row(q[n], pack.bias_hh + 2 * H, H);
      add_products(pack.w_hn, count, u, q);
    }
  }
};

}  // namespace rnnfast::RNNFAST_ISA
