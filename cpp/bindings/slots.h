// SPDX-License-Identifier: MIT
// Sizes of one call of the kernels, from the arrays that Python hands over.
#pragma once

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <type_traits>
#include <vector>

#include "arrays.h"
#include "rnnfast/rows.h"

namespace rnnfast::bindings {

/// T, N, I and H of a call, with the first row of every slot if the sequences differ in length.
class CallDims {
 public:
  /// Without `slots` x is (T, N, I). With them, (T+2,) whole numbers, x is (R, I) and N is slots[1]; with `places`,
  /// (R,) whole numbers, too, its rows are among those of an x (S, I).
  template <class Real>
  CallDims(const Checker& check, LayerDims layer, std::type_identity<Real> /*of x*/, const py::object& x_in,
           const py::object& slots_in, const py::object& places_in = py::none()) {
    if (slots_in.is_none()) {
      x = check.ranked<Real>("x", x_in, 3, "(T, N, I)");
      compare_inputs(check, layer);
      if (x.shape(0) >= (Index{1} << 48)) check.value_error("x has too many steps");
      if (!places_in.is_none()) check.value_error("places are given without slots; expected both or none");
      dims = {x.shape(0), x.shape(1), layer.I, layer.H};
    } else {
      x = check.ranked<Real>("x", x_in, 2, "(R, I)");
      compare_inputs(check, layer);
      read(check, slots_in);
      dims = {static_cast<Index>(slots_.size()) - 2, slots_[1], layer.I, layer.H, slots_.data()};
      if (places_in.is_none()) {
        compare_rows(check);
      } else {
        read_places(check, places_in);
      }
    }
  }
  /// Of the steps alone.
  CallDims(const Checker& check, Index steps, Index batch, const py::object& slots_in) {
    dims = {steps, batch, 0, 0};
    if (!slots_in.is_none()) {
      read(check, slots_in);
      dims = {static_cast<Index>(slots_.size()) - 2, slots_[1], 0, 0, slots_.data()};
    }
    if (dims.T < 1 || dims.N < 1) check.value_error("there is no step; expected T and N of at least 1");
  }
  CallDims(const CallDims&) = delete;
  CallDims& operator=(const CallDims&) = delete;

  bool ragged() const { return dims.slots != nullptr; }
  /// Where N comes from, for messages.
  const char* origin() const { return ragged() ? "N from slots, H from w_hh" : "N from x, H from w_hh"; }

  /// Shape of an array given per step, like x: (T, N, ...), (R, ...) with slots, (S, ...) with places.
  std::vector<Index> given_shape(std::initializer_list<Index> rest) const {
    return has_places_ ? joined({x.shape(0)}, rest) : step_shape(rest);
  }
  /// Shape of an array kept per step: (T, N, ...), or (R, ...) with slots.
  std::vector<Index> step_shape(std::initializer_list<Index> rest) const {
    return ragged() ? joined({dims.row(dims.T)}, rest) : joined({dims.T, dims.N}, rest);
  }
  /// Shape of states in their slots: (T+1, N, ...), or (N+R, ...) with slots.
  std::vector<Index> slot_shape(std::initializer_list<Index> rest) const {
    return ragged() ? joined({dims.slot(dims.T + 1)}, rest) : joined({dims.T + 1, dims.N}, rest);
  }

  /// Clears those rows of `width` numbers, S of them, that are nobody's place.
  template <class Real>
  void clear_unused(Real* rows, Index width, Team& team) const {
    if (!has_places_) return;
    const std::size_t bytes = static_cast<std::size_t>(width) * sizeof(Real);
    clear_rows({reinterpret_cast<std::byte*>(rows), static_cast<Index>(bytes)}, is_used_.data(), x.shape(0), bytes,
               team);
  }

  py::array x = no_array();
  Dims dims{};

 private:
  static std::vector<Index> joined(std::initializer_list<Index> first, std::initializer_list<Index> rest) {
    std::vector<Index> shape(first);
    shape.insert(shape.end(), rest);
    return shape;
  }

  static std::vector<Index> copied(const py::array& numbers) {
    const std::int64_t* values = static_cast<const std::int64_t*>(numbers.data());
    return {values, values + numbers.shape(0)};
  }

  void read(const Checker& check, const py::object& slots_in) {
    slots_ = copied(check.whole_numbers("slots", slots_in, -1, "dense; expected (T+2,) whole numbers"));
    if (slots_.size() < 2) check.value_error("slots has fewer than two numbers; expected (T+2,) whole numbers");
    Index rows = slots_[1];
    bool fits = slots_[0] == 0 && rows >= 0;
    for (std::size_t slot = 1; fits && slot + 1 < slots_.size(); ++slot) {
      // No sum here can overflow: both numbers are at least 0 once the first is known to be.
      const Index next = slots_[slot + 1] < slots_[slot] ? Index{-1} : slots_[slot + 1] - slots_[slot];
      fits = next >= 0 && next <= rows;
      rows = next;
    }
    if (!fits) check.value_error("slots does not begin with 0 or its steps grow; expected sequences longest first");
  }

  void read_places(const Checker& check, const py::object& places_in) {
    const Index rows = dims.row(dims.T);
    places_ = copied(
        check.whole_numbers("places", places_in, rows,
                            "dense or not as long as slots say; expected (R,) = (" + std::to_string(rows) + ",)"));
    is_used_.assign(static_cast<std::size_t>(x.shape(0)), 0);
    for (const Index place : places_) {
      if (place < 0 || place >= x.shape(0) || is_used_[static_cast<std::size_t>(place)] != 0) {
        check.value_error("places has " + std::to_string(place) + " twice or out of range; expected 0.." +
                          std::to_string(x.shape(0) - 1) + ", from x");
      }
      is_used_[static_cast<std::size_t>(place)] = 1;
    }
    dims.places = places_.data();
    has_places_ = true;
  }

  void compare_inputs(const Checker& check, LayerDims layer) const {
    const Index inputs = x.shape(x.ndim() - 1);
    if (inputs != layer.I) {
      check.value_error("x has " + std::to_string(inputs) +
                        " inputs in its last axis; expected I = " + std::to_string(layer.I) + " from w_ih");
    }
  }

  void compare_rows(const Checker& check) const {
    const Index total = slots_.back() - slots_[1];
    if (total != x.shape(0)) {
      check.value_error("x has " + std::to_string(x.shape(0)) + " rows; expected R = " + std::to_string(total) +
                        " from slots");
    }
  }

  std::vector<Index> slots_;
  std::vector<Index> places_;
  bool has_places_ = false;  // maybe none
  std::vector<unsigned char> is_used_;  // by row of x: not 0 if it is a place
};

/// States of `width` numbers in their slots, with a copy of `first` (N, width), or zeros for None, in slot 0.
template <class Real>
py::array in_slots(const CallDims& call, const py::object& first, Index width) {
  py::array states = new_array<Real>(call.slot_shape({width}));
  copy_or_clear(data<Real>(states), data_or_null<Real>(first), call.dims.N * width);
  return states;
}

/// Steps that may run before Python gets a chance to raise KeyboardInterrupt, some tens of milliseconds, where each
/// multiplies a matrix of `rows` and `columns` with N vectors.
inline Index steps_between_signals(Index N, Index rows, Index columns) {
  constexpr double kMultiplyAdds = 1e9;
  const double step =
      static_cast<double>(std::max(N, Index{1})) * static_cast<double>(rows) * static_cast<double>(columns);
  return static_cast<Index>(std::clamp(kMultiplyAdds / step, 1.0, 1e9));
}

}  // namespace rnnfast::bindings
