// SPDX-License-Identifier: MIT
// The parameters of one layer as the kernels want them: packed, kept across calls, packed anew only when stale.
#pragma once

#include <pybind11/numpy.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "arrays.h"
#include "buffer.h"
#include "rnnfast/cpu.h"
#include "rnnfast/recurrent.h"

namespace rnnfast::bindings {

using SharedBuffer = std::shared_ptr<const Buffer>;

/// A packed copy of parameters, written anew only when they or the instruction set have changed. A copy that a call
/// holds is never written to.
class Pack {
 public:
  /// size() gives the elements of the copy, write(to) makes it.
  template <class Real, class Size, class Write>
  SharedBuffer refresh(unsigned version, const Size& size, const Write& write) {
    // Nobody waits for the lock: a process that was forked while another thread had it would wait for ever. Who does
    // not get it makes a copy of its own.
    const std::unique_lock lock(mutex_, std::try_to_lock);
    const Isa isa = active_isa();
    if (lock && buffer_ != nullptr && version_ == version && isa_ == isa) return buffer_;
    const std::size_t bytes = static_cast<std::size_t>(size()) * sizeof(Real);
    const bool is_free = lock && buffer_.use_count() == 1 && buffer_->bytes() == bytes;
    const std::shared_ptr<Buffer> copy = is_free ? buffer_ : std::make_shared<Buffer>(bytes);
    write(copy->template as<Real>());
    if (lock) {
      buffer_ = copy;
      version_ = version;
      isa_ = isa;
    }
    return copy;
  }

 private:
  std::mutex mutex_;
  std::shared_ptr<Buffer> buffer_;
  unsigned version_ = 0;
  Isa isa_ = Isa::baseline;
};

/// Whether something that has versions is used for the first time in its present one.
class Uses {
 public:
  bool is_first(unsigned version) { return last_.exchange(version) != version; }

 private:
  std::atomic<unsigned> last_ = 0;
};

/// ValueError if there is none of that name.
Cell cell_named(const Checker& check, const std::string& name);

class Weights {
 public:
  /// Holds references to the arrays, whose values may change as long as invalidate() is called afterwards.
  Weights(const std::string& cell, py::object w_ih, py::object w_hh, py::object b_ih, py::object b_hh);

  void invalidate() { version_.fetch_add(1); }

  /// Packed weights of the instruction set in use; needs no GIL. The buffer stays as it is for as long as the caller
  /// holds it.
  template <class Real>
  SharedBuffer forward_pack(Team& team);
  template <class Real>
  SharedBuffer backward_pack(Team& team);

  /// The same for a call that can do without: null if the parameters are used for the first time since they changed,
  /// which is as often as they are used in most training.
  template <class Real>
  SharedBuffer forward_pack_if_reused(Team& team) {
    return forward_uses_.is_first(version_) ? nullptr : forward_pack<Real>(team);
  }
  template <class Real>
  SharedBuffer backward_pack_if_reused(Team& team) {
    return backward_uses_.is_first(version_) ? nullptr : backward_pack<Real>(team);
  }
  template <class Real>
  Parameters<Real> parameters() const;

  Cell cell() const { return cell_; }
  LayerDims dims() const { return dims_; }
  bool is_double() const { return is_double_; }
  bool has_bias() const { return !b_ih_.is_none(); }
  /// Multiply-adds of one step of one sequence, forward, or as many as take the time that a step of any size takes.
  double work_of_step() const { return work_of_step_; }

  template <class Real>
  const CellKernels<Real>& kernels() const {
    return rnnfast::kernels<Real>(cell_);
  }

 private:
  template <class Real>
  void check(py::object& w_ih, py::object& w_hh);
  template <class Real>
  SharedBuffer refresh(Pack& pack, Index (*size)(LayerDims),
                       void (*write)(LayerDims, const Parameters<Real>&, Real*, Team&), Team& team);

  Cell cell_;
  LayerDims dims_{};
  bool is_double_ = false;
  double work_of_step_ = 0;
  py::object w_ih_, w_hh_, b_ih_, b_hh_;
  // Addresses, so that packing needs no Python object and hence no GIL.
  const void* pointers_[4] = {};
  std::atomic<unsigned> version_ = 1;
  Pack forward_;
  Pack backward_;
  Uses forward_uses_;
  Uses backward_uses_;
};

template <class Real>
SharedBuffer Weights::refresh(Pack& pack, Index (*size)(LayerDims),
                              void (*write)(LayerDims, const Parameters<Real>&, Real*, Team&), Team& team) {
  return pack.refresh<Real>(
      version_.load(), [&] { return size(dims_); }, [&](Real* to) { write(dims_, parameters<Real>(), to, team); });
}

template <class Real>
Parameters<Real> Weights::parameters() const {
  return {static_cast<const Real*>(pointers_[0]), static_cast<const Real*>(pointers_[1]),
          static_cast<const Real*>(pointers_[2]), static_cast<const Real*>(pointers_[3])};
}

template <class Real>
SharedBuffer Weights::forward_pack(Team& team) {
  const CellKernels<Real>& k = kernels<Real>();
  return refresh<Real>(forward_, k.forward_pack_size, k.pack_forward, team);
}

template <class Real>
SharedBuffer Weights::backward_pack(Team& team) {
  const CellKernels<Real>& k = kernels<Real>();
  return refresh<Real>(backward_, k.backward_pack_size, k.pack_backward, team);
}

/// Calls body<float>() or body<double>(), as the weights are.
template <class AnyWeights, class Body>
auto with_real(const AnyWeights& weights, const Body& body) {
  return weights.is_double() ? body.template operator()<double>() : body.template operator()<float>();
}

}  // namespace rnnfast::bindings
