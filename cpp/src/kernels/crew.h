// SPDX-License-Identifier: MIT
// Threads that compute the same rows.
#pragma once

#include "kernels/product.h"
#include "rnnfast/threads.h"

namespace rnnfast::RNNFAST_ISA {

/// Threads that go through the same rows together: each sums products for some of the outputs, and waits for the others
/// where it needs theirs. What else there is to do for a row the first one does, or, if no output needs another, each
/// for its own outputs.
class Crew {
 public:
  /// One thread for itself.
  Crew() = default;
  /// A member of a crew whose first member does what is not a product.
  Crew(int member, int members, Barrier* barrier) : member_(member), members_(members), barrier_(barrier) {}
  /// A member that does everything for some blocks of outputs, the same ones of all matrices.
  Crew(Range blocks, Barrier* barrier) : barrier_(barrier), divides_(true), blocks_(blocks) {}

  /// Of how many rows this thread computes what is not a product, and of which columns.
  Index own(Index rows) const { return member_ == 0 ? rows : 0; }
  template <class Real>
  Range columns(Index count) const {
    return divides_ ? columns_of<Real>(blocks_, count) : Range{0, count};
  }

  /// out[row] += w in[row] for `count` rows and this thread's outputs. Of `in`, what all have written is there; so is
  /// all of `out` afterwards, unless each computes its own.
  template <class Real>
  void add_products(const Matrix<Real>& w, Index count, RowsIn<Real> in, RowsOut<Real> out) const {
    wait();
    RNNFAST_ISA::add_products(w, divides_ ? blocks_ : w.share_of(member_, members_), count, in, out);
    if (!divides_) wait();
  }

 private:
  void wait() const {
    if (barrier_ != nullptr) barrier_->wait();
  }

  int member_ = 0;
  int members_ = 1;
  Barrier* barrier_ = nullptr;
  bool divides_ = false;
  Range blocks_{};
};

}  // namespace rnnfast::RNNFAST_ISA
