// SPDX-License-Identifier: MIT
// Threads lent to one call.
//
// An own small pool: OpenMP runtimes clash inside one Python process and hang after fork. Threads start at the
// first call that can use them, wake when a call has parallel work, spin until that call ends and some 100 us longer,
// never touch Python, and start anew in a forked child. When two calls want the pool at once, the second one runs on
// its own thread alone: results do not depend on the number of threads.
#pragma once

#include <atomic>

namespace rnnfast {

inline constexpr int kMaxThreads = 256;

/// Number of threads a call may use, 1..kMaxThreads.
int num_threads() noexcept;
void set_num_threads(int count) noexcept;

/// Ends the pool's threads unless a call is running; the next call starts them again. For before a fork.
void stop_threads() noexcept;

inline constexpr double kWorthWaking = 8e5;  // multiply-adds of a call, some 15 us: waking threads costs a third of it
inline constexpr int kRowsPerThread = 3;  // sequences, enough for a tile to be bound by arithmetic

/// Members of the pool for the lifetime of the object; the constructing thread is member 0.
class Team {
 public:
  /// Takes up to `wanted` threads. Fewer, down to one, if they cannot be had.
  explicit Team(int wanted) noexcept;
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const noexcept { return size_; }

  /// Runs body(context, member) for every member < members, on whichever threads of the team are awake, and returns
  /// when all are done. `body` must not throw. Members run in any order and not necessarily at the same time.
  void run(int members, void (*body)(void*, int), void* context) noexcept;

  /// Whether as many threads are awake as `members` that wait for each other in run() need. Waits for them for some
  /// tens of microseconds, and longer the more multiply-adds there are: up to a tenth of the time that one thread would
  /// take for them. They stay awake as long as the team lives.
  bool assemble(int members, double multiply_adds) noexcept;

 private:
  int size_ = 1;
  bool holds_pool_ = false;
};

/// Where members of a team wait for each other: all writes before wait() are seen by all after it.
class Barrier {
 public:
  explicit Barrier(int members) noexcept : members_(members) {}
  void wait() noexcept;

 private:
  const int members_;
  alignas(128) std::atomic<int> arrived_ = 0;
  alignas(128) std::atomic<unsigned> round_ = 0;
};

}  // namespace rnnfast
