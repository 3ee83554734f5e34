// SPDX-License-Identifier: MIT
#include <algorithm>

#include "bind.h"
#include "gil.h"
#include "weights.h"

namespace rnnfast::bindings {
namespace {

using namespace py::literals;

/// Steps that may run before Python gets a chance to raise KeyboardInterrupt: some tens of milliseconds.
Index steps_between_signals(const Dims& d, Index gates_per_unit) {
  constexpr double kMultiplyAdds = 1e9;
  const double step = static_cast<double>(gates_per_unit) * static_cast<double>(d.N) * static_cast<double>(d.H) *
                      static_cast<double>(d.I + d.H);
  const double steps = kMultiplyAdds / step;
  return steps < 1 ? 1 : steps > 1e9 ? Index{1000000000} : static_cast<Index>(steps);
}

Dims dims_of(const Checker& check, const Weights& weights, const py::array& x) {
  const LayerDims layer = weights.dims();
  if (x.shape(2) != layer.I) {
    check.value_error("x has " + std::to_string(x.shape(2)) +
                      " inputs in its last axis; expected I = " + std::to_string(layer.I) + " from w_ih");
  }
  if (x.shape(0) >= (Index{1} << 48)) check.value_error("x has too many steps");
  return {x.shape(0), x.shape(1), layer.I, layer.H};
}

template <class Real>
py::tuple forward(Weights& weights, const py::object& x_in, const py::object& h0_in, const py::object& c0_in,
                  bool training) {
  const Checker check("forward");
  const CellKernels<Real>& k = weights.kernels<Real>();
  const py::array x = check.ranked<Real>("x", x_in, 3, "(T, N, I)");
  const Dims d = dims_of(check, weights, x);
  const char* origin = "N from x, H from w_hh";
  const py::array h0 = check.shaped<Real>("h0", h0_in, {d.N, d.H}, "(N, H)", origin);
  if (k.has_cell_state == c0_in.is_none()) {
    check.value_error(k.has_cell_state ? "c0 is None; expected (N, H)" : "c0 is given; expected None, cell has none");
  }

  py::array h = states_from<Real>(h0, d.T + 1);
  py::object c = py::none();
  py::object gates = py::none();
  ForwardArgs<Real> args{};
  if (k.has_cell_state) {
    const py::array c0 = check.shaped<Real>("c0", c0_in, {d.N, d.H}, "(N, H)", origin);
    py::array states = training ? states_from<Real>(c0, d.T + 1) : copy_or_zeros<Real>(c0, d.N, d.H);
    args.c = data<Real>(states);
    c = std::move(states);
  }
  if (training && k.planes_per_unit > 0) {
    py::array kept = py::array_t<Real>({d.T, d.N, k.planes_per_unit, d.H});
    args.gates = data<Real>(kept);
    gates = std::move(kept);
  }
  args.x = data<Real>(x);
  args.h = data<Real>(h);

  if (d.T > 0 && d.N > 0) {
    WithoutGil unlocked;
    const SharedBuffer packed = weights.forward_pack<Real>();
    args.packed = packed->as<Real>();
    Team team(num_threads());
    const Buffer work(static_cast<std::size_t>(k.forward_work_size(d, training, team.size())) * sizeof(Real));
    args.work = work.as<Real>();
    const Index segment = steps_between_signals(d, k.gates_per_unit);
    for (Index t = 0; t < d.T; t += segment) {
      if (t > 0) unlocked.let_python_interrupt();
      const Dims part{std::min(segment, d.T - t), d.N, d.I, d.H};
      ForwardArgs<Real> at = args;
      at.x += t * d.N * d.I;
      at.h += t * d.N * d.H;
      if (training && k.has_cell_state) at.c += t * d.N * d.H;
      if (args.gates != nullptr) at.gates += t * d.N * k.planes_per_unit * d.H;
      k.forward(part, at, training, team);
    }
  }
  return py::make_tuple(std::move(h), std::move(c), std::move(gates));
}

template <class Real>
py::tuple backward(Weights& weights, const py::object& x_in, const py::object& h_in, const py::object& c_in,
                   const py::object& gates_in, const py::object& dy_in, const py::object& dh_n, const py::object& dc_n,
                   const py::object& dw_ih_in, const py::object& dw_hh_in, const py::object& db_ih_in,
                   const py::object& db_hh_in, bool need_dx) {
  const Checker check("backward");
  const CellKernels<Real>& k = weights.kernels<Real>();
  const Index G = k.gates_per_unit;
  const py::array x = check.ranked<Real>("x", x_in, 3, "(T, N, I)");
  const Dims d = dims_of(check, weights, x);
  const char* origin = "T, N from x, H from w_hh";
  const py::array h = check.shaped<Real>("h", h_in, {d.T + 1, d.N, d.H}, "(T+1, N, H)", origin);

  BackwardArgs<Real> args{};
  py::array c, gates, dy;
  if (k.has_cell_state) {
    c = check.shaped<Real>("c", c_in, {d.T + 1, d.N, d.H}, "(T+1, N, H)", origin);
    args.c = data<Real>(std::as_const(c));
  } else if (!c_in.is_none() || !dc_n.is_none()) {
    check.value_error("c or dc_n is given; expected None, the cell has no cell state");
  }
  if (k.planes_per_unit > 0) {
    gates = check.shaped<Real>("gates", gates_in, {d.T, d.N, k.planes_per_unit, d.H}, "(T, N, P, H)", origin);
    check.writeable("gates", gates, {&x, &h, k.has_cell_state ? &c : nullptr});
  } else {
    if (!gates_in.is_none()) check.value_error("gates are given; expected None, the cell keeps none");
    gates = py::array_t<Real>({d.T, d.N, Index{1}, d.H});
  }
  if (!dy_in.is_none()) {
    dy = check.shaped<Real>("dy", dy_in, {d.T, d.N, d.H}, "(T, N, H)", origin);
    if (Checker::overlap(gates, dy)) check.value_error("dy shares memory with gates; expected an array of its own");
    args.dy = data<Real>(std::as_const(dy));
  }
  if (!dh_n.is_none()) check.shaped<Real>("dh_n", dh_n, {d.N, d.H}, "(N, H)", origin);
  if (!dc_n.is_none()) check.shaped<Real>("dc_n", dc_n, {d.N, d.H}, "(N, H)", origin);

  if (weights.has_bias() == db_ih_in.is_none() || weights.has_bias() == db_hh_in.is_none()) {
    check.value_error(weights.has_bias() ? "db_ih or db_hh is None; expected (G*H,), the weights have biases"
                                         : "db_ih or db_hh is given; expected None, the weights have no biases");
  }
  const char* from_weights = "as the weights";
  py::array dw_ih = check.shaped<Real>("dw_ih", dw_ih_in, {G * d.H, d.I}, "(G*H, I)", from_weights);
  py::array dw_hh = check.shaped<Real>("dw_hh", dw_hh_in, {G * d.H, d.H}, "(G*H, H)", from_weights);
  py::array db_ih, db_hh;
  const py::array* inputs[] = {&x, &h, &gates, k.has_cell_state ? &c : nullptr, args.dy != nullptr ? &dy : nullptr};
  const auto claim = [&](const char* name, py::array& out, std::initializer_list<const py::array*> others) {
    check.writeable(name, out, others);
    for (const py::array* input : inputs) check.writeable(name, out, {input});
    return data<Real>(out);
  };
  args.dw_ih = claim("dw_ih", dw_ih, {});
  args.dw_hh = claim("dw_hh", dw_hh, {&dw_ih});
  if (weights.has_bias()) {
    db_ih = check.shaped<Real>("db_ih", db_ih_in, {G * d.H}, "(G*H,)", from_weights);
    db_hh = check.shaped<Real>("db_hh", db_hh_in, {G * d.H}, "(G*H,)", from_weights);
    args.db_ih = claim("db_ih", db_ih, {&dw_ih, &dw_hh});
    args.db_hh = claim("db_hh", db_hh, {&dw_ih, &dw_hh, &db_ih});
  }

  py::array dh = copy_or_zeros<Real>(dh_n, d.N, d.H);
  py::object dc = py::none();
  py::object dx = py::none();
  if (k.has_cell_state) {
    py::array carried = copy_or_zeros<Real>(dc_n, d.N, d.H);
    args.dc = data<Real>(carried);
    dc = std::move(carried);
  }
  if (need_dx) {
    py::array gradient = py::array_t<Real>({d.T, d.N, d.I});
    args.dx = data<Real>(gradient);
    dx = std::move(gradient);
  }
  args.x = data<Real>(x);
  args.h = data<Real>(h);
  args.gates = data<Real>(gates);
  args.dh = data<Real>(dh);

  if (d.T > 0 && d.N > 0) {
    WithoutGil unlocked;
    const SharedBuffer packed = weights.backward_pack<Real>();
    args.packed = packed->as<Real>();
    Team team(num_threads());
    const Buffer work(static_cast<std::size_t>(k.backward_work_size(d, team.size())) * sizeof(Real));
    args.work = work.as<Real>();
    const Index multiple = k.backward_step_multiple(d.N);
    const Index segment = std::max(Index{1}, steps_between_signals(d, 3 * G) / multiple) * multiple;
    const Index planes = std::max(Index{1}, k.planes_per_unit);
    for (Index last = d.T; last > 0; last -= segment) {
      if (last < d.T) unlocked.let_python_interrupt();
      const Index t = std::max(Index{0}, last - segment);
      BackwardArgs<Real> at = args;
      at.x += t * d.N * d.I;
      at.h += t * d.N * d.H;
      at.gates += t * d.N * planes * d.H;
      if (at.c != nullptr) at.c += t * d.N * d.H;
      if (at.dy != nullptr) at.dy += t * d.N * d.H;
      if (at.dx != nullptr) at.dx += t * d.N * d.I;
      k.backward({last - t, d.N, d.I, d.H}, at, team);
    }
  }
  return py::make_tuple(std::move(dx), std::move(dh), std::move(dc));
}

}  // namespace

void bind_recurrent(py::module_& m) {
  m.def(
      "forward",
      [](Weights& weights, const py::object& x, const py::object& h0, const py::object& c0, bool training) {
        return with_real(weights, [&]<class Real>() { return forward<Real>(weights, x, h0, c0, training); });
      },
      py::kw_only(), "weights"_a, "x"_a, "h0"_a, "c0"_a, "training"_a.noconvert());
  m.def(
      "backward",
      [](Weights& weights, const py::object& x, const py::object& h, const py::object& c, const py::object& gates,
         const py::object& dy, const py::object& dh_n, const py::object& dc_n, const py::object& dw_ih,
         const py::object& dw_hh, const py::object& db_ih, const py::object& db_hh, bool need_dx) {
        return with_real(weights, [&]<class Real>() {
          return backward<Real>(weights, x, h, c, gates, dy, dh_n, dc_n, dw_ih, dw_hh, db_ih, db_hh, need_dx);
        });
      },
      py::kw_only(), "weights"_a, "x"_a, "h"_a, "c"_a, "gates"_a, "dy"_a, "dh_n"_a, "dc_n"_a, "dw_ih"_a, "dw_hh"_a,
      "db_ih"_a, "db_hh"_a, "need_dx"_a.noconvert());
}

}  // namespace rnnfast::bindings
