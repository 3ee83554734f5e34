// SPDX-License-Identifier: MIT
#include <pybind11/stl.h>

#include <cstdlib>
#include <vector>

#include "arrays.h"
#include "bind.h"
#include "rnnfast/cpu.h"
#include "rnnfast/threads.h"

namespace rnnfast::bindings {
namespace {

using namespace py::literals;

void use_isa(const std::string& name) {
  try {
    set_isa(name);
  } catch (const std::invalid_argument& error) {
    throw py::value_error(error.what());
  }
}

/// Environment variables are read once, at import; a wrong value is an error and not a silent default.
void read_environment() {
  if (const char* isa = std::getenv("RNNFAST_ISA"); isa != nullptr) {
    try {
      set_isa(isa);
    } catch (const std::exception& error) {
      throw py::import_error(std::string("RNNFAST_ISA: ") + error.what());
    }
  }
  if (const char* text = std::getenv("RNNFAST_NUM_THREADS"); text != nullptr) {
    const std::string digits(text);
    const bool valid =
        !digits.empty() && digits.size() <= 9 && digits.find_first_not_of("0123456789") == std::string::npos;
    const long count = valid ? std::stol(digits) : 0;
    if (count < 1 || count > kMaxThreads) {
      throw py::import_error("RNNFAST_NUM_THREADS is '" + digits + "'; " + expected_threads());
    }
    set_num_threads(static_cast<int>(count));
  }
}

py::dict build_info() {
  py::list isas;
  for (const Isa isa : available_isas()) isas.append(isa_name(isa));
#ifdef NDEBUG
  const bool asserts = false;
#else
  const bool asserts = true;
#endif
  return py::dict("version"_a = RNNFAST_VERSION, "compiler"_a = RNNFAST_COMPILER, "flags"_a = RNNFAST_FLAGS,
                  "build_type"_a = RNNFAST_BUILD_TYPE, "asserts"_a = asserts, "isas"_a = isas,
                  "isa"_a = isa_name(active_isa()), "cpu"_a = cpu_name(), "threads"_a = num_threads());
}

}  // namespace

std::string expected_threads() { return "expected 1 to " + std::to_string(kMaxThreads); }

void bind_runtime(py::module_& m) {
  read_environment();
  m.attr("__version__") = RNNFAST_VERSION;
  m.def("build_info", &build_info);
  m.def("set_isa", &use_isa, "name"_a);
  m.def("get_num_threads", &num_threads);
  m.def(
      "set_num_threads",
      [](const py::object& n) {
        const std::string found = "set_num_threads: n is " + py::repr(n).cast<std::string>();
        const auto number = py::reinterpret_steal<py::object>(PyNumber_Index(n.ptr()));
        if (!number || py::isinstance<py::bool_>(n)) {
          PyErr_Clear();
          throw py::type_error(found + "; expected a whole number");
        }
        const Index count = PyNumber_AsSsize_t(number.ptr(), nullptr);  // the nearest there is
        if (count < 1 || count > kMaxThreads) throw py::value_error(found + "; " + expected_threads());
        set_num_threads(static_cast<int>(count));
      },
      "n"_a);
  m.def("stop_threads", &stop_threads);
  m.def(
      "empty",
      [](const std::vector<Index>& shape, const py::dtype& dtype) {
        if (dtype.has_fields() || dtype.kind() == 'O') throw py::type_error("empty: dtype is no number's");
        for (const Index size : shape) {
          if (size < 0) throw py::value_error("empty: shape has a negative size");
        }
        return new_array(dtype, shape);
      },
      "shape"_a, "dtype"_a);
}

}  // namespace rnnfast::bindings
