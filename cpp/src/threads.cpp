// SPDX-License-Identifier: MIT
#include "rnnfast/threads.h"

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

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/// Spins until done() holds; gives the core away after some tens of microseconds, for machines with more threads
/// than cores.
template <class Done>
void spin_until(const Done& done) {
  for (int spins = 0; !done(); ++spins) {
    if (spins < 1000) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
}

class Pool {
 public:
  /// One call at a time holds the pool.
  bool try_hold() { return held_.try_lock(); }

  /// Starts those of workers 1..wanted-1 that do not exist. Returns how many members there are.
  int enlist(int wanted) {
    while (static_cast<int>(workers_.size()) < wanted - 1) {
      const int member = static_cast<int>(workers_.size()) + 1;
      const std::uint64_t seen = job_.load();
      try {
        workers_.emplace_back([this, member, seen] { work(member, seen); });
      } catch (const std::system_error&) {
        break;  // the system gives no more threads: go on with those there are
      } catch (const std::bad_alloc&) {
        break;
      }
    }
    const int members = static_cast<int>(workers_.size()) + 1;
    return members < wanted ? members : wanted;
  }

  void release() {
    if (awake_.load(std::memory_order_relaxed)) set_awake(false);
    held_.unlock();
  }

  void run(int members, void (*body)(void*, int), void* context) {
    if (!awake_.load(std::memory_order_relaxed)) set_awake(true);
    body_ = body;
    context_ = context;
    remaining_.store(members - 1, std::memory_order_relaxed);
    job_.store(((job_.load(std::memory_order_relaxed) >> kMemberBits) + 1) << kMemberBits |
                   static_cast<std::uint64_t>(members),
               std::memory_order_release);
    body(context, 0);
    spin_until([this] { return remaining_.load(std::memory_order_acquire) == 0; });
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
  static constexpr int kMemberBits = 16;

  void set_awake(bool awake) {
    {
      const std::lock_guard lock(mutex_);
      awake_.store(awake, std::memory_order_relaxed);
    }
    if (awake) changed_.notify_all();
  }

  /// A worker sleeps between calls and spins during one. `seen` is the last job it knows of; a job names its
  /// number of members, so a worker that is not among them never touches it.
  void work(int member, std::uint64_t seen) {
    while (true) {
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return awake_.load(std::memory_order_relaxed) || stopping_; });
        if (stopping_) return;
      }
      while (true) {
        std::uint64_t job = seen;
        spin_until([&] {
          job = job_.load(std::memory_order_acquire);
          return job != seen || !awake_.load(std::memory_order_relaxed);
        });
        if (job == seen) break;
        seen = job;
        if (member < static_cast<int>(job & ((1U << kMemberBits) - 1))) {
          body_(context_, member);
          remaining_.fetch_sub(1, std::memory_order_release);
        }
      }
    }
  }

  std::mutex held_;
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  alignas(128) std::atomic<bool> awake_ = false;
  alignas(128) std::atomic<std::uint64_t> job_ = 0;
  void (*body_)(void*, int) = nullptr;
  void* context_ = nullptr;
  alignas(128) std::atomic<int> remaining_ = 0;
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
  if (members <= 1) {
    body(context, 0);
  } else {
    pool().run(members < size_ ? members : size_, body, context);
  }
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
