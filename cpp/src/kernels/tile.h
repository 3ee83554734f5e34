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

/// Numbers of a cache line.
template <class Real>
inline constexpr Index kLine = 64 / static_cast<Index>(sizeof(Real));

/// At least `count` numbers, an odd number of cache lines: from one array to the next where several are read side by
/// side, so that elements at the same place in each do not share a cache set, and all begin alike in a line.
template <class Real>
constexpr Index odd_lines(Index count) {
  return ((count + kLine<Real> - 1) / kLine<Real> | 1) * kLine<Real>;
}

/// A packed matrix operand: for each block of units, `depth` groups of P vectors; or, in two parts, first `depth`
/// groups of the first half of them and then as many of the other half.
template <class Real>
struct Panels {
  const Real* data;
  Index depth;     // k runs over 0..depth-1
  Index stride;    // elements from one block to the next
  Index part = 0;  // elements from one part to the next; 0 if there is one
  bool are_far = false;  // whether all blocks are more than a part of the L2 cache

  const Real* block(Index number) const { return data + number * stride; }
};

/// The instruction set that is often the best one although its registers are few.
inline constexpr bool kIsAvx2 = kAccumulators == 12;

/// Rows of a tile of all P products are at most this many, so that its accumulators leave registers for the operands,
/// and pointers to rows leave some for addresses. One product takes several blocks at once (blocks_at_once): few enough
/// of them that the tile is nearly square and loads little for what it multiplies.
template <int P>
inline constexpr int kWholeRows = least(6, kAccumulators / (P == 1 ? (kIsAvx2 ? 3 : 4) : P));

/// All four products of a block leave AVX2 room for three rows only. Then every four rows or more read the weights
/// again, so a block whose weights are more than a part of the L1 cache is packed in two parts, each of which six rows
/// can pass.
template <int P>
inline constexpr bool kPartsHelp = P == 4 && kIsAvx2;
inline constexpr Index kWholeBytes = 24 * 1024;

/// Packed weights of which most are in the L3 cache at best.
inline constexpr Index kFarBytes = 2048 * 1024;

/// How many blocks of units a tile of R rows takes at once: the fewer the rows, the more blocks, because the
/// multiply-adds of a tile must be many enough to hide their latency. More streams than these do not add any speed.
constexpr int blocks_at_once(int R, int P) { return most(1, least(P == 1 ? 4 : 2, kAccumulators / (R * P))); }

/// Tiles whose sums are finished together: the few rows that a tile of three or four products has on AVX2 do not hide
/// the latency of the activations.
template <int P>
inline constexpr int kTilesTogether = P > 2 && kIsAvx2 ? 2 : 1;

/// Rows of a tile of U blocks: where there are fewer blocks than the widest tile has, one product has accumulators left
/// on AVX2.
template <int P>
constexpr int rows_at_once(int U) {
  return P == 1 && kIsAvx2 ? least(6, kAccumulators / U) : kWholeRows<P>;
}
template <int P>
inline constexpr int kTallest = rows_at_once<P>(1);

/// Rows of tiles that are finished together.
template <int P>
inline constexpr int kMaxRows = kTilesTogether<P> * kTallest<P>;

inline constexpr int kMaxPlanes = 4;

/// What one tile covers, or two together.
struct TileRange {
  Index first_row;
  Index rows;  // 1..kMaxRows
  Index first_block;
  Index blocks;  // 1..blocks_at_once
  Index next_block = -1;  // to fetch meanwhile: the one that all rows pass next, if there is time; else -1
};

/// in/out accumulators of a TileRange: [R][U][planes][lanes]. Products p stand in planes first_plane + p.
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

/// The same where only some elements count, the k-th of which is input[k].
template <class Real>
struct LeftListed {
  const Real* const* row;
  const std::int32_t* input;

  RNNFAST_INLINE Real at(int r, Index k) const { return row[r][input[k]]; }
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
  // Of Prefetch::kAhead: AVX2 fetches kLinesAtOnce for every kStepsAFetch of k, others at each k the line that is
  // ahead_step elements further on, perhaps the same again.
  const Real* ahead = nullptr;
  Index ahead_step = 0;
};

/// The weights of a large layer come from far away: the first rows that pass a block would wait for memory, which would
/// stand still while the others pass. So all of them fetch a part of the next block meanwhile, a few lines at a time.
inline constexpr Index kStepsAFetch = 32;
inline constexpr int kLinesAtOnce = 8;

/// What a tile fetches meanwhile.
enum class Prefetch {
  kNothing,
  kNear,  // b itself into the L1 cache, kStepsNear before it is read; few rows and registers shorter than a line do not
  kAhead  // that, and what `ahead` says into the L2 cache; AVX2 the latter alone
};

/// The latency of the L2 cache in steps of a tile of 24 accumulators, more than once. The core's own prefetcher is one
/// step ahead.
inline constexpr int kStepsNear = 6;
inline constexpr int kFewestToFetch = 4;  // rows of a tile; fewer would read and fetch as often as they multiply
template <int R>
inline constexpr bool kFetchesNear = kAccumulators == 24 && kVectorBytes == 64 && R >= kFewestToFetch;

/// Steps of k in one turn of the loop. Of the eleven instructions that go with twelve multiply-adds of AVX2, three only
/// run the loop, and a core that is shared with another thread is bound by the number of instructions.
inline constexpr int kStepsATurn = kIsAvx2 ? 4 : 1;

/// sum += a b for some k, with the accumulators in registers.
///   ahead  in  of Prefetch::kAhead: a line to fetch at the first k, and ahead_step elements further on at each k
template <Prefetch F, class Real, int R, int U, int P, class Left>
RNNFAST_INLINE void add_steps(Vec<Real> (&sum)[R][U][P], const Left a, const Real* b, const Index b_stride, Range steps,
                              const Real* ahead, Index ahead_step) {
  constexpr int L = kLanes<Real>;
  // The operand with fewer vectors is the one that stays in registers while the other one passes.
#pragma GCC unroll kStepsATurn
  for (Index k = steps.first; k < steps.last; ++k, b += P * L) {
    if constexpr (F == Prefetch::kAhead) {
      __builtin_prefetch(ahead, 0, 2);
      ahead += ahead_step;
    }
    if constexpr (F != Prefetch::kNothing && kFetchesNear<R>) {
#pragma GCC unroll 8
      for (int u = 0; u < U; ++u) {
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) __builtin_prefetch(b + u * b_stride + (kStepsNear * P + p) * L);
      }
    }
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

/// sum += a b.
template <Prefetch F, class Real, int R, int U, int P, class Left>
RNNFAST_INLINE void add_product(Vec<Real> (&sum)[R][U][P], const Operands<Real, Left>& operands) {
  if constexpr (F == Prefetch::kAhead && kIsAvx2) {
    const Real* b = operands.b;
    const Real* ahead = operands.ahead;
    for (Index k = 0; k < operands.depth; k += kStepsAFetch) {
#pragma GCC unroll 8
      for (int line = 0; line < kLinesAtOnce; ++line) __builtin_prefetch(ahead + line * kLine<Real>, 0, 2);
      const Range steps{k, least(k + kStepsAFetch, operands.depth)};
      add_steps<Prefetch::kNothing>(sum, operands.a, b, operands.b_stride, steps, ahead, 0);
      b += kStepsAFetch * P * kLanes<Real>;
      ahead += kStepsAFetch * P * kLanes<Real>;
    }
  } else {
    add_steps<F>(sum, operands.a, operands.b, operands.b_stride, {0, operands.depth}, operands.ahead,
                 operands.ahead_step);
  }
}

/// What a tile's sums start from, with the steps from row to row, block to block and product to product. Every second
/// block may be another step away: the second part of the one before it.
template <class Real>
struct Start {
  const Real* data;
  Index row;
  Index block;
  Index product;
  Index part = block;
  Index two_blocks = 2 * block;

  RNNFAST_INLINE const Real* at(int r, int u, int p) const {
    return data + r * row + u / 2 * two_blocks + u % 2 * part + p * product;
  }
};

/// The micro-kernel itself.
///   acc        out  [R][U][acc_stride], of which P * lanes elements are used
///   start      in   may be acc itself
///   operands   in   `count` products, at least one, added one after the other
template <class Real, int R, int U, int P, class Left, Prefetch F = Prefetch::kNothing>
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
        sum[r][u][p] = load(start.at(r, u, p));
      }
    }
  }
  // A loop that might have no turn would keep the sums in memory.
  int product = 0;
  do {
    add_product<F>(sum, operands[product]);
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

/// The micro-kernels of all tile shapes with P products, or with two of four.
template <class Real, int P, class Left = LeftRows<Real>, Prefetch F = Prefetch::kNothing>
struct Tiles {
  template <int R, int U>
  static constexpr TileFunction<Real, Left> shape() {
    constexpr bool kOfParts = P == 2 && kPartsHelp<4> && U % 2 == 0 && R * U * P <= kAccumulators;
    constexpr bool kFetching =
        kIsAvx2 ? U == 1 && R > kWholeRows<2 * P> : U <= blocks_at_once(R, P) && R >= kFewestToFetch;
    if constexpr (F == Prefetch::kAhead ? kFetching : U <= blocks_at_once(R, P) || kOfParts) {
      constexpr Prefetch kFetched = F == Prefetch::kNear && !kFetchesNear<R> ? Prefetch::kNothing : F;
      return multiply_tile<Real, R, U, P, Left, kFetched>;
    } else {
      return nullptr;
    }
  }

  template <int R>
  static TileFunction<Real, Left> blocks(Index U) {
    static constexpr TileFunction<Real, Left> table[] = {shape<R, 1>(), shape<R, 2>(), shape<R, 3>(), shape<R, 4>()};
    return table[U - 1];
  }

  template <int R = kTallest<P>>
  static TileFunction<Real, Left> get(Index rows, Index U) {
    if constexpr (R > 1) {
      if (rows < R) return get<R - 1>(rows, U);
    }
    assert(rows == R && blocks<R>(U) != nullptr);
    return blocks<R>(U);
  }
};

template <class Real>
RNNFAST_INLINE Operands<Real> operands_of(const TileRange& tile, const Real* const* a, const Panels<Real>& b) {
  Operands<Real> operands{{a}, b.block(tile.first_block), b.part > 0 ? b.part : b.stride, b.depth};
  if (b.are_far && tile.next_block >= 0) {
    // Tiles of five or six rows fetch different quarters of the lines.
    const Index quarter = tile.first_row / 5 % 4;
    operands.ahead = b.block(tile.next_block) + quarter * kLinesAtOnce * kLine<Real>;
  }
  return operands;
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

/// One tile after the other, each with all products.
template <int P, class Real>
RNNFAST_INLINE void multiply_whole(const TileRange& tile, Real* acc, Index acc_stride, Start<Real> start,
                                   Operands<Real>* operands, int count) {
  Index depth = 0;
  for (int product = 0; product < count; ++product) depth += operands[product].depth;
  const bool near = kFetchesNear<kWholeRows<P>> && depth * tile.blocks * P * kVectorBytes > kWholeBytes;
  for (Index rows = tile.rows;;) {
    const Index some = kTilesTogether<P> > 1 && rows > kWholeRows<P> ? (rows + 1) / 2 : rows;
    const auto of_tile = near ? Tiles<Real, P, LeftRows<Real>, Prefetch::kNear>::get(some, tile.blocks)
                              : Tiles<Real, P>::get(some, tile.blocks);
    of_tile(acc, acc_stride, start, operands, count);
    if (some == rows) return;
    rows -= some;
    acc += some * tile.blocks * acc_stride;
    start.data += some * start.row;
    for (int product = 0; product < count; ++product) operands[product].a.row += some;
  }
}

/// Both parts of the blocks side by side for few rows, else one after the other for all rows.
template <int P, class Real>
RNNFAST_INLINE void multiply_parts(const TileRange& tile, Real* acc, Index acc_stride, Start<Real> start,
                                   Operands<Real>* operands, int count) {
  constexpr int kHalf = P / 2;
  assert(acc_stride == P * kLanes<Real>);
  start.part = kHalf * start.product;
  start.two_blocks = start.block;
  if (tile.rows <= kWholeRows<P>) {
    Tiles<Real, kHalf>::get(tile.rows, 2 * tile.blocks)(acc, acc_stride / 2, start, operands, count);
    return;
  }
  assert(tile.blocks == 1);
  const bool fetches = operands[0].ahead != nullptr;
  const auto one_part = fetches ? Tiles<Real, kHalf, LeftRows<Real>, Prefetch::kAhead>::get(tile.rows, 1)
                                : Tiles<Real, kHalf>::get(tile.rows, 1);
  one_part(acc, acc_stride, start, operands, count);
  start.data += start.part;
  for (int product = 0; product < count; ++product) {
    operands[product].b += operands[product].b_stride;
    if (fetches) operands[product].ahead += operands[product].b_stride;
  }
  one_part(acc + acc_stride / 2, acc_stride, start, operands, count);
}

template <int P, class Real>
RNNFAST_INLINE void multiply_tile_range(const TileRange& tile, Real* acc, Index acc_stride, const Start<Real>& start,
                                        bool parts, Operands<Real>* operands, int count) {
  if constexpr (kPartsHelp<P>) {
    if (parts) return multiply_parts<P>(tile, acc, acc_stride, start, operands, count);
  }
  multiply_whole<P>(tile, acc, acc_stride, start, operands, count);
}

/// acc = start + a b for one tile; acc has `planes` vectors per row and block, the first P of which are written.
template <int P, class Real>
RNNFAST_INLINE void multiply(const TileRange& tile, Real* acc, int planes, const Start<Real>& start,
                             const Real* const* a, const Panels<Real>& b) {
  Operands<Real> operands = operands_of(tile, a, b);
  multiply_tile_range<P>(tile, acc, planes * kLanes<Real>, start, b.part > 0, &operands, 1);
}

/// acc = start + a b, for one product and a left operand of any kind.
template <class Real, class Left>
RNNFAST_INLINE void multiply(const TileRange& tile, Real* acc, const Start<Real>& start, const Left& a,
                             const Panels<Real>& b) {
  const Operands<Real, Left> operands{a, b.block(tile.first_block), b.stride, b.depth};
  Tiles<Real, 1, Left>::get(tile.rows, tile.blocks)(acc, kLanes<Real>, start, &operands, 1);
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
  Operands<Real> operands[] = {operands_of(tile, a, b), operands_of(tile, c, d)};
  multiply_tile_range<P>(tile, acc, planes * kLanes<Real>, start, b.part > 0, operands, 2);
}

/// Calls body(TileRange) for all tiles of a rows x blocks product. Rows and blocks are cut into tiles of nearly equal
/// size: 32 rows are 5 5 5 5 6 6, not 6 6 6 6 6 2. All rows pass before the next blocks, whose panels stay in cache.
/// `backwards` takes the last blocks first: products that repeat with the same panels and alternate find in the cache
/// what they used last.
template <int P, class Body>
RNNFAST_INLINE void for_each_tile(Index rows, Range blocks, bool backwards, const Body& body) {
  if (rows <= 0 || blocks.size() <= 0) return;
  // One row is compiled for itself, and so is one block of it, which needs no division: in small layers, loops that
  // turn once take as long as a good part of the products.
  if (rows == 1 && blocks.size() == 1) {
    body(TileRange{0, 1, blocks.first, 1});
    return;
  }
  const auto tiles_of = [rows](Index height) { return rows <= height ? 1 : (rows + height - 1) / height; };
  const Index height = tiles_of(tiles_of(kWholeRows<P>));
  const auto widest = static_cast<std::uint32_t>(blocks_at_once(static_cast<int>(height), P));
  const auto count = static_cast<std::uint32_t>(blocks.size());  // divides faster than an Index
  const std::uint32_t groups = count <= widest ? 1 : (count + widest - 1) / widest;
  const std::uint32_t width = groups == 1 ? count : count / groups;
  const Index wider = count - groups * width;  // groups that have one block more
  for (Index number = 0; number < groups; ++number) {
    const Index group = backwards ? groups - 1 - number : number;
    const Index block = blocks.first + group * width + least(group, wider);
    const Index U = width + (group < wider ? 1 : 0);
    if (rows == 1) {
      body(TileRange{0, 1, block, U});
      continue;
    }
    const Index tiles = tiles_of(rows_at_once<P>(static_cast<int>(U)));
    const Index beside = backwards ? block - 1 : block + U;
    const bool is_next =
        kPartsHelp<P> && tiles > 2 * kTilesTogether<P> && blocks.first <= beside && beside < blocks.last;
    Index first = 0;
    for (Index tile = kTilesTogether<P>; first < rows; tile += kTilesTogether<P>) {
      const Index last = tile < tiles ? rows * tile / tiles : rows;
      body(TileRange{first, last - first, block, U, is_next ? beside : -1});
      first = last;
    }
  }
}

template <int P, class Body>
RNNFAST_INLINE void for_each_tile(Index rows, Range blocks, const Body& body) {
  for_each_tile<P>(rows, blocks, false, body);
}

}  // namespace rnnfast::RNNFAST_ISA
