// SPDX-License-Identifier: MIT
// Losses with their derivatives, as far as NumPy would need many passes for them.
#pragma once

#include "rnnfast/types.h"

namespace rnnfast {

/// Cross-entropy of rows of logits: the sum over the rows of w (log sum exp(row) - row[class]), in float64.
///
/// `derivative` (rows, classes) becomes factor * w * (softmax(row) - [class]). Rows of weight 0, whose class may be any
/// number, get zeros. `weights` may be null: all 1.
template <class Real>
double cross_entropy(const Real* logits, const Index* target, const double* weights, double factor, Real* derivative,
                     Index rows, Index classes) noexcept;

}  // namespace rnnfast
