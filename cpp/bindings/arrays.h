// SPDX-License-Identifier: MIT
// Arrays of callers: checked once, here, because this is where memory safety is decided. Nothing is converted.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <vector>

#include "rnnfast/types.h"

namespace rnnfast::bindings {

namespace py = pybind11;

template <class Real>
const char* dtype_name() {
  return sizeof(Real) == 4 ? "float32" : "float64";
}

inline bool is_double(py::handle object) { return py::isinstance<py::array_t<double>>(object); }

inline std::string shape_text(const Index* sizes, std::size_t count) {
  std::string text = "(";
  for (std::size_t axis = 0; axis < count; ++axis) {
    text += std::to_string(sizes[axis]) + (count == 1 ? "," : axis + 1 < count ? ", " : "");
  }
  return text + ")";
}

inline std::string type_name(py::handle object) { return Py_TYPE(object.ptr())->tp_name; }

template <class Real>
bool is_aligned(const py::array& array) {
  return array.size() == 0 || reinterpret_cast<std::uintptr_t>(array.data()) % alignof(Real) == 0;
}

template <class Real>
bool is_dense(const py::array& array) {
  return (array.flags() & py::array::c_style) != 0 && is_aligned<Real>(array);
}

/// Checks the arguments of one function; every message starts with its name.
class Checker {
 public:
  explicit Checker(std::string function) : function_(std::move(function)) {}

  [[noreturn]] void type_error(const std::string& text) const { throw py::type_error(function_ + ": " + text); }
  [[noreturn]] void value_error(const std::string& text) const { throw py::value_error(function_ + ": " + text); }

  /// `object` as an aligned C-order array of Real, of any shape with `rank` axes.
  template <class Real>
  py::array ranked(const char* name, py::handle object, std::size_t rank, const char* axes) const {
    if (!py::isinstance<py::array>(object)) {
      type_error(std::string(name) + " is " + type_name(object) + "; expected an array of " + dtype_name<Real>());
    }
    py::array array = py::reinterpret_borrow<py::array>(object);
    if (!py::isinstance<py::array_t<Real>>(object)) {
      type_error(std::string(name) + " has dtype " + py::str(py::object(array.dtype())).cast<std::string>() +
                 "; expected " + dtype_name<Real>() + " as the weights");
    }
    if (static_cast<std::size_t>(array.ndim()) != rank) {
      value_error(std::string(name) + " has shape " + text(array) + "; expected " + axes);
    }
    if ((array.flags() & py::array::c_style) == 0) {
      value_error(std::string(name) + " is not in C order; expected a contiguous array");
    }
    if (!is_aligned<Real>(array)) {
      value_error(std::string(name) + " is not aligned to its elements");
    }
    return array;
  }

  /// The same with an exact shape; `origin` says where the sizes come from.
  template <class Real>
  py::array shaped(const char* name, py::handle object, std::initializer_list<Index> sizes, const char* axes,
                   const char* origin) const {
    return shaped<Real>(name, object, sizes.begin(), sizes.size(), axes, origin);
  }
  template <class Real>
  py::array shaped(const char* name, py::handle object, const std::vector<Index>& sizes, const char* axes,
                   const char* origin) const {
    return shaped<Real>(name, object, sizes.data(), sizes.size(), axes, origin);
  }
  template <class Real>
  py::array shaped(const char* name, py::handle object, const Index* sizes, std::size_t rank, const char* axes,
                   const char* origin) const {
    py::array array = ranked<Real>(name, object, rank, axes);
    for (std::size_t axis = 0; axis < rank; ++axis) {
      if (array.shape(static_cast<py::ssize_t>(axis)) != sizes[axis]) {
        value_error(std::string(name) + " has shape " + text(array) + "; expected " + axes + " = " +
                    shape_text(sizes, rank) + ", " + origin);
      }
    }
    return array;
  }

  /// Refuses an output that cannot be written, or that shares memory with one of `others`.
  void writeable(const char* name, const py::array& out, std::initializer_list<const py::array*> others = {}) const {
    if (!out.writeable()) value_error(std::string(name) + " is read-only; expected a writeable array");
    for (const py::array* other : others) {
      if (other != nullptr && overlap(out, *other)) {
        value_error(std::string(name) + " shares memory with another argument; expected an array of its own");
      }
    }
  }

  static bool overlap(const py::array& a, const py::array& b) {
    const auto first = [](const py::array& x) { return reinterpret_cast<std::uintptr_t>(x.data()); };
    const auto size = [](const py::array& x) { return static_cast<std::uintptr_t>(x.nbytes()); };
    return first(a) < first(b) + size(b) && first(b) < first(a) + size(a);
  }

 private:
  static std::string text(const py::array& array) {
    std::vector<Index> sizes(array.shape(), array.shape() + array.ndim());
    return shape_text(sizes.data(), sizes.size());
  }

  std::string function_;
};

template <class Real>
Real* data(py::array& array) {
  return static_cast<Real*>(array.mutable_data());
}

template <class Real>
const Real* data(const py::array& array) {
  return static_cast<const Real*>(array.data());
}

template <class Real>
py::array copy_or_zeros(const py::object& source, Index N, Index H) {
  py::array_t<Real> result({N, H});
  if (result.size() == 0) return result;
  const std::size_t bytes = static_cast<std::size_t>(result.nbytes());
  if (source.is_none()) {
    std::memset(result.mutable_data(), 0, bytes);
  } else {
    std::memcpy(result.mutable_data(), py::reinterpret_borrow<py::array>(source).data(), bytes);
  }
  return result;
}

}  // namespace rnnfast::bindings
