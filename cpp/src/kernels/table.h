// SPDX-License-Identifier: MIT
// Everything that one instruction set offers, as tables of function pointers.
#pragma once

#include "cells/gru.h"
#include "cells/lstm.h"
#include "cells/rnn.h"
#include "isa/isa.h"
#include "kernels/backward.h"
#include "kernels/dense.h"
#include "kernels/forward.h"
#include "kernels/machine.h"
#include "kernels/optim.h"
#include "kernels/option_backward.h"

namespace rnnfast::RNNFAST_ISA {

template <class CellMath, class Real>
constexpr CellKernels<Real> cell_kernels() {
  return {
      .gates_per_unit = CellMath::kProducts,
      .planes_per_unit = CellMath::kKeepsGates ? CellMath::kPlanes : 0,
      .has_cell_state = CellMath::kHasCellState,
      .forward_pack_size = ForwardPack<CellMath, Real>::size,
      .pack_forward = ForwardPack<CellMath, Real>::pack,
      .backward_pack_size = BackwardPack<CellMath, Real>::size,
      .pack_backward = BackwardPack<CellMath, Real>::pack,
      .forward_work_size = Forward<CellMath, Real>::work_size,
      .forward = Forward<CellMath, Real>::run,
      .backward_work_size = Backward<CellMath, Real>::work_size,
      .backward = Backward<CellMath, Real>::run,
  };
}

/// y[m] = f(x[m]) for the tests of the activations.
template <class Real, Vec<Real> (*F)(Vec<Real>)>
inline void map(const Real* x, Real* y, Index count) {
  for (Index m = 0; m < count; m += kLanes<Real>) {
    const Index width = lanes_left<Real>(m, count);
    store_lanes(y + m, F(load_lanes(x + m, width)), width);
  }
}

template <class Real>
const IsaKernels<Real>& kernels() noexcept {
  static constexpr IsaKernels<Real> all = {.cells = {cell_kernels<Rnn<Tanh>, Real>(), cell_kernels<Rnn<Relu>, Real>(),
                                                     cell_kernels<Lstm, Real>(), cell_kernels<Gru, Real>()},
                                           .options = option_kernels<Real>(),
                                           .dense = dense_kernels<Real>(),
                                           .sigmoid = map<Real, sigmoid<Real>>,
                                           .tanh = map<Real, tanh<Real>>,
                                           .training = training_kernels<Real>(),
                                           .machine = loops_of_this_isa<Real>()};
  return all;
}

}  // namespace rnnfast::RNNFAST_ISA
