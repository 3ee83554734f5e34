// SPDX-License-Identifier: MIT
#include <algorithm>

#include "bind.h"
#include "weights.h"

namespace rnnfast::bindings {

Cell cell_named(const Checker& check, const std::string& name) {
  if (name == "rnn_tanh") return Cell::rnn_tanh;
  if (name == "rnn_relu") return Cell::rnn_relu;
  if (name == "lstm") return Cell::lstm;
  if (name == "gru") return Cell::gru;
  check.value_error("cell is '" + name + "'; expected 'rnn_tanh', 'rnn_relu', 'lstm' or 'gru'");
}

Weights::Weights(const std::string& cell, py::object w_ih, py::object w_hh, py::object b_ih, py::object b_hh)
    : cell_(cell_named(Checker("Weights"), cell)), b_ih_(std::move(b_ih)), b_hh_(std::move(b_hh)) {
  is_double_ = py::isinstance<py::array_t<double>>(w_ih);
  if (is_double_) {
    check<double>(w_ih, w_hh);
  } else {
    check<float>(w_ih, w_hh);
  }
}

template <class Real>
void Weights::check(py::object& w_ih, py::object& w_hh) {
  const Checker checker("Weights");
  const Index G = kernels<Real>().gates_per_unit;
  const py::array recurrent = checker.ranked<Real>("w_hh", w_hh, 2, "(G*H, H)");
  dims_.H = recurrent.shape(1);
  if (dims_.H < 1) checker.value_error("w_hh has no columns; expected H >= 1 hidden units");
  const char* origin = "G from cell, H from w_hh";
  checker.shaped<Real>("w_hh", w_hh, {G * dims_.H, dims_.H}, "(G*H, H)", origin);
  const py::array input = checker.ranked<Real>("w_ih", w_ih, 2, "(G*H, I)");
  dims_.I = input.shape(1);
  if (dims_.I < 1) checker.value_error("w_ih has no columns; expected I >= 1 inputs");
  checker.shaped<Real>("w_ih", w_ih, {G * dims_.H, dims_.I}, "(G*H, I)", origin);
  if (b_ih_.is_none() != b_hh_.is_none()) checker.value_error("one of b_ih and b_hh is None; expected both or neither");
  constexpr double kLeastWork = 500;  // 50 to 100 ns
  work_of_step_ = std::max(kLeastWork, static_cast<double>(input.size() + recurrent.size()));
  w_ih_ = w_ih;
  w_hh_ = w_hh;
  pointers_[0] = input.data();
  pointers_[1] = recurrent.data();
  if (!b_ih_.is_none()) {
    pointers_[2] = checker.shaped<Real>("b_ih", b_ih_, {G * dims_.H}, "(G*H,)", origin).data();
    pointers_[3] = checker.shaped<Real>("b_hh", b_hh_, {G * dims_.H}, "(G*H,)", origin).data();
  }
}

void bind_weights(py::module_& m) {
  using namespace py::literals;
  py::class_<Weights>(m, "Weights")
      .def(py::init<const std::string&, py::object, py::object, py::object, py::object>(), py::kw_only(), "cell"_a,
           "w_ih"_a, "w_hh"_a, "b_ih"_a = py::none(), "b_hh"_a = py::none())
      .def("invalidate", &Weights::invalidate);
}

}  // namespace rnnfast::bindings
