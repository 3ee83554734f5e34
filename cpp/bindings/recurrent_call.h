// SPDX-License-Identifier: MIT
// Calls of plain recurrent layers: arguments checked, results allocated, and the kernels run on some of the steps.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "rnnfast/chunks.h"
#include "slots.h"
#include "weights.h"

namespace rnnfast::bindings {

/// One forward call: what it takes is checked and what it gives allocated when it is made. Initial states may be None:
/// zeros.
template <class Real>
class ForwardCall {
 public:
  ForwardCall(Weights& weights, const py::object& x, const py::object& h0, const py::object& c0,
              const py::object& slots, const py::object& places, bool training)
      : weights_(weights),
        check_("forward"),
        k_(weights.kernels<Real>()),
        call_(check_, weights.dims(), std::type_identity<Real>{}, x, slots, places),
        training_(training) {
    const Dims& d = call_.dims;
    if (!c0.is_none() && !k_.has_cell_state) check_.value_error("c0 is given; expected None, cell has none");
    if (k_.has_cell_state && h0.is_none() != c0.is_none()) {
      check_.value_error("one of h0 and c0 is None; expected both or neither");
    }
    if (!h0.is_none()) check_.shaped<Real>("h0", h0, {d.N, d.H}, "(N, H)", call_.origin());
    if (!c0.is_none()) check_.shaped<Real>("c0", c0, {d.N, d.H}, "(N, H)", call_.origin());
    h_ = in_slots<Real>(call_, h0, d.H);
    if (k_.has_cell_state) {
      py::array states = training ? in_slots<Real>(call_, c0, d.H) : copy_or_zeros<Real>(c0, d.N, d.H);
      args_.c = data<Real>(states);
      c_ = std::move(states);
    }
    if (training && k_.planes_per_unit > 0) {
      py::array kept = new_array<Real>(call_.step_shape({k_.planes_per_unit, d.H}));
      args_.gates = data<Real>(kept);
      gates_ = std::move(kept);
    }
    args_.x = data<Real>(std::as_const(call_.x));
    args_.h = data<Real>(h_);
  }

  const Dims& dims() const { return call_.dims; }
  bool is_empty() const { return dims().row(dims().T) == 0; }
  double work() const { return weights_.work_of_step() * static_cast<double>(dims().row(dims().T)); }
  Index segment() const { return steps_between_signals(dims().N, k_.gates_per_unit * dims().H, dims().I + dims().H); }

  /// Before run() on so many threads; needs no GIL.
  void prepare(Team& team, int threads) {
    parameters_ = weights_.parameters<Real>();
    args_.raw = &parameters_;
    packed_ = training_ && forward_runs_unpacked(dims()) ? weights_.forward_pack_if_reused<Real>(team)
                                                         : weights_.forward_pack<Real>(team);
    args_.packed = packed_ == nullptr ? nullptr : packed_->template as<Real>();
    work_.emplace(static_cast<std::size_t>(k_.forward_work_size(dims(), training_, threads)) * sizeof(Real));
    args_.work = work_->template as<Real>();
  }

  void run(StepRange steps, Team& team) { k_.forward(dims(), args_, training_, steps, team); }

  /// States after every step, (T, N, H), a view of what result() gives; of a dense batch.
  py::array output() const {
    const Dims& d = dims();
    return view({d.T, d.N, d.H}, data<Real>(h_) + d.N * d.H, h_);
  }

  /// y and the last state, as a layer gives them.
  py::tuple inferred() const {
    const Dims& d = dims();
    py::array last = new_array<Real>({1, d.N, d.H});
    std::copy_n(data<Real>(h_) + d.T * d.N * d.H, d.N * d.H, data<Real>(last));
    if (c_.is_none()) return py::make_tuple(output(), std::move(last));
    const py::array c = py::reinterpret_borrow<py::array>(c_);
    return py::make_tuple(output(), py::make_tuple(std::move(last), view({1, d.N, d.H}, data<Real>(c), c)));
  }

  py::tuple result() { return py::make_tuple(std::move(h_), std::move(c_), std::move(gates_)); }

 private:
  static py::array view(const std::vector<Index>& shape, const Real* numbers, const py::array& owner) {
    return py::array(owner.dtype(), shape, numbers, owner);
  }

  Weights& weights_;
  Checker check_;
  const CellKernels<Real>& k_;
  CallDims call_;
  bool training_;
  ForwardArgs<Real> args_{};
  py::array h_ = no_array();
  py::object c_ = py::none();
  py::object gates_ = py::none();
  Parameters<Real> parameters_{};
  SharedBuffer packed_;
  std::optional<Scratch> work_;
};

struct BackwardInputs {
  py::object x, h, c, gates, dy, dcells, dh_n, dc_n, dw_ih, dw_hh, db_ih, db_hh, slots, places;
  bool need_dx;
  bool overwrite;
};

/// One backward call, like ForwardCall.
template <class Real>
class BackwardCall {
 public:
  BackwardCall(Weights& weights, const BackwardInputs& in)
      : weights_(weights),
        check_("backward"),
        k_(weights.kernels<Real>()),
        call_(check_, weights.dims(), std::type_identity<Real>{}, in.x, in.slots, in.places) {
    read_forward(in);
    read_gradients(in);
    claim_weight_gradients(in);
    const Dims& d = call_.dims;
    dh_ = copy_or_zeros<Real>(in.dh_n, d.N, d.H);
    args_.dh = data<Real>(dh_);
    if (k_.has_cell_state) {
      py::array carried = copy_or_zeros<Real>(in.dc_n, d.N, d.H);
      args_.dc = data<Real>(carried);
      dc_ = std::move(carried);
    }
    if (in.need_dx) {
      py::array gradient = new_array<Real>(call_.given_shape({d.I}));
      args_.dx = data<Real>(gradient);
      if (is_empty()) clear(gradient);
      dx_ = std::move(gradient);
    }
    args_.x = data<Real>(std::as_const(call_.x));
  }

  const Dims& dims() const { return call_.dims; }
  bool is_empty() const { return dims().row(dims().T) == 0; }
  double work() const { return 3 * weights_.work_of_step() * static_cast<double>(dims().row(dims().T)); }
  /// First step of the piece that ends at `last`.
  Index cut(Index last) const {
    const Index segment = steps_between_signals(dims().N, 3 * k_.gates_per_unit * dims().H, dims().I + dims().H);
    return last > segment ? cut_of_chunks(dims(), last, last - segment) : 0;
  }

  /// First step of the chunk that ends at `last`.
  Index next_cut(Index last) const { return first_of_chunk(dims(), last); }
  py::object input_gradient() const { return dx_; }

  void prepare(Team& team, int threads) {
    if (args_.dx != nullptr) call_.clear_unused(args_.dx, dims().I, team);
    parameters_ = weights_.parameters<Real>();
    args_.raw = &parameters_;
    packed_ = backward_runs_unpacked(dims()) ? weights_.backward_pack_if_reused<Real>(team)
                                             : weights_.backward_pack<Real>(team);
    args_.packed = packed_ == nullptr ? nullptr : packed_->template as<Real>();
    work_.emplace(static_cast<std::size_t>(k_.backward_work_size(dims(), threads)) * sizeof(Real));
    args_.work = work_->template as<Real>();
  }

  void run(StepRange steps, Team& team) { k_.backward(dims(), args_, steps, team); }

  py::tuple result() { return py::make_tuple(std::move(dx_), std::move(dh_), std::move(dc_)); }

 private:
  py::array states_argument(const char* name, const py::object& object) const {
    return check_.shaped<Real>(name, object, call_.slot_shape({dims().H}), call_.ragged() ? "(N+R, H)" : "(T+1, N, H)",
                               origin());
  }

  const char* origin() const { return call_.ragged() ? "from slots, H from w_hh" : "T, N from x, H from w_hh"; }

  void read_forward(const BackwardInputs& in) {
    h_ = states_argument("h", in.h);
    args_.h = data<Real>(std::as_const(h_));
    if (k_.has_cell_state) {
      c_ = states_argument("c", in.c);
      args_.c = data<Real>(std::as_const(c_));
    } else if (!in.c.is_none() || !in.dc_n.is_none() || !in.dcells.is_none()) {
      check_.value_error("c, dc_n or dcells is given; expected None, the cell has no cell state");
    }
    if (k_.planes_per_unit > 0) {
      gates_ = check_.shaped<Real>("gates", in.gates, call_.step_shape({k_.planes_per_unit, dims().H}),
                                   call_.ragged() ? "(R, P, H)" : "(T, N, P, H)", origin());
      args_.gates = data<Real>(std::as_const(gates_));
    } else if (!in.gates.is_none()) {
      check_.value_error("gates are given; expected None, the cell keeps none");
    }
  }

  void read_gradients(const BackwardInputs& in) {
    const auto outputs = [&](const char* name, const py::object& object, py::array& array) -> const Real* {
      if (object.is_none()) return nullptr;
      array = check_.shaped<Real>(name, object, call_.given_shape({dims().H}),
                                  call_.ragged() ? "(R, H) or (S, H)" : "(T, N, H)", origin());
      return data<Real>(std::as_const(array));
    };
    args_.dy = outputs("dy", in.dy, dy_);
    args_.dcells = outputs("dcells", in.dcells, dcells_);
    const Dims& d = dims();
    if (!in.dh_n.is_none()) check_.shaped<Real>("dh_n", in.dh_n, {d.N, d.H}, "(N, H)", origin());
    if (!in.dc_n.is_none()) check_.shaped<Real>("dc_n", in.dc_n, {d.N, d.H}, "(N, H)", origin());
  }

  void claim_weight_gradients(const BackwardInputs& in) {
    if (weights_.has_bias() == in.db_ih.is_none() || weights_.has_bias() == in.db_hh.is_none()) {
      check_.value_error(weights_.has_bias() ? "db_ih or db_hh is None; expected (G*H,), the weights have biases"
                                             : "db_ih or db_hh is given; expected None, the weights have no biases");
    }
    const Index rows = k_.gates_per_unit * dims().H;
    const char* from_weights = "as the weights";
    dw_ih_ = check_.shaped<Real>("dw_ih", in.dw_ih, {rows, dims().I}, "(G*H, I)", from_weights);
    dw_hh_ = check_.shaped<Real>("dw_hh", in.dw_hh, {rows, dims().H}, "(G*H, H)", from_weights);
    args_.dw_ih = claim("dw_ih", dw_ih_, {});
    args_.dw_hh = claim("dw_hh", dw_hh_, {&dw_ih_});
    if (weights_.has_bias()) {
      db_ih_ = check_.shaped<Real>("db_ih", in.db_ih, {rows}, "(G*H,)", from_weights);
      db_hh_ = check_.shaped<Real>("db_hh", in.db_hh, {rows}, "(G*H,)", from_weights);
      args_.db_ih = claim("db_ih", db_ih_, {&dw_ih_, &dw_hh_});
      args_.db_hh = claim("db_hh", db_hh_, {&dw_ih_, &dw_hh_, &db_ih_});
    }
    args_.overwrite = in.overwrite;
    if (in.overwrite && is_empty()) {
      for (py::array* gradient : {&dw_ih_, &dw_hh_, &db_ih_, &db_hh_}) {
        if (*gradient) clear(*gradient);
      }
    }
  }

  Real* claim(const char* name, py::array& out, std::initializer_list<const py::array*> others) const {
    check_.writeable(name, out, others);
    check_.writeable(name, out,
                     {&call_.x, &h_, k_.planes_per_unit > 0 ? &gates_ : nullptr, k_.has_cell_state ? &c_ : nullptr,
                      args_.dy != nullptr ? &dy_ : nullptr, args_.dcells != nullptr ? &dcells_ : nullptr});
    return data<Real>(out);
  }

  Weights& weights_;
  Checker check_;
  const CellKernels<Real>& k_;
  CallDims call_;
  BackwardArgs<Real> args_{};
  py::array h_ = no_array(), c_ = no_array(), gates_ = no_array(), dy_ = no_array(), dcells_ = no_array(),
            dw_ih_ = no_array(), dw_hh_ = no_array(), db_ih_ = no_array(), db_hh_ = no_array(), dh_ = no_array();
  py::object dx_ = py::none();
  py::object dc_ = py::none();
  Parameters<Real> parameters_{};
  SharedBuffer packed_;
  std::optional<Scratch> work_;
};

}  // namespace rnnfast::bindings
