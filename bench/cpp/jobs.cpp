// SPDX-License-Identifier: MIT
#include "jobs.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "isa/isa.h"
#include "rnnfast/threads.h"

namespace rnnfast {

// What isa/*.cpp here export.
namespace baseline {
template <class Real>
const bench::Parts<Real>& bench_parts(Cell cell);
}
namespace avx2 {
template <class Real>
const bench::Parts<Real>& bench_parts(Cell cell);
}
namespace avx512 {
template <class Real>
const bench::Parts<Real>& bench_parts(Cell cell);
}

namespace bench {
namespace {

constexpr Index kCacheLine = 64;
constexpr unsigned kSeed = 20240229;

Index rows(const Dims& d) { return d.T * d.N; }
double product(Index a, Index b, Index c) {
  return 2.0 * static_cast<double>(a) * static_cast<double>(b) * static_cast<double>(c);
}
double weight_scale(Index H) { return 0.5 / std::sqrt(static_cast<double>(H)); }

}  // namespace

template <class Real>
const Parts<Real>& parts(Cell cell) {
#if defined(__x86_64__)
  if (active_isa() == Isa::avx512) return avx512::bench_parts<Real>(cell);
  if (active_isa() == Isa::avx2) return avx2::bench_parts<Real>(cell);
#endif
  return baseline::bench_parts<Real>(cell);
}

template <class Real>
Array<Real>::Array(Index count) : count_(count), offset_(count % 7 * kCacheLine / static_cast<Index>(sizeof(Real))) {
  const std::size_t bytes = static_cast<std::size_t>(count + offset_) * sizeof(Real);
  memory_.reset(static_cast<Real*>(::operator new(bytes, std::align_val_t{kPage})));
  std::fill_n(data(), count, Real(0));
}

template <class Real>
Array<Real>::Array(Index count, unsigned seed, double scale) : Array(count) {
  std::mt19937 generator(kSeed + seed);
  std::normal_distribution<double> normal(0, scale);
  for (Index m = 0; m < count; ++m) data()[m] = static_cast<Real>(normal(generator));
}

template <class Real, bool training>
Forward<Real, training>::Forward(const Setup& setup)
    : setup_(setup),
      kernels_(kernels<Real>(setup.cell)),
      G_(kernels_.gates_per_unit),
      w_ih_(G_ * setup.dims.H * setup.dims.I, 1, weight_scale(setup.dims.H)),
      w_hh_(G_ * setup.dims.H * setup.dims.H, 2, weight_scale(setup.dims.H)),
      b_ih_(G_ * setup.dims.H, 3, 0.3),
      b_hh_(G_ * setup.dims.H, 4, 0.3),
      x_(rows(setup.dims) * setup.dims.I, 5, 1),
      packed_(kernels_.forward_pack_size({setup.dims.I, setup.dims.H})),
      h_((rows(setup.dims) + setup.dims.N) * setup.dims.H, 6, 0.5),
      c_((training ? rows(setup.dims) + setup.dims.N : setup.dims.N) * setup.dims.H, 7, 0.5),
      gates_(training ? rows(setup.dims) * kernels_.planes_per_unit * setup.dims.H : 0),
      work_(kernels_.forward_work_size(setup.dims, training, setup.threads)) {
  pack();
}

template <class Real, bool training>
void Forward<Real, training>::pack() {
  Team team(setup_.threads);
  kernels_.pack_forward({setup_.dims.I, setup_.dims.H}, {w_ih_.data(), w_hh_.data(), b_ih_.data(), b_hh_.data()},
                        packed_.data(), team);
}

template <class Real, bool training>
void Forward<Real, training>::run() {
  Team team(setup_.threads);
  kernels_.forward(setup_.dims,
                   {.x = x_.data(),
                    .packed = packed_.data(),
                    .raw = nullptr,
                    .h = h_.data(),
                    .c = kernels_.has_cell_state ? c_.data() : nullptr,
                    .gates = gates_.size() > 0 ? gates_.data() : nullptr,
                    .work = work_.data()},
                   training, {0, setup_.dims.T}, team);
}

template <class Real, bool training>
std::vector<double> Forward<Real, training>::result() const {
  std::vector<double> numbers;
  h_.append_to(numbers);
  gates_.append_to(numbers);
  return numbers;
}

template <class Real, bool training>
double Forward<Real, training>::flops() const {
  return product(rows(setup_.dims), G_ * setup_.dims.H, setup_.dims.I + setup_.dims.H);
}

template <class Real, bool training>
double Forward<Real, training>::bytes() const {
  return w_ih_.bytes() + static_cast<double>(setup_.dims.T) * w_hh_.bytes() + x_.bytes() + h_.bytes() + gates_.bytes() +
         (training && kernels_.has_cell_state ? c_.bytes() : 0);
}

template <class Real, bool training>
double Forward<Real, training>::parameter_bytes() const {
  return w_ih_.bytes() + w_hh_.bytes() + b_ih_.bytes() + b_hh_.bytes();
}

template <class Real>
Backward<Real>::Backward(const Setup& setup)
    : forward_(setup),
      packed_(forward_.kernels_.backward_pack_size({setup.dims.I, setup.dims.H})),
      dy_(rows(setup.dims) * setup.dims.H, 8, 1),
      dh_(setup.dims.N * setup.dims.H),
      dc_(setup.dims.N * setup.dims.H),
      dx_(forward_.x_.size()),
      dw_ih_(forward_.w_ih_.size()),
      dw_hh_(forward_.w_hh_.size()),
      db_ih_(forward_.b_ih_.size()),
      db_hh_(forward_.b_hh_.size()),
      work_(forward_.kernels_.backward_work_size(setup.dims, setup.threads)) {
  forward_.run();
  pack();
}

template <class Real>
void Backward<Real>::pack() {
  Team team(forward_.setup_.threads);
  forward_.kernels_.pack_backward({forward_.setup_.dims.I, forward_.setup_.dims.H},
                                  {forward_.w_ih_.data(), forward_.w_hh_.data(), forward_.b_ih_.data(),
                                   forward_.b_hh_.data()},
                                  packed_.data(), team);
}

template <class Real>
void Backward<Real>::reset() {
  for (Array<Real>* array : {&dh_, &dc_, &dw_ih_, &dw_hh_, &db_ih_, &db_hh_}) {
    std::fill_n(array->data(), array->size(), Real(0));
  }
}

template <class Real>
void Backward<Real>::run() {
  const CellKernels<Real>& kernels = forward_.kernels_;
  Team team(forward_.setup_.threads);
  kernels.backward(forward_.setup_.dims,
                   {.x = forward_.x_.data(),
                    .packed = packed_.data(),
                    .raw = nullptr,
                    .h = forward_.h_.data(),
                    .c = kernels.has_cell_state ? forward_.c_.data() : nullptr,
                    .gates = forward_.gates_.data(),
                    .dy = dy_.data(),
                    .dcells = nullptr,
                    .dh = dh_.data(),
                    .dc = kernels.has_cell_state ? dc_.data() : nullptr,
                    .dx = dx_.data(),
                    .dw_ih = dw_ih_.data(),
                    .dw_hh = dw_hh_.data(),
                    .db_ih = db_ih_.data(),
                    .db_hh = db_hh_.data(),
                    .overwrite = true,
                    .work = work_.data()},
                   {0, forward_.setup_.dims.T}, team);
}

template <class Real>
std::vector<double> Backward<Real>::result() const {
  std::vector<double> numbers;
  for (const Array<Real>* array : {&dx_, &dh_, &dw_ih_, &dw_hh_, &db_ih_, &db_hh_}) array->append_to(numbers);
  return numbers;
}

template <class Real>
double Backward<Real>::bytes() const {
  return forward_.bytes() + dy_.bytes() + dx_.bytes() + dw_ih_.bytes() + dw_hh_.bytes();
}

template <class Job>
std::vector<double> Pack<Job>::result() const {
  job_.reset();
  job_.run();
  return job_.result();
}

template <class Real>
Tile<Real>::Tile(const Setup& setup)
    : d_(setup.dims),
      parts_(parts<Real>(setup.cell)),
      packed_(kernels<Real>(setup.cell).forward_pack_size({d_.I, d_.H})),
      h_(d_.N * d_.H, 1, 0.5),
      out_(d_.N * parts_.products * d_.H) {
  const Array<Real> w_ih(parts_.products * d_.H * d_.I, 2, 1);
  const Array<Real> w_hh(parts_.products * d_.H * d_.H, 3, weight_scale(d_.H));
  Team alone(1);
  kernels<Real>(setup.cell)
      .pack_forward({d_.I, d_.H}, {w_ih.data(), w_hh.data(), nullptr, nullptr}, packed_.data(), alone);
}

template <class Real>
std::vector<double> Tile<Real>::result() const {
  std::vector<double> numbers;
  out_.append_to(numbers);
  return numbers;
}

template <class Real>
double Tile<Real>::flops() const {
  return product(d_.N, parts_.products * d_.H, d_.H);
}

template <class Real>
double Tile<Real>::bytes() const {
  return static_cast<double>(parts_.products * d_.H * d_.H) * sizeof(Real) + h_.bytes() + out_.bytes();
}

template <class Real>
Epilogue<Real>::Epilogue(const Setup& setup)
    : parts_(parts<Real>(setup.cell)),
      count_(setup.dims.N * setup.dims.H),
      a_(parts_.planes * count_, 1, 1),
      h_prev_(count_, 2, 0.5),
      c_(count_, 3, 0.5),
      h_(count_) {}

template <class Real>
std::vector<double> Epilogue<Real>::result() const {
  std::vector<double> numbers;
  h_.append_to(numbers);
  c_.append_to(numbers);
  return numbers;
}

template <class Real>
Derivative<Real>::Derivative(const Setup& setup)
    : parts_(parts<Real>(setup.cell)),
      count_(setup.dims.N * setup.dims.H),
      gates_(parts_.planes * count_, 1, 0.3),
      dh_(count_, 2, 1),
      h_prev_(count_, 3, 0.3),
      h_(count_, 4, 0.3),
      c_prev_(count_, 5, 0.5),
      c_(count_, 6, 0.5),
      da_(gates_.size()),
      carry_(count_) {}

template <class Real>
void Derivative<Real>::run() {
  parts_.derivative(count_, gates_.data(), dh_.data(), h_prev_.data(), h_.data(), c_prev_.data(), c_.data(), da_.data(),
                    carry_.data());
}

template <class Real>
std::vector<double> Derivative<Real>::result() const {
  std::vector<double> numbers;
  da_.append_to(numbers);
  carry_.append_to(numbers);
  return numbers;
}

template <class Real>
WeightGradient<Real>::WeightGradient(const Setup& setup)
    : d_(setup.dims),
      parts_(parts<Real>(setup.cell)),
      x_(rows(d_) * d_.I, 1, 1),
      h_(rows(d_) * d_.H, 2, 0.5),
      da_(rows(d_) * parts_.planes * d_.H, 3, 0.1),
      dw_ih_(parts_.products * d_.H * d_.I),
      dw_hh_(parts_.products * d_.H * d_.H),
      db_ih_(parts_.products * d_.H),
      db_hh_(parts_.products * d_.H),
      work_(parts_.weight_grad_work(d_)) {}

template <class Real>
void WeightGradient<Real>::run() {
  BackwardArgs<Real> args{};
  args.x = x_.data();
  args.h = h_.data();
  args.dw_ih = dw_ih_.data();
  args.dw_hh = dw_hh_.data();
  args.db_ih = db_ih_.data();
  args.db_hh = db_hh_.data();
  args.work = work_.data();
  parts_.weight_grad(d_, da_.data(), args);
}

template <class Real>
std::vector<double> WeightGradient<Real>::result() const {
  std::vector<double> numbers;
  for (const Array<Real>* array : {&dw_ih_, &dw_hh_, &db_ih_, &db_hh_}) array->append_to(numbers);
  return numbers;
}

template <class Real>
double WeightGradient<Real>::flops() const {
  return product(rows(d_), parts_.products * d_.H, d_.I + d_.H);
}

template <class Real>
double WeightGradient<Real>::bytes() const {
  return x_.bytes() + h_.bytes() + da_.bytes() + 2 * (dw_ih_.bytes() + dw_hh_.bytes());
}

#define RNNFAST_JOBS(REAL)                  \
  template class Forward<REAL, false>;      \
  template class Forward<REAL, true>;       \
  template class Backward<REAL>;            \
  template class Pack<Forward<REAL, true>>; \
  template class Pack<Backward<REAL>>;      \
  template class Tile<REAL>;                \
  template class Epilogue<REAL>;            \
  template class Derivative<REAL>;          \
  template class WeightGradient<REAL>;
RNNFAST_JOBS(float)
RNNFAST_JOBS(double)

}  // namespace bench
}  // namespace rnnfast
