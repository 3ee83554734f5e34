// SPDX-License-Identifier: MIT
// The activations the cells use, over arrays: y[m] = f(x[m]), m < count. x and y may be the same array.
// Error bounds: simd/math.h.
#pragma once

#include "rnnfast/types.h"

namespace rnnfast {

template <class Real>
void sigmoid(const Real* x, Real* y, Index count) noexcept;

template <class Real>
void tanh(const Real* x, Real* y, Index count) noexcept;

}  // namespace rnnfast
