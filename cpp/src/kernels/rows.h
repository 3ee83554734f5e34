// SPDX-License-Identifier: MIT
// Rows of numbers, and products of few of them with a matrix as it is, without packing it.
#pragma once

#include <cstring>

#include "kernels/pack.h"

namespace rnnfast::RNNFAST_ISA {

/// Rows of an array.
template <class Pointer>
struct Rows {
  Pointer data;
  Index stride;

  Pointer operator[](Index row) const { return data + row * stride; }
};
template <class Real>
using RowsIn = Rows<const Real*>;
template <class Real>
using RowsOut = Rows<Real*>;

template <class Real>
RNNFAST_INLINE void copy_row(Real* to, const Real* from, Index count) {
  std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(Real));
}

/// Whether all numbers are 0. Not inlined: for callers that find out with the first one.
template <class Real>
__attribute__((noinline)) bool is_zero(const Real* numbers, Index count) {
  constexpr Index kAtOnce = 64;
  if (count > 0 && numbers[0] != Real(0)) return false;
  for (Index first = 0; first < count; first += kAtOnce) {
    bool any = false;
    for (Index j = first; j < least(first + kAtOnce, count); ++j) any |= numbers[j] != Real(0);
    if (any) return false;
  }
  return true;
}

template <class Real>
RNNFAST_INLINE void clear(Real* to, Index count) {
  std::memset(to, 0, static_cast<std::size_t>(count) * sizeof(Real));
}

/// One tile of sums that go on from what stands in `out`: body(accumulators, start, rows of `in`) adds to them.
template <class Real, class Body>
RNNFAST_INLINE void add_to_rows(const TileRange& tile, RowsIn<Real> in, RowsOut<Real> out, Index columns,
                                const Body& body) {
  constexpr int L = kLanes<Real>;
  Accumulators<Real> acc;
  const Real* from[kMaxRows<1>];
  for (Index r = 0; r < tile.rows; ++r) from[r] = in[tile.first_row + r];
  const Index first = tile.first_block * L;
  const bool whole = first + tile.blocks * L <= columns;
  if (whole) {
    body(acc.data, Start<Real>{out[tile.first_row] + first, out.stride, L, L}, from);
  } else {
    for (Index r = 0; r < tile.rows; ++r) {
      for (Index u = 0; u < tile.blocks; ++u) {
        const Index column = first + u * L;
        store(acc.at(tile, r, u, 1), load_lanes(out[tile.first_row + r] + column, lanes_left<Real>(column, columns)));
      }
    }
    body(acc.data, from_accumulators(tile, acc.data, 1), from);
  }
  for (Index r = 0; r < tile.rows; ++r) {
    for (Index u = 0; u < tile.blocks; ++u) {
      const Index column = first + u * L;
      store_lanes(out[tile.first_row + r] + column, load(acc.at(tile, r, u, 1)), lanes_left<Real>(column, columns));
    }
  }
}

/// Calls body<R>() for R = rows, 1..kUnpackedRows.
template <class Body>
RNNFAST_INLINE void for_few_rows(Index rows, const Body& body) {
  static_assert(kUnpackedRows == 4);
  switch (rows) {
    case 1: return body.template operator()<1>();
    case 2: return body.template operator()<2>();
    case 3: return body.template operator()<3>();
    default: return body.template operator()<4>();
  }
}

/// out[row] += sum over k of in[row][k] w[k], for R rows and the blocks of columns of `share`. Some rows of w pass side
/// by side from end to end: memory is read fast in its own order.
template <int R, class Real>
inline void add_unpacked_rows(const Real* w, Index depth, Index columns, RowsIn<Real> in, RowsOut<Real> out,
                              Range share) {
  constexpr int L = kLanes<Real>;
  constexpr int kSideBySide = 8;
  const auto [first, last] = columns_of<Real>(share, columns);
  for (Index k = 0; k < depth; k += kSideBySide) {
    const Real* from = w + k * columns;
    const Index some = least<Index>(kSideBySide, depth - k);
    Vec<Real> factor[kSideBySide][R];
    for (Index j = 0; j < some; ++j) {
      for (int r = 0; r < R; ++r) factor[j][r] = splat(in[r][k + j]);
    }
    Index unit = first;
    for (; some == kSideBySide && last - unit >= L; unit += L) {
      Vec<Real> sum[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sum[r] = load(out[r] + unit);
#pragma GCC unroll 8
      for (int j = 0; j < kSideBySide; ++j) {
        const Vec<Real> b = load(from + j * columns + unit);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) sum[r] = fma(factor[j][r], b, sum[r]);
      }
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) store(out[r] + unit, sum[r]);
    }
    for (; unit < last; unit += L) {
      const Index width = lanes_left<Real>(unit, last);
      for (int r = 0; r < R; ++r) {
        Vec<Real> sum = load_lanes(out[r] + unit, width);
        for (Index j = 0; j < some; ++j) sum = fma(factor[j][r], load_lanes(from + j * columns + unit, width), sum);
        store_lanes(out[r] + unit, sum, width);
      }
    }
  }
}

/// sum[r] += w in[r] for R rows and as many rows of w as there are lanes, or fewer: squares of w as it is are
/// transposed in registers. The bits are those of packed products. Not inlined: it is the same code for all cells.
///   sum     io  [R] vectors, `stride` elements apart
///   w       in  (height, depth)
///   in      in  rows of `depth` numbers
template <int R, class Real>
__attribute__((noinline)) void add_unpacked_units(Real* sum, Index stride, const Real* w, Index height, Index depth,
                                                  RowsIn<Real> in) {
  constexpr int L = kLanes<Real>;
  Vec<Real> total[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) total[r] = load(sum + r * stride);
  for (Index k = 0; k < depth; k += L) {
    const Index width = lanes_left<Real>(k, depth);
    Vec<Real> square[L];
    if (height == L && width == L) {
#pragma GCC unroll 16
      for (int j = 0; j < L; ++j) square[j] = load(w + j * depth + k);
      exchange_all<Real, 1>(square);
#pragma GCC unroll 16
      for (int j = 0; j < L; ++j) {
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) total[r] = fma(splat(in[r][k + j]), square[j], total[r]);
      }
    } else {
      for (int j = 0; j < L; ++j) square[j] = j < height ? load_lanes(w + j * depth + k, width) : Vec<Real>{};
      exchange_all<Real, 1>(square);
      for (Index j = 0; j < width; ++j) {
        for (int r = 0; r < R; ++r) total[r] = fma(splat(in[r][k + j]), square[j], total[r]);
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) store(sum + r * stride, total[r]);
}

/// Rows of w that are packed at once: as many as leave a part of the L2 cache to the other operands.
template <class Real>
constexpr Index part_height(Index columns) {
  constexpr Index kPartBytes = 512 * 1024;
  const Index height = kPartBytes / (columns * static_cast<Index>(sizeof(Real)));
  return most<Index>(16, least<Index>(height, 256));
}

template <class Real>
constexpr Index part_work_size(Index columns) {
  return blocks_of<Real>(columns) * part_height<Real>(columns) * kLanes<Real>;
}

/// The same for any number of rows: w is packed part by part, each of which is used while it is in the cache.
///   work  tmp  part_work_size(columns) elements
template <class Real>
inline void add_products_by_parts(const Real* w, Index depth, Index columns, Index rows, RowsIn<Real> in,
                                  RowsOut<Real> out, Range share, Real* work) {
  constexpr int L = kLanes<Real>;
  const Index height = part_height<Real>(columns);
  for (Index first = 0; first < depth; first += height) {
    const Index part = least(depth - first, height);
    const Panels<Real> panels{work, part, part * L};
    pack_lanes(work, part * L, w + first * columns, part, columns, share);
    for_each_tile<1>(rows, share, [&](const TileRange& tile) {
      add_to_rows<Real>(tile, {in.data + first, in.stride}, out, columns,
                        [&](Real* acc, const Start<Real>& start, const Real* const* from) {
                          multiply<1>(tile, acc, 1, start, from, panels);
                        });
    });
  }
}

/// The same for up to kUnpackedRows rows. The bits are those of packed products.
///   w    in  (depth, columns)
///   in   in  rows of `depth` numbers
///   out  io  rows of `columns` numbers
template <class Real>
inline void add_unpacked_products(const Real* w, Index depth, Index columns, Index rows, RowsIn<Real> in,
                                  RowsOut<Real> out, Range share) {
  for_few_rows(rows, [&]<int R>() { add_unpacked_rows<R>(w, depth, columns, in, out, share); });
}

}  // namespace rnnfast::RNNFAST_ISA
