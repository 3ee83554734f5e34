// SPDX-License-Identifier: MIT
// Optimizers in one pass: gradient, parameters and buffers are read once and written once. The equations are those of
// torch.optim; each rule below gives the direction d, `update` does the rest.
#pragma once

#include "kernels/loss.h"
#include "rnnfast/training.h"
#include "simd/vec.h"

namespace rnnfast::RNNFAST_ISA {

template <class Real>
RNNFAST_INLINE Vec<Real> square_root(Vec<Real> v) {
  // One instruction: compilers see through the loop over lanes.
#pragma GCC unroll 16
  for (int j = 0; j < kLanes<Real>; ++j) {
    if constexpr (sizeof(Real) == 4) {
      v[j] = __builtin_sqrtf(v[j]);
    } else {
      v[j] = __builtin_sqrt(v[j]);
    }
  }
  return v;
}

/// Lanes that are NaN or infinite: there x - x is NaN.
template <class Real>
RNNFAST_INLINE Bits<Real> not_finite(Vec<Real> x) {
  return (x - x) != Vec<Real>{};
}

template <class Real>
RNNFAST_INLINE bool any(Bits<Real> bits) {
  typename VecTypes<Real>::Int all = 0;
  for (int j = 0; j < kLanes<Real>; ++j) all |= bits[j];
  return all != 0;
}

struct PlainSgd {
  static constexpr Rule kRule = Rule::sgd;
  template <class Real>
  static RNNFAST_INLINE Vec<Real> direction(Vec<Real> g, Vec<Real>*, const OptimizerStep<Real>&) {
    return g;
  }
};

template <bool kNesterov>
struct MomentumSgd {
  static constexpr Rule kRule = kNesterov ? Rule::nesterov : Rule::momentum;
  template <class Real>
  static RNNFAST_INLINE Vec<Real> direction(Vec<Real> g, Vec<Real>* buffers, const OptimizerStep<Real>& s) {
    Vec<Real>& m = buffers[0];
    m = fma(splat(s.momentum), m, g);
    return kNesterov ? fma(splat(s.momentum), m, g) : m;
  }
};

/// Tieleman & Hinton (2012), lecture 6.5; centred: Graves (2013), Generating sequences with recurrent neural networks.
template <bool kCentered, bool kMomentum>
struct RmsProp {
  static constexpr Rule kRule = kCentered ? (kMomentum ? Rule::rmsprop_both : Rule::rmsprop_centered)
                                          : (kMomentum ? Rule::rmsprop_momentum : Rule::rmsprop);
  template <class Real>
  static RNNFAST_INLINE Vec<Real> direction(Vec<Real> g, Vec<Real>* buffers, const OptimizerStep<Real>& s) {
    Vec<Real>& v = buffers[0];
    v = fma(splat(s.forget2) * g, g, splat(s.memory2) * v);
    Vec<Real> variance = v;
    if constexpr (kCentered) {
      Vec<Real>& a = buffers[1];
      a = fma(splat(s.forget2), g - a, a);
      variance = fma(-a, a, v);
    }
    Vec<Real> d = g / (square_root<Real>(variance) + splat(s.eps));
    if constexpr (kMomentum) {
      Vec<Real>& m = buffers[kCentered ? 2 : 1];
      m = fma(splat(s.momentum), m, d);
      d = m;
    }
    return d;
  }
};

/// Kingma & Ba (2015); the correction of m is a part of lr.
struct AdamRule {
  static constexpr Rule kRule = Rule::adam;
  template <class Real>
  static RNNFAST_INLINE Vec<Real> direction(Vec<Real> g, Vec<Real>* buffers, const OptimizerStep<Real>& s) {
    Vec<Real>&m = buffers[0], &v = buffers[1];
    m = fma(splat(s.forget1), g - m, m);
    v = fma(splat(s.forget2) * g, g, splat(s.memory2) * v);
    return m / (square_root<Real>(v) / splat(s.root_correction) + splat(s.eps));
  }
};

template <class RuleMath, class Real>
inline bool update(const OptimizerStep<Real>& s) {
  constexpr int kBuffers = kRuleBuffers[static_cast<int>(RuleMath::kRule)];
  Bits<Real> bad{};
  for (Index at = 0; at < s.count; at += kLanes<Real>) {
    const Index width = s.count - at;
    Vec<Real> buffers[kMaxBuffers];
    for (int k = 0; k < kBuffers; ++k) {
      buffers[k] = load_lanes(s.buffers[k] + at, width);
      store_lanes(s.before[1 + k] + at, buffers[k], width);
    }
    const Vec<Real> p = load_lanes(s.p + at, width);
    const Vec<Real> g = fma(splat(s.decay), p, load_lanes(s.g + at, width));
    const Vec<Real> d = RuleMath::template direction<Real>(g, buffers, s);
    const Vec<Real> next = fma(-splat(s.lr), d, splat(s.keep) * p);
    for (int k = 0; k < kBuffers; ++k) store_lanes(s.buffers[k] + at, buffers[k], width);
    store_lanes(s.before[0] + at, p, width);
    store_lanes(s.p + at, next, width);
    // The lanes of padding hold no parameters: with eps = 0 they would be 0 / 0.
    if (width >= kLanes<Real>) {
      bad |= not_finite<Real>(next);
    } else {
      bad |= not_finite<Real>(load_partial(s.p + at, width));
    }
  }
  return !any<Real>(bad);
}

template <class Real>
inline bool all_finite(const Real* x, Index count) {
  Bits<Real> bad{};
  for (Index at = 0; at < count; at += kLanes<Real>) bad |= not_finite<Real>(load_lanes(x + at, count - at));
  return !any<Real>(bad);
}

/// Eight partial sums on every instruction set, so that all of them give the same bits.
template <class Real>
inline double scaled_squares(const Real* x, Real divisor, Index count) {
  constexpr int kSums = 8;
  double sums[kSums] = {};
  Index at = 0;
  for (; at + kSums <= count; at += kSums) {
#pragma GCC unroll 8
    for (int j = 0; j < kSums; ++j) {
      const double value = static_cast<double>(x[at + j] / divisor);
      sums[j] += value * value;
    }
  }
  for (int j = 0; at + j < count; ++j) {
    const double value = static_cast<double>(x[at + j] / divisor);
    sums[j] += value * value;
  }
  return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

template <class Real>
inline double sum_of_squares(const Real* x, Index count) {
  return scaled_squares(x, Real{1}, count);
}

template <class Real>
inline double norm(const Real* x, Index count) {
  const double squares = sum_of_squares(x, count);
  if (squares - squares == 0) return __builtin_sqrt(squares);
  Real largest = 0;
  for (Index m = 0; m < count; ++m) {
    const Real magnitude = x[m] < 0 ? -x[m] : x[m];
    if (!(magnitude <= largest)) largest = magnitude;
    if (!(magnitude - magnitude == 0)) return static_cast<double>(magnitude);
  }
  return static_cast<double>(largest) * __builtin_sqrt(scaled_squares(x, largest, count));
}

template <class Real>
inline void scale(Real* x, Real factor, Index count) {
  for (Index at = 0; at < count; at += kLanes<Real>) {
    const Index width = count - at;
    store_lanes(x + at, load_lanes(x + at, width) * splat(factor), width);
  }
}

template <class Real>
inline void clip(Real* x, Real limit, Index count) {
  const Vec<Real> high = splat(limit), low = -high;
  for (Index at = 0; at < count; at += kLanes<Real>) {
    const Index width = count - at;
    Vec<Real> v = load_lanes(x + at, width);
    v = v > high ? high : v;
    v = v < low ? low : v;
    store_lanes(x + at, v, width);
  }
}

template <class Real>
inline void add_scaled(Real* sum, const Real* x, Real factor, Index count) {
  for (Index at = 0; at < count; at += kLanes<Real>) {
    const Index width = count - at;
    store_lanes(sum + at, fma(splat(factor), load_lanes(x + at, width), load_lanes(sum + at, width)), width);
  }
}

template <class Real>
inline void add_rows(Real* table, const Index* index, const Real* rows, Index count, Index width) {
  for (Index m = 0; m < count; ++m) {
    Real* sum = table + index[m] * width;
    const Real* row = rows + m * width;
    for (Index at = 0; at < width; at += kLanes<Real>) {
      const Index left = width - at;
      store_lanes(sum + at, load_lanes(sum + at, left) + load_lanes(row + at, left), left);
    }
  }
}

template <class Real>
constexpr TrainingKernels<Real> training_kernels() {
  return {.step = {update<PlainSgd, Real>, update<MomentumSgd<false>, Real>, update<MomentumSgd<true>, Real>,
                   update<RmsProp<false, false>, Real>, update<RmsProp<false, true>, Real>,
                   update<RmsProp<true, false>, Real>, update<RmsProp<true, true>, Real>, update<AdamRule, Real>},
          .all_finite = all_finite<Real>,
          .sum_of_squares = sum_of_squares<Real>,
          .norm = norm<Real>,
          .scale = scale<Real>,
          .clip = clip<Real>,
          .add_scaled = add_scaled<Real>,
          .cross_entropy = cross_entropy<Real>,
          .add_rows = add_rows<Real>};
}

}  // namespace rnnfast::RNNFAST_ISA
