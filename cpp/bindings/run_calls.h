// SPDX-License-Identifier: MIT
// When the parts of one or several calls run, and on which threads.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "gil.h"
#include "recurrent_call.h"

namespace rnnfast::bindings {

/// Runs a call on all threads, with a look at signals now and then.
template <class Real>
void run_alone(ForwardCall<Real>& call, Team& team, WithoutGil& unlocked) {
  if (call.is_empty()) return;
  call.prepare(team, team.size());
  const Index T = call.dims().T;
  const Index segment = call.segment();
  for (Index t = 0; t < T; t += segment) {
    if (t > 0) unlocked.let_python_interrupt();
    call.run({t, std::min(T, t + segment)}, team);
  }
}

template <class Real>
void run_alone(BackwardCall<Real>& call, Team& team, WithoutGil& unlocked) {
  if (call.is_empty()) return;
  call.prepare(team, team.size());
  for (Index last = call.dims().T; last > 0;) {
    if (last < call.dims().T) unlocked.let_python_interrupt();
    const Index first = call.cut(last);
    call.run({first, last}, team);
    last = first;
  }
}

template <class Call>
void run_on_all_threads(Call& call) {
  if (call.is_empty()) return;
  WithoutGil unlocked(call.work());
  Team team(num_threads());
  run_alone(call, team, unlocked);
}

/// Ranges of steps, in the order in which a call takes them, for a wavefront: as many as keep every layer busy.
template <class Real>
std::vector<StepRange> pieces(const ForwardCall<Real>& call) {
  constexpr Index kPieces = 16;
  const Index T = call.dims().T;
  std::vector<StepRange> ranges;
  for (Index piece = 0; piece < kPieces; ++piece) {
    const StepRange range{T * piece / kPieces, T * (piece + 1) / kPieces};
    if (range.last > range.first) ranges.push_back(range);
  }
  return ranges;
}

template <class Real>
std::vector<StepRange> pieces(const BackwardCall<Real>& call) {
  std::vector<StepRange> ranges;
  for (Index last = call.dims().T; last > 0;) {
    const Index first = call.next_cut(last);
    ranges.push_back({first, last});
    last = first;
  }
  return ranges;
}

/// Whether calls that could each use several threads are better off with one each: few sequences make small steps,
/// and threads that share one would wait for each other.
template <class Call>
bool one_thread_each(const std::vector<std::unique_ptr<Call>>& calls, int threads) {
  if (threads == 1 || calls.size() < 2) return false;
  for (const std::unique_ptr<Call>& call : calls) {
    const Dims& d = call->dims();
    const double rows = static_cast<double>(d.row(d.T));
    if (d.N >= kRowsPerThread * threads) return false;
    if (rows * static_cast<double>(d.H) * static_cast<double>(d.I + d.H) < kWorthWaking) return false;
  }
  return true;
}

/// Runs calls that do not depend on each other side by side, or, `chained`, each behind the one before: a call takes a
/// piece of its steps when the one before has gone through it.
template <class Call>
void run_all(std::vector<std::unique_ptr<Call>>& calls, bool chained) {
  WithoutGil unlocked;
  Team team(num_threads());
  if (!one_thread_each(calls, team.size())) {
    for (std::unique_ptr<Call>& call : calls) run_alone(*call, team, unlocked);
    return;
  }
  std::vector<std::vector<StepRange>> ranges;
  std::size_t longest = 0;
  for (std::unique_ptr<Call>& call : calls) {
    call->prepare(team, 1);
    ranges.push_back(pieces(*call));
    longest = std::max(longest, ranges.back().size());
  }
  struct Wave {
    std::vector<std::unique_ptr<Call>>& calls;
    const std::vector<std::vector<StepRange>>& ranges;
    std::size_t number;
    bool chained;
  };
  const std::size_t waves = longest + (chained ? calls.size() - 1 : 0);
  for (std::size_t number = 0; number < waves; ++number) {
    if (number > 0) unlocked.let_python_interrupt();
    Wave wave{calls, ranges, number, chained};
    team.run(
        static_cast<int>(calls.size()),
        [](void* context, int member) {
          const Wave& w = *static_cast<Wave*>(context);
          const std::size_t k = static_cast<std::size_t>(member);
          const std::size_t behind = w.chained ? k : 0;
          if (w.number < behind || w.number - behind >= w.ranges[k].size()) return;
          Team alone(1);
          w.calls[k]->run(w.ranges[k][w.number - behind], alone);
        },
        &wave);
  }
}

}  // namespace rnnfast::bindings
