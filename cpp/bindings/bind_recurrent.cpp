// SPDX-License-Identifier: MIT
#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "bind.h"
#include "gil.h"
#include "rnnfast/chunks.h"
#include "slots.h"
#include "weights.h"

namespace rnnfast::bindings {
namespace {

using namespace py::literals;

/// One forward call: what it takes is checked and what it gives allocated when it is made.
template <class Real>
class ForwardCall {
 public:
  ForwardCall(Weights& weights, const py::object& x, const py::object& h0_in, const py::object& c0_in,
              const py::object& slots, const py::object& places, bool training)
      : weights_(weights),
        check_("forward"),
        k_(weights.kernels<Real>()),
        call_(check_, weights.dims(), std::type_identity<Real>{}, x, slots, places),
        training_(training) {
    const Dims& d = call_.dims;
    const py::array h0 = check_.shaped<Real>("h0", h0_in, {d.N, d.H}, "(N, H)", call_.origin());
    if (k_.has_cell_state == c0_in.is_none()) {
      check_.value_error(k_.has_cell_state ? "c0 is None; expected (N, H)"
                                           : "c0 is given; expected None, cell has none");
    }
    h_ = in_slots<Real>(call_, h0);
    if (k_.has_cell_state) {
      const py::array c0 = check_.shaped<Real>("c0", c0_in, {d.N, d.H}, "(N, H)", call_.origin());
      py::array states = training ? in_slots<Real>(call_, c0) : copy_or_zeros<Real>(c0, d.N, d.H);
      args_.c = data<Real>(states);
      c_ = std::move(states);
    }
    if (training && k_.planes_per_unit > 0) {
      py::array kept = new_array<Real>(call_.step_shape({k_.planes_per_unit, d.H}));
      args_.gates = data<Real>(kept);
      gates_ = std::move(kept);
    }
    args_.x = data<Real>(std::as_const(call_.x));
    args_.h = data<Real>(h_);
  }

  const Dims& dims() const { return call_.dims; }
  bool is_empty() const { return dims().row(dims().T) == 0; }
  Index segment() const { return steps_between_signals(dims().N, k_.gates_per_unit * dims().H, dims().I + dims().H); }

  /// Without the GIL, before run() on so many threads.
  void prepare(Team& team, int threads) {
    parameters_ = weights_.parameters<Real>();
    args_.raw = &parameters_;
    packed_ = training_ && forward_runs_unpacked(dims()) ? weights_.forward_pack_if_reused<Real>(team)
                                                         : weights_.forward_pack<Real>(team);
    args_.packed = packed_ == nullptr ? nullptr : packed_->template as<Real>();
    work_.emplace(static_cast<std::size_t>(k_.forward_work_size(dims(), training_, threads)) * sizeof(Real));
    args_.work = work_->template as<Real>();
  }

  void run(StepRange steps, Team& team) { k_.forward(dims(), args_, training_, steps, team); }

  /// States after every step, (T, N, H), a view of what result() gives; of a dense batch.
  py::array output() const {
    const Dims& d = dims();
    const py::array_t<Real> h(h_);
    return py::array(h.dtype(), {d.T, d.N, d.H}, {h.strides(0), h.strides(1), h.strides(2)}, h.data() + d.N * d.H, h_);
  }

  /// y and the last state, as a layer gives them.
  py::tuple inferred() const {
    const Dims& d = dims();
    const py::array_t<Real> h(h_);
    py::array last = py::array_t<Real>({Index{1}, d.N, d.H}, h.data() + d.T * d.N * d.H);
    if (c_.is_none()) return py::make_tuple(output(), std::move(last));
    const py::array_t<Real> c(py::reinterpret_borrow<py::array>(c_));
    return py::make_tuple(output(),
                          py::make_tuple(std::move(last), py::array_t<Real>({Index{1}, d.N, d.H}, c.data(), c)));
  }

  py::tuple result() { return py::make_tuple(std::move(h_), std::move(c_), std::move(gates_)); }

 private:
  Weights& weights_;
  Checker check_;
  const CellKernels<Real>& k_;
  CallDims call_;
  bool training_;
  ForwardArgs<Real> args_{};
  py::array h_;
  py::object c_ = py::none();
  py::object gates_ = py::none();
  Parameters<Real> parameters_{};
  SharedBuffer packed_;
  std::optional<Scratch> work_;
};

struct BackwardInputs {
  py::object x, h, c, gates, dy, dh_n, dc_n, dw_ih, dw_hh, db_ih, db_hh, slots, places, dcells;
  bool need_dx;
  bool overwrite;
};

/// One backward call, like ForwardCall.
template <class Real>
class BackwardCall {
 public:
  BackwardCall(Weights& weights, const BackwardInputs& in)
      : weights_(weights),
        check_("backward"),
        k_(weights.kernels<Real>()),
        call_(check_, weights.dims(), std::type_identity<Real>{}, in.x, in.slots, in.places) {
    read_forward(in);
    read_gradients(in);
    claim_weight_gradients(in);
    const Dims& d = call_.dims;
    dh_ = copy_or_zeros<Real>(in.dh_n, d.N, d.H);
    args_.dh = data<Real>(dh_);
    if (k_.has_cell_state) {
      py::array carried = copy_or_zeros<Real>(in.dc_n, d.N, d.H);
      args_.dc = data<Real>(carried);
      dc_ = std::move(carried);
    }
    if (in.need_dx) {
      py::array gradient = new_array<Real>(call_.given_shape({d.I}));
      call_.clear_unused(gradient);
      args_.dx = data<Real>(gradient);
      dx_ = std::move(gradient);
    }
    args_.x = data<Real>(std::as_const(call_.x));
  }

  const Dims& dims() const { return call_.dims; }
  bool is_empty() const { return dims().row(dims().T) == 0; }
  /// First step of the piece that ends at `last`.
  Index cut(Index last) const {
    const Index segment = steps_between_signals(dims().N, 3 * k_.gates_per_unit * dims().H, dims().I + dims().H);
    return last > segment ? cut_of_chunks(dims(), last, last - segment) : 0;
  }

  /// First step of the chunk that ends at `last`.
  Index next_cut(Index last) const { return first_of_chunk(dims(), last); }
  py::object input_gradient() const { return dx_; }

  void prepare(Team& team, int threads) {
    parameters_ = weights_.parameters<Real>();
    args_.raw = &parameters_;
    packed_ = backward_runs_unpacked(dims()) ? weights_.backward_pack_if_reused<Real>(team)
                                             : weights_.backward_pack<Real>(team);
    args_.packed = packed_ == nullptr ? nullptr : packed_->template as<Real>();
    work_.emplace(static_cast<std::size_t>(k_.backward_work_size(dims(), threads)) * sizeof(Real));
    args_.work = work_->template as<Real>();
  }

  void run(StepRange steps, Team& team) { k_.backward(dims(), args_, steps, team); }

  py::tuple result() { return py::make_tuple(std::move(dx_), std::move(dh_), std::move(dc_)); }

 private:
  py::array states_argument(const char* name, const py::object& object) const {
    return check_.shaped<Real>(name, object, call_.slot_shape({dims().H}), call_.ragged() ? "(N+R, H)" : "(T+1, N, H)",
                               origin());
  }

  const char* origin() const { return call_.ragged() ? "from slots, H from w_hh" : "T, N from x, H from w_hh"; }

  void read_forward(const BackwardInputs& in) {
    h_ = states_argument("h", in.h);
    args_.h = data<Real>(std::as_const(h_));
    if (k_.has_cell_state) {
      c_ = states_argument("c", in.c);
      args_.c = data<Real>(std::as_const(c_));
    } else if (!in.c.is_none() || !in.dc_n.is_none() || !in.dcells.is_none()) {
      check_.value_error("c, dc_n or dcells is given; expected None, the cell has no cell state");
    }
    if (k_.planes_per_unit > 0) {
      gates_ = check_.shaped<Real>("gates", in.gates, call_.step_shape({k_.planes_per_unit, dims().H}),
                                   call_.ragged() ? "(R, P, H)" : "(T, N, P, H)", origin());
      args_.gates = data<Real>(std::as_const(gates_));
    } else if (!in.gates.is_none()) {
      check_.value_error("gates are given; expected None, the cell keeps none");
    }
  }

  void read_gradients(const BackwardInputs& in) {
    const auto outputs = [&](const char* name, const py::object& object, py::array& array) -> const Real* {
      if (object.is_none()) return nullptr;
      array = check_.shaped<Real>(name, object, call_.given_shape({dims().H}),
                                  call_.ragged() ? "(R, H) or (S, H)" : "(T, N, H)", origin());
      return data<Real>(std::as_const(array));
    };
    args_.dy = outputs("dy", in.dy, dy_);
    args_.dcells = outputs("dcells", in.dcells, dcells_);
    const Dims& d = dims();
    if (!in.dh_n.is_none()) check_.shaped<Real>("dh_n", in.dh_n, {d.N, d.H}, "(N, H)", origin());
    if (!in.dc_n.is_none()) check_.shaped<Real>("dc_n", in.dc_n, {d.N, d.H}, "(N, H)", origin());
  }

  void claim_weight_gradients(const BackwardInputs& in) {
    if (weights_.has_bias() == in.db_ih.is_none() || weights_.has_bias() == in.db_hh.is_none()) {
      check_.value_error(weights_.has_bias() ? "db_ih or db_hh is None; expected (G*H,), the weights have biases"
                                             : "db_ih or db_hh is given; expected None, the weights have no biases");
    }
    const Index rows = k_.gates_per_unit * dims().H;
    const char* from_weights = "as the weights";
    dw_ih_ = check_.shaped<Real>("dw_ih", in.dw_ih, {rows, dims().I}, "(G*H, I)", from_weights);
    dw_hh_ = check_.shaped<Real>("dw_hh", in.dw_hh, {rows, dims().H}, "(G*H, H)", from_weights);
    args_.dw_ih = claim("dw_ih", dw_ih_, {});
    args_.dw_hh = claim("dw_hh", dw_hh_, {&dw_ih_});
    if (weights_.has_bias()) {
      db_ih_ = check_.shaped<Real>("db_ih", in.db_ih, {rows}, "(G*H,)", from_weights);
      db_hh_ = check_.shaped<Real>("db_hh", in.db_hh, {rows}, "(G*H,)", from_weights);
      args_.db_ih = claim("db_ih", db_ih_, {&dw_ih_, &dw_hh_});
      args_.db_hh = claim("db_hh", db_hh_, {&dw_ih_, &dw_hh_, &db_ih_});
    }
    args_.overwrite = in.overwrite;
    if (in.overwrite && is_empty()) {
      for (py::array* gradient : {&dw_ih_, &dw_hh_, &db_ih_, &db_hh_}) clear(*gradient);
    }
  }

  Real* claim(const char* name, py::array& out, std::initializer_list<const py::array*> others) const {
    check_.writeable(name, out, others);
    check_.writeable(name, out,
                     {&call_.x, &h_, k_.planes_per_unit > 0 ? &gates_ : nullptr, k_.has_cell_state ? &c_ : nullptr,
                      args_.dy != nullptr ? &dy_ : nullptr, args_.dcells != nullptr ? &dcells_ : nullptr});
    return data<Real>(out);
  }

  Weights& weights_;
  Checker check_;
  const CellKernels<Real>& k_;
  CallDims call_;
  BackwardArgs<Real> args_{};
  py::array h_, c_, gates_, dy_, dcells_, dw_ih_, dw_hh_, db_ih_, db_hh_, dh_;
  py::object dx_ = py::none();
  py::object dc_ = py::none();
  Parameters<Real> parameters_{};
  SharedBuffer packed_;
  std::optional<Scratch> work_;
};

/// Runs a call on all threads, with a look at signals now and then.
template <class Real>
void run_alone(ForwardCall<Real>& call, Team& team, WithoutGil& unlocked) {
  if (call.is_empty()) return;
  call.prepare(team, team.size());
  const Index T = call.dims().T;
  const Index segment = call.segment();
  for (Index t = 0; t < T; t += segment) {
    if (t > 0) unlocked.let_python_interrupt();
    call.run({t, std::min(T, t + segment)}, team);
  }
}

template <class Real>
void run_alone(BackwardCall<Real>& call, Team& team, WithoutGil& unlocked) {
  if (call.is_empty()) return;
  call.prepare(team, team.size());
  for (Index last = call.dims().T; last > 0;) {
    if (last < call.dims().T) unlocked.let_python_interrupt();
    const Index first = call.cut(last);
    call.run({first, last}, team);
    last = first;
  }
}

template <class Call>
void run_on_all_threads(Call& call) {
  if (call.is_empty()) return;
  WithoutGil unlocked;
  Team team(num_threads());
  run_alone(call, team, unlocked);
}

/// Ranges of steps, in the order in which a call takes them, for a wavefront: as many as keep every layer busy.
template <class Real>
std::vector<StepRange> pieces(const ForwardCall<Real>& call) {
  constexpr Index kPieces = 16;
  const Index T = call.dims().T;
  std::vector<StepRange> ranges;
  for (Index piece = 0; piece < kPieces; ++piece) {
    const StepRange range{T * piece / kPieces, T * (piece + 1) / kPieces};
    if (range.last > range.first) ranges.push_back(range);
  }
  return ranges;
}

template <class Real>
std::vector<StepRange> pieces(const BackwardCall<Real>& call) {
  std::vector<StepRange> ranges;
  for (Index last = call.dims().T; last > 0;) {
    const Index first = call.next_cut(last);
    ranges.push_back({first, last});
    last = first;
  }
  return ranges;
}

/// Whether calls that could each use several threads are better off with one each: few sequences make small steps,
/// and threads that share one would wait for each other.
template <class Call>
bool one_thread_each(const std::vector<std::unique_ptr<Call>>& calls, int threads) {
  if (threads == 1 || calls.size() < 2) return false;
  for (const std::unique_ptr<Call>& call : calls) {
    const Dims& d = call->dims();
    const double rows = static_cast<double>(d.row(d.T));
    if (d.N >= kRowsPerThread * threads) return false;
    if (rows * static_cast<double>(d.H) * static_cast<double>(d.I + d.H) < kWorthWaking) return false;
  }
  return true;
}

/// Runs calls that do not depend on each other side by side, or, `chained`, each behind the one before: a call takes a
/// piece of its steps when the one before has gone through it.
template <class Call>
void run_all(std::vector<std::unique_ptr<Call>>& calls, bool chained) {
  WithoutGil unlocked;
  Team team(num_threads());
  if (!one_thread_each(calls, team.size())) {
    for (std::unique_ptr<Call>& call : calls) run_alone(*call, team, unlocked);
    return;
  }
  std::vector<std::vector<StepRange>> ranges;
  std::size_t longest = 0;
  for (std::unique_ptr<Call>& call : calls) {
    call->prepare(team, 1);
    ranges.push_back(pieces(*call));
    longest = std::max(longest, ranges.back().size());
  }
  struct Wave {
    std::vector<std::unique_ptr<Call>>& calls;
    const std::vector<std::vector<StepRange>>& ranges;
    std::size_t number;
    bool chained;
  };
  const std::size_t waves = longest + (chained ? calls.size() - 1 : 0);
  for (std::size_t number = 0; number < waves; ++number) {
    if (number > 0) unlocked.let_python_interrupt();
    Wave wave{calls, ranges, number, chained};
    team.run(
        static_cast<int>(calls.size()),
        [](void* context, int member) {
          const Wave& w = *static_cast<Wave*>(context);
          const std::size_t k = static_cast<std::size_t>(member);
          const std::size_t behind = w.chained ? k : 0;
          if (w.number < behind || w.number - behind >= w.ranges[k].size()) return;
          Team alone(1);
          w.calls[k]->run(w.ranges[k][w.number - behind], alone);
        },
        &wave);
  }
}

/// Whether `object` is a plain array that the kernels take as it is.
template <class Real>
bool is_plain(py::handle object, std::initializer_list<Index> sizes) {
  if (Py_TYPE(object.ptr()) != py::detail::npy_api::get().PyArray_Type_) return false;
  const py::array array = py::reinterpret_borrow<py::array>(object);
  if (!py::isinstance<py::array_t<Real>>(object) || !is_dense<Real>(array)) return false;
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
  py::object h0, c0 = py::none();
  if (state.is_none()) {
    h0 = copy_or_zeros<Real>(py::none(), N, H);
    if (has_cell_state) c0 = h0;
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
    const BackwardInputs in{call["x"],
                            call["h"],
                            call["c"],
                            call["gates"],
                            dy,
                            call["dh_n"],
                            call["dc_n"],
                            call["dw_ih"],
                            call["dw_hh"],
                            call["db_ih"],
                            call["db_hh"],
                            call["slots"],
                            call["places"],
                            call["dcells"],
                            py::cast<bool>(call["need_dx"]),
                            py::cast<bool>(call["overwrite"])};
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
        const BackwardInputs in{x,     h,     c,     gates, dy,     dh_n,   dc_n,    dw_ih,
                                dw_hh, db_ih, db_hh, slots, places, dcells, need_dx, overwrite};
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
