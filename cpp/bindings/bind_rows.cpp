// SPDX-License-Identifier: MIT
#include "arrays.h"
#include "bind.h"
#include "gil.h"
#include "rnnfast/rows.h"

namespace rnnfast::bindings {
namespace {

using namespace py::literals;

/// `array` as rows; every row has to lie in one piece.
py::array rows_of(const Checker& check, const char* name, const py::array& array) {
  if (array.ndim() != 2) {
    check.value_error(std::string(name) + " has " + std::to_string(array.ndim()) + " axes; expected (rows, width)");
  }
  if (array.size() > 0 && array.shape(1) > 1 && array.strides(1) != array.itemsize()) {
    check.value_error(std::string(name) + " has rows in several pieces; expected them contiguous");
  }
  return array;
}

void copy_rows_into(const py::array& out, const py::array& source, const py::object& index) {
  const Checker check("copy_rows");
  py::array to = rows_of(check, "out", out);
  const py::array from = rows_of(check, "source", source);
  if (!to.dtype().equal(from.dtype()) || to.dtype().has_fields() || to.dtype().kind() == 'O') {
    check.type_error("out and source differ in dtype, or hold objects; expected numbers of one dtype");
  }
  if (to.shape(1) != from.shape(1)) {
    check.value_error("out has rows of " + std::to_string(to.shape(1)) + "; expected " + std::to_string(from.shape(1)) +
                      ", from source");
  }
  const py::array numbers =
      check.whole_numbers("index", index, to.shape(0),
                          "dense or not as long as out; expected (" + std::to_string(to.shape(0)) + ",)");
  check.writeable("out", to);
  const std::int64_t* const rows = static_cast<const std::int64_t*>(numbers.data());
  const Index count = to.shape(0);
  for (Index k = 0; k < count; ++k) {
    if (rows[k] < -1 || rows[k] >= from.shape(0)) {
      check.value_error("index[" + std::to_string(k) + "] is " + std::to_string(rows[k]) + "; expected -1.." +
                        std::to_string(from.shape(0) - 1) + ", from source");
    }
  }
  const std::size_t width = static_cast<std::size_t>(to.shape(1) * to.itemsize());
  if (count == 0 || width == 0) return;
  const ByteRows<std::byte*> written{static_cast<std::byte*>(to.mutable_data()), to.strides(0)};
  const ByteRows<const std::byte*> read{static_cast<const std::byte*>(from.data()), from.strides(0)};
  const WithoutGil unlocked;
  Team team(num_threads());
  copy_rows(written, read, rows, count, width, team);
}

}  // namespace

void bind_rows(py::module_& m) { m.def("copy_rows", &copy_rows_into, "out"_a, "source"_a, "index"_a); }

}  // namespace rnnfast::bindings
