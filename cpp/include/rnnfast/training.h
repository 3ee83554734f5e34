// SPDX-License-Identifier: MIT
// Losses with their derivatives, as far as NumPy would need many passes for them; steps of optimizers, and what is done
// to a gradient before, on flat buffers. Nothing is split over threads: all of it is bound by memory and short beside
// backpropagation.
#pragma once

#include "rnnfast/types.h"

namespace rnnfast {

/// The rules of an update, in the order of the kernel tables. `m`, `v`, `a` are the buffers a rule remembers.
enum class Rule {
  sgd,  // d = g
  momentum,  // m = momentum m + g, d = m
  nesterov,  // m = momentum m + g, d = g + momentum m
  rmsprop,  // v = alpha v + (1-alpha) g^2, d = g / (sqrt(v) + eps)
  rmsprop_momentum,  // the same, then m = momentum m + d, d = m
  rmsprop_centered,  // a = alpha a + (1-alpha) g, d = g / (sqrt(v - a^2) + eps)
  rmsprop_both,  // centered, then momentum
  adam,  // m = b1 m + (1-b1) g, v = b2 v + (1-b2) g^2, d = m / (sqrt(v) / root_correction + eps)
};
inline constexpr int kRules = 8;
inline constexpr int kMaxBuffers = 3;

/// Buffers of each rule, in the order in which `OptimizerStep::buffers` wants them.
inline constexpr int kRuleBuffers[kRules] = {0, 1, 1, 1, 2, 2, 3, 2};

/// One step: g += decay p, then the rule's d, then p = keep p - lr d.
template <class Real>
struct OptimizerStep {
  Index count;
  const Real* g;
  Real* p;
  Real* buffers[kMaxBuffers];
  Real* before[1 + kMaxBuffers];  // out: p and the buffers as they were, for the caller who has to take a step back
  Real lr;
  Real decay;  // weight decay as a part of the gradient
  Real keep;  // 1 - lr * decoupled weight decay
  Real momentum;  // of sgd and rmsprop
  Real forget1;  // 1 - b1 of adam
  Real forget2;  // 1 - alpha of rmsprop, 1 - b2 of adam
  Real memory2;  // alpha, b2
  Real eps;
  Real root_correction;  // of adam: sqrt(1 - b2^t)
};

/// The kernels of one float type for one instruction set.
template <class Real>
struct TrainingKernels {
  /// A step of each rule: whether all of the new parameters are finite; everything is written either way.
  bool (*step[kRules])(const OptimizerStep<Real>& step);
  bool (*all_finite)(const Real* x, Index count);
  /// Sum of squares in float64, in an order that depends on `count` alone.
  double (*sum_of_squares)(const Real* x, Index count);
  /// Euclidean norm, summed in float64 in an order that depends on `count` alone: infinite or NaN only if an element
  /// is.
  double (*norm)(const Real* x, Index count);
  /// x *= factor.
  void (*scale)(Real* x, Real factor, Index count);
  /// x = min(max(x, -limit), limit); NaN stays NaN.
  void (*clip)(Real* x, Real limit, Index count);
  /// sum += factor * x.
  void (*add_scaled)(Real* sum, const Real* x, Real factor, Index count);
  /// Cross-entropy of rows of logits: the sum over the rows of w (log sum exp(row) - row[class]), in float64.
  ///
  /// `derivative` (rows, classes) becomes factor * w * (softmax(row) - [class]). Rows of weight 0, whose class may be
  /// any number, get zeros. `weights` may be null: all 1.
  double (*cross_entropy)(const Real* logits, const Index* target, const double* weights, double factor,
                          Real* derivative, Index rows, Index classes);
  /// table[index[m]] += rows[m] for rows of `width` numbers, m < count, in this order.
  void (*add_rows)(Real* table, const Index* index, const Real* rows, Index count, Index width);
};

/// The kernels for the instruction set in use. Source: dispatch.cpp.
template <class Real>
const TrainingKernels<Real>& training_kernels() noexcept;

}  // namespace rnnfast
