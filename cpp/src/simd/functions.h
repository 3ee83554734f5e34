// SPDX-License-Identifier: MIT
// ONNX's activations, chosen at run time, and their derivatives expressed through the output.
//
// A derivative is a function of the output as long as alpha >= 0 (LeakyRelu, ThresholdedRelu, Elu) and alpha != 0
// (ScaledTanh): callers refuse other values. With a bound on the argument the derivative is 0 where the output is that
// of the bound. Elu and Softplus: at most 4 ulp.
#pragma once

#include "rnnfast/options.h"
#include "simd/math.h"

namespace rnnfast::RNNFAST_ISA {

/// The reduced argument of exp(y), y <= 0, not below the normal range.
template <class Real>
RNNFAST_INLINE Exponential<Real> exponential_below_one(Vec<Real> y) {
  const Vec<Real> limit = splat(Real(sizeof(Real) == 4 ? -87 : -708));
  return exponential<0, Real>(select<Real>(y < limit, limit, y));
}

/// exp(y) - 1 for y <= 0.
template <class Real>
RNNFAST_INLINE Vec<Real> exp_minus_one(Vec<Real> y) {
  const Exponential<Real> e = exponential_below_one<Real>(y);
  return fma(e.scale, e.p, e.scale - splat(Real(1)));
}

/// log(1 + u) for 0 <= u <= 1, as 2 artanh(u / (2 + u)): s + s^3/3 + s^5/5 + ... with s <= 1/3.
template <class Real>
RNNFAST_INLINE Vec<Real> log_one_plus(Vec<Real> u) {
  constexpr int kTerms = sizeof(Real) == 4 ? 8 : 18;
  const Vec<Real> s = u / (splat(Real(2)) + u);
  const Vec<Real> square = s * s;
  Vec<Real> sum{};
  for (int term = kTerms; term > 0; --term) sum = fma(sum, square, splat(Real(1) / static_cast<Real>(2 * term + 1)));
  const Vec<Real> twice = s + s;
  return fma(twice * square, sum, twice);
}

template <class Real>
struct ActivationOf {
  Function function;
  Vec<Real> alpha;
  Vec<Real> beta;
  bool bounded;
  Vec<Real> bound;
  Vec<Real> low;  // outputs at the bounds
  Vec<Real> high;

  ActivationOf(const Activation& activation, double clip)
      : function(activation.function),
        alpha(splat(static_cast<Real>(activation.alpha))),
        beta(splat(static_cast<Real>(activation.beta))),
        bounded(clip < 1e300),
        bound(splat(static_cast<Real>(bounded ? clip : 0))) {
    const Vec<Real> a = value(-bound);
    const Vec<Real> b = value(bound);
    low = select<Real>(b < a, b, a);
    high = select<Real>(b < a, a, b);
  }

  /// f(x), x clamped to the bounds.
  RNNFAST_INLINE Vec<Real> operator()(Vec<Real> x) const {
    if (bounded) {
      x = select<Real>(bound < x, bound, x);  // these operand orders pass NaN on
      x = select<Real>(x < -bound, -bound, x);
    }
    return value(x);
  }

  /// df/dx where f(x) = y.
  RNNFAST_INLINE Vec<Real> slope(Vec<Real> y) const {
    const Vec<Real> inner = slope_inside(y);
    if (!bounded) return inner;
    const Vec<Real> above = select<Real>(y < high, inner, Vec<Real>{});
    return select<Real>(low < y, above, Vec<Real>{});
  }

 private:
  RNNFAST_INLINE Vec<Real> value(Vec<Real> x) const {
    const Vec<Real> zero{};
    const Vec<Real> one = splat(Real(1));
    switch (function) {
      case Function::tanh: return tanh<Real>(x);
      case Function::sigmoid: return sigmoid<Real>(x);
      case Function::relu: return select<Real>(x < zero, zero, x);
      case Function::affine: return fma(alpha, x, beta);
      case Function::leaky_relu: return select<Real>(x < zero, alpha * x, x);
      case Function::thresholded_relu: return select<Real>(x <= alpha, zero, x);
      case Function::scaled_tanh: return alpha * tanh<Real>(beta * x);
      case Function::hard_sigmoid: {
        const Vec<Real> line = fma(alpha, x, beta);
        const Vec<Real> below_one = select<Real>(one < line, one, line);
        return select<Real>(below_one < zero, zero, below_one);
      }
      case Function::elu: {
        const Vec<Real> below = alpha * exp_minus_one<Real>(select<Real>(zero < x, zero, x));
        return select<Real>(x < zero, below, x);
      }
      case Function::softsign: {
        const Vec<Real> most = splat(Real(1e30));  // whose result is 1; infinity divided by itself is not
        const Vec<Real> bounded_x = at_most(at_least(x, -most), most);
        return bounded_x / (one + abs<Real>(bounded_x));
      }
      default: {
        const Exponential<Real> e = exponential_below_one<Real>(-abs<Real>(x));
        return select<Real>(x < zero, zero, x) + log_one_plus<Real>(fma(e.scale, e.p, e.scale));
      }
    }
  }

  RNNFAST_INLINE Vec<Real> slope_inside(Vec<Real> y) const {
    const Vec<Real> zero{};
    const Vec<Real> one = splat(Real(1));
    switch (function) {
      case Function::tanh: return tanh_slope<Real>(y);
      case Function::sigmoid: return sigmoid_slope<Real>(y);
      case Function::relu: return select<Real>(zero < y, one, zero);
      case Function::affine: return alpha;
      case Function::leaky_relu: return select<Real>(zero < y, one, alpha);
      case Function::thresholded_relu: return select<Real>(alpha < y, one, zero);
      case Function::scaled_tanh: return beta * (alpha - y * y / alpha);
      case Function::hard_sigmoid: return select<Real>(zero < y, select<Real>(y < one, alpha, zero), zero);
      case Function::elu: return select<Real>(zero < y, one, y + alpha);
      case Function::softsign: {
        const Vec<Real> rest = one - abs<Real>(y);
        return rest * rest;
      }
      default: return -exp_minus_one<Real>(-y);
    }
  }
};

}  // namespace rnnfast::RNNFAST_ISA
