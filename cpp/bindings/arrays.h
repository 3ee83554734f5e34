// SPDX-License-Identifier: MIT
// Arrays of callers: checked once, here, because this is where memory safety is decided. Nothing is converted.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "buffer.h"
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

/// In place of an array. The default constructor of py::array allocates an empty one, which takes as long as the
/// products of a small step.
inline py::array no_array() { return py::reinterpret_steal<py::array>(py::handle()); }

/// Whether an array's numbers are Real, in the byte order of this machine.
template <class Real>
bool holds(const py::array& array) {
  const py::dtype type = array.dtype();
  const bool is_plainly = type.num() == py::dtype::num_of<Real>() && type.byteorder() == '=';
  return is_plainly || py::isinstance<py::array_t<Real>>(array);  // which takes as long as a good part of a small step
}

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
    if (!holds<Real>(array)) {
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

  /// `object` as a dense array of int64 with one axis, of exactly `count` numbers unless that is negative; `what` says
  /// what it is not otherwise.
  py::array whole_numbers(const char* name, py::handle object, Index count, const std::string& what) const {
    if (!py::isinstance<py::array_t<std::int64_t>>(object)) type_error(std::string(name) + " is no array of int64");
    py::array array = py::reinterpret_borrow<py::array>(object);
    if (array.ndim() != 1 || (count >= 0 && array.shape(0) != count) || !is_dense<std::int64_t>(array)) {
      value_error(std::string(name) + " is not " + what);
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

/// Some versions of Python's header declare these two without C linkage.
namespace tracemalloc {
extern "C" int PyTraceMalloc_Track(unsigned domain, std::uintptr_t address, std::size_t bytes);
extern "C" int PyTraceMalloc_Untrack(unsigned domain, std::uintptr_t address);
}  // namespace tracemalloc

/// A new array, not initialised. Large ones live in memory that is used again.
inline py::array new_array(const py::dtype& dtype, const std::vector<Index>& shape) {
  constexpr Index kLarge = 64 << 10;
  Index bytes = dtype.itemsize();
  bool is_large = true;
  for (const Index size : shape) is_large = is_large && !__builtin_mul_overflow(bytes, size, &bytes);
  if (!is_large || bytes < kLarge) return py::array(dtype, shape);
  // NumPy's domain, so that tracemalloc shows these arrays among the others.
  constexpr unsigned kDomain = 389047;
  std::unique_ptr<Buffer> buffer = Kept::take(static_cast<std::size_t>(bytes));
  void* const values = buffer->as<void>();
  const py::capsule owner(buffer.release(), [](void* owned) {
    std::unique_ptr<Buffer> given_back(static_cast<Buffer*>(owned));
    tracemalloc::PyTraceMalloc_Untrack(kDomain, reinterpret_cast<std::uintptr_t>(given_back->as<void>()));
    Kept::give(std::move(given_back));
  });
  tracemalloc::PyTraceMalloc_Track(kDomain, reinterpret_cast<std::uintptr_t>(values), static_cast<std::size_t>(bytes));
  return py::array(dtype, shape, values, owner);
}

template <class Real>
py::array new_array(const std::vector<Index>& shape) {
  return new_array(py::dtype::of<Real>(), shape);
}

inline void clear(py::array& array) {
  if (array.size() > 0) std::memset(array.mutable_data(), 0, static_cast<std::size_t>(array.nbytes()));
}

/// The numbers of an array, null for None.
template <class Real>
const Real* data_or_null(const py::object& array) {
  return array.is_none() ? nullptr : data<Real>(py::reinterpret_borrow<py::array>(array));
}

/// A copy of `count` numbers, zeros if `from` is null.
template <class Real>
void copy_or_clear(Real* to, const Real* from, Index count) {
  if (from == nullptr) {
    std::fill_n(to, count, Real(0));
  } else {
    std::copy_n(from, count, to);
  }
}

template <class Real>
py::array copy_or_zeros(const py::object& source, Index N, Index H) {
  py::array result = new_array<Real>({N, H});
  copy_or_clear(data<Real>(result), data_or_null<Real>(source), N * H);
  return result;
}

}  // namespace rnnfast::bindings
