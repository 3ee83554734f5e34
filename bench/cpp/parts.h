// SPDX-License-Identifier: MIT
// The parts that the kernels are made of, one instruction set and cell at a time, on plain arrays.
#pragma once

#include "rnnfast/cpu.h"
#include "rnnfast/recurrent.h"

namespace rnnfast::bench {

/// P products and `planes` values per hidden unit, as in the cells.
template <class Real>
struct Parts {
  Index products;
  Index planes;

  /// The recurrent product of one step, without the cell: out (N, P, H) = h w_hh.
  ///   packed   in   from CellKernels::pack_forward
  void (*multiply)(const Dims& d, const Real* packed, const Real* h, Real* out);

  /// The cell alone, `count` units: a (planes, count), h_prev (count), c (count, in and out) to h (count).
  void (*step)(Index count, const Real* a, const Real* h_prev, Real* c, Real* h);

  /// Its derivative: gates (planes, count), dh, h_prev, h, c_prev, c (count) to da (planes, count) and carry (count).
  void (*derivative)(Index count, const Real* gates, const Real* dh, const Real* h_prev, const Real* h,
                     const Real* c_prev, const Real* c, Real* da, Real* carry);

  /// Weight gradients of all T * N rows on one thread, from da (T * N, P * H).
  Index (*weight_grad_work)(const Dims& d);
  void (*weight_grad)(const Dims& d, Real* da, const BackwardArgs<Real>& args);
};

/// Of the instruction set in use.
template <class Real>
const Parts<Real>& parts(Cell cell);

}  // namespace rnnfast::bench
