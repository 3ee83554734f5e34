// SPDX-License-Identifier: MIT
// What the units of each instruction set export.
#pragma once

#include "rnnfast/dense.h"
#include "rnnfast/options.h"
#include "rnnfast/recurrent.h"
#include "rnnfast/training.h"

namespace rnnfast {

/// What machine.cpp measures the machine with; kernels/machine.h.
template <class Real>
struct MachineLoops {
  Index round_flops;
  Real (*multiply_adds)(Index rounds, Real factor);
  Index read_step;
  Real (*read_all)(const Real* data, Index count);
};

/// Of the instruction set in use. Source: dispatch.cpp.
template <class Real>
const MachineLoops<Real>& machine_loops() noexcept;

template <class Real>
struct IsaKernels {
  CellKernels<Real> cells[kCells];
  OptionKernels<Real> options;
  DenseKernels<Real> dense;
  void (*sigmoid)(const Real* x, Real* y, Index count);
  void (*tanh)(const Real* x, Real* y, Index count);
  TrainingKernels<Real> training;
  MachineLoops<Real> machine;
};

// Each is compiled in a unit of its own for every type, from isa/.
namespace baseline {
template <class Real>
const IsaKernels<Real>& kernels() noexcept;
}
namespace avx2 {
template <class Real>
const IsaKernels<Real>& kernels() noexcept;
}
namespace avx512 {
template <class Real>
const IsaKernels<Real>& kernels() noexcept;
}

}  // namespace rnnfast
