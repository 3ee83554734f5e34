// SPDX-License-Identifier: MIT
// Softmax and cross-entropy, row by row while a row is in the first cache.
#pragma once

#include "rnnfast/types.h"
#include "simd/math.h"
#include "simd/row_sum.h"

namespace rnnfast::RNNFAST_ISA {

/// exp(y) for y <= 0; NaN stays NaN.
template <class Real>
RNNFAST_INLINE Vec<Real> exp_of_negative(Vec<Real> y) {
  const Exponential<Real> e = exponential<64, Real>(at_least(y, splat(ExpConstants<Real>::kSigmoidLeast)));
  return fma(e.scale, e.p, e.scale) * splat(Real(0x1p-64));
}

template <class Real>
RNNFAST_INLINE Real largest(const Real* row, Index count) {
  Real greatest = row[0];
  Index at = 0;
  if (count >= kLanes<Real>) {
    Vec<Real> lanes = load(row);
    for (at = kLanes<Real>; at + kLanes<Real> <= count; at += kLanes<Real>) {
      const Vec<Real> v = load(row + at);
      lanes = select<Real>(v > lanes, v, lanes);
    }
    for (int j = 0; j < kLanes<Real>; ++j) greatest = most(greatest, lanes[j]);
  }
  for (; at < count; ++at) greatest = most(greatest, row[at]);
  return greatest;
}

template <class Real>
inline double cross_entropy(const Real* logits, const Index* target, const double* weights, double factor,
                            Real* derivative, Index rows, Index classes) {
  double loss = 0;
  for (Index m = 0; m < rows; ++m) {
    const Real* row = logits + m * classes;
    Real* d = derivative + m * classes;
    const double weight = weights == nullptr ? 1.0 : weights[m];
    if (weight == 0) {
      for (Index j = 0; j < classes; ++j) d[j] = 0;
      continue;
    }
    const Real greatest = largest(row, classes);
    RowSum<Real> sum;
    for (Index at = 0; at < classes; at += kLanes<Real>) {
      const Index width = classes - at;
      store_lanes(d + at, exp_of_negative<Real>(load_lanes(row + at, width) - splat(greatest)), width);
      // Read again: the padding of a register counts as 0.
      sum.at(at) = sum.at(at) + load_lanes(d + at, width);
    }
    const double total = sum.template total<double>();
    loss += weight * (__builtin_log(total) - (static_cast<double>(row[target[m]]) - static_cast<double>(greatest)));
    const Vec<Real> share = splat(static_cast<Real>(factor * weight / total));
    for (Index at = 0; at < classes; at += kLanes<Real>) {
      const Index width = classes - at;
      store_lanes(d + at, load_lanes(d + at, width) * share, width);
    }
    d[target[m]] -= static_cast<Real>(factor * weight);
  }
  return loss;
}

}  // namespace rnnfast::RNNFAST_ISA
