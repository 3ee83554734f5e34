// SPDX-License-Identifier: MIT
#include "rnnfast/machine.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "isa/isa.h"
#include "rnnfast/threads.h"

namespace rnnfast {
namespace {

constexpr double kMeasureSeconds = 0.001;  // long against waking a thread, short against what disturbs a machine
constexpr int kRepeats = 15;               // of which the fastest counts: disturbances only ever slow down
constexpr std::size_t kHugePage = std::size_t{1} << 21;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Runs body(member) on every member of the team.
template <class Body>
void on_all(Team& team, Body& body) {
  team.run(team.size(), [](void* context, int member) { (*static_cast<Body*>(context))(member); }, &body);
}

/// Highest rate of run(times), which does `times` times the work of one, over several measurements.
template <class Run>
double best_rate(double work, const Run& run) {
  Index times = 1;
  double best = 0;
  for (int repeat = 0; repeat < kRepeats;) {
    const double start = now();
    run(times);
    const double seconds = now() - start;
    if (seconds < kMeasureSeconds) {
      times *= 2;
    } else {
      best = std::max(best, work * static_cast<double>(times) / seconds);
      ++repeat;
    }
  }
  return best;
}

struct Free {
  void operator()(float* p) const { ::operator delete(p, std::align_val_t{kHugePage}); }
};

/// Zeros on pages as large as the system gives.
std::unique_ptr<float, Free> pages(std::size_t bytes) {
  std::unique_ptr<float, Free> memory(static_cast<float*>(::operator new(bytes, std::align_val_t{kHugePage})));
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  madvise(memory.get(), bytes, MADV_HUGEPAGE);
#endif
  std::memset(memory.get(), 0, bytes);
  return memory;
}

}  // namespace

template <class Real>
double fma_peak(int threads) {
  const MachineLoops<Real>& loops = machine_loops<Real>();
  Team team(threads);
  volatile Real factor = Real(0.5);
  const double flops = static_cast<double>(loops.round_flops) * team.size();
  return best_rate(flops, [&](Index rounds) {
    auto body = [&](int) {
      volatile Real result = loops.multiply_adds(rounds, factor);
      static_cast<void>(result);
    };
    on_all(team, body);
  });
}
template double fma_peak<float>(int);
template double fma_peak<double>(int);

double read_bandwidth(Index bytes, int threads) {
  const MachineLoops<float>& loops = machine_loops<float>();
  Team team(threads);
  const Index share = std::max(bytes / team.size() / static_cast<Index>(sizeof(float)), Index{1});
  const Index count = (share + loops.read_step - 1) / loops.read_step * loops.read_step;
  const Index all_bytes = count * team.size() * static_cast<Index>(sizeof(float));
  const std::unique_ptr<float, Free> memory = pages(static_cast<std::size_t>(all_bytes));
  return best_rate(static_cast<double>(all_bytes), [&](Index passes) {
    auto body = [&](int member) {
      for (Index pass = 0; pass < passes; ++pass) {
        volatile float result = loops.read_all(memory.get() + member * count, count);
        static_cast<void>(result);
      }
    };
    on_all(team, body);
  });
}

}  // namespace rnnfast
