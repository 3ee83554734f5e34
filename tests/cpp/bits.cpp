// SPDX-License-Identifier: MIT
// Prints a number made of the bits of what the kernels compute, on every instruction set with a fused multiply-add:
// those of another machine must be the same. `rnnfast_bits [threads]`.
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <new>

#include "rnnfast/cpu.h"
#include "rnnfast/recurrent.h"

namespace rnnfast {
namespace {

/// Numbers of the same bits everywhere: standard libraries do not agree on their distributions.
class Random {
 public:
  /// Between -1 and 1.
  double next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<double>(state_ >> 11) * 0x1p-52 - 1;
  }

 private:
  std::uint64_t state_ = 88172645463325252;
};

template <class Real>
class Array {
 public:
  explicit Array(Index count) : count_(count), memory_(new (kAlignment) Real[static_cast<std::size_t>(count)]()) {}
  Array(Index count, Random& random, double scale) : Array(count) {
    for (Index j = 0; j < count; ++j) memory_[j] = static_cast<Real>(random.next() * scale);
  }

  Real* data() const { return memory_.get(); }
  Index size() const { return count_; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(Real* p) const { ::operator delete[](p, kAlignment); }
  };
  Index count_;
  std::unique_ptr<Real[], Free> memory_;
};

/// FNV-1a over the bytes of arrays.
template <class Real>
std::uint64_t hash_of(std::initializer_list<const Array<Real>*> arrays) {
  std::uint64_t hash = 14695981039346656037U;
  for (const Array<Real>* array : arrays) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(array->data());
    for (std::size_t j = 0; j < static_cast<std::size_t>(array->size()) * sizeof(Real); ++j) {
      hash = (hash ^ bytes[j]) * 1099511628211U;
    }
  }
  return hash;
}

/// Forward and backward of one layer in training.
template <class Real>
void print_bits(Cell cell, const Dims& d, int threads) {
  const CellKernels<Real>& k = kernels<Real>(cell);
  const LayerDims layer{d.I, d.H};
  const Index gates = k.gates_per_unit * d.H;
  const Index rows = d.row(d.T);
  Random random;
  const Array<Real> w_ih(gates * d.I, random, 0.3);
  const Array<Real> w_hh(gates * d.H, random, 0.3);
  const Array<Real> b_ih(gates, random, 0.3);
  const Array<Real> b_hh(gates, random, 0.3);
  const Array<Real> x(rows * d.I, random, 2);
  const Array<Real> dy(rows * d.H, random, 1);
  const Array<Real> h((d.N + rows) * d.H, random, 0.5);
  const Array<Real> c((d.N + rows) * d.H, random, 0.5);
  const Array<Real> dh(d.N * d.H, random, 1);
  const Array<Real> dc(d.N * d.H, random, 1);
  const Array<Real> kept(rows * k.planes_per_unit * d.H);
  const Array<Real> dx(rows * d.I);
  const Array<Real> dw_ih(w_ih.size());
  const Array<Real> dw_hh(w_hh.size());
  const Array<Real> db_ih(gates);
  const Array<Real> db_hh(gates);

  Team team(threads);
  const Parameters<Real> parameters{w_ih.data(), w_hh.data(), b_ih.data(), b_hh.data()};
  const Array<Real> forward_pack(k.forward_pack_size(layer));
  const Array<Real> backward_pack(k.backward_pack_size(layer));
  k.pack_forward(layer, parameters, forward_pack.data(), team);
  k.pack_backward(layer, parameters, backward_pack.data(), team);
  const Array<Real> forward_work(k.forward_work_size(d, true, team.size()));
  const Array<Real> backward_work(k.backward_work_size(d, team.size()));

  const ForwardArgs<Real> forward{.x = x.data(),
                                  .packed = forward_runs_unpacked(d) ? nullptr : forward_pack.data(),
                                  .raw = &parameters,
                                  .h = h.data(),
                                  .c = c.data(),
                                  .gates = kept.data(),
                                  .work = forward_work.data()};
  k.forward(d, forward, true, {0, d.T}, team);
  const BackwardArgs<Real> backward{.x = x.data(),
                                    .packed = backward_runs_unpacked(d) ? nullptr : backward_pack.data(),
                                    .raw = &parameters,
                                    .h = h.data(),
                                    .c = c.data(),
                                    .gates = kept.data(),
                                    .dy = dy.data(),
                                    .dcells = nullptr,
                                    .dh = dh.data(),
                                    .dc = dc.data(),
                                    .dx = dx.data(),
                                    .dw_ih = dw_ih.data(),
                                    .dw_hh = dw_hh.data(),
                                    .db_ih = db_ih.data(),
                                    .db_hh = db_hh.data(),
                                    .overwrite = true,
                                    .work = backward_work.data()};
  k.backward(d, backward, {0, d.T}, team);

  std::printf("float%d cell %d T=%td N=%td I=%td H=%td: %016" PRIx64 " %016" PRIx64 " %016" PRIx64 "\n",
              static_cast<int>(8 * sizeof(Real)), static_cast<int>(cell), d.T, d.N, d.I, d.H, hash_of({&h, &c}),
              hash_of({&dx, &dh, &dc}), hash_of({&dw_ih, &dw_hh, &db_ih, &db_hh}));
}

void print_all_bits(int threads) {
  const Dims shapes[] = {{1, 1, 3, 5},   {1, 13, 20, 37},  {1, 40, 17, 33}, {7, 1, 4, 64},    {9, 3, 70, 47},
                         {5, 6, 16, 16}, {20, 33, 17, 95}, {2, 600, 5, 9},  {40, 16, 30, 100}};
  for (int cell = 0; cell < kCells; ++cell) {
    for (const Dims& d : shapes) {
      print_bits<float>(static_cast<Cell>(cell), d, threads);
      print_bits<double>(static_cast<Cell>(cell), d, threads);
    }
  }
}

/// Whether the instruction set rounds a product and a sum once.
bool fuses([[maybe_unused]] Isa isa) {
#if defined(__aarch64__)
  return true;
#else
  return isa != Isa::baseline;
#endif
}

}  // namespace
}  // namespace rnnfast

int main(int count, char** arguments) {
  const int threads = count > 1 ? std::atoi(arguments[1]) : 1;
  for (const rnnfast::Isa isa : rnnfast::available_isas()) {
    if (!rnnfast::fuses(isa)) continue;
    rnnfast::set_isa(rnnfast::isa_name(isa));
    std::printf("%s\n", rnnfast::isa_name(isa));
    rnnfast::print_all_bits(threads);
  }
}
