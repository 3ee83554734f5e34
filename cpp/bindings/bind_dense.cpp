// SPDX-License-Identifier: MIT
#include "arrays.h"
#include "bind.h"
#include "buffer.h"
#include "gil.h"
#include "rnnfast/dense.h"

namespace rnnfast::bindings {
namespace {

using namespace py::literals;

/// Sizes, x and weights of a call, checked.
template <class Real>
struct DenseArrays {
  Checker check;
  py::array x, w;
  DenseDims dims;

  DenseArrays(const char* function, const py::object& rows, const py::object& weight, const py::object& bias)
      : check(function),
        x(check.ranked<Real>("x", rows, 2, "(rows, inputs)")),
        w(check.ranked<Real>("weight", weight, 2, "(outputs, inputs)")),
        dims{x.shape(0), x.shape(1), w.shape(0)} {
    if (w.shape(1) != dims.inputs) {
      check.value_error("weight has " + std::to_string(w.shape(1)) + " columns; expected " +
                        std::to_string(dims.inputs) + ", from x");
    }
    if (dims.inputs < 1 || dims.outputs < 1) check.value_error("weight is empty; expected at least one element");
    if (!bias.is_none()) check.shaped<Real>("bias", bias, {dims.outputs}, "(outputs,)", "from weight");
  }

  py::array outputs(const char* name, const py::object& object) const {
    return check.shaped<Real>(name, object, {dims.rows, dims.outputs}, "(rows, outputs)", "from x and weight");
  }
};

/// The activation by name; false for none.
bool read_activation(const Checker& check, const py::object& name, Activation& f) {
  if (name.is_none()) return false;
  const std::string text = py::str(name);
  f = {Function::tanh, 0, 0};
  if (text == "relu") {
    f.function = Function::relu;
  } else if (text == "sigmoid") {
    f.function = Function::sigmoid;
  } else if (text != "tanh") {
    check.value_error("activation is " + text + "; expected None, relu, tanh or sigmoid");
  }
  return true;
}

std::size_t bytes_of(Index count, std::size_t size) { return static_cast<std::size_t>(count) * size; }

template <class Real>
py::array forward(const py::object& x, const py::object& weight, const py::object& bias, const py::object& activation) {
  const DenseArrays<Real> in("dense_forward", x, weight, bias);
  Activation f;
  const bool active = read_activation(in.check, activation, f);
  py::array y = new_array<Real>({in.dims.rows, in.dims.outputs});
  DenseForwardArgs<Real> args{
      .x = data<Real>(in.x), .w = data<Real>(in.w), .b = data_or_null<Real>(bias), .y = data<Real>(y), .work = nullptr};
  if (in.dims.rows == 0) return y;
  const WithoutGil unlocked;
  const Scratch work(bytes_of(dense_kernels<Real>().forward_work_size(in.dims), sizeof(Real)));
  args.work = work.as<Real>();
  Team team(num_threads());
  dense_kernels<Real>().forward(in.dims, active ? &f : nullptr, args, team);
  return y;
}

template <class Real>
py::object backward(const py::object& x, const py::object& weight, const py::object& y, const py::object& dy,
                    const py::object& dweight, const py::object& dbias, const py::object& activation, bool need_dx) {
  const DenseArrays<Real> in("dense_backward", x, weight, py::none());
  const DenseDims& d = in.dims;
  Activation f;
  const bool active = read_activation(in.check, activation, f);
  const py::array out = in.outputs("y", y);
  const py::array gradient = in.outputs("dy", dy);
  py::array dw =
      in.check.template shaped<Real>("dweight", dweight, {d.outputs, d.inputs}, "(outputs, inputs)", "as weight");
  in.check.writeable("dweight", dw, {&in.x, &in.w, &out, &gradient});
  py::array db = no_array();
  if (!dbias.is_none()) {
    db = in.check.template shaped<Real>("dbias", dbias, {d.outputs}, "(outputs,)", "from weight");
    in.check.writeable("dbias", db, {&in.x, &in.w, &out, &gradient, &dw});
  }
  py::array dx = no_array();
  if (need_dx) dx = new_array<Real>({d.rows, d.inputs});
  DenseBackwardArgs<Real> args{.x = data<Real>(in.x),
                               .w = data<Real>(in.w),
                               .y = active ? data<Real>(out) : nullptr,
                               .dy = data<Real>(gradient),
                               .dx = need_dx ? data<Real>(dx) : nullptr,
                               .dw = data<Real>(dw),
                               .db = dbias.is_none() ? nullptr : data<Real>(db),
                               .work = nullptr};
  if (d.rows > 0) {
    const WithoutGil unlocked;
    Team team(num_threads());
    const Scratch work(bytes_of(dense_kernels<Real>().backward_work_size(d, team.size()), sizeof(Real)));
    args.work = work.as<Real>();
    dense_kernels<Real>().backward(d, active ? &f : nullptr, args, team);
  }
  if (!need_dx) return py::none();
  return dx;
}

}  // namespace

void bind_dense(py::module_& m) {
  m.def(
      "dense_forward",
      [](const py::object& x, const py::object& weight, const py::object& bias, const py::object& activation) {
        return is_double(weight) ? forward<double>(x, weight, bias, activation)
                                 : forward<float>(x, weight, bias, activation);
      },
      "x"_a, "weight"_a, "bias"_a, "activation"_a);
  m.def(
      "dense_backward",
      [](const py::object& x, const py::object& weight, const py::object& y, const py::object& dy,
         const py::object& dweight, const py::object& dbias, const py::object& activation, bool need_dx) {
        return is_double(weight) ? backward<double>(x, weight, y, dy, dweight, dbias, activation, need_dx)
                                 : backward<float>(x, weight, y, dy, dweight, dbias, activation, need_dx);
      },
      "x"_a, "weight"_a, "y"_a, "dy"_a, "dweight"_a, "dbias"_a, "activation"_a, "need_dx"_a);
}

}  // namespace rnnfast::bindings
