// SPDX-License-Identifier: MIT
// parts.h for the instruction set RNNFAST_ISA.
#pragma once

#include "cells/gru.h"
#include "cells/lstm.h"
#include "cells/rnn.h"
#include "kernels/pack.h"
#include "kernels/weight_grad.h"
#include "parts.h"

namespace rnnfast::RNNFAST_ISA {

template <class CellMath, class Real>
void bench_multiply(const Dims& d, const Real* packed, const Real* h, Real* out) {
  constexpr int P = CellMath::kProducts;
  constexpr int L = kLanes<Real>;
  const ForwardPack<CellMath, Real> pack({d.I, d.H}, packed);
  pack.for_each_tile_of(d.N, {0, pack.blocks}, false, [&]<int V>(const TileRange& tile) {
    Accumulators<Real> acc;
    const Real* rows[kMaxRows<V>];
    for (Index r = 0; r < tile.rows; ++r) rows[r] = h + (tile.first_row + r) * d.H;
    multiply<V>(tile, acc.data, P, from_zero<Real>(), rows, pack.w_hh);
    for (Index r = 0; r < tile.rows; ++r) {
      for (Index u = 0; u < tile.blocks; ++u) {
        const Index unit = (tile.first_block + u) * L;
        Real* to = out + (tile.first_row + r) * P * d.H + unit;
        for (int p = 0; p < P; ++p) {
          store_lanes(to + p * d.H, load(acc.at(tile, r, u, P) + p * pack.template distance<V>()),
                      lanes_left<Real>(unit, d.H));
        }
      }
    }
  });
}

template <class CellMath, class Real>
void bench_step(Index count, const Real* a, const Real* h_prev, Real* c, Real* h) {
  for (Index j = 0; j < count; j += kLanes<Real>) {
    const Index width = lanes_left<Real>(j, count);
    Vec<Real> v[CellMath::kPlanes];
    for (int plane = 0; plane < CellMath::kPlanes; ++plane) v[plane] = load_lanes(a + plane * count + j, width);
    Vec<Real> state = load_lanes(c + j, width);
    CellMath::template open_gates<Real>(v, state);
    store_lanes(h + j, CellMath::template output<Real>(v, load_lanes(h_prev + j, width), state), width);
    store_lanes(c + j, state, width);
  }
}

template <class CellMath, class Real>
void bench_derivative(Index count, const Real* gates, const Real* dh, const Real* h_prev, const Real* h,
                      const Real* c_prev, const Real* c, Real* da, Real* carry) {
  for (Index j = 0; j < count; j += kLanes<Real>) {
    const Index width = lanes_left<Real>(j, count);
    Vec<Real> v[CellMath::kPlanes];
    for (int plane = 0; plane < CellMath::kPlanes; ++plane) v[plane] = load_lanes(gates + plane * count + j, width);
    Vec<Real> passed = load_lanes(carry + j, width);
    CellMath::template derivative<Real>(v, load_lanes(dh + j, width), load_lanes(h_prev + j, width),
                                        load_lanes(h + j, width), load_lanes(c_prev + j, width),
                                        load_lanes(c + j, width), passed);
    for (int plane = 0; plane < CellMath::kPlanes; ++plane) store_lanes(da + plane * count + j, v[plane], width);
    store_lanes(carry + j, passed, width);
  }
}

/// With the writing of the gradients as columns, which is a part of the derivative in training.
template <class CellMath, class Real>
void bench_weight_grad(const Dims& d, Real* da, const BackwardArgs<Real>& args) {
  using Gradient = WeightGrad<CellMath, Real>;
  const Index size = CellMath::kPlanes * d.H;
  const Columns<Real> columns{args.work, Gradient::columns_height(d)};
  for (Index last = d.T; last > 0;) {
    const Index first = first_of_chunk(d, last);
    const Index rows = d.row(last) - d.row(first);
    const ChunkGradients<Real> gradients{da + d.row(first) * size, d.row(first), size, columns};
    for (int plane = 0; plane < CellMath::kPlanes && columns.height > 0; ++plane) {
      gradients.plane(plane, d.H).pack(gradients.data, size, rows, {plane * d.H, (plane + 1) * d.H});
    }
    const Gradient chunk(d, args, gradients, {first, last}, args.work + Gradient::columns_size(d));
    for (Index piece = 0; piece < chunk.pieces(); ++piece) {
      chunk.pack(piece, 0, 1);
      chunk.add(piece, 0, 1);
    }
    last = first;
  }
}

template <class CellMath, class Real>
constexpr bench::Parts<Real> bench_parts_of() {
  using Gradients = WeightGrad<CellMath, Real>;
  return {.products = CellMath::kProducts,
          .planes = CellMath::kPlanes,
          .multiply = bench_multiply<CellMath, Real>,
          .step = bench_step<CellMath, Real>,
          .derivative = bench_derivative<CellMath, Real>,
          .weight_grad_work = [](const Dims& d) { return Gradients::work_size(d) + Gradients::columns_size(d); },
          .weight_grad = bench_weight_grad<CellMath, Real>};
}

/// In the order of the enumeration Cell.
template <class Real>
const bench::Parts<Real>& bench_parts(Cell cell) {
  static constexpr bench::Parts<Real> all[kCells] = {bench_parts_of<Rnn<Tanh>, Real>(),
                                                     bench_parts_of<Rnn<Relu>, Real>(), bench_parts_of<Lstm, Real>(),
                                                     bench_parts_of<Gru, Real>()};
  return all[static_cast<int>(cell)];
}

template const bench::Parts<float>& bench_parts<float>(Cell cell);
template const bench::Parts<double>& bench_parts<double>(Cell cell);

}  // namespace rnnfast::RNNFAST_ISA
