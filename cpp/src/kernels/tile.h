// SPDX-License-Identifier: MIT
// The multiply-accumulate micro-kernel. Every matrix product of the library is made of these tiles.
//
//   acc[r][u][p] += sum_k a[r][k] * b[u][k][p]        one Vec of lanes each
//
// A tile holds R rows x U blocks of units x P products in registers for the whole sum over k. Each element is one
// chain of multiply-adds in the order of k, whatever R and U are: that is why a row's result does not depend on
// where in the batch it stands, nor on the number of threads.
#pragma once

#include <cassert>

#include "simd/vec.h"

namespace rnnfast::RNNFAST_ISA {

/// A packed matrix operand: for each block of units, `depth` groups of P vectors.
template <class Real>
struct Panels {
  const Real* data;
  Index depth;   // k runs over 0..depth-1
  Index stride;  // elements from one block to the next

  const Real* block(Index number) const { return data + number * stride; }
};

/// Rows of a tile are at most this many, so that its accumulators leave registers for the operands, and pointers to
/// rows leave some for addresses. One product takes several blocks at once (blocks_at_once): few enough of them that
/// the tile is nearly square and loads little for what it multiplies.
template <int P>
inline constexpr int kMaxRows = least(6, kAccumulators / (P > 1                 ? P
                                                          : kAccumulators == 12 ? 3
                                                                                : 4));

/// How many blocks of units a tile of R rows takes at once: the fewer the rows, the more blocks, because the
/// multiply-adds of a tile must be many enough to hide their latency. More streams than these do not add any speed.
constexpr int blocks_at_once(int R, int P) { return most(1, least(P == 1 ? 4 : 2, kAccumulators / (R * P))); }

inline constexpr int kMaxPlanes = 4;

/// What one tile covers.
struct TileRange {
  Index first_row;
  Index rows;  // 1..kMaxRows
  Index first_block;
  Index blocks;  // 1..blocks_at_once
};

/// in/out accumulators of one tile: [R][U][planes][lanes]. Products p stand in planes first_plane + p.
template <class Real>
struct alignas(64) Accumulators {
  static constexpr int kSize = 32 * kLanes<Real>;
  static_assert(kSize >= kMaxRows<3> * kMaxPlanes * kLanes<Real>);
  Real data[kSize];

  /// Row r, block u of a tile whose accumulators have `planes` vectors each.
  RNNFAST_INLINE Real* at(const TileRange& tile, Index r, Index u, int planes) {
    assert((r * tile.blocks + u + 1) * planes * kLanes<Real> <= kSize);
    return data + (r * tile.blocks + u) * planes * kLanes<Real>;
  }
};

/// The left operand of a tile, one row after the other: at least `depth` elements each.
template <class Real>
struct LeftRows {
  const Real* const* row;

  RNNFAST_INLINE Real at(int r, Index k) const { return row[r][k]; }
};

/// The same where the elements of one k lie side by side, each k `stride` after the one before.
template <class Real>
struct LeftColumns {
  const Real* data;
  Index stride;

  RNNFAST_INLINE Real at(int r, Index k) const { return data[k * stride + r]; }
};

/// What one tile multiplies.
template <class Real, class Left = LeftRows<Real>>
struct Operands {
  Left a;         // R rows
  const Real* b;  // U blocks, b_stride apart, of (depth, P, lanes)
  Index b_stride;
  Index depth;
};

/// sum += a b, with the accumulators in registers.
template <class Real, int R, int U, int P, class Left>
RNNFAST_INLINE void add_product(Vec<Real> (&sum)[R][U][P], const Operands<Real, Left>& operands) {
  constexpr int L = kLanes<Real>;
  const Left a = operands.a;
  const Real* b = operands.b;
  const Index b_stride = operands.b_stride;

  // The operand with fewer vectors is the one that stays in registers while the other one passes.
  for (Index k = 0; k < operands.depth; ++k, b += P * L) {
    if constexpr (R > U * P) {
      Vec<Real> unit[U][P];
#pragma GCC unroll 8
      for (int u = 0; u < U; ++u) {
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) unit[u][p] = load(b + u * b_stride + p * L);
      }
#pragma GCC unroll 32
      for (int r = 0; r < R; ++r) {
        const Vec<Real> x = splat(a.at(r, k));
#pragma GCC unroll 8
        for (int u = 0; u < U; ++u) {
#pragma GCC unroll 4
          for (int p = 0; p < P; ++p) sum[r][u][p] = fma(x, unit[u][p], sum[r][u][p]);
        }
      }
    } else {
      Vec<Real> x[R];
#pragma GCC unroll 32
      for (int r = 0; r < R; ++r) x[r] = splat(a.at(r, k));
#pragma GCC unroll 8
      for (int u = 0; u < U; ++u) {
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) {
          const Vec<Real> unit = in_register<Real>(load(b + u * b_stride + p * L));
#pragma GCC unroll 32
          for (int r = 0; r < R; ++r) sum[r][u][p] = fma(x[r], unit, sum[r][u][p]);
        }
      }
    }
  }
}

/// What a tile's sums start from, with the steps from row to row, block to block and product to product.
template <class Real>
struct Start {
  const Real* data;
  Index row;
  Index block;
  Index product;
};

/// The micro-kernel itself.
///   acc        out  [R][U][acc_stride], of which P * lanes elements are used
///   start      in   may be acc itself
///   operands   in   `count` products, at least one, added one after the other
template <class Real, int R, int U, int P, class Left>
void multiply_tile(Real* acc, Index acc_stride, const Start<Real>& start, const Operands<Real, Left>* operands,
                   int count) {
  constexpr int L = kLanes<Real>;
  Vec<Real> sum[R][U][P];
#pragma GCC unroll 32
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int u = 0; u < U; ++u) {
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
        sum[r][u][p] = load(start.data + r * start.row + u * start.block + p * start.product);
      }
    }
  }
  // A loop that might have no turn would keep the sums in memory.
  int product = 0;
  do {
    add_product(sum, operands[product]);
  } while (++product < count);

#pragma GCC unroll 32
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int u = 0; u < U; ++u) {
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) store(acc + (r * U + u) * acc_stride + p * L, sum[r][u][p]);
    }
  }
}

template <class Real, class Left>
using TileFunction = void (*)(Real* acc, Index acc_stride, const Start<Real>& start,
                              const Operands<Real, Left>* operands, int count);

/// The micro-kernels of all tile shapes with P products.
template <class Real, int P, class Left = LeftRows<Real>>
struct Tiles {
  template <int R, int U>
  static constexpr TileFunction<Real, Left> shape() {
    if constexpr (U <= blocks_at_once(R, P)) {
      return multiply_tile<Real, R, U, P, Left>;
    } else {
      return nullptr;
    }
  }

  template <int R>
  static TileFunction<Real, Left> blocks(Index U) {
    static constexpr TileFunction<Real, Left> table[] = {shape<R, 1>(), shape<R, 2>(), shape<R, 3>(), shape<R, 4>()};
    return table[U - 1];
  }

  template <int R = kMaxRows<P>>
  static TileFunction<Real, Left> get(Index rows, Index U) {
    if constexpr (R > 1) {
      if (rows < R) return get<R - 1>(rows, U);
    }
    assert(rows == R && U <= blocks_at_once(R, P));
    return blocks<R>(U);
  }
};

template <class Real>
RNNFAST_INLINE Operands<Real> operands_of(const TileRange& tile, const Real* const* a, const Panels<Real>& b) {
  return {{a}, b.block(tile.first_block), b.stride, b.depth};
}

/// The sums start from the accumulators, which have `planes` vectors per row and block.
template <class Real>
RNNFAST_INLINE Start<Real> from_accumulators(const TileRange& tile, const Real* acc, int planes) {
  constexpr int L = kLanes<Real>;
  return {acc, tile.blocks * planes * L, planes * L, L};
}

template <class Real>
RNNFAST_INLINE Start<Real> from_zero() {
  alignas(64) static constexpr Real zeros[kLanes<Real>] = {};
  return {zeros, 0, 0, 0};
}

/// acc = start + a b for one tile; acc has `planes` vectors per row and block, the first P of which are written.
template <int P, class Real>
RNNFAST_INLINE void multiply(const TileRange& tile, Real* acc, int planes, const Start<Real>& start,
                             const Real* const* a, const Panels<Real>& b) {
  const Operands<Real> operands = operands_of(tile, a, b);
  Tiles<Real, P>::get(tile.rows, tile.blocks)(acc, planes * kLanes<Real>, start, &operands, 1);
}

/// acc = a b, for one product.
template <class Real>
RNNFAST_INLINE void multiply(const TileRange& tile, Real* acc, const LeftColumns<Real>& a, const Panels<Real>& b) {
  const Operands<Real, LeftColumns<Real>> operands{a, b.block(tile.first_block), b.stride, b.depth};
  Tiles<Real, 1, LeftColumns<Real>>::get(tile.rows, tile.blocks)(acc, kLanes<Real>, from_zero<Real>(), &operands, 1);
}

/// acc += a b.
template <int P, class Real>
RNNFAST_INLINE void multiply(const TileRange& tile, Real* acc, int planes, const Real* const* a,
                             const Panels<Real>& b) {
  multiply<P>(tile, acc, planes, from_accumulators(tile, acc, planes), a, b);
}

/// acc = start + a b + c d, summed in this order, in one go.
template <int P, class Real>
RNNFAST_INLINE void multiply(const TileRange& tile, Real* acc, int planes, const Start<Real>& start,
                             const Real* const* a, const Panels<Real>& b, const Real* const* c, const Panels<Real>& d) {
  const Operands<Real> operands[] = {operands_of(tile, a, b), operands_of(tile, c, d)};
  Tiles<Real, P>::get(tile.rows, tile.blocks)(acc, planes * kLanes<Real>, start, operands, 2);
}

/// Calls body(TileRange) for all tiles of a rows x blocks product. Rows and blocks are cut into tiles of nearly equal
/// size: 32 rows are 5 5 5 5 6 6, not 6 6 6 6 6 2. All rows pass before the next blocks, whose panels stay in cache.
/// `backwards` takes the last blocks first: products that repeat with the same panels and alternate find in the cache
/// what they used last.
template <int P, class Body>
RNNFAST_INLINE void for_each_tile(Index rows, Range blocks, bool backwards, const Body& body) {
  if (rows <= 0 || blocks.size() <= 0) return;
  const Index tiles = (rows + kMaxRows<P> - 1) / kMaxRows<P>;
  const Index tallest = (rows + tiles - 1) / tiles;
  const Index widest = blocks_at_once(static_cast<int>(tallest), P);
  const Index groups = (blocks.size() + widest - 1) / widest;
  for (Index number = 0; number < groups; ++number) {
    const Index group = backwards ? groups - 1 - number : number;
    const Index block = blocks.first + blocks.size() * group / groups;
    const Index U = blocks.first + blocks.size() * (group + 1) / groups - block;
    for (Index tile = 0; tile < tiles; ++tile) {
      const Index first = rows * tile / tiles;
      body(TileRange{first, rows * (tile + 1) / tiles - first, block, U});
    }
  }
}

template <int P, class Body>
RNNFAST_INLINE void for_each_tile(Index rows, Range blocks, const Body& body) {
  for_each_tile<P>(rows, blocks, false, body);
}

}  // namespace rnnfast::RNNFAST_ISA
