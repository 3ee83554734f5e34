// SPDX-License-Identifier: MIT
// The only code that asks which CPU this is.
#include <atomic>
#include <cstdint>
#include <cstring>
#include <stdexcept>

#include "isa/isa.h"
#include "rnnfast/activations.h"
#include "rnnfast/cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace rnnfast {
namespace {

#if defined(__x86_64__)

struct Registers {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf = 0) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
  return r;
}

bool bit(unsigned word, int position) { return ((word >> position) & 1U) != 0; }

/// Register files the operating system saves at a context switch. Without this check an AVX instruction on a
/// system that does not save them is an illegal instruction, whatever CPUID says.
unsigned enabled_state() {
  if (!bit(cpuid(1).c, 27)) return 0;  // OSXSAVE
  unsigned low = 0, high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

bool supports(Isa isa) {
  constexpr unsigned kAvxState = 0x06;     // xmm, ymm
  constexpr unsigned kAvx512State = 0xe6;  // and masks, zmm, upper zmm
  const unsigned state = enabled_state();
  const Registers basic = cpuid(1);
  const Registers extended = cpuid(7);
  const bool avx2 = (state & kAvxState) == kAvxState && bit(basic.c, 28) && bit(basic.c, 12) && bit(extended.b, 5);
  if (isa == Isa::baseline) return true;
  if (isa == Isa::avx2) return avx2;
  return avx2 && (state & kAvx512State) == kAvx512State && bit(extended.b, 16) && bit(extended.b, 17) &&
         bit(extended.b, 30) && bit(extended.b, 31);  // F, DQ, BW, VL
}

#else

bool supports(Isa isa) { return isa == Isa::baseline; }

#endif

std::atomic<Isa>& chosen() {
  static std::atomic<Isa> isa = available_isas().back();
  return isa;
}

std::string names(const std::vector<Isa>& isas) {
  std::string text;
  for (const Isa isa : isas) text += (text.empty() ? "" : ", ") + std::string(isa_name(isa));
  return text;
}

template <class Real>
const IsaKernels<Real>& table() {
  switch (active_isa()) {
#if defined(__x86_64__)
    case Isa::avx512: return avx512::kernels<Real>();
    case Isa::avx2: return avx2::kernels<Real>();
#endif
    default: return baseline::kernels<Real>();
  }
}

}  // namespace

const char* isa_name(Isa isa) noexcept {
  switch (isa) {
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    default: return "baseline";
  }
}

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
    if (supports(isa)) isas.push_back(isa);
  }
  return isas;
}

Isa active_isa() noexcept { return chosen().load(std::memory_order_relaxed); }

void set_isa(const std::string& name) {
  const std::vector<Isa> available = available_isas();
  for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
    if (name != isa_name(isa)) continue;
    if (!supports(isa)) {
      throw std::runtime_error("instruction set '" + name +
                               "' is not supported by this CPU; available: " + names(available));
    }
    chosen().store(isa, std::memory_order_relaxed);
    return;
  }
  throw std::invalid_argument("unknown instruction set '" + name + "'; available: " + names(available));
}

std::string cpu_name() {
#if defined(__x86_64__)
  char text[49] = {};
  for (unsigned part = 0; part < 3; ++part) {
    const Registers r = cpuid(0x80000002U + part);
    std::memcpy(text + 16 * part, &r, 16);
  }
  std::string name(text);
  name.erase(0, name.find_first_not_of(' '));
  name.erase(name.find_last_not_of(' ') + 1);
  return name.empty() ? "x86-64" : name;
#elif defined(__aarch64__)
  return "aarch64";
#else
  return "unknown";
#endif
}

template <class Real>
const CellKernels<Real>& kernels(Cell cell) noexcept {
  return table<Real>().cells[static_cast<int>(cell)];
}
template const CellKernels<float>& kernels<float>(Cell) noexcept;
template const CellKernels<double>& kernels<double>(Cell) noexcept;

template <class Real>
const OptionKernels<Real>& option_kernels() noexcept {
  return table<Real>().options;
}
template const OptionKernels<float>& option_kernels<float>() noexcept;
template const OptionKernels<double>& option_kernels<double>() noexcept;

template <class Real>
const DenseKernels<Real>& dense_kernels() noexcept {
  return table<Real>().dense;
}
template const DenseKernels<float>& dense_kernels<float>() noexcept;
template const DenseKernels<double>& dense_kernels<double>() noexcept;

template <class Real>
const TrainingKernels<Real>& training_kernels() noexcept {
  return table<Real>().training;
}
template const TrainingKernels<float>& training_kernels<float>() noexcept;
template const TrainingKernels<double>& training_kernels<double>() noexcept;

template <class Real>
const MachineLoops<Real>& machine_loops() noexcept {
  return table<Real>().machine;
}
template const MachineLoops<float>& machine_loops<float>() noexcept;
template const MachineLoops<double>& machine_loops<double>() noexcept;

template <class Real>
void sigmoid(const Real* x, Real* y, Index count) noexcept {
  table<Real>().sigmoid(x, y, count);
}
template <class Real>
void tanh(const Real* x, Real* y, Index count) noexcept {
  table<Real>().tanh(x, y, count);
}
template void sigmoid<float>(const float*, float*, Index) noexcept;
template void sigmoid<double>(const double*, double*, Index) noexcept;
template void tanh<float>(const float*, float*, Index) noexcept;
template void tanh<double>(const double*, double*, Index) noexcept;

}  // namespace rnnfast
