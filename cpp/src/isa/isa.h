// SPDX-License-Identifier: MIT
// What each instruction set's unit exports.
#pragma once

#include "rnnfast/dense.h"
#include "rnnfast/optim.h"
#include "rnnfast/options.h"
#include "rnnfast/recurrent.h"

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

/// Of training: flat buffers, kernels/optim.h, and kernels/loss.h.
template <class Real>
struct TrainingKernels {
  bool (*step[kRules])(const OptimizerStep<Real>& step);
  bool (*all_finite)(const Real* x, Index count);
  double (*sum_of_squares)(const Real* x, Index count);
  double (*norm)(const Real* x, Index count);
  void (*scale)(Real* x, Real factor, Index count);
  void (*clip)(Real* x, Real limit, Index count);
  void (*add_scaled)(Real* sum, const Real* x, Real factor, Index count);
  double (*cross_entropy)(const Real* logits, const Index* target, const double* weights, double factor,
                          Real* derivative, Index rows, Index classes);
  void (*add_rows)(Real* table, const Index* index, const Real* rows, Index count, Index width);
};

/// Of the fully connected layer: kernels/dense.h.
template <class Real>
struct DenseKernels {
  Index (*forward_work_size)(const DenseDims& dims);
  void (*forward)(const DenseDims& dims, const Activation* f, const DenseForwardArgs<Real>& args, Team& team);
  Index (*backward_work_size)(const DenseDims& dims, int threads);
  void (*backward)(const DenseDims& dims, const Activation* f, const DenseBackwardArgs<Real>& args, Team& team);
};

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
