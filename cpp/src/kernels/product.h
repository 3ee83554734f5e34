// SPDX-License-Identifier: MIT
// Products of rows with a weight matrix and sums of outer products, dense or with blocks of connections left out.
// What is left out is multiplied by zero otherwise, so the bits are the same.
#pragma once

#include "kernels/columns.h"
#include "kernels/outer.h"
#include "rnnfast/options.h"

namespace rnnfast::RNNFAST_ISA {

/// A weight matrix packed for products with rows: [blocks of outputs][inputs][lanes].
template <class Real>
struct Matrix {
  const Real* data;
  Index outputs;
  Index inputs;
  const Ranges* ranges;  // null: dense

  static Index size(Index outputs, Index inputs, const Ranges* ranges) {
    const Index blocks = blocks_of<Real>(outputs);
    return (ranges == nullptr ? blocks * inputs : ranges->offset[ranges->begin[blocks]]) * kLanes<Real>;
  }

  Panels<Real> panels() const { return {data, inputs, inputs * kLanes<Real>}; }
  Range blocks() const { return {0, blocks_of<Real>(outputs)}; }

  /// A member's blocks of outputs, such that all have nearly as many weights.
  Range share_of(int member, int members) const {
    const Index all = blocks().last;
    if (ranges == nullptr) return share(all, member, members);
    const auto begin = [&](int number) {
      if (number == members) return all;
      const Index before = ranges->offset[ranges->begin[all]] * number / members;
      return first_where(all, [&](Index block) { return ranges->offset[ranges->begin[block]] >= before; });
    };
    return {begin(member), begin(member + 1)};
  }
};

/// Calls body(block, first input, last input, where to) for all that is packed.
template <class Real, class Body>
inline void for_each_range(Index outputs, Index inputs, const Ranges* ranges, Real* to, const Body& body) {
  constexpr int L = kLanes<Real>;
  for (Index block = 0; block < blocks_of<Real>(outputs); ++block) {
    if (ranges == nullptr) {
      body(block, Index{0}, inputs, to + block * inputs * L);
      continue;
    }
    for (Index range = ranges->begin[block]; range < ranges->begin[block + 1]; ++range) {
      body(block, ranges->bounds[2 * range], ranges->bounds[2 * range + 1], to + ranges->offset[range] * L);
    }
  }
}

/// Packs w (rows, columns): outputs are its rows. Returns the end of what was written.
template <class Real>
inline Real* pack_rows(Real* to, const Real* w, Index rows, Index columns, const Ranges* ranges) {
  constexpr int L = kLanes<Real>;
  for_each_range(rows, columns, ranges, to, [&](Index block, Index first, Index last, Real* at) {
    transpose(at, L, w + block * L * columns + first, columns, lanes_left<Real>(block * L, rows), last - first);
  });
  return to + Matrix<Real>::size(rows, columns, ranges);
}

/// Packs w (rows, columns): outputs are its columns.
template <class Real>
inline Real* pack_columns(Real* to, const Real* w, Index rows, Index columns, const Ranges* ranges) {
  constexpr int L = kLanes<Real>;
  if (ranges == nullptr) {
    pack_lanes(to, rows * L, w, rows, columns, {0, blocks_of<Real>(columns)});
    return to + Matrix<Real>::size(columns, rows, nullptr);
  }
  for_each_range(columns, rows, ranges, to, [&](Index block, Index first, Index last, Real* at) {
    const Index width = lanes_left<Real>(block * L, columns);
    for (Index k = first; k < last; ++k, at += L) store(at, load_lanes(w + k * columns + block * L, width));
  });
  return to + Matrix<Real>::size(columns, rows, ranges);
}

/// The sums of one row and V blocks of outputs with the same connections: V chains of multiply-adds, each of which
/// waits for the one before.
template <class Real, int V>
struct Chains {
  Vec<Real> sum[V];
  const Real* weight[V];
  const std::int32_t* input;
  Index left;  // inputs
  Index unit;
};

/// The next `steps` inputs of C times V chains, side by side.
template <int C, class Real, int V>
RNNFAST_INLINE void advance_chains(Chains<Real, V>* chains, const Real* in, Index steps) {
  constexpr int L = kLanes<Real>;
  Vec<Real> sum[C][V];
  const Real* weight[C][V];
  const std::int32_t* input[C];
#pragma GCC unroll 4
  for (int c = 0; c < C; ++c) {
    input[c] = chains[c].input;
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      sum[c][v] = chains[c].sum[v];
      weight[c][v] = chains[c].weight[v];
    }
  }
  for (Index k = 0; k < steps; ++k) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      const Vec<Real> x = splat(in[input[c][k]]);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[c][v] = fma(x, load(weight[c][v] + k * L), sum[c][v]);
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < C; ++c) {
    chains[c].input += steps;
    chains[c].left -= steps;
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      chains[c].sum[v] = sum[c][v];
      chains[c].weight[v] += steps * L;
    }
  }
}

/// out += w in for one row, a sparse matrix, and those of some blocks of outputs of which V have the same connections.
/// Several times V blocks pass side by side, whatever their inputs.
template <int V, class Real>
inline void add_sparse_products(const Matrix<Real>& w, Range blocks, const Real* in, Real* out) {
  constexpr int L = kLanes<Real>;
  constexpr int kSideBySide = V == 1 ? 4 : 3;
  const Ranges& ranges = *w.ranges;
  using Group = Chains<Real, V>;
  Index next = blocks.first;
  const auto begin = [&](Group& group) {
    group.left = 0;
    while (next < blocks.last && group.left == 0) {
      const Index width = least<Index>(2, least(ranges.alike[next], blocks.last - next));
      const Index first = ranges.offset[ranges.begin[next]];
      const Index depth = ranges.offset[ranges.begin[next + 1]] - first;
      if (width == V && depth > 0) {
        group.left = depth;
        group.unit = next * L;
        group.input = ranges.input + first;
        for (int v = 0; v < V; ++v) {
          const Index unit = group.unit + v * L;
          group.sum[v] = load_lanes(out + unit, lanes_left<Real>(unit, w.outputs));
          group.weight[v] = w.data + (first + v * depth) * L;
        }
      }
      next += width;
    }
    return group.left > 0;
  };
  const auto finish = [&](const Group& group) {
    for (int v = 0; v < V; ++v) {
      const Index unit = group.unit + v * L;
      store_lanes(out + unit, group.sum[v], lanes_left<Real>(unit, w.outputs));
    }
  };
  Group groups[kSideBySide];
  bool all = true;
  for (Group& group : groups) all = begin(group) && all;
  while (all) {
    Index steps = groups[0].left;
    for (const Group& group : groups) steps = least(steps, group.left);
    advance_chains<kSideBySide>(groups, in, steps);
    for (Group& group : groups) {
      if (group.left > 0) continue;
      finish(group);
      all = begin(group) && all;
    }
  }
  for (Group& group : groups) {
    if (group.left == 0) continue;
    advance_chains<1>(&group, in, group.left);
    finish(group);
  }
}

/// Rows that have too few chains in a block of outputs to hide the latency of a multiply-add.
inline constexpr Index kFewRows = 3;

/// out[row] += w in[row] for `count` rows and some blocks of outputs. Each element is one chain, in the order of the
/// inputs.
template <class Real>
inline void add_products(const Matrix<Real>& w, Range blocks, Index count, RowsIn<Real> in, RowsOut<Real> out) {
  constexpr int L = kLanes<Real>;
  if (count <= 0) return;
  if (w.ranges == nullptr) {
    for_each_tile<1>(count, blocks, [&](const TileRange& tile) {
      add_to_rows(tile, in, out, w.outputs, [&](Real* acc, const Start<Real>& start, const Real* const* from) {
        multiply<1>(tile, acc, 1, start, from, w.panels());
      });
    });
    return;
  }
  if (count <= kFewRows) {
    for (Index row = 0; row < count; ++row) {
      add_sparse_products<2>(w, blocks, in[row], out[row]);
      add_sparse_products<1>(w, blocks, in[row], out[row]);
    }
    return;
  }
  const Ranges& ranges = *w.ranges;
  for (Index block = blocks.first; block < blocks.last;) {
    // Blocks with the same connections pass together.
    const Index end = least(block + ranges.alike[block], blocks.last);
    const Index first = ranges.offset[ranges.begin[block]];
    const Index depth = ranges.offset[ranges.begin[block + 1]] - first;
    const Panels<Real> panels{w.data + first * L, depth, depth * L};
    const RowsOut<Real> to{out.data + block * L, out.stride};
    for_each_tile<1>(depth == 0 ? 0 : count, Range{0, end - block}, [&](const TileRange& tile) {
      add_to_rows(tile, in, to, w.outputs - block * L,
                  [&](Real* acc, const Start<Real>& start, const Real* const* from) {
                    multiply(tile, acc, start, LeftListed<Real>{from, ranges.input + first}, panels);
                  });
    });
    block = end;
  }
}

/// Columns of the left factors of outer products that are packed at once.
inline constexpr Index kColumnsAtOnce = 256;

template <class Real>
inline constexpr Index kPieceStride = odd_lines<Real>(kPieceRows * kLanes<Real>);

/// Memory that add_outer_products needs.
template <class Real>
constexpr Index outer_work_size(Index right) {
  return blocks_of<Real>(right) * kPieceStride<Real> + Columns<Real>::size(kColumnsAtOnce, kPieceRows);
}

/// A thread's part of a sum of outer products.
struct OuterShare {
  Range rows;
  Range blocks;  // of columns
};

/// to[m][k] += sum over rows of a[row][m] b(row)[k], for the m and k of `share`.
///   to      io  rows of `right` numbers
///   a       in  rows of as many numbers as `to` has rows
///   b       in  b(row) is a pointer to `right` numbers
///   ranges  in  Connections::gradient, null for all
template <class Real, class RightRow>
inline void add_outer_products(Real* to, Index right, Index rows, RowsIn<Real> a, const RightRow& b,
                               const Ranges* ranges, const OuterShare& share, Real* work) {
  constexpr int L = kLanes<Real>;
  if (rows <= kOuterRows && ranges == nullptr) {
    const auto [first, last] = columns_of<Real>(share.blocks, right);
    const Real* from[kOuterRows];
    for (Index m = 0; m < rows; ++m) from[m] = b(m) + first;
    for (Index k = share.rows.first; k < share.rows.last && last > first; ++k) {
      Real factor[kOuterRows];
      for (Index m = 0; m < rows; ++m) factor[m] = a[m][k];
      add_outer_row(to + k * right + first, last - first, rows, factor, from, true);
    }
    return;
  }
  for (Index begin = 0; begin < rows; begin += kPieceRows) {
    const Index height = least(rows - begin, kPieceRows);
    for (Index block = share.blocks.first; block < share.blocks.last; ++block) {
      Real* at = work + block * kPieceStride<Real>;
      const Index width = lanes_left<Real>(block * L, right);
      for (Index m = 0; m < height; ++m, at += L) store(at, load_lanes(b(begin + m) + block * L, width));
    }
    const Panels<Real> packed{work, height, kPieceStride<Real>};
    const Columns<Real> columns{work + blocks_of<Real>(right) * kPieceStride<Real>, kPieceRows};
    const auto add = [&](Range some, Range blocks) {  // columns 0.. are those of a that begin with some.first
      const auto for_each_sum_of = [&](const TileRange& tile, const auto& body) {
        for (Index r = 0; r < tile.rows; ++r) {
          for (Index u = 0; u < tile.blocks; ++u) {
            const Index column = (tile.first_block + u) * L;
            body(to + (some.first + tile.first_row + r) * right + column, r, u, lanes_left<Real>(column, right));
          }
        }
      };
      multiply_columns(
          columns, 0, {0, some.size()}, blocks, packed,
          [&](const TileRange& tile) {
            for_each_sum_of(tile, [](Real* sum, Index, Index, Index) { __builtin_prefetch(sum, 1); });
          },
          [&](const TileRange& tile, Accumulators<Real>& acc) {
            for_each_sum_of(tile, [&](Real* sum, Index r, Index u, Index width) {
              store_lanes(sum, load_lanes(sum, width) + load(acc.at(tile, r, u, 1)), width);
            });
          });
    };
    const Index step = ranges == nullptr ? kColumnsAtOnce : kGradientRows;
    for (Index group = share.rows.first / step; group * step < share.rows.last; ++group) {
      const Range some = intersection(share.rows, {group * step, (group + 1) * step});
      if (some.size() <= 0 || (ranges != nullptr && ranges->begin[group] == ranges->begin[group + 1])) continue;
      columns.pack(a[begin], a.stride, height, some);
      if (ranges == nullptr) {
        add(some, share.blocks);
        continue;
      }
      for (Index range = ranges->begin[group]; range < ranges->begin[group + 1]; ++range) {
        add(some, intersection(share.blocks, {ranges->bounds[2 * range], ranges->bounds[2 * range + 1]}));
      }
    }
  }
}

/// to[k] += sum over rows of a(row)[k] b(row)[k], for the k of `share`; b null for ones.
template <class Real, class Left, class Right>
inline void add_sums(Real* to, Index rows, const Left& a, const Right& b, Range share) {
  constexpr int L = kLanes<Real>;
  for (Index k = share.first; k < share.last; k += L) {
    const Index width = lanes_left<Real>(k, share.last);
    for (Index begin = 0; begin < rows; begin += kPieceRows) {
      const Index end = least(rows, begin + kPieceRows);
      Vec<Real> sum{};
      for (Index m = begin; m < end; ++m) {
        const Vec<Real> left = load_lanes(a(m) + k, width);
        const Real* right = b(m);
        sum = right == nullptr ? sum + left : fma(left, load_lanes(right + k, width), sum);
      }
      store_lanes(to + k, load_lanes(to + k, width) + sum, width);
    }
  }
}

}  // namespace rnnfast::RNNFAST_ISA
