// SPDX-License-Identifier: MIT
// The fully connected layer, y = f(x w^T + b), on rows: the same tiles as the recurrent cells, so the same promise. A
// row's result depends neither on how many rows there are nor on the number of threads.
#pragma once

#include "rnnfast/options.h"
#include "rnnfast/threads.h"
#include "rnnfast/types.h"

namespace rnnfast {

struct DenseDims {
  Index rows;
  Index inputs;
  Index outputs;
};

template <class Real>
struct DenseForwardArgs {
  const Real* x;  // in   (rows, inputs)
  const Real* w;  // in   (outputs, inputs)
  const Real* b;  // in   (outputs)        null without bias
  Real* y;        // out  (rows, outputs)
  Real* work;     // tmp  forward_work_size elements, 64-byte aligned
};

template <class Real>
struct DenseBackwardArgs {
  const Real* x;   // in   (rows, inputs)
  const Real* w;   // in   (outputs, inputs)
  const Real* y;   // in   (rows, outputs)   null without activation
  const Real* dy;  // in   (rows, outputs)
  Real* dx;        // out  (rows, inputs)    null: not wanted
  Real* dw;        // io   (outputs, inputs)
  Real* db;        // io   (outputs)         null without bias
  Real* work;      // tmp  backward_work_size elements, 64-byte aligned
};

/// The kernels of one float type for one instruction set. `f` null: no activation. Its derivative is a function of y:
/// simd/functions.h.
template <class Real>
struct DenseKernels {
  Index (*forward_work_size)(const DenseDims& dims);
  void (*forward)(const DenseDims& dims, const Activation* f, const DenseForwardArgs<Real>& args, Team& team);
  Index (*backward_work_size)(const DenseDims& dims, int threads);
  void (*backward)(const DenseDims& dims, const Activation* f, const DenseBackwardArgs<Real>& args, Team& team);
};

/// The kernels for the instruction set in use. Source: dispatch.cpp.
template <class Real>
const DenseKernels<Real>& dense_kernels() noexcept;

}  // namespace rnnfast
