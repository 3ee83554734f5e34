// SPDX-License-Identifier: MIT
// Small internals that tests sweep from Python.
#include "arrays.h"
#include "bind.h"
#include "rnnfast/activations.h"

namespace rnnfast::bindings {
namespace {

using namespace py::literals;

template <class Real>
void bind_activation(py::module_& m, const char* name, void (*f)(const Real*, Real*, Index) noexcept) {
  m.def(
      name,
      [f](const py::array_t<Real, py::array::c_style>& x) {
        py::array_t<Real> y(x.size());
        f(x.data(), y.mutable_data(), x.size());
        return y;
      },
      "x"_a.noconvert());
}

}  // namespace

void bind_testing(py::module_& m) {
  py::module_ testing = m.def_submodule("testing");
  bind_activation<float>(testing, "sigmoid", sigmoid<float>);
  bind_activation<double>(testing, "sigmoid", sigmoid<double>);
  bind_activation<float>(testing, "tanh", tanh<float>);
  bind_activation<double>(testing, "tanh", tanh<double>);
}

}  // namespace rnnfast::bindings
