// SPDX-License-Identifier: MIT
// Vec<Real>: one register of the instruction set this unit is compiled for, on compiler vector types.
//
// The instruction set shows in three places only: the register's width, fma() and the masks of
// load_partial / store_partial. Everything else is plain arithmetic on Vec.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "rnnfast/types.h"

#define RNNFAST_INLINE inline __attribute__((always_inline))

namespace rnnfast::RNNFAST_ISA {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
inline constexpr int kAccumulators = 24;  // of 32 registers
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32;
inline constexpr int kAccumulators = 12;  // of 16 registers
#elif defined(__aarch64__)
inline constexpr int kVectorBytes = 16;
inline constexpr int kAccumulators = 24;
#else
inline constexpr int kVectorBytes = 16;
inline constexpr int kAccumulators = 8;
#endif

template <class Real>
inline constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(Real));

// The standard library's are not for units whose inlined code must not leave their namespace.
template <class Number>
RNNFAST_INLINE constexpr Number least(Number a, Number b) {
  return b < a ? b : a;
}
template <class Number>
RNNFAST_INLINE constexpr Number most(Number a, Number b) {
  return a < b ? b : a;
}

struct Range {
  Index first;
  Index last;

  Index size() const { return last - first; }
};

RNNFAST_INLINE Range intersection(Range a, Range b) { return {most(a.first, b.first), least(a.last, b.last)}; }

/// Registers for so many units.
template <class Real>
constexpr Index blocks_of(Index units) {
  return (units + kLanes<Real> - 1) / kLanes<Real>;
}

/// Lanes of the register that begins with `unit` that are real units.
template <class Real>
constexpr Index lanes_left(Index unit, Index units) {
  return least<Index>(units - unit, kLanes<Real>);
}

/// The columns, or units, of some blocks.
template <class Real>
RNNFAST_INLINE Range columns_of(Range blocks, Index columns) {
  const auto up_to = [columns](Index block) { return least(block * kLanes<Real>, columns); };
  return {up_to(blocks.first), up_to(blocks.last)};
}

template <class Real>
struct VecTypes {
  using Int = std::conditional_t<sizeof(Real) == 4, std::int32_t, std::int64_t>;
  typedef Real Float __attribute__((vector_size(kVectorBytes)));
  typedef Int Bits __attribute__((vector_size(kVectorBytes)));
};

template <class Real>
using Vec = typename VecTypes<Real>::Float;
/// The same register as integers; also the type of a comparison's result (all bits of a lane set or clear).
template <class Real>
using Bits = typename VecTypes<Real>::Bits;

template <class Real>
RNNFAST_INLINE Vec<Real> load(const Real* p) {
  Vec<Real> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <class Real>
RNNFAST_INLINE void store(Real* p, Vec<Real> v) {
  std::memcpy(p, &v, sizeof v);
}

/// All lanes equal to x. Written as x - 0, which compilers fold to a broadcast; x + 0 they may not.
template <class Real>
RNNFAST_INLINE Vec<Real> splat(Real x) {
  return x - Vec<Real>{};
}

/// v, kept in a register: without this GCC reads a vector from memory again for every multiply-add that uses it.
template <class Real>
RNNFAST_INLINE Vec<Real> in_register(Vec<Real> v) {
#if defined(__AVX512F__)
  __asm__("" : "+v"(v));
#elif defined(__x86_64__)
  __asm__("" : "+x"(v));
#elif defined(__aarch64__)
  __asm__("" : "+w"(v));
#endif
  return v;
}

template <class Real>
RNNFAST_INLINE Bits<Real> as_bits(Vec<Real> v) {
  Bits<Real> bits;
  std::memcpy(&bits, &v, sizeof v);
  return bits;
}

template <class Real>
RNNFAST_INLINE Vec<Real> as_real(Bits<Real> bits) {
  Vec<Real> v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}

/// x, but at least `low`; NaN stays NaN. Instructions for this exist, but compilers do not find them.
RNNFAST_INLINE Vec<float> at_least(Vec<float> x, Vec<float> low) {
#if defined(__AVX512F__)
  return _mm512_maskz_max_ps(0xFFFF, low, x);
#elif defined(__AVX2__)
  return _mm256_max_ps(low, x);
#elif defined(__SSE2__)
  return _mm_max_ps(low, x);
#else
  return x < low ? low : x;
#endif
}

RNNFAST_INLINE Vec<double> at_least(Vec<double> x, Vec<double> low) {
#if defined(__AVX512F__)
  return _mm512_maskz_max_pd(0xFF, low, x);
#elif defined(__AVX2__)
  return _mm256_max_pd(low, x);
#elif defined(__SSE2__)
  return _mm_max_pd(low, x);
#else
  return x < low ? low : x;
#endif
}

/// x, but at most `high`; NaN stays NaN.
RNNFAST_INLINE Vec<float> at_most(Vec<float> x, Vec<float> high) {
#if defined(__AVX512F__)
  return _mm512_maskz_min_ps(0xFFFF, high, x);
#elif defined(__AVX2__)
  return _mm256_min_ps(high, x);
#elif defined(__SSE2__)
  return _mm_min_ps(high, x);
#else
  return high < x ? high : x;
#endif
}

RNNFAST_INLINE Vec<double> at_most(Vec<double> x, Vec<double> high) {
#if defined(__AVX512F__)
  return _mm512_maskz_min_pd(0xFF, high, x);
#elif defined(__AVX2__)
  return _mm256_min_pd(high, x);
#elif defined(__SSE2__)
  return _mm_min_pd(high, x);
#else
  return high < x ? high : x;
#endif
}

/// a*b + c, rounded once where the instruction set has a fused multiply-add. Units are compiled with
/// -ffp-contract=off, so the rounding of every other expression is the one that is written.
RNNFAST_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}

RNNFAST_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_pd(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_pd(a, b, c);
#elif defined(__aarch64__)
  return vfmaq_f64(c, a, b);
#else
  return a * b + c;
#endif
}

#if defined(__AVX2__) && !defined(__AVX512F__)
/// Lanes 0..width-1 set.
template <class Real>
RNNFAST_INLINE __m256i lane_mask(Index width) {
  using Int = typename VecTypes<Real>::Int;
  Bits<Real> lane;
  for (int j = 0; j < kLanes<Real>; ++j) lane[j] = j;
  const Bits<Real> mask = lane < static_cast<Int>(width) - Bits<Real>{};
  __m256i out;
  std::memcpy(&out, &mask, sizeof out);
  return out;
}
#endif

/// The first `width` lanes from p, 0 in the others; memory beyond p + width is not touched.
RNNFAST_INLINE Vec<float> load_partial(const float* p, Index width) {
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1U << width) - 1U), p);
#elif defined(__AVX2__)
  return _mm256_maskload_ps(p, lane_mask<float>(width));
#else
  Vec<float> v{};
  for (Index j = 0; j < width; ++j) v[j] = p[j];
  return v;
#endif
}

RNNFAST_INLINE Vec<double> load_partial(const double* p, Index width) {
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_pd(static_cast<__mmask8>((1U << width) - 1U), p);
#elif defined(__AVX2__)
  return _mm256_maskload_pd(p, lane_mask<double>(width));
#else
  Vec<double> v{};
  for (Index j = 0; j < width; ++j) v[j] = p[j];
  return v;
#endif
}

/// Writes the first `width` lanes to p and touches nothing beyond p + width.
RNNFAST_INLINE void store_partial(float* p, Vec<float> v, Index width) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1U << width) - 1U), v);
#elif defined(__AVX2__)
  _mm256_maskstore_ps(p, lane_mask<float>(width), v);
#else
  for (Index j = 0; j < width; ++j) p[j] = v[j];
#endif
}

RNNFAST_INLINE void store_partial(double* p, Vec<double> v, Index width) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1U << width) - 1U), v);
#elif defined(__AVX2__)
  _mm256_maskstore_pd(p, lane_mask<double>(width), v);
#else
  for (Index j = 0; j < width; ++j) p[j] = v[j];
#endif
}

/// One register of a row: `width` lanes are real, the others are padding. Full registers take the plain path.
template <class Real>
RNNFAST_INLINE Vec<Real> load_lanes(const Real* p, Index width) {
  return width >= kLanes<Real> ? load(p) : load_partial(p, width);
}

template <class Real>
RNNFAST_INLINE void store_lanes(Real* p, Vec<Real> v, Index width) {
  if (width >= kLanes<Real>) {
    store(p, v);
  } else {
    store_partial(p, v, width);
  }
}

}  // namespace rnnfast::RNNFAST_ISA
