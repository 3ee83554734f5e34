// SPDX-License-Identifier: MIT
// Work split over a team, for lambdas. Kept in each unit's namespace: the instantiations are compiled for its
// instruction set.
#pragma once

#include "rnnfast/threads.h"
#include "simd/vec.h"

namespace rnnfast::RNNFAST_ISA {

struct Range {
  Index first;
  Index last;
};

/// The part of [0, count) that falls to `member` of `members`: contiguous, all parts nearly equal.
RNNFAST_INLINE Range share(Index count, int member, int members) {
  return {count * member / members, count * (member + 1) / members};
}

/// Rows of the batch are what threads divide, for the whole sequence and without a barrier, as long as there is
/// enough to do: waking threads costs some ten microseconds.
inline int thread_count(const Dims& d, int available) {
  constexpr double kWorthWaking = 1e6;  // multiply-adds
  const double work = static_cast<double>(d.T) * static_cast<double>(d.N) * static_cast<double>(d.H) *
                      static_cast<double>(d.I + d.H);
  if (work < kWorthWaking) return 1;
  return d.N < available ? static_cast<int>(d.N) : available;
}

/// Runs body(member) on the first `members` of the team.
template <class Body>
inline void parallel(Team& team, int members, const Body& body) {
  team.run(
      members, [](void* context, int member) { (*static_cast<const Body*>(context))(member); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace rnnfast::RNNFAST_ISA
