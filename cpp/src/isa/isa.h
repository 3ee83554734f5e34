// SPDX-License-Identifier: MIT
// What each instruction set's unit exports.
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

namespace baseline {
extern const IsaKernels<float> kFloatKernels;
extern const IsaKernels<double> kDoubleKernels;
}  // namespace baseline
namespace avx2 {
extern const IsaKernels<float> kFloatKernels;
extern const IsaKernels<double> kDoubleKernels;
}  // namespace avx2
namespace avx512 {
extern const IsaKernels<float> kFloatKernels;
extern const IsaKernels<double> kDoubleKernels;
}  // namespace avx512

}  // namespace rnnfast
