// SPDX-License-Identifier: MIT
// What is timed. A job is made for the instruction set in use, on numbers that are always the same.
//
//   kCostsReset   whether reset() has work to do, and so must not be part of what is timed
//   reset()       puts back what run() overwrites
//   run()         what is timed
//   result()      what run() computed, in a layout that all instruction sets share
//   flops(), bytes()   of one run: operations, and what is read and written at least
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <vector>

#include "parts.h"
#include "rnnfast/recurrent.h"

namespace rnnfast::bench {

struct Setup {
  Cell cell;
  Dims dims;
  int threads;
};

/// Numbers at a place in memory that differs from array to array by some cache lines, so that luck with alignment does
/// not flatter a kernel.
template <class Real>
class Array {
 public:
  /// Zeros.
  explicit Array(Index count);
  /// Normal numbers times `scale`, repeatable.
  Array(Index count, unsigned seed, double scale);

  Real* data() { return memory_.get() + offset_; }
  const Real* data() const { return memory_.get() + offset_; }
  Index size() const { return count_; }
  double bytes() const { return static_cast<double>(count_) * sizeof(Real); }
  void append_to(std::vector<double>& numbers) const { numbers.insert(numbers.end(), data(), data() + count_); }

 private:
  struct Free {
    void operator()(Real* p) const { ::operator delete(p, std::align_val_t{kPage}); }
  };
  static constexpr std::size_t kPage = 4096;
  Index count_;
  Index offset_;
  std::unique_ptr<Real, Free> memory_;
};

/// Parameters, inputs and states of a layer, and forward over the whole sequence.
template <class Real, bool training>
class Forward {
 public:
  static constexpr bool kCostsReset = false;
  explicit Forward(const Setup& setup);
  void reset() {}
  void run();
  std::vector<double> result() const;
  double flops() const;
  double bytes() const;

  void pack();
  double pack_bytes() const { return parameter_bytes() + packed_.bytes(); }

 protected:
  template <class>
  friend class Backward;
  double parameter_bytes() const;

  Setup setup_;
  const CellKernels<Real>& kernels_;
  Index G_;
  Array<Real> w_ih_, w_hh_, b_ih_, b_hh_, x_, packed_, h_, c_, gates_, work_;
};

/// Backpropagation through time with dx, on the tape of a forward.
template <class Real>
class Backward {
 public:
  static constexpr bool kCostsReset = true;
  explicit Backward(const Setup& setup);
  void reset();
  void run();
  std::vector<double> result() const;
  double flops() const { return 2 * forward_.flops(); }
  double bytes() const;

  void pack();
  double pack_bytes() const { return forward_.parameter_bytes() + packed_.bytes(); }

 private:
  Forward<Real, true> forward_;
  Array<Real> packed_, dy_, dh_, dc_, dx_, dw_ih_, dw_hh_, db_ih_, db_hh_, work_;
};

/// The packing that comes before a Forward or Backward.
template <class Job>
class Pack {
 public:
  static constexpr bool kCostsReset = false;
  explicit Pack(const Setup& setup) : job_(setup) {}
  void reset() {}
  void run() { job_.pack(); }
  std::vector<double> result() const;
  double flops() const { return 0; }
  double bytes() const { return job_.pack_bytes(); }

 private:
  mutable Job job_;
};

/// The recurrent product of one step: tiles alone.
template <class Real>
class Tile {
 public:
  static constexpr bool kCostsReset = false;
  explicit Tile(const Setup& setup);
  void reset() {}
  void run() { parts_.multiply(d_, packed_.data(), h_.data(), out_.data()); }
  std::vector<double> result() const;
  double flops() const;
  double bytes() const;

 private:
  Dims d_;
  const Parts<Real>& parts_;
  Array<Real> packed_, h_, out_;
};

/// The cell of one step, from its pre-activations.
template <class Real>
class Epilogue {
 public:
  static constexpr bool kCostsReset = false;
  explicit Epilogue(const Setup& setup);
  void reset() {}
  void run() { parts_.step(count_, a_.data(), h_prev_.data(), c_.data(), h_.data()); }
  std::vector<double> result() const;
  double flops() const { return 0; }
  double bytes() const { return a_.bytes() + h_prev_.bytes() + 2 * c_.bytes() + h_.bytes(); }

 private:
  const Parts<Real>& parts_;
  Index count_;
  Array<Real> a_, h_prev_, c_, h_;
};

/// The derivative of the cell of one step.
template <class Real>
class Derivative {
 public:
  static constexpr bool kCostsReset = false;
  explicit Derivative(const Setup& setup);
  void reset() {}
  void run();
  std::vector<double> result() const;
  double flops() const { return 0; }
  double bytes() const { return gates_.bytes() + da_.bytes() + 7 * dh_.bytes(); }

 private:
  const Parts<Real>& parts_;
  Index count_;
  Array<Real> gates_, dh_, h_prev_, h_, c_prev_, c_, da_, carry_;
};

/// dw_ih, dw_hh and db over all steps, on one thread.
template <class Real>
class WeightGradient {
 public:
  static constexpr bool kCostsReset = false;
  explicit WeightGradient(const Setup& setup);
  void reset() {}
  void run();
  std::vector<double> result() const;
  double flops() const;
  double bytes() const;

 private:
  Dims d_;
  const Parts<Real>& parts_;
  Array<Real> x_, h_, da_, dw_ih_, dw_hh_, db_ih_, db_hh_, work_;
};

}  // namespace rnnfast::bench
