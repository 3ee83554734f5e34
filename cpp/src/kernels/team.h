// SPDX-License-Identifier: MIT
// Work split over a team. Kept in each unit's namespace: the instantiations are compiled for its instruction set.
#pragma once

#include "kernels/tile.h"
#include "rnnfast/threads.h"

namespace rnnfast::RNNFAST_ISA {

/// The part of [0, count) that falls to `member` of `members`: contiguous, all parts nearly equal.
RNNFAST_INLINE Range share(Index count, int member, int members) {
  assert(0 <= member && member < members);
  return {count * member / members, count * (member + 1) / members};
}

/// The first of 0..count-1 for which `holds` is true, as it is for all after it; `count` if there is none.
template <class Predicate>
inline Index first_where(Index count, const Predicate& holds) {
  Index low = 0;
  for (Index high = count; low < high;) {
    const Index middle = (low + high) / 2;
    if (holds(middle)) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

/// Runs body(member) for member < members on the team.
template <class Body>
inline void parallel(Team& team, int members, const Body& body) {
  team.run(
      members, [](void* context, int member) { (*static_cast<const Body*>(context))(member); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

/// What one thread does of every step: some rows of the batch, some blocks of hidden units.
struct Part {
  Range rows;
  Range blocks;
};

/// How a sequence is divided among threads.
///
/// By rows of the batch there is no barrier: a thread runs its rows from the first step to the last. By hidden units
/// there is one barrier a step, since every unit needs all of h[t-1]; but a thread's share of the weights may then
/// stay in its own cache, and a single sequence can use several threads at all.
struct Split {
  static constexpr double kWorthBarrier = 6e4;  // multiply-adds of a step: some 2 us
  static constexpr double kManyWeights = 256 * 1024;  // bytes for each row of a thread, which it would read every step

  int threads;
  bool by_units;

  template <class Real>
  static Split choose(const Dims& d, int products, int available) {
    const double all = multiply_adds(d, products, {0, d.T});
    const double step = all / static_cast<double>(d.T);
    const double rows_worth = d.N == 1 ? 2 : 1;  // a row alone waits for its weights as long as two take
    if (available == 1 || rows_worth * all < kWorthWaking) return {1, false};
    const Index blocks = blocks_of<Real>(d.H);
    const double bytes = weights(d, products) * sizeof(Real);
    // Each weight is then read by one thread alone. The units of a single step need not even wait for each other.
    const bool share_units =
        d.N < kRowsPerThread * available || bytes * available > kManyWeights * static_cast<double>(d.N) || d.T == 1;
    if (share_units && step >= kWorthBarrier && blocks >= 2 * available) return {available, true};
    return {static_cast<int>(least<Index>(d.N, available)), false};
  }

  static double weights(const Dims& d, int products) {
    return static_cast<double>(products) * static_cast<double>(d.H) * static_cast<double>(d.I + d.H);
  }

  /// Of some steps of all sequences.
  static double multiply_adds(const Dims& d, int products, StepRange steps) {
    return static_cast<double>(d.row(steps.last) - d.row(steps.first)) * weights(d, products);
  }

  /// The same if the threads that have to wait for each other in these steps are there, else one thread.
  Split confirmed(Team& team, const Dims& d, int products, StepRange steps) const {
    return by_units && !team.assemble(threads, multiply_adds(d, products, steps)) ? Split{1, false} : *this;
  }

  /// A member's part of some steps.
  Part part(const Dims& d, StepRange steps, Index blocks, int member) const {
    if (by_units) return {{0, d.N}, share(blocks, member, threads)};
    return {{first_row(d, steps, member), first_row(d, steps, member + 1)}, {0, blocks}};
  }

  /// The steps from `first` on in which members keep their rows: where sequences end on the way, the members' parts are
  /// cut anew every few steps, so that all of them have something to do.
  StepRange stretch(const Dims& d, Index first, Index last) const {
    if (d.slots == nullptr || threads == 1 || by_units) return {first, last};
    return {first, least(last, first + most<Index>(1, d.T / kStretches))};
  }

 private:
  /// Where the rows of a member begin. All members get nearly the same number of steps: of sequences of different
  /// lengths, which come longest first, the first member takes the fewest.
  Index first_row(const Dims& d, StepRange range, int member) const {
    if (d.slots == nullptr || member == 0 || member == threads) return d.N * member / threads;
    const Index wanted = (d.row(range.last) - d.row(range.first)) * member / threads;
    return first_where(d.N, [&](Index row) {
      Index steps = 0;
      for (Index t = range.first; t < range.last; ++t) steps += least(d.rows(t), row);
      return steps >= wanted;
    });
  }

  static constexpr Index kStretches = 16;
};

}  // namespace rnnfast::RNNFAST_ISA
