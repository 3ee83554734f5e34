// SPDX-License-Identifier: MIT
// Layer normalisation of a row (Ba, Kiros & Hinton 2016): (a - mean) / sqrt(variance + 1e-5), and its derivative.
#pragma once

#include "simd/row_sum.h"

namespace rnnfast::RNNFAST_ISA {

inline constexpr double kNormEpsilon = 1e-5;

template <class Real>
struct Moments {
  Real mean = 0;
  Real scale = 1;  // 1 / sqrt(variance + epsilon)

  RNNFAST_INLINE Vec<Real> normalized(Vec<Real> a) const { return (a - splat(mean)) * splat(scale); }
};

template <class Real>
inline Moments<Real> moments_of(const Real* a, Index count) {
  constexpr int L = kLanes<Real>;
  const Real share = Real(1) / static_cast<Real>(count);
  RowSum<Real> sum;
  for (Index j = 0; j < count; j += L) sum.at(j) = sum.at(j) + load_lanes(a + j, lanes_left<Real>(j, count));
  const Real mean = sum.total() * share;
  RowSum<Real> squares;
  for (Index j = 0; j < count; j += L) {
    const Index width = lanes_left<Real>(j, count);
    Vec<Real> distance = load_lanes(a + j, width) - splat(mean);
    if (width < L) {
      for (Index lane = width; lane < L; ++lane) distance[lane] = 0;
    }
    squares.at(j) = fma(distance, distance, squares.at(j));
  }
  const Real variance = squares.total() * share;
  return {mean, static_cast<Real>(1 / __builtin_sqrt(static_cast<double>(variance) + kNormEpsilon))};
}

/// Normalises a row in place and returns its scale.
template <class Real>
inline Real normalize(Real* a, Index count) {
  constexpr int L = kLanes<Real>;
  const Moments<Real> moments = moments_of(a, count);
  for (Index j = 0; j < count; j += L) {
    const Index width = lanes_left<Real>(j, count);
    store_lanes(a + j, moments.normalized(load_lanes(a + j, width)), width);
  }
  return moments.scale;
}

/// d: gradient of gain * normalized in, gradient of what was normalised out.
template <class Real>
inline void normalization_gradient(const Real* normalized, const Real* gain, Real scale, Real* d, Index count) {
  constexpr int L = kLanes<Real>;
  const Real share = Real(1) / static_cast<Real>(count);
  RowSum<Real> sum;
  RowSum<Real> product;
  for (Index j = 0; j < count; j += L) {
    const Index width = lanes_left<Real>(j, count);
    const Vec<Real> inner = load_lanes(d + j, width) * load_lanes(gain + j, width);
    sum.at(j) = sum.at(j) + inner;
    product.at(j) = fma(inner, load_lanes(normalized + j, width), product.at(j));
  }
  const Vec<Real> mean = splat(sum.total() * share);
  const Vec<Real> along = splat(product.total() * share);
  for (Index j = 0; j < count; j += L) {
    const Index width = lanes_left<Real>(j, count);
    const Vec<Real> inner = load_lanes(d + j, width) * load_lanes(gain + j, width);
    const Vec<Real> rest = inner - mean - load_lanes(normalized + j, width) * along;
    store_lanes(d + j, rest * splat(scale), width);
  }
}

}  // namespace rnnfast::RNNFAST_ISA
