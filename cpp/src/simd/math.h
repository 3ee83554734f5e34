// SPDX-License-Identifier: MIT
// sigmoid and tanh on Vec, with their derivatives expressed through the output.
//
// Both rest on one reduction: y = n ln 2 + r with |r| <= ln 2 / 2 (Cody & Waite 1980), so that
// exp(y) = 2^n (1 + p), p = r + r^2 q(r). The coefficients of q make the relative error of p smallest (Remez 1934) for
// double, 2.1e-17. For float, 3e-8, they were then moved by their last bits to where the largest error of tanh, with
// its roundings, is smallest.
//
// Errors, found over all 2^32 float32 inputs and on samples of float64, and promises (tests/test_activations.py):
//   sigmoid: at most 2.5 ulp for every input, results below the normal range included; 0 <= sigmoid <= 1
//   tanh:    at most 2.5 ulp; odd to the bit; |tanh| <= 1
//   float64: at most 4 ulp. NaN in, NaN out; infinities give the limits.
#pragma once

#include "simd/vec.h"

namespace rnnfast::RNNFAST_ISA {

template <class Real>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  static constexpr int kMantissaBits = 23;
  static constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it leaves the rounded integer in the low bits
  static constexpr float kExponentBias = 127.0F;
  static constexpr float kLog2E = 1.44269504F;
  static constexpr float kLn2 = 0.693147181F;
  static constexpr float kLn2Hi = 0.693359375F;  // few enough bits that n * kLn2Hi is exact
  static constexpr float kLn2Lo = -2.12194440e-4F;
  static constexpr float kQ[] = {0.5F, 0.1666659266F, 0.0416658185F, 0.0083609959F, 0.00140049146F};
  static constexpr float kSigmoidLeast = -104.0F;  // exp(-104) rounds to 0
  static constexpr float kSigmoidMost = 17.0F;     // 1 - exp(-17) rounds to 1
  static constexpr float kTanhMost = 10.0F;        // tanh(10) rounds to 1
};

template <>
struct ExpConstants<double> {
  static constexpr int kMantissaBits = 52;
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kExponentBias = 1023.0;
  static constexpr double kLog2E = 1.4426950408889634;
  static constexpr double kLn2 = 0.69314718055994531;
  static constexpr double kLn2Hi = 6.93147180369123816490e-01;
  static constexpr double kLn2Lo = 1.90821492927058770002e-10;
  static constexpr double kQ[] = {0.5,
                                  0.16666666666666684371,
                                  0.041666666666581441299,
                                  0.0083333333333155188521,
                                  0.0013888888930396946642,
                                  0.00019841269901240648825,
                                  0.000024801506397926898585,
                                  2.7557229385066792866e-6,
                                  2.762566931798445749e-7,
                                  2.5114065751952249935e-8};
  static constexpr double kSigmoidLeast = -746.0;
  static constexpr double kSigmoidMost = 38.0;
  static constexpr double kTanhMost = 20.0;
};

template <class Real>
RNNFAST_INLINE Vec<Real> select(Bits<Real> mask, Vec<Real> yes, Vec<Real> no) {
  return mask ? yes : no;
}

template <class Real>
RNNFAST_INLINE Vec<Real> abs(Vec<Real> x) {
  return as_real<Real>(as_bits<Real>(x) & ~as_bits<Real>(splat(Real(-0.0))));
}

/// A power of two, and its exponent less a shift.
template <class Real>
struct Power {
  Vec<Real> scale;
  Vec<Real> n;
};

/// n = factor * x rounded to a whole number, and scale = 2^(n + Shift), which must be a normal number.
template <int Shift, class Real>
RNNFAST_INLINE Power<Real> power(Vec<Real> x, Real factor) {
  using C = ExpConstants<Real>;
  // With the exponent's bias in the constant the low bits of the sum are those of the exponent.
  const Vec<Real> round = splat(C::kRound + C::kExponentBias + Real(Shift));
  const Vec<Real> shifted = fma(x, splat(factor), round);
  return {as_real<Real>(as_bits<Real>(shifted) << C::kMantissaBits), shifted - round};
}

/// factor * q(Step * r) with q of the file's comment, by Horner's rule.
template <int Step, class Real>
RNNFAST_INLINE Vec<Real> exp_terms(Vec<Real> r, Real first) {
  using C = ExpConstants<Real>;
  constexpr int kTerms = static_cast<int>(sizeof(C::kQ) / sizeof(C::kQ[0]));
  Real factor[kTerms];
  factor[0] = first;
  for (int term = 1; term < kTerms; ++term) factor[term] = factor[term - 1] * Step;
  Vec<Real> q = splat(C::kQ[kTerms - 1] * factor[kTerms - 1]);
#pragma GCC unroll 16
  for (int term = kTerms - 2; term >= 0; --term) q = fma(q, r, splat(C::kQ[term] * factor[term]));
  return q;
}

/// exp(y) = 2^n (1 + p), with 2^(n + Shift) as `scale`, which must be a normal number.
template <class Real>
struct Exponential {
  Vec<Real> scale;
  Vec<Real> p;
};

template <int Shift, class Real>
RNNFAST_INLINE Exponential<Real> exponential(Vec<Real> y) {
  using C = ExpConstants<Real>;
  const Power<Real> e = power<Shift, Real>(y, C::kLog2E);
  Vec<Real> r = fma(e.n, splat(-C::kLn2Hi), y);
  r = fma(e.n, splat(-C::kLn2Lo), r);
  return {e.scale, fma(r * r, exp_terms<1, Real>(r, 1), r)};
}

/// sigmoid(x) = 1 / (1 + exp(-x)), with numerator and denominator scaled down so that exp(-x) never overflows and a
/// result below the normal range is rounded once, by the division.
template <class Real>
RNNFAST_INLINE Vec<Real> sigmoid(Vec<Real> x) {
  using C = ExpConstants<Real>;
  constexpr int kShift = -64;
  x = at_most(at_least(x, splat(C::kSigmoidLeast)), splat(C::kSigmoidMost));
  const Power<Real> e = power<kShift, Real>(x, -C::kLog2E);
  Vec<Real> r = fma(e.n, splat(C::kLn2Hi), x);
  r = fma(e.n, splat(C::kLn2Lo), r);  // -x = n ln 2 - r
  const Vec<Real> one = splat(Real(1));
  const Vec<Real> exp_r = fma(r, fma(r, exp_terms<-1, Real>(r, 1), -one), one);
  const Vec<Real> scaled_one = splat(Real(0x1p-64));
  return scaled_one / fma(e.scale, exp_r, scaled_one);
}

/// tanh(x) = sign(x) m / (m + 1) with m = (exp(2|x|) - 1) / 2, which does not cancel.
template <class Real>
RNNFAST_INLINE Vec<Real> tanh(Vec<Real> x) {
  using C = ExpConstants<Real>;
  const Vec<Real> magnitude = at_most(abs<Real>(x), splat(C::kTanhMost));
  const Power<Real> e = power<0, Real>(magnitude, 2 * C::kLog2E);
  // One constant is enough: what it lacks matters where n is large, and there m + 1 damps it.
  const Vec<Real> r = fma(e.n, splat(C::kLn2 / -2), magnitude);  // |x| = n ln 2 / 2 + r
  const Vec<Real> p = fma(r * r, exp_terms<2, Real>(r, 2), r);  // (exp(2r) - 1) / 2
  const Vec<Real> half = splat(Real(0.5));
  const Vec<Real> m = fma(e.scale, p, fma(e.scale, half, -half));
  const Vec<Real> result = m / (m + splat(Real(1)));
  return as_real<Real>(as_bits<Real>(result) | (as_bits<Real>(x) & as_bits<Real>(splat(Real(-0.0)))));
}

/// ds/dx of s = sigmoid(x).
template <class Real>
RNNFAST_INLINE Vec<Real> sigmoid_slope(Vec<Real> s) {
  return s * (splat(Real(1)) - s);
}

/// dt/dx of t = tanh(x).
template <class Real>
RNNFAST_INLINE Vec<Real> tanh_slope(Vec<Real> t) {
  return fma(-t, t, splat(Real(1)));
}

}  // namespace rnnfast::RNNFAST_ISA
