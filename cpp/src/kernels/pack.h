// SPDX-License-Identifier: MIT
// Packing: weights and chunks of activations, rearranged so that the micro-kernel reads them in sequence.
//
// Padding lives here only: lanes beyond the last unit are zero in packed buffers, arrays of callers have none.
#pragma once

#include <utility>

#include "kernels/team.h"
#include "rnnfast/recurrent.h"

namespace rnnfast::RNNFAST_ISA {

/// One step of the transposition below: exchanges lanes `Step` apart between two registers.
template <class Real, int Step, int... J>
RNNFAST_INLINE void exchange(Vec<Real>& a, Vec<Real>& b, std::integer_sequence<int, J...>) {
  constexpr int L = kLanes<Real>;
  const Vec<Real> low = __builtin_shufflevector(a, b, ((J & Step) == 0 ? J : L + J - Step)...);
  const Vec<Real> high = __builtin_shufflevector(a, b, ((J & Step) == 0 ? J + Step : L + J)...);
  a = low;
  b = high;
}

template <class Real, int Step>
RNNFAST_INLINE void exchange_all(Vec<Real> (&v)[kLanes<Real>]) {
  constexpr int L = kLanes<Real>;
  if constexpr (Step < L) {
#pragma GCC unroll 16
    for (int j = 0; j < L; ++j) {
      if ((j & Step) == 0) exchange<Real, Step>(v[j], v[j + Step], std::make_integer_sequence<int, L>{});
    }
    exchange_all<Real, 2 * Step>(v);
  }
}

/// to[c * to_stride + r] = from[r * from_stride + c] for r < rows, c < columns; zero up to the next full register
/// in r. to_stride must leave room for that.
template <class Real>
inline void transpose(Real* to, Index to_stride, const Real* from, Index from_stride, Index rows, Index columns) {
  constexpr int L = kLanes<Real>;
  for (Index r = 0; r < rows; r += L) {
    const Index height = lanes_left<Real>(r, rows);
    for (Index c = 0; c < columns; c += L) {
      const Index width = lanes_left<Real>(c, columns);
      Vec<Real> v[L];
      if (height == L && width == L) {
#pragma GCC unroll 16
        for (int j = 0; j < L; ++j) v[j] = load(from + (r + j) * from_stride + c);
        exchange_all<Real, 1>(v);
#pragma GCC unroll 16
        for (int j = 0; j < L; ++j) store(to + (c + j) * to_stride + r, v[j]);
      } else {
        for (int j = 0; j < L; ++j) {
          v[j] = j < height ? load_lanes(from + (r + j) * from_stride + c, width) : Vec<Real>{};
        }
        exchange_all<Real, 1>(v);
        for (Index j = 0; j < width; ++j) store(to + (c + j) * to_stride + r, v[j]);
      }
    }
  }
}

/// Panels for products whose results run over units: w rows become lanes.
///   to    out  [blocks][parts][depth][P / parts][lanes]
///   w     in   (G*H, depth); gate[p] is the row block of product p
template <class Real, int P>
inline void pack_units_by_depth(Real* to, const Real* w, const int (&gate)[P], Index H, Index depth, Range blocks,
                                int parts) {
  constexpr int L = kLanes<Real>;
  const int of_part = P / parts;
  for (Index block = blocks.first; block < blocks.last; ++block) {
    for (int p = 0; p < P; ++p) {
      transpose(to + ((block - blocks.first) * depth * P + p / of_part * depth * of_part + p % of_part) * L,
                of_part * L, w + (gate[p] * H + block * L) * depth, depth, lanes_left<Real>(block * L, H), depth);
    }
  }
}

/// Panels of a narrow block (ForwardPack): its rows of w for all products stand side by side in the lanes.
///   to    out  [depth][vectors][lanes]
template <class Real, int P>
inline void pack_narrow_block(Real* to, const Real* w, const int (&gate)[P], Index H, Index depth, int vectors) {
  constexpr int L = kLanes<Real>;
  const Index units = H % L;
  for (Index k = 0; k < depth * vectors * L; ++k) to[k] = 0;
  for (int p = 0; p < P; ++p) {
    for (Index j = 0; j < units; ++j) {
      const Real* row = w + (gate[p] * H + H - units + j) * depth;
      for (Index k = 0; k < depth; ++k) to[k * vectors * L + p * units + j] = row[k];
    }
  }
}

/// to[block][row] = the lanes of `block` in w[row], blocks `to_stride` apart; a few rows at a time, so that neither
/// reading nor writing jumps from line to line.
///   w  in  (rows, columns)
template <class Real>
inline void pack_lanes(Real* to, Index to_stride, const Real* w, Index rows, Index columns, Range blocks) {
  constexpr int L = kLanes<Real>;
  constexpr Index kRows = 8;
  for (Index first = 0; first < rows; first += kRows) {
    const Index last = least(first + kRows, rows);
    for (Index block = blocks.first; block < blocks.last; ++block) {
      const Index width = lanes_left<Real>(block * L, columns);
      for (Index row = first; row < last; ++row) {
        store(to + block * to_stride + row * L, load_lanes(w + row * columns + block * L, width));
      }
    }
  }
}

/// Panels for products whose sum runs over the gates: w columns become lanes. Writes some blocks.
///   to    out  [blocks of columns][P * H][lanes], blocks `to_stride` apart
///   w     in   (G*H, columns); gate[p] is the row block of the p-th part of the sum
template <class Real, int P>
inline void pack_columns_by_gates(Real* to, Index to_stride, const Real* w, const int (&gate)[P], Index H,
                                  Index columns, Range blocks) {
  constexpr int L = kLanes<Real>;
  for (int p = 0; p < P; ++p) {
    pack_lanes(to + p * H * L, to_stride, w + gate[p] * H * columns, H, columns, blocks);
  }
}

/// Elements below which packing stays on one thread.
inline constexpr Index kWorthSharing = 1 << 17;

/// Runs body(member) on the threads that packing a layer is worth.
template <class Body>
inline void pack_in_parallel(Team& team, Index size, const Body& body) {
  const int members = size < kWorthSharing ? 1 : team.size();
  parallel(team, members, [&](int member) { body(member, members); });
}

/// The product of inputs, or of states, that a plane of pre-activations takes; -1 for none.
template <class CellMath>
constexpr int input_product(int plane) {
  const int product = plane - CellMath::kInputPlane;
  return product >= 0 && product < CellMath::kProducts ? product : -1;
}
template <class CellMath>
constexpr int recurrent_product(int plane) {
  const int product = plane - CellMath::kRecurrentPlane;
  return product >= 0 && product < CellMath::kProducts ? product : -1;
}

/// The packed weights of a layer, as views of buffers.
///
/// The last block may have so few units that the numbers of all its products fit fewer registers than P: it is narrow
/// then, and its planes lie as many numbers apart as it has units.
template <class CellMath, class Real>
struct ForwardPack {
  static constexpr int P = CellMath::kProducts;
  static constexpr int L = kLanes<Real>;
  Index blocks;
  Index full_blocks;         // all, or all but a narrow one
  Index narrow_units;        // units of the last block, if it is not full
  int last_vectors;          // registers of its products, fewer than P if it is narrow
  Panels<Real> w_ih;         // [blocks][parts][I][P / parts][lanes]
  Panels<Real> w_hh;         // [blocks][parts][H][P / parts][lanes]
  const Real* bias;          // [planes][blocks * lanes]
  const Real* narrow_bias;   // [planes][units of the narrow block]

  ForwardPack(LayerDims d, const Real* buffer)
      : ForwardPack(d, panels(d, buffer, d.I, d.I * P * L),
                    panels(d, buffer + blocks_of<Real>(d.H) * d.I * P * L, d.H, d.H * P * L),
                    buffer + blocks_of<Real>(d.H) * block_size(d)) {}

  /// What pack_block wrote, in the place of every block.
  ForwardPack(LayerDims d, const Real* block, const Real* bias_of_all)
      : ForwardPack(d, panels(d, block, d.I, 0), panels(d, block + d.I * P * L, d.H, 0), bias_of_all) {}

  /// Calls body<V>(TileRange) for all tiles of some blocks, whose products take V registers: P, or fewer if narrow.
  template <class Body>
  RNNFAST_INLINE void for_each_tile_of(Index rows, Range some, bool backwards, const Body& body) const {
    const bool has_narrow = P > 1 && some.last > full_blocks;
    if (has_narrow && backwards) for_each_narrow_tile(rows, body);
    for_each_tile<P>(rows, P > 1 ? intersection(some, {0, full_blocks}) : some, backwards,
                     [&](const TileRange& tile) __attribute__((always_inline)) { body.template operator()<P>(tile); });
    if (has_narrow && !backwards) for_each_narrow_tile(rows, body);
  }

  /// From a plane to the next in accumulators whose products take V registers.
  template <int V>
  Index distance() const {
    return V < P ? narrow_units : L;
  }

  static Index block_size(LayerDims d) { return (d.I + d.H) * P * L; }
  static Index bias_size(LayerDims d) { return (blocks_of<Real>(d.H) + 1) * L * CellMath::kPlanes; }
  static Index size(LayerDims d) { return blocks_of<Real>(d.H) * block_size(d) + bias_size(d); }

  static void pack(LayerDims d, const Parameters<Real>& parameters, Real* buffer, Team& team) {
    const ForwardPack views(d, buffer);
    Real* const w_hh = buffer + views.blocks * views.w_ih.stride;
    pack_in_parallel(team, size(d), [&](int member, int members) {
      const Range mine = share(views.blocks, member, members);
      views.pack_matrix(buffer + mine.first * views.w_ih.stride, parameters.w_ih, CellMath::kInputGate, d.H, d.I, mine);
      views.pack_matrix(w_hh + mine.first * views.w_hh.stride, parameters.w_hh, CellMath::kRecurrentGate, d.H, d.H,
                        mine);
    });
    pack_bias(d, parameters, w_hh + views.blocks * views.w_hh.stride);
  }

  /// The weights of one block of units, perhaps without w_hh.
  static void pack_block(LayerDims d, const Parameters<Real>& parameters, Index block, Real* to, bool recurrent) {
    const ForwardPack views(d, to);
    const Range one{block, block + 1};
    views.pack_matrix(to, parameters.w_ih, CellMath::kInputGate, d.H, d.I, one);
    if (!recurrent) return;
    views.pack_matrix(to + d.I * P * L, parameters.w_hh, CellMath::kRecurrentGate, d.H, d.H, one);
  }

  static void pack_bias(LayerDims d, const Parameters<Real>& parameters, Real* to) {
    const Index padded = blocks_of<Real>(d.H) * L;
    for (int plane = 0; plane < CellMath::kPlanes; ++plane) {
      const int of_input = input_product<CellMath>(plane);
      const int of_recurrent = recurrent_product<CellMath>(plane);
      for (Index j = 0; j < padded; ++j) {
        Real sum = 0;
        if (j < d.H && parameters.b_ih != nullptr) {
          if (of_input >= 0) sum += parameters.b_ih[CellMath::kInputGate[of_input] * d.H + j];
          if (of_recurrent >= 0) {
            sum += parameters.b_hh[CellMath::kRecurrentGate[of_recurrent] * d.H + j];
          }
        }
        to[plane * padded + j] = sum;
      }
    }
    const Index units = d.H % L;
    Real* const narrow = to + CellMath::kPlanes * padded;
    for (int plane = 0; plane < CellMath::kPlanes; ++plane) {
      for (Index j = 0; j < L; ++j) narrow[plane * units + j] = to[(plane + 1) * padded - L + j];
    }
  }

 private:
  static Panels<Real> panels(LayerDims d, const Real* data, Index depth, Index stride) {
    const Index bytes = block_size(d) * static_cast<Index>(sizeof(Real));
    const bool in_parts = kPartsHelp<P> && bytes > kWholeBytes;
    return {data, depth, stride, in_parts ? depth * P / 2 * L : 0,
            in_parts && bytes * blocks_of<Real>(d.H) > kFarBytes};
  }

  // One block, or one of two, is narrow only if there are many more inputs than units: of the recurrent product, few
  // rows pass both at once.
  ForwardPack(LayerDims d, const Panels<Real>& of_x, const Panels<Real>& of_h, const Real* biases)
      : blocks(blocks_of<Real>(d.H)),
        full_blocks(blocks),
        narrow_units(d.H % L),
        last_vectors(P),
        w_ih(of_x),
        w_hh(of_h),
        bias(biases),
        narrow_bias(biases + blocks * L * CellMath::kPlanes) {
    if (narrow_units > 0 && (blocks > 2 || d.I >= 16 * d.H)) {
      last_vectors = static_cast<int>((P * narrow_units + L - 1) / L);
    }
    if (last_vectors < P) --full_blocks;
  }

  /// Some blocks of one of the two matrices.
  void pack_matrix(Real* to, const Real* w, const int (&gate)[P], Index H, Index depth, Range some) const {
    pack_units_by_depth<Real, P>(to, w, gate, H, depth, intersection(some, {0, full_blocks}), w_ih.part > 0 ? 2 : 1);
    if (some.last <= full_blocks) return;
    pack_narrow_block<Real, P>(to + (some.size() - 1) * depth * P * L, w, gate, H, depth, last_vectors);
  }

  template <int V = P - 1, class Body>
  void for_each_narrow_tile(Index rows, const Body& body) const {
    if constexpr (V > 0) {
      if (last_vectors < V) return for_each_narrow_tile<V - 1>(rows, body);
      for_each_tile<V>(rows, Range{full_blocks, blocks},
                       [&](const TileRange& tile) { body.template operator()<V>(tile); });
    }
  }
};

template <class CellMath, class Real>
struct BackwardPack {
  static constexpr int P = CellMath::kProducts;
  static constexpr int L = kLanes<Real>;
  Panels<Real> w_hh;  // [blocks of H][P * H][lanes]
  Panels<Real> w_ih;  // [blocks of I][P * H][lanes]

  BackwardPack(LayerDims d, const Real* buffer)
      : w_hh{buffer, P * d.H, stride(d)}, w_ih{buffer + blocks_of<Real>(d.H) * stride(d), P * d.H, stride(d)} {}

  static Index size(LayerDims d) { return (blocks_of<Real>(d.H) + blocks_of<Real>(d.I)) * stride(d); }

  static void pack(LayerDims d, const Parameters<Real>& parameters, Real* buffer, Team& team) {
    Real* const w_ih = buffer + blocks_of<Real>(d.H) * stride(d);
    pack_in_parallel(team, size(d), [&](int member, int members) {
      pack_columns_by_gates<Real, P>(buffer, stride(d), parameters.w_hh, CellMath::kRecurrentGate, d.H, d.H,
                                     share(blocks_of<Real>(d.H), member, members));
      pack_columns_by_gates<Real, P>(w_ih, stride(d), parameters.w_ih, CellMath::kInputGate, d.H, d.I,
                                     share(blocks_of<Real>(d.I), member, members));
    });
  }

 private:
  static Index stride(LayerDims d) { return odd_lines<Real>(P * d.H * L); }
};

}  // namespace rnnfast::RNNFAST_ISA
