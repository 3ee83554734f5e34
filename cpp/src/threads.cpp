// SPDX-License-Identifier: MIT
#include "rnnfast/threads.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

namespace rnnfast {
namespace {

constexpr int kSpins = 1000;  // some tens of microseconds
constexpr double kMultiplyAddsASpin = 5000;  // that one thread makes in ten times as long
constexpr double kMostPatience = 5e5;         // some 10 ms

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/// The core that the calling thread runs on, -1 if the system does not say.
int current_core() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

/// Moves the calling thread away from a core. A system that believes the other cores to be busy, as it does for some
/// tens of milliseconds after they were, wakes a thread on the core of the one that called it, where the two take
/// turns.
void leave_core(int core) {
#if defined(__linux__)
  if (core < 0 || core != sched_getcpu()) return;
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < 2) return;
  cpu_set_t others = allowed;
  CPU_CLR(static_cast<unsigned>(core), &others);
  if (sched_setaffinity(0, sizeof others, &others) == 0) sched_setaffinity(0, sizeof allowed, &allowed);
#else
  (void)core;
#endif
}

/// Spins until done() holds; gives the core away after some tens of microseconds, for machines with more threads
/// than cores.
template <class Done>
void spin_until(const Done& done) {
  for (int spins = 0; !done(); ++spins) {
    if (spins < kSpins) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
}

/// A job is cut into members, and every thread that is awake takes the next one that nobody has taken. The calling
/// thread is always awake, so a worker that the system is slow to wake delays nothing: its part is taken by another.
class Pool {
 public:
  /// One call at a time holds the pool.
  bool try_hold() { return held_.try_lock(); }

  /// Starts those of `wanted` - 1 workers that do not exist. Returns how many threads there are, the caller included.
  int enlist(int wanted) {
    while (static_cast<int>(workers_.size()) < wanted - 1) {
      try {
        workers_.emplace_back([this] { work(); });
      } catch (const std::system_error&) {
        break;  // the system gives no more threads: go on with those there are
      } catch (const std::bad_alloc&) {
        break;
      }
    }
    const int threads = static_cast<int>(workers_.size()) + 1;
    return threads < wanted ? threads : wanted;
  }

  void release() {
    if (awake_.load(std::memory_order_relaxed)) set_awake(false);
    held_.unlock();
  }

  bool assemble(int members, double multiply_adds) {
    wake();
    const double patience = kSpins + std::min(multiply_adds / kMultiplyAddsASpin, kMostPatience);
    for (int spins = 0; spins < patience; ++spins) {
      if (present_.load(std::memory_order_acquire) >= members - 1) return true;
      // A worker that woke on this core waits for it; once it runs it goes elsewhere.
      if (spins % kSpins == kSpins / 4) std::this_thread::yield();
      pause();
    }
    return false;
  }

  void run(int members, void (*body)(void*, int), void* context) {
    wake();
    body_ = body;
    context_ = context;
    members_ = members;
    done_.store(0, std::memory_order_relaxed);
    const std::uint64_t job = (ticket_.load(std::memory_order_relaxed) >> kMemberBits) + 1;
    ticket_.store(job << kMemberBits, std::memory_order_release);
    take_members(job, [this] { give_way(); });
    spin_until([&] { return done_.load(std::memory_order_acquire) == members; });
    ticket_.store((job << kMemberBits) | kMemberMask, std::memory_order_relaxed);  // nothing left to take
  }

  /// Ends all workers. The caller holds the pool.
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
    stopping_ = false;
  }

  void unlock() { held_.unlock(); }

 private:
  static constexpr int kLinger = 4 * kSpins;
  static constexpr int kPatience = 16;
  static constexpr int kMemberBits = 16;
  static constexpr std::uint64_t kMemberMask = (1U << kMemberBits) - 1;

  void wake() {
    if (!awake_.load(std::memory_order_relaxed)) set_awake(true);
  }

  void set_awake(bool awake) {
    {
      const std::lock_guard lock(mutex_);
      if (awake) core_of_caller_ = current_core();
      awake_.store(awake, std::memory_order_relaxed);
    }
    if (awake) changed_.notify_all();
  }

  bool stays_awake() const {
    for (int spins = 0; spins < kLinger; ++spins) {
      if (awake_.load(std::memory_order_relaxed)) return true;
      pause();
    }
    return false;
  }

  /// Lets a worker run that has woken on the caller's core and waits there for its end; once it runs it goes elsewhere.
  /// While none comes, not at every call: on a busy machine another program may take the turn.
  void give_way() {
    if (present_.load(std::memory_order_relaxed) > 0) {
      patience_ = 0;
      return;
    }
    if (patience_ > 0) {
      --patience_;
      return;
    }
    patience_ = kPatience;
    std::this_thread::yield();
  }

  /// Runs members of `job` until all are taken, and `between` after each. What a job consists of may be read once one
  /// of its members is taken: the job then cannot end before that member is done.
  template <class Between>
  void take_members(std::uint64_t job, const Between& between) {
    std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while (ticket >> kMemberBits == job) {
      const int member = static_cast<int>(ticket & kMemberMask);
      if (member >= members_.load(std::memory_order_relaxed)) return;
      if (ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
        body_(context_, member);
        done_.fetch_add(1, std::memory_order_release);
        between();
        ticket = ticket_.load(std::memory_order_acquire);
      }
    }
  }

  /// A worker spins during a call and for a moment after it, since another one often follows, and sleeps then.
  void work() {
    while (true) {
      int core_of_caller = -1;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return awake_.load(std::memory_order_relaxed) || stopping_; });
        if (stopping_) return;
        core_of_caller = core_of_caller_;
      }
      leave_core(core_of_caller);
      present_.fetch_add(1, std::memory_order_release);
      std::uint64_t last = 0;
      while (stays_awake()) {
        std::uint64_t job = last;
        spin_until([&] {
          job = ticket_.load(std::memory_order_acquire) >> kMemberBits;
          return job != last || !awake_.load(std::memory_order_relaxed);
        });
        take_members(job, [] {});
        last = job;
      }
      present_.fetch_sub(1, std::memory_order_relaxed);
    }
  }

  std::mutex held_;
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  int core_of_caller_ = -1;
  int patience_ = 0;
  alignas(128) std::atomic<bool> awake_ = false;
  std::atomic<int> present_ = 0;
  void (*body_)(void*, int) = nullptr;
  void* context_ = nullptr;
  std::atomic<int> members_ = 0;
  alignas(128) std::atomic<std::uint64_t> ticket_ = kMemberMask;  // number of the job, next member
  alignas(128) std::atomic<int> done_ = 0;
};

std::atomic<Pool*> the_pool = nullptr;

/// Never destroyed: joining threads while a process or a library is being torn down hangs on some systems.
Pool& pool() {
  Pool* existing = the_pool.load(std::memory_order_acquire);
  if (existing != nullptr) return *existing;
  Pool* fresh = new Pool;
  if (the_pool.compare_exchange_strong(existing, fresh)) {
#if defined(__unix__) || defined(__APPLE__)
    // Threads do not survive a fork: the child starts with a new pool and leaves the old one's memory alone.
    static std::once_flag registered;
    std::call_once(registered, [] {
      pthread_atfork(nullptr, nullptr, [] { the_pool.store(nullptr, std::memory_order_release); });
    });
#endif
    return *fresh;
  }
  delete fresh;
  return *existing;
}

/// Cores this process may run on.
int usable_cores() {
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
#endif
  return static_cast<int>(std::thread::hardware_concurrency());
}

std::atomic<int>& thread_setting() {
  static std::atomic<int> count = [] {
    const int cores = usable_cores();
    return cores < 1 ? 1 : (cores > kMaxThreads ? kMaxThreads : cores);
  }();
  return count;
}

}  // namespace

int num_threads() noexcept { return thread_setting().load(std::memory_order_relaxed); }

void set_num_threads(int count) noexcept { thread_setting().store(count, std::memory_order_relaxed); }

void stop_threads() noexcept {
  Pool* existing = the_pool.load(std::memory_order_acquire);
  if (existing == nullptr || !existing->try_hold()) return;
  existing->stop();
  existing->unlock();
}

Team::Team(int wanted) noexcept {
  if (wanted <= 1 || !pool().try_hold()) return;
  holds_pool_ = true;
  size_ = pool().enlist(wanted > kMaxThreads ? kMaxThreads : wanted);
}

Team::~Team() {
  if (holds_pool_) pool().release();
}

void Team::run(int members, void (*body)(void*, int), void* context) noexcept {
  if (members > 1 && size_ > 1) {
    pool().run(members, body, context);
  } else {
    for (int member = 0; member < members; ++member) body(context, member);
  }
}

bool Team::assemble(int members, double multiply_adds) noexcept {
  return members <= 1 || (members <= size_ && pool().assemble(members, multiply_adds));
}

void Barrier::wait() noexcept {
  if (members_ == 1) return;
  const unsigned round = round_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == members_) {
    arrived_.store(0, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_release);
  } else {
    spin_until([&] { return round_.load(std::memory_order_acquire) != round; });
  }
}

}  // namespace rnnfast
