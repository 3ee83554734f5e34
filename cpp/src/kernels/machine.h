// SPDX-License-Identifier: MIT
// The two loops that machine.cpp times: nothing but multiply-adds, and nothing but reading. Both return something
// that depends on all of the work, so that none of it can be left out.
#pragma once

#include "isa/isa.h"
#include "simd/vec.h"

namespace rnnfast::RNNFAST_ISA {

/// `rounds` multiply-adds into each accumulator, all accumulators independent of each other.
template <class Real>
inline Real multiply_adds(Index rounds, Real factor) {
  const Vec<Real> f = splat(factor);
  Vec<Real> sum[kAccumulators];
#pragma GCC unroll 32
  for (int j = 0; j < kAccumulators; ++j) sum[j] = splat(static_cast<Real>(j));
  for (Index round = 0; round < rounds; ++round) {
#pragma GCC unroll 32
    for (int j = 0; j < kAccumulators; ++j) sum[j] = fma(sum[j], f, f);
  }
#pragma GCC unroll 32
  for (int j = 1; j < kAccumulators; ++j) sum[0] = sum[0] + sum[j];
  return sum[0][0];
}

/// Reads `count` numbers, a multiple of kReadStep.
template <class Real>
inline constexpr Index kReadStep = 8 * kLanes<Real>;

template <class Real>
inline Real read_all(const Real* data, Index count) {
  constexpr int L = kLanes<Real>;
  Bits<Real> seen[8] = {};
  for (Index m = 0; m < count; m += kReadStep<Real>) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) seen[j] |= as_bits<Real>(load(data + m + j * L));
  }
#pragma GCC unroll 8
  for (int j = 1; j < 8; ++j) seen[0] |= seen[j];
  return as_real<Real>(seen[0])[0];
}

template <class Real>
constexpr MachineLoops<Real> loops_of_this_isa() {
  return {.round_flops = 2 * kAccumulators * kLanes<Real>,
          .multiply_adds = multiply_adds<Real>,
          .read_step = kReadStep<Real>,
          .read_all = read_all<Real>};
}

}  // namespace rnnfast::RNNFAST_ISA
