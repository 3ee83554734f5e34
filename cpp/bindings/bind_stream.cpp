// SPDX-License-Identifier: MIT
#include "bind.h"
#include "gil.h"
#include "weights.h"

namespace rnnfast::bindings {
namespace {

using namespace py::literals;

/// One layer run step by step: state and scratch memory stay inside, so that a step allocates nothing but its
/// result, and not even that with `out`.
class Stream {
 public:
  Stream(Weights& weights, Index batch) : weights_(weights), check_("Stream") {
    if (batch < 1) check_.value_error("batch is " + std::to_string(batch) + "; expected a positive number");
    if (batch > (Index{1} << 40) / weights_.dims().H) check_.value_error("batch is too large");
    dims_ = {1, batch, weights_.dims().I, weights_.dims().H};
    const std::size_t real = weights_.is_double() ? sizeof(double) : sizeof(float);
    const std::size_t state = static_cast<std::size_t>(batch * dims_.H) * real;
    h_ = std::make_unique<Buffer>(2 * state);
    c_ = std::make_unique<Buffer>(state);
    std::memset(h_->as<char>(), 0, 2 * state);
    std::memset(c_->as<char>(), 0, state);
  }

  py::object step(const py::object& x, const py::object& out) {
    return weights_.is_double() ? step_of<double>(x, out) : step_of<float>(x, out);
  }

  py::tuple state() const { return weights_.is_double() ? state_of<double>() : state_of<float>(); }

  void set_state(const py::object& h, const py::object& c) {
    if (weights_.is_double()) {
      set_state_of<double>(h, c);
    } else {
      set_state_of<float>(h, c);
    }
  }

 private:
  template <class Real>
  py::object step_of(const py::object& x_in, const py::object& out_in) {
    const py::array x = contiguous<Real>(x_in);
    py::array out = no_array();
    if (out_in.is_none()) {
      out = py::array_t<Real>({dims_.N, dims_.H});
    } else {
      out = check_.shaped<Real>("out", out_in, {dims_.N, dims_.H}, "(N, H)",
                                "N from batch, H from the layer's hidden_size");
      check_.writeable("out", out, {&x});
    }
    const std::size_t bytes = static_cast<std::size_t>(dims_.N * dims_.H) * sizeof(Real);
    Real* h = h_->as<Real>();
    Real* h_new = h + dims_.N * dims_.H;
    Real* y = data<Real>(out);
    const Real* x_data = data<Real>(x);
    {
      const WithoutGil unlocked(static_cast<double>(dims_.N) * weights_.work_of_step());
      const std::lock_guard lock(mutex_);
      const CellKernels<Real>& k = weights_.kernels<Real>();
      Team team(num_threads());
      const SharedBuffer packed = weights_.forward_pack<Real>(team);
      const std::size_t work = static_cast<std::size_t>(k.forward_work_size(dims_, false, team.size())) * sizeof(Real);
      if (work_ == nullptr || work_->bytes() < work) work_ = std::make_unique<Buffer>(work);
      const ForwardArgs<Real> args{.x = x_data,
                                   .packed = packed->as<Real>(),
                                   .raw = nullptr,
                                   .h = h,
                                   .c = c_->as<Real>(),
                                   .gates = nullptr,
                                   .work = work_->as<Real>(),
                                   .last_units_first = last_units_first_};
      last_units_first_ = !last_units_first_;
      k.forward(dims_, args, false, {0, 1}, team);
      std::memcpy(h, h_new, bytes);
      std::memcpy(y, h, bytes);
    }
    return out_in.is_none() ? py::object(std::move(out)) : out_in;
  }

  /// x_t as the kernels need it: slices of longer arrays are copied, which costs less than asking callers to.
  template <class Real>
  py::array contiguous(const py::object& x_in) const {
    const char* origin = "N from batch, I from the layer's input_size";
    if (py::isinstance<py::array>(x_in)) {
      const py::array x = py::reinterpret_borrow<py::array>(x_in);
      if (holds<Real>(x) && x.ndim() == 2 && x.shape(0) == dims_.N && x.shape(1) == dims_.I && !is_dense<Real>(x)) {
        return x.attr("copy")();
      }
    }
    return check_.shaped<Real>("x_t", x_in, {dims_.N, dims_.I}, "(N, I)", origin);
  }

  template <class Real>
  py::tuple state_of() const {
    const bool has_c = weights_.kernels<Real>().has_cell_state;
    py::array_t<Real> h({dims_.N, dims_.H});
    py::array_t<Real> c({has_c ? dims_.N : 0, dims_.H});
    {
      const std::lock_guard lock(mutex_);
      std::memcpy(h.mutable_data(), h_->as<Real>(), static_cast<std::size_t>(h.nbytes()));
      if (has_c) std::memcpy(c.mutable_data(), c_->as<Real>(), static_cast<std::size_t>(c.nbytes()));
    }
    if (!has_c) return py::make_tuple(std::move(h));
    return py::make_tuple(std::move(h), std::move(c));
  }

  template <class Real>
  void set_state_of(const py::object& h_in, const py::object& c_in) {
    const char* origin = "N from batch, H from the layer's hidden_size";
    const std::size_t bytes = static_cast<std::size_t>(dims_.N * dims_.H) * sizeof(Real);
    const bool has_c = weights_.kernels<Real>().has_cell_state;
    if (has_c == c_in.is_none()) {
      check_.value_error(has_c ? "c is None; expected (N, H)" : "c is given; expected None, the cell has none");
    }
    const py::array h = check_.shaped<Real>("h", h_in, {dims_.N, dims_.H}, "(N, H)", origin);
    py::array c = no_array();
    if (has_c) c = check_.shaped<Real>("c", c_in, {dims_.N, dims_.H}, "(N, H)", origin);
    const std::lock_guard lock(mutex_);
    std::memcpy(h_->as<Real>(), h.data(), bytes);
    if (has_c) std::memcpy(c_->as<Real>(), c.data(), bytes);
  }

  Weights& weights_;  // kept alive by the binding
  Checker check_;
  Dims dims_{};
  mutable std::mutex mutex_;  // of the buffers; Python objects are made without it
  std::unique_ptr<Buffer> h_;  // (2, N, H): slot 0 holds the state between steps
  std::unique_ptr<Buffer> c_;  // (N, H)
  std::unique_ptr<Buffer> work_;
  bool last_units_first_ = false;
};

}  // namespace

void bind_stream(py::module_& m) {
  py::class_<Stream>(m, "Stream")
      .def(py::init<Weights&, Index>(), py::keep_alive<1, 2>(), "weights"_a, "batch"_a)
      .def("step", &Stream::step, "x_t"_a, "out"_a = py::none())
      .def("set_state", &Stream::set_state, "h"_a, "c"_a = py::none())
      .def_property_readonly("state", &Stream::state);
}

}  // namespace rnnfast::bindings
