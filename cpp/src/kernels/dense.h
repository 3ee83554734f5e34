// SPDX-License-Identifier: MIT
// The fully connected layer, forward and backward.
#pragma once

#include <limits>

#include "kernels/product.h"
#include "rnnfast/dense.h"
#include "simd/functions.h"

namespace rnnfast::RNNFAST_ISA {

template <class Real>
class Dense {
 public:
  static Index forward_work_size(const DenseDims& d) { return Matrix<Real>::size(d.outputs, d.inputs, nullptr); }

  static void forward(const DenseDims& d, const Activation* f, const DenseForwardArgs<Real>& args, Team& team) {
    const int members = members_of(d, team);
    parallel(team, members, [&](int member) {
      const Range mine = columns_of<Real>(share(blocks_of<Real>(d.outputs), member, members), d.outputs);
      pack_rows(args.work + mine.first * d.inputs, args.w + mine.first * d.inputs, mine.size(), d.inputs, nullptr);
    });
    const Matrix<Real> w{args.work, d.outputs, d.inputs, nullptr};
    for_parts(team, members, d.rows, d.outputs, [&](Range rows, Range blocks) {
      const Range columns = columns_of<Real>(blocks, d.outputs);
      for (Index row = rows.first; row < rows.last; ++row) {
        Real* y = args.y + row * d.outputs + columns.first;
        if (args.b == nullptr) {
          clear(y, columns.size());
        } else {
          copy_row(y, args.b + columns.first, columns.size());
        }
      }
      multiply(w, blocks, rows, args.x, args.y);
      if (f != nullptr) activate(*f, args.y + columns.first, rows, columns.size(), d.outputs);
    });
  }

  static Index backward_work_size(const DenseDims& d, int threads) {
    return Matrix<Real>::size(d.inputs, d.outputs, nullptr) + threads * sums_size(d) + padded(d.rows * d.outputs);
  }

  static void backward(const DenseDims& d, const Activation* f, const DenseBackwardArgs<Real>& args, Team& team) {
    const int members = members_of(d, team);
    Real* const packed = args.work;
    Real* const sums = packed + Matrix<Real>::size(d.inputs, d.outputs, nullptr);
    Real* const kept = sums + members * sums_size(d);
    const Real* const da = f == nullptr ? args.dy : kept;
    if (f != nullptr) {
      parallel(team, members, [&](int member) { slopes(*f, args, kept, share(d.rows * d.outputs, member, members)); });
    }
    if (args.dx != nullptr) {
      parallel(team, members, [&](int member) {
        pack_lanes(packed, d.outputs * L, args.w, d.outputs, d.inputs,
                   share(blocks_of<Real>(d.inputs), member, members));
      });
      const Matrix<Real> w{packed, d.inputs, d.outputs, nullptr};
      for_parts(team, members, d.rows, d.inputs, [&](Range rows, Range blocks) {
        const Range columns = columns_of<Real>(blocks, d.inputs);
        for (Index row = rows.first; row < rows.last; ++row) {
          clear(args.dx + row * d.inputs + columns.first, columns.size());
        }
        multiply(w, blocks, rows, da, args.dx);
      });
    }
    parallel(team, members, [&](int member) {
      const Range outputs = share(d.outputs, member, members);
      const Range blocks{0, blocks_of<Real>(d.inputs)};
      // The longer side is divided, so that less is packed twice.
      const OuterShare mine = d.outputs > d.inputs ? OuterShare{outputs, blocks}
                                                   : OuterShare{{0, d.outputs}, share(blocks.last, member, members)};
      const auto x_row = [&](Index row) { return args.x + row * d.inputs; };
      add_outer_products(args.dw, d.inputs, d.rows, RowsIn<Real>{da, d.outputs}, x_row, nullptr, mine,
                         sums + member * sums_size(d));
      if (args.db != nullptr) {
        const auto ones = [](Index) -> const Real* { return nullptr; };
        add_sums(args.db, d.rows, [&](Index row) { return da + row * d.outputs; }, ones, outputs);
      }
    });
  }

 private:
  static constexpr int L = kLanes<Real>;

  static int members_of(const DenseDims& d, const Team& team) {
    const double all = static_cast<double>(d.rows) * static_cast<double>(d.inputs) * static_cast<double>(d.outputs);
    return all < kWorthWaking ? 1 : team.size();
  }

  static Index padded(Index count) { return blocks_of<Real>(count) * L; }
  static Index sums_size(const DenseDims& d) { return outer_work_size<Real>(d.inputs); }

  /// The member's parts of a product: of the rows if these are many, else of the outputs; so many rows at a time that
  /// they stay in cache while the blocks of outputs pass.
  template <class Body>
  static void for_parts(Team& team, int members, Index rows, Index outputs, const Body& body) {
    const Range blocks{0, blocks_of<Real>(outputs)};
    const bool by_rows = rows >= members * kMaxRows<1> || blocks.last < members;
    parallel(team, members, [&](int member) {
      const Range mine = by_rows ? share(rows, member, members) : Range{0, rows};
      const Range some = by_rows ? blocks : share(blocks.last, member, members);
      for (Index first = mine.first; first < mine.last && some.size() > 0; first += kPieceRows) {
        body(intersection(mine, {first, first + kPieceRows}), some);
      }
    });
  }

  /// out[row] += w in[row] for some rows and blocks of outputs.
  static void multiply(const Matrix<Real>& w, Range blocks, Range rows, const Real* in, Real* out) {
    add_products(w, blocks, rows.size(), RowsIn<Real>{in + rows.first * w.inputs, w.inputs},
                 RowsOut<Real>{out + rows.first * w.outputs, w.outputs});
  }

  static void activate(const Activation& f, Real* y, Range rows, Index width, Index stride) {
    const ActivationOf<Real> function(f, std::numeric_limits<double>::infinity());
    for (Index row = rows.first; row < rows.last; ++row) {
      for (Index j = 0; j < width; j += L) {
        Real* at = y + row * stride + j;
        store_lanes(at, function(load_lanes(at, width - j)), width - j);
      }
    }
  }

  /// da = dy f'(y).
  static void slopes(const Activation& f, const DenseBackwardArgs<Real>& args, Real* da, Range some) {
    const ActivationOf<Real> function(f, std::numeric_limits<double>::infinity());
    for (Index m = some.first; m < some.last; m += L) {
      const Index width = lanes_left<Real>(m, some.last);
      store_lanes(da + m, load_lanes(args.dy + m, width) * function.slope(load_lanes(args.y + m, width)), width);
    }
  }
};

template <class Real>
constexpr DenseKernels<Real> dense_kernels() {
  return {.forward_work_size = Dense<Real>::forward_work_size,
          .forward = Dense<Real>::forward,
          .backward_work_size = Dense<Real>::backward_work_size,
          .backward = Dense<Real>::backward};
}

}  // namespace rnnfast::RNNFAST_ISA
