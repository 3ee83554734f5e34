// SPDX-License-Identifier: MIT
// Micro-benchmarks of the kernels and of the parts they are made of, on the shapes of bench/shapes.csv, named
// <cell>_<job>/<instruction set>/<type>/<shape>. A result is first compared with the baseline instruction set's, and a
// wrong one is not timed. Without --benchmark_filter: the quick shapes, in float, with the best instruction set.
#include <benchmark/benchmark.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <map>

#include "jobs.h"
#include "rnnfast/machine.h"
#include "rnnfast/threads.h"
#include "shapes.h"

namespace rnnfast::bench {
namespace {

template <class Real>
constexpr const char* kTypeName = sizeof(Real) == 4 ? "f32" : "f64";
// Norm-relative; two summation orders of the same sums, through a recurrence.
template <class Real>
constexpr double kAgreement = sizeof(Real) == 4 ? 2e-5 : 1e-11;

template <class Real>
bool agree(const std::vector<double>& got, const std::vector<double>& want) {
  double error = 0, norm = 0;
  for (std::size_t m = 0; m < want.size(); ++m) {
    error += (got[m] - want[m]) * (got[m] - want[m]);
    norm += want[m] * want[m];
  }
  // Written so that a NaN fails.
  return got.size() == want.size() && norm > 0 && std::sqrt(error / norm) <= kAgreement<Real>;
}

/// Operations per second of the instruction set in use; measured once.
template <class Real>
double peak(int threads) {
  static std::map<std::pair<Isa, int>, double> measured;
  double& value = measured[{active_isa(), threads}];
  if (value == 0) value = fma_peak<Real>(threads);
  return value;
}

template <class Real, class Job>
std::vector<double> answer(const char* isa, const Setup& setup) {
  set_isa(isa);
  Job job(setup);
  job.reset();
  job.run();
  return job.result();
}

template <class Real, class Job>
void time_job(benchmark::State& state, const char* isa, const Setup& setup) {
  if (!agree<Real>(answer<Real, Job>(isa, setup), answer<Real, Job>("baseline", setup))) {
    state.SkipWithError("not timed: the result differs from the baseline's");
    return;
  }
  set_isa(isa);
  Job job(setup);
  for ([[maybe_unused]] auto _ : state) {
    if constexpr (Job::kCostsReset) {
      job.reset();
      const auto start = std::chrono::steady_clock::now();
      job.run();
      state.SetIterationTime(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    } else {
      job.run();
    }
    benchmark::ClobberMemory();
  }
  state.counters["bytes/s"] = benchmark::Counter(job.bytes(), benchmark::Counter::kIsIterationInvariantRate);
  if (job.flops() > 0) {
    const auto rate = benchmark::Counter::kIsIterationInvariantRate;
    state.counters["GFLOP/s"] = benchmark::Counter(job.flops() / 1e9, rate);
    state.counters["share_of_peak"] = benchmark::Counter(job.flops() / peak<Real>(setup.threads), rate);
  }
}

template <class Real, class Job>
void add(const std::string& job, const char* cell, const char* isa, const Shape& shape, const Setup& setup) {
  std::string name = std::string(cell) + "_" + job + "/" + isa + "/" + kTypeName<Real> + "/" + shape.name;
  if (setup.threads > 1) name += "/threads:" + std::to_string(setup.threads);
  auto* benchmark = benchmark::RegisterBenchmark(name.c_str(), [isa, setup](benchmark::State& state) {
    time_job<Real, Job>(state, isa, setup);
  });
  // The thread's own time where there is one thread: it does not count what else the machine does.
  if (Job::kCostsReset) {
    benchmark->UseManualTime();
  } else if (setup.threads > 1) {
    benchmark->UseRealTime();
  }
}

template <class Real>
void add_jobs(const char* cell, const char* isa, const Shape& shape, const Setup& setup) {
  add<Real, Tile<Real>>("tile", cell, isa, shape, setup);
  add<Real, Epilogue<Real>>("epilogue", cell, isa, shape, setup);
  add<Real, Derivative<Real>>("derivative", cell, isa, shape, setup);
  add<Real, WeightGradient<Real>>("weight_grad", cell, isa, shape, setup);
  add<Real, Pack<Forward<Real, true>>>("pack_forward", cell, isa, shape, setup);
  add<Real, Pack<Backward<Real>>>("pack_backward", cell, isa, shape, setup);
  for (const int threads : {1, num_threads()}) {
    const Setup with_threads{setup.cell, setup.dims, threads};
    add<Real, Forward<Real, false>>("forward", cell, isa, shape, with_threads);
    add<Real, Forward<Real, true>>("forward_training", cell, isa, shape, with_threads);
    add<Real, Backward<Real>>("backward", cell, isa, shape, with_threads);
    if (num_threads() == 1) break;
  }
}

void add_all(const std::vector<Shape>& shapes) {
  const std::pair<const char*, Cell> cells[] = {{"rnn", Cell::rnn_tanh}, {"lstm", Cell::lstm}, {"gru", Cell::gru}};
  for (const Isa isa : available_isas()) {
    for (const Shape& shape : shapes) {
      for (const auto& [name, cell] : cells) {
        if (shape.cells.find(name) == std::string::npos) continue;
        add_jobs<float>(name, isa_name(isa), shape, {cell, shape.dims, 1});
        add_jobs<double>(name, isa_name(isa), shape, {cell, shape.dims, 1});
      }
    }
  }
}

void nothing(void*, int) {}

/// Handing out work to a team that is awake.
void time_run(benchmark::State& state) {
  Team team(num_threads());
  for ([[maybe_unused]] auto _ : state) team.run(team.size(), nothing, nullptr);
}

/// The same from the beginning of a call to its end.
void time_call(benchmark::State& state) {
  for ([[maybe_unused]] auto _ : state) {
    Team team(num_threads());
    team.run(team.size(), nothing, nullptr);
  }
}

/// Barriers in one parallel region: the time of one.
void time_barrier(benchmark::State& state) {
  constexpr int kBarriers = 1000;
  Team team(num_threads());
  Barrier barrier(team.size());
  for ([[maybe_unused]] auto _ : state) {
    team.run(
        team.size(),
        [](void* context, int) {
          for (int round = 0; round < kBarriers; ++round) static_cast<Barrier*>(context)->wait();
        },
        &barrier);
  }
  state.SetItemsProcessed(state.iterations() * kBarriers);
}

void add_threads() {
  const std::string suffix = "/threads:" + std::to_string(num_threads());
  benchmark::RegisterBenchmark(("team_run" + suffix).c_str(), time_run)->UseRealTime();
  benchmark::RegisterBenchmark(("team_call" + suffix).c_str(), time_call)->UseRealTime();
  benchmark::RegisterBenchmark(("barrier" + suffix).c_str(), time_barrier)->UseRealTime();
}

void describe_machine() {
  char text[64];
  benchmark::AddCustomContext("cpu", cpu_name());
  benchmark::AddCustomContext("compiler", RNNFAST_COMPILER);
  benchmark::AddCustomContext("threads", std::to_string(num_threads()));
  for (const Isa isa : available_isas()) {
    set_isa(isa_name(isa));
    std::snprintf(text, sizeof text, "f32 %.1f, f64 %.1f", peak<float>(1) / 1e9, peak<double>(1) / 1e9);
    benchmark::AddCustomContext(std::string("peak GFLOP/s of one thread, ") + isa_name(isa), text);
  }
  for (const Index kib : {Index{16}, Index{256}, Index{8192}, Index{131072}}) {
    std::snprintf(text, sizeof text, "%.1f", read_bandwidth(kib * 1024, 1) / 1e9);
    benchmark::AddCustomContext("GB/s of one thread, from " + std::to_string(kib) + " KiB", text);
  }
}

/// All quick shapes, in float, with the best instruction set, on one thread; the team and the barrier.
std::string default_filter(const std::vector<Shape>& shapes) {
  std::string names;
  for (const Shape& shape : shapes) {
    if (shape.quick) names += (names.empty() ? "" : "|") + shape.name;
  }
  return "--benchmark_filter=/" + std::string(isa_name(available_isas().back())) + "/f32/(" + names +
         ")(/manual_time)?$|^team|^barrier";
}

int run(int argc, char** argv) {
  const std::vector<Shape> shapes = read_shapes(RNNFAST_SHAPES);
  bool filtered = false;
  for (int j = 1; j < argc; ++j) filtered |= std::strncmp(argv[j], "--benchmark_filter", 18) == 0;
  std::string filter = default_filter(shapes);
  std::vector<char*> arguments(argv, argv + argc);
  if (!filtered) arguments.insert(arguments.begin() + 1, filter.data());
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;
  describe_machine();
  add_all(shapes);
  add_threads();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace rnnfast::bench

int main(int argc, char** argv) {
  try {
    return rnnfast::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rnnfast_bench: %s\n", error.what());
    return 1;
  }
}
