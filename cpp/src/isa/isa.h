// SPDX-License-Identifier: MIT
// What each instruction set's unit exports.
#pragma once

#include "rnnfast/recurrent.h"

namespace rnnfast {

template <class Real>
struct IsaKernels {
  CellKernels<Real> cells[kCells];
  void (*sigmoid)(const Real* x, Real* y, Index count);
  void (*tanh)(const Real* x, Real* y, Index count);
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
