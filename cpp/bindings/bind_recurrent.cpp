// SPDX-License-Identifier: MIT
#include <algorithm>
#include <memory>
#include <vector>

#include "bind.h"
#include "run_calls.h"

namespace rnnfast::bindings {
namespace {

using namespace py::literals;

/// Whether `object` is a plain array that the kernels take as it is.
template <class Real>
bool is_plain(py::handle object, std::initializer_list<Index> sizes) {
  if (Py_TYPE(object.ptr()) != py::detail::npy_api::get().PyArray_Type_) return false;
  const py::array array = py::reinterpret_borrow<py::array>(object);
  if (!holds<Real>(array) || !is_dense<Real>(array)) return false;
  return static_cast<std::size_t>(array.ndim()) == sizes.size() &&
         std::equal(sizes.begin(), sizes.end(), array.shape());
}

/// (1, N, H) as (N, H).
template <class Real>
py::array without_first_axis(py::handle object) {
  const py::array array = py::reinterpret_borrow<py::array>(object);
  return py::array_t<Real>({array.shape(1), array.shape(2)}, data<Real>(array), array);
}

/// Inference with arrays that need no second look: (y, state). None if any of them does.
template <class Real>
py::object infer(Weights& weights, const py::object& x, const py::object& state) {
  const auto [I, H] = weights.dims();
  const bool has_cell_state = weights.kernels<Real>().has_cell_state;
  if (!py::isinstance<py::array>(x)) return py::none();
  const py::array given = py::reinterpret_borrow<py::array>(x);
  if (given.ndim() != 3 || !is_plain<Real>(x, {given.shape(0), given.shape(1), I})) return py::none();
  const Index N = given.shape(1);
  py::object h0 = py::none(), c0 = py::none();
  if (state.is_none()) {
    // Zeros.
  } else if (!has_cell_state) {
    if (!is_plain<Real>(state, {1, N, H})) return py::none();
    h0 = without_first_axis<Real>(state);
  } else {
    if (!PyTuple_CheckExact(state.ptr()) || PyTuple_GET_SIZE(state.ptr()) != 2) return py::none();
    const py::handle h = PyTuple_GET_ITEM(state.ptr(), 0), c = PyTuple_GET_ITEM(state.ptr(), 1);
    if (!is_plain<Real>(h, {1, N, H}) || !is_plain<Real>(c, {1, N, H})) return py::none();
    h0 = without_first_axis<Real>(h);
    c0 = without_first_axis<Real>(c);
  }
  ForwardCall<Real> call(weights, x, h0, c0, py::none(), py::none(), false);
  run_on_all_threads(call);
  return call.inferred();
}

template <class Call>
py::list results_of(std::vector<std::unique_ptr<Call>>& calls) {
  py::list results;
  for (std::unique_ptr<Call>& call : calls) results.append(call->result());
  return results;
}

/// Arguments of a call by their names.
class Named {
 public:
  explicit Named(const py::handle& arguments) : arguments_(py::cast<py::dict>(arguments)) {}

  py::object operator[](const char* name) const {
    return arguments_.contains(name) ? py::object(arguments_[name]) : py::none();
  }
  Weights& weights() const { return py::cast<Weights&>(arguments_["weights"]); }

 private:
  py::dict arguments_;
};

bool are_double(const py::list& calls) {
  bool all = true;
  bool any = false;
  for (const py::handle& call : calls) {
    const bool is_double = Named(call).weights().is_double();
    all = all && is_double;
    any = any || is_double;
  }
  if (all != any) throw py::type_error("calls: some weights are float32 and some float64; expected one type");
  return any;
}

template <class Real>
py::list forward_all(const py::list& calls, bool training, bool chained) {
  std::vector<std::unique_ptr<ForwardCall<Real>>> jobs;
  for (const py::handle& handle : calls) {
    const Named call(handle);
    const py::object x = chained && !jobs.empty() ? py::object(jobs.back()->output()) : call["x"];
    jobs.push_back(std::make_unique<ForwardCall<Real>>(call.weights(), x, call["h0"], call["c0"], call["slots"],
                                                       call["places"], training));
  }
  run_all(jobs, chained);
  return results_of(jobs);
}

template <class Real>
py::list backward_all(const py::list& calls, bool chained) {
  std::vector<std::unique_ptr<BackwardCall<Real>>> jobs;
  for (const py::handle& handle : calls) {
    const Named call(handle);
    const py::object dy = chained && !jobs.empty() ? jobs.back()->input_gradient() : call["dy"];
    const BackwardInputs in{.x = call["x"],
                            .h = call["h"],
                            .c = call["c"],
                            .gates = call["gates"],
                            .dy = dy,
                            .dcells = call["dcells"],
                            .dh_n = call["dh_n"],
                            .dc_n = call["dc_n"],
                            .dw_ih = call["dw_ih"],
                            .dw_hh = call["dw_hh"],
                            .db_ih = call["db_ih"],
                            .db_hh = call["db_hh"],
                            .slots = call["slots"],
                            .places = call["places"],
                            .need_dx = py::cast<bool>(call["need_dx"]),
                            .overwrite = py::cast<bool>(call["overwrite"])};
    jobs.push_back(std::make_unique<BackwardCall<Real>>(call.weights(), in));
  }
  run_all(jobs, chained);
  return results_of(jobs);
}

/// The place to cut backward, of any layer, at or before step `wanted`.
Index backward_cut(Index steps, Index batch, const py::object& slots, Index last, Index wanted) {
  const Checker check("backward_cut");
  const CallDims call(check, steps, batch, slots);
  if (!(0 <= wanted && wanted < last && last <= call.dims.T)) {
    check.value_error("last or wanted is not among the steps; expected 0 <= wanted < last <= T");
  }
  return cut_of_chunks(call.dims, last, wanted);
}

}  // namespace

void bind_recurrent(py::module_& m) {
  m.def(
      "forward_all",
      [](const py::list& calls, bool training, bool chained) {
        return are_double(calls) ? forward_all<double>(calls, training, chained)
                                 : forward_all<float>(calls, training, chained);
      },
      "calls"_a, py::kw_only(), "training"_a.noconvert(), "chained"_a.noconvert());
  m.def(
      "backward_all",
      [](const py::list& calls, bool chained) {
        return are_double(calls) ? backward_all<double>(calls, chained) : backward_all<float>(calls, chained);
      },
      "calls"_a, py::kw_only(), "chained"_a.noconvert());
  m.def("backward_cut", &backward_cut, py::kw_only(), "steps"_a, "batch"_a, "slots"_a, "last"_a, "wanted"_a);
  m.def(
      "forward",
      [](Weights& weights, const py::object& x, const py::object& h0, const py::object& c0, bool training,
         const py::object& slots, const py::object& places) {
        return with_real(weights, [&]<class Real>() {
          ForwardCall<Real> call(weights, x, h0, c0, slots, places, training);
          run_on_all_threads(call);
          return call.result();
        });
      },
      py::kw_only(), "weights"_a, "x"_a, "h0"_a, "c0"_a, "training"_a.noconvert(), "slots"_a = py::none(),
      "places"_a = py::none());
  m.def(
      "infer",
      [](Weights& weights, const py::object& x, const py::object& state) {
        return with_real(weights, [&]<class Real>() { return infer<Real>(weights, x, state); });
      },
      "weights"_a, "x"_a, "state"_a);
  m.def(
      "backward",
      [](Weights& weights, const py::object& x, const py::object& h, const py::object& c, const py::object& gates,
         const py::object& dy, const py::object& dh_n, const py::object& dc_n, const py::object& dw_ih,
         const py::object& dw_hh, const py::object& db_ih, const py::object& db_hh, bool need_dx, bool overwrite,
         const py::object& slots, const py::object& places, const py::object& dcells) {
        const BackwardInputs in{.x = x,
                                .h = h,
                                .c = c,
                                .gates = gates,
                                .dy = dy,
                                .dcells = dcells,
                                .dh_n = dh_n,
                                .dc_n = dc_n,
                                .dw_ih = dw_ih,
                                .dw_hh = dw_hh,
                                .db_ih = db_ih,
                                .db_hh = db_hh,
                                .slots = slots,
                                .places = places,
                                .need_dx = need_dx,
                                .overwrite = overwrite};
        return with_real(weights, [&]<class Real>() {
          BackwardCall<Real> call(weights, in);
          run_on_all_threads(call);
          return call.result();
        });
      },
      py::kw_only(), "weights"_a, "x"_a, "h"_a, "c"_a, "gates"_a, "dy"_a, "dh_n"_a, "dc_n"_a, "dw_ih"_a, "dw_hh"_a,
      "db_ih"_a, "db_hh"_a, "need_dx"_a.noconvert(), "overwrite"_a.noconvert(), "slots"_a = py::none(),
      "places"_a = py::none(), "dcells"_a = py::none());
}

}  // namespace rnnfast::bindings
