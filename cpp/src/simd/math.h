// SPDX-License-Identifier: MIT
// sigmoid and tanh on Vec, with their derivatives expressed through the output.
//
// Both rest on one reduction: y = n ln 2 + r with |r| <= ln 2 / 2 (Cody & Waite 1980), so that
// exp(y) = 2^n (1 + p), p = r + r^2 q(r). The coefficients of q are those of the polynomial that equals
// (exp(r) - 1 - r) / r^2 at the Chebyshev nodes of the interval: relative error of p 5.7e-10 for float,
// 6.2e-19 for double.
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
  using Int = std::int32_t;
  static constexpr int kMantissaBits = 23;
  static constexpr Int kExponentBias = 127;
  static constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it leaves the rounded integer in the low bits
  static constexpr float kLog2E = 1.44269504F;
  static constexpr float kLn2Hi = 0.693359375F;  // few enough bits that n * kLn2Hi is exact
  static constexpr float kLn2Lo = -2.12194440e-4F;
  static constexpr float kQ[] = {0.5F, 0.16666667F, 0.041666456F, 0.0083333105F, 0.0013934541F, 0.0001989198F};
  static constexpr float kSigmoidLimit = 104.0F;  // exp(-104) rounds to 0
  static constexpr float kTanhLimit = 10.0F;      // tanh(10) rounds to 1
};

template <>
struct ExpConstants<double> {
  using Int = std::int64_t;
  static constexpr int kMantissaBits = 52;
  static constexpr Int kExponentBias = 1023;
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kLog2E = 1.4426950408889634;
  static constexpr double kLn2Hi = 6.93147180369123816490e-01;
  static constexpr double kLn2Lo = 1.90821492927058770002e-10;
  static constexpr double kQ[] = {0.5,
                                  0.1666666666666667,
                                  0.04166666666666667,
                                  0.008333333333325544,
                                  0.0013888888888883327,
                                  0.00019841269876864356,
                                  2.4801587327007187e-05,
                                  2.755725283351691e-06,
                                  2.75572718102198e-07,
                                  2.5106274733573296e-08,
                                  2.0915442297780116e-09};
  static constexpr double kSigmoidLimit = 746.0;
  static constexpr double kTanhLimit = 20.0;
};

template <class Real>
RNNFAST_INLINE Vec<Real> select(Bits<Real> mask, Vec<Real> yes, Vec<Real> no) {
  return mask ? yes : no;
}

template <class Real>
RNNFAST_INLINE Vec<Real> abs(Vec<Real> x) {
  return as_real<Real>(as_bits<Real>(x) & ~as_bits<Real>(splat(Real(-0.0))));
}

/// The reduced argument of exp(y): 2^n as `scale` times 2^-Shift, and p with exp(y) = 2^n (1 + p).
template <class Real>
struct Exponential {
  Vec<Real> scale;
  Vec<Real> p;
};

/// Requires y in [-2^9, 0] (float) or [-2^10, 0] (double), or NaN, and a Shift that keeps 2^(n + Shift) normal.
template <int Shift, class Real>
RNNFAST_INLINE Exponential<Real> exponential(Vec<Real> y) {
  using C = ExpConstants<Real>;
  const Vec<Real> round = splat(C::kRound);
  const Vec<Real> shifted = fma(y, splat(C::kLog2E), round);
  const Vec<Real> n = shifted - round;
  Vec<Real> r = fma(n, splat(-C::kLn2Hi), y);
  r = fma(n, splat(-C::kLn2Lo), r);

  constexpr int kTerms = static_cast<int>(sizeof(C::kQ) / sizeof(C::kQ[0]));
  Vec<Real> q = splat(C::kQ[kTerms - 1]);
  for (int term = kTerms - 2; term >= 0; --term) q = fma(q, r, splat(C::kQ[term]));

  using Int = typename C::Int;
  const Bits<Real> exponent = as_bits<Real>(shifted) + static_cast<Int>(C::kExponentBias + Shift);
  return {as_real<Real>(exponent << C::kMantissaBits), fma(r * r, q, r)};
}

/// sigmoid(x) = 1 / (1 + exp(-x)), computed from exp(-|x|) so that the small tail keeps its relative accuracy.
template <class Real>
RNNFAST_INLINE Vec<Real> sigmoid(Vec<Real> x) {
  using C = ExpConstants<Real>;
  const Vec<Real> one = splat(Real(1));
  Vec<Real> magnitude = abs<Real>(x);
  const Vec<Real> limit = splat(C::kSigmoidLimit);
  magnitude = select<Real>(limit < magnitude, limit, magnitude);  // this operand order passes NaN on
  constexpr int kShift = 64;  // e below the normal range is rounded once, by the last product
  const Exponential<Real> e2 = exponential<kShift, Real>(-magnitude);
  const Vec<Real> e = fma(e2.scale, e2.p, e2.scale) * splat(Real(0x1p-64));
  return select<Real>(x < Vec<Real>{}, e, one) / (one + e);
}

/// tanh(x) = sign(x) (1 - exp(-2|x|)) / (1 + exp(-2|x|)), from exp(.) - 1 without cancellation.
template <class Real>
RNNFAST_INLINE Vec<Real> tanh(Vec<Real> x) {
  using C = ExpConstants<Real>;
  Vec<Real> magnitude = abs<Real>(x);
  const Vec<Real> limit = splat(C::kTanhLimit);
  magnitude = select<Real>(limit < magnitude, limit, magnitude);
  const Exponential<Real> e2 = exponential<0, Real>(magnitude * splat(Real(-2)));
  const Vec<Real> negative = fma(e2.scale, -e2.p, splat(Real(1)) - e2.scale);  // 1 - exp(-2|x|)
  const Vec<Real> result = negative / (splat(Real(2)) - negative);
  const Bits<Real> sign = as_bits<Real>(x) & as_bits<Real>(splat(Real(-0.0)));
  return as_real<Real>(as_bits<Real>(result) | sign);
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
