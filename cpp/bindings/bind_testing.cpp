// SPDX-License-Identifier: MIT
// Small internals that tests sweep from Python.
#include "arrays.h"
#include "bind.h"
#include "rnnfast/activations.h"
#include "rnnfast/machine.h"
#include "rnnfast/threads.h"

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

void check_threads(int threads) {
  if (threads < 1 || threads > kMaxThreads) {
    throw py::value_error("threads is " + std::to_string(threads) + "; " + expected_threads());
  }
}

double measured_peak(int dtype_bytes, int threads) {
  check_threads(threads);
  if (dtype_bytes != 4 && dtype_bytes != 8) {
    throw py::value_error("dtype_bytes is " + std::to_string(dtype_bytes) + "; expected 4 or 8");
  }
  const py::gil_scoped_release unlocked;
  return dtype_bytes == 4 ? fma_peak<float>(threads) : fma_peak<double>(threads);
}

double measured_bandwidth(Index bytes, int threads) {
  check_threads(threads);
  if (bytes < 1) throw py::value_error("bytes is " + std::to_string(bytes) + "; expected at least 1");
  const py::gil_scoped_release unlocked;
  return read_bandwidth(bytes, threads);
}

}  // namespace

void bind_testing(py::module_& m) {
  py::module_ testing = m.def_submodule("testing");
  bind_activation<float>(testing, "sigmoid", sigmoid<float>);
  bind_activation<double>(testing, "sigmoid", sigmoid<double>);
  bind_activation<float>(testing, "tanh", tanh<float>);
  bind_activation<double>(testing, "tanh", tanh<double>);
  testing.def("fma_peak", &measured_peak, "dtype_bytes"_a, "threads"_a);
  testing.def("read_bandwidth", &measured_bandwidth, "bytes"_a, "threads"_a);
}

}  // namespace rnnfast::bindings
