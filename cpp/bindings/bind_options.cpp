// SPDX-License-Identifier: MIT
#include <pybind11/stl.h>

#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "bind.h"
#include "gil.h"
#include "rnnfast/chunks.h"
#include "rnnfast/options.h"
#include "rnnfast/sparsity.h"
#include "slots.h"
#include "weights.h"

namespace rnnfast::bindings {
namespace {

using namespace py::literals;

/// The parameters of a cell with options: what they are called, and their shapes.
enum Parameter { w_ih, w_hh, b_ih, b_hh, w_hr, peephole, norm_ih, norm_hh, norm_c, norm_c_bias, kParameters };
constexpr std::array<const char*, kParameters> kNames = {"w_ih",     "w_hh",    "b_ih",    "b_hh",   "w_hr",
                                                         "peephole", "norm_ih", "norm_hh", "norm_c", "norm_c_bias"};

/// Parameters and packed copies of a layer whose cells have options.
class OptionWeights {
 public:
  OptionWeights(const std::string& name, const py::dict& arrays, const py::dict& connections,
                const std::vector<std::tuple<int, double, double>>& activations, std::optional<double> clip,
                bool coupled, bool reset_after, double zoneout_h, double zoneout_c)
      : check_("OptionWeights") {
    const Cell cell = cell_named(check_, name);
    cell_.kind = kind_of(cell);
    cell_.coupled = coupled && cell_.kind == CellKind::lstm;
    cell_.reset_after = reset_after;
    cell_.clip = clip.value_or(std::numeric_limits<double>::infinity());
    if (!(cell_.clip > 0)) check_.value_error("clip is not above 0");
    cell_.zoneout_h = zoneout_h;
    cell_.zoneout_c = zoneout_c;
    set_activations(cell, activations);
    for (int p = 0; p < kParameters; ++p) {
      arrays_[static_cast<std::size_t>(p)] = arrays.contains(kNames[static_cast<std::size_t>(p)])
                                                 ? py::object(arrays[kNames[static_cast<std::size_t>(p)]])
                                                 : py::none();
    }
    is_double_ = py::isinstance<py::array_t<double>>(arrays_[w_ih]);
    if (is_double_) {
      check_arrays<double>();
    } else {
      check_arrays<float>();
    }
    if (const unsigned char* present = mask(connections, "w_ih", cell_.M(), cell_.dims.I)) {
      sparse_ih_ = sparsities(present, cell_.M(), cell_.dims.I);
    }
    if (const unsigned char* present = mask(connections, "w_hh", cell_.M(), cell_.K())) {
      const Index apart = cell_.splits_n() ? cell_.dims.H : 0;  // rows of n
      sparse_hh_ = sparsities(present, cell_.M() - apart, cell_.K());
      if (apart > 0) sparse_hn_ = sparsities(present + (cell_.M() - apart) * cell_.K(), apart, cell_.K());
    }
  }

  void invalidate() { version_.fetch_add(1); }

  const OptionCell& cell() const { return cell_; }
  bool is_double() const { return is_double_; }
  bool has(Parameter p) const { return pointers_[p] != nullptr; }

  /// Shape of a parameter; empty if the cell has none of that name.
  std::vector<Index> shape(int p) const {
    const Index M = cell_.M();
    const Index H = cell_.dims.H;
    switch (p) {
      case w_ih: return {M, cell_.dims.I};
      case w_hh: return {M, cell_.K()};
      case b_ih:
      case b_hh: return {M};
      case w_hr: return {cell_.P, H};
      case peephole: return {(cell_.gates() - 1) * H};
      case norm_ih:
      case norm_hh: return {M};
      default: return {H};
    }
  }

  /// Packed parameters, and the parameters themselves as the kernels take them. Without the GIL.
  template <class Real>
  SharedBuffer forward_pack(OptionParameters<Real>& to) {
    const OptionKernels<Real>& k = option_kernels<Real>();
    return refresh<Real>(forward_, to, k.forward_pack_size, k.pack_forward);
  }
  template <class Real>
  SharedBuffer backward_pack(OptionParameters<Real>& to) {
    const OptionKernels<Real>& k = option_kernels<Real>();
    return refresh<Real>(backward_, to, k.backward_pack_size, k.pack_backward);
  }

 private:
  /// What there is of a matrix, by the lanes of a register.
  using Sparsities = std::map<Index, std::unique_ptr<const Sparsity>>;

  static CellKind kind_of(Cell cell) {
    return cell == Cell::lstm ? CellKind::lstm : cell == Cell::gru ? CellKind::gru : CellKind::rnn;
  }

  void set_activations(Cell cell, const std::vector<std::tuple<int, double, double>>& given) {
    const auto plain = [](Function function) { return Activation{function, 0, 0}; };
    std::vector<Activation> chosen;
    switch (cell_.kind) {
      case CellKind::rnn: chosen = {plain(cell == Cell::rnn_relu ? Function::relu : Function::tanh)}; break;
      case CellKind::gru: chosen = {plain(Function::sigmoid), plain(Function::tanh)}; break;
      default: chosen = {plain(Function::sigmoid), plain(Function::tanh), plain(Function::tanh)};
    }
    if (!given.empty() && given.size() != chosen.size()) {
      check_.value_error("activations are too many or too few for the cell");
    }
    for (std::size_t k = 0; k < given.size(); ++k) {
      const auto& [function, alpha, beta] = given[k];
      if (function < 0 || function >= kFunctions) check_.value_error("activations has an unknown function");
      chosen[k] = {static_cast<Function>(function), alpha, beta};
    }
    cell_.f = chosen[0];
    cell_.g = chosen.size() > 1 ? chosen[1] : plain(Function::tanh);
    cell_.h = chosen.size() > 2 ? chosen[2] : plain(Function::tanh);
  }

  template <class Real>
  void check_arrays() {
    const py::array input = check_.ranked<Real>("w_ih", arrays_[w_ih], 2, "(G*H, I)");
    const py::array recurrent = check_.ranked<Real>("w_hh", arrays_[w_hh], 2, "(G*H, K)");
    cell_.dims.I = input.shape(1);
    cell_.dims.H = input.shape(0) / cell_.gates();
    if (cell_.dims.I < 1 || cell_.dims.H < 1) check_.value_error("w_ih is empty; expected I and H of at least 1");
    if (!arrays_[w_hr].is_none()) {
      if (cell_.kind != CellKind::lstm) check_.value_error("w_hr is given; expected None, only lstm projects");
      cell_.P = check_.ranked<Real>("w_hr", arrays_[w_hr], 2, "(P, H)").shape(0);
      if (cell_.P < 1) check_.value_error("w_hr is empty; expected P of at least 1");
    }
    cell_.peephole = !arrays_[peephole].is_none();
    cell_.layer_norm = !arrays_[norm_ih].is_none();
    if (cell_.P > 0 && cell_.zoneout_h != 0) {
      check_.value_error("zoneout_h is not 0; expected 0 with w_hr, projected states have no units to keep");
    }
    const bool lstm = cell_.kind == CellKind::lstm;
    if (cell_.peephole && !lstm) check_.value_error("peephole is given; expected None, only lstm has them");
    if (cell_.layer_norm && cell_.kind == CellKind::rnn) check_.value_error("norm_ih is given; expected None for rnn");
    if (cell_.layer_norm && cell_.kind == CellKind::gru && !cell_.reset_after) {
      check_.value_error("norm_ih is given; expected None with the reset gate before the product");
    }
    const auto together = [&](int first, int second, bool wanted) {
      if (arrays_[static_cast<std::size_t>(first)].is_none() != arrays_[static_cast<std::size_t>(second)].is_none()) {
        check_.value_error(std::string("one of ") + kNames[static_cast<std::size_t>(first)] + " and " +
                           kNames[static_cast<std::size_t>(second)] + " is None; expected both or neither");
      }
      if (arrays_[static_cast<std::size_t>(first)].is_none() == wanted && first != b_ih) {
        check_.value_error(std::string(kNames[static_cast<std::size_t>(first)]) + " does not go with the others");
      }
    };
    together(b_ih, b_hh, true);
    together(norm_ih, norm_hh, cell_.layer_norm);
    together(norm_c, norm_c_bias, cell_.layer_norm && lstm);
    for (int p = 0; p < kParameters; ++p) {
      const py::object& array = arrays_[static_cast<std::size_t>(p)];
      if (array.is_none()) continue;
      pointers_[p] = check_
                         .shaped<Real>(kNames[static_cast<std::size_t>(p)], array, shape(p), "its shape",
                                       "from w_ih, the cell and its options")
                         .data();
    }
  }

  /// Null if everything is connected.
  const unsigned char* mask(const py::dict& connections, const char* name, Index rows, Index columns) const {
    if (!connections.contains(name)) return nullptr;
    const py::object object = connections[name];
    if (!py::isinstance<py::array_t<bool>>(object)) check_.type_error("connections has an array that is not bool");
    const py::array array = py::reinterpret_borrow<py::array>(object);
    if (array.ndim() != 2 || array.shape(0) != rows || array.shape(1) != columns || !is_dense<bool>(array)) {
      check_.value_error("connections has an array that is not dense or not of its weight's shape");
    }
    return static_cast<const unsigned char*>(array.data());
  }

  /// For every instruction set: another one may be chosen while a call still runs.
  Sparsities sparsities(const unsigned char* present, Index rows, Index columns) const {
    Sparsities all;
    for (const Index register_bytes : {16, 32, 64}) {
      const Index lanes = register_bytes / static_cast<Index>(is_double_ ? sizeof(double) : sizeof(float));
      all[lanes] = std::make_unique<const Sparsity>(present, rows, columns, lanes);
    }
    return all;
  }

  static Connections connections(const Sparsities& known, Index lanes) {
    return known.empty() ? Connections{} : known.at(lanes)->connections();
  }

  template <class Real>
  SharedBuffer refresh(Pack& pack, OptionParameters<Real>& to,
                       Index (*size)(const OptionCell&, const OptionParameters<Real>&),
                       void (*write)(const OptionCell&, const OptionParameters<Real>&, Real*)) {
    const auto at = [this](Parameter p) { return static_cast<const Real*>(pointers_[p]); };
    to = {at(w_ih),   at(w_hh),        at(b_ih), at(b_hh), at(w_hr), at(peephole), at(norm_ih), at(norm_hh),
          at(norm_c), at(norm_c_bias), {},       {},       {}};
    const Index lanes = option_kernels<Real>().lanes;
    to.ih = connections(sparse_ih_, lanes);
    to.hh = connections(sparse_hh_, lanes);
    to.hn = connections(sparse_hn_, lanes);
    return pack.refresh<Real>(
        version_.load(), [&] { return size(cell_, to); }, [&](Real* packed) { write(cell_, to, packed); });
  }

  Checker check_;
  OptionCell cell_{};
  bool is_double_ = false;
  std::array<py::object, kParameters> arrays_;
  const void* pointers_[kParameters] = {};
  std::atomic<unsigned> version_ = 1;
  Pack forward_, backward_;
  Sparsities sparse_ih_, sparse_hh_, sparse_hn_;
};

struct MaskInputs {
  py::object recurrent, zoneout_h, zoneout_c;
};

/// What forward and backward check alike.
template <class Real>
class OptionCall {
 public:
  OptionCall(const char* function, OptionWeights& weights, const py::object& x, const py::object& slots,
             const MaskInputs& masks)
      : check_(function),
        weights_(weights),
        cell_(weights.cell()),
        call_(check_, cell_.dims, std::type_identity<Real>{}, x, slots) {
    const Index H = cell_.dims.H;
    masks_.recurrent = optional("recurrent", masks.recurrent, {dims().N, cell_.K()}, "(N, K)");
    masks_.zoneout_h = optional("zoneout_h", masks.zoneout_h, call_.step_shape({H}), "(R, H)");
    masks_.zoneout_c = optional("zoneout_c", masks.zoneout_c, call_.step_shape({H}), "(R, H)");
    if (masks_.zoneout_h != nullptr && cell_.P > 0) check_.value_error("zoneout_h is given with a projection");
    if (masks_.zoneout_c != nullptr && !cell_.has_cell_state()) check_.value_error("zoneout_c is given without cells");
  }

 protected:
  const Dims& dims() const { return call_.dims; }
  bool is_empty() const { return dims().row(dims().T) == 0; }
  const OptionKernels<Real>& kernels() const { return option_kernels<Real>(); }

  Index segment(Index passes) const {
    return steps_between_signals(dims().N, cell_.M() * passes, cell_.dims.I + cell_.K() + cell_.P);
  }

  py::array array(const char* name, const py::object& object, const std::vector<Index>& shape, const char* axes) const {
    return check_.shaped<Real>(name, object, shape, axes, call_.origin());
  }

  const Real* optional(const char* name, const py::object& object, const std::vector<Index>& shape, const char* axes) {
    if (object.is_none()) return nullptr;
    held_.push_back(array(name, object, shape, axes));
    return data<Real>(std::as_const(held_.back()));
  }

  Checker check_;
  OptionWeights& weights_;
  const OptionCell& cell_;
  CallDims call_;
  OptionMasks<Real> masks_{};
  std::vector<py::array> held_;
};

template <class Real>
class OptionForwardCall : OptionCall<Real> {
  using Base = OptionCall<Real>;
  using Base::call_, Base::cell_, Base::check_, Base::masks_, Base::weights_;

 public:
  OptionForwardCall(OptionWeights& weights, const py::object& x, const py::object& h0, const py::object& c0,
                    const py::object& slots, const MaskInputs& masks)
      : Base("option_forward", weights, x, slots, masks) {
    h0_ = Base::array("h0", h0, {Base::dims().N, cell_.K()}, "(N, K)");
    if (cell_.has_cell_state() == c0.is_none()) {
      check_.value_error(c0.is_none() ? "c0 is None; expected (N, H)" : "c0 is given; expected None, cell has none");
    }
    if (cell_.has_cell_state()) c0_ = Base::array("c0", c0, {Base::dims().N, cell_.dims.H}, "(N, H)");
  }

  py::tuple run(bool training) {
    const Dims& d = Base::dims();
    const OptionKernels<Real>& k = Base::kernels();
    OptionForwardArgs<Real> args{};
    args.masks = masks_;
    args.x = data<Real>(std::as_const(call_.x));
    py::array h = in_slots<Real>(call_, h0_, cell_.K());
    args.h = data<Real>(h);
    py::object c = py::none();
    py::object kept = py::none();
    if (cell_.has_cell_state()) {
      py::array states = training ? in_slots<Real>(call_, c0_, d.H) : copy_or_zeros<Real>(c0_, d.N, d.H);
      args.c = data<Real>(states);
      c = std::move(states);
    }
    if (training) {
      py::array values = new_array<Real>(call_.step_shape({k.kept_size(cell_)}));
      args.kept = data<Real>(values);
      kept = std::move(values);
    }
    if (!Base::is_empty()) {
      WithoutGil unlocked;
      OptionParameters<Real> parameters{};
      const SharedBuffer packed = weights_.template forward_pack<Real>(parameters);
      args.packed = packed->template as<Real>();
      Team team(num_threads());
      const Scratch work(static_cast<std::size_t>(k.forward_work_size(cell_, d, team.size())) * sizeof(Real));
      args.work = work.as<Real>();
      const Index segment = Base::segment(1);
      for (Index t = 0; t < d.T; t += segment) {
        if (t > 0) unlocked.let_python_interrupt();
        k.forward(cell_, parameters, d, args, training, {t, std::min(d.T, t + segment)}, team);
      }
    }
    return py::make_tuple(std::move(h), std::move(c), std::move(kept));
  }

 private:
  py::array h0_ = no_array(), c0_ = no_array();
};

struct OptionBackwardInputs {
  py::object x, h, c, gates, dy, dcells, dh_n, dc_n, slots;
  py::dict gradients;
  bool need_dx;
  bool overwrite;
};

template <class Real>
class OptionBackwardCall : OptionCall<Real> {
  using Base = OptionCall<Real>;
  using Base::call_, Base::cell_, Base::check_, Base::masks_, Base::weights_;

 public:
  OptionBackwardCall(OptionWeights& weights, const OptionBackwardInputs& in, const MaskInputs& masks)
      : Base("option_backward", weights, in.x, in.slots, masks) {
    const Dims& d = Base::dims();
    const bool has_cells = cell_.has_cell_state();
    args_.masks = masks_;
    args_.x = data<Real>(std::as_const(call_.x));
    args_.h = required("h", in.h, call_.slot_shape({cell_.K()}), "(N+R, K)");
    args_.kept = required("gates", in.gates, call_.step_shape({Base::kernels().kept_size(cell_)}), "(R, S)");
    if (has_cells) {
      args_.c = required("c", in.c, call_.slot_shape({d.H}), "(N+R, H)");
    } else if (!in.c.is_none() || !in.dc_n.is_none() || !in.dcells.is_none()) {
      check_.value_error("c, dc_n or dcells is given; expected None, the cell has no cell state");
    }
    args_.dy = Base::optional("dy", in.dy, call_.step_shape({cell_.K()}), "(R, K)");
    args_.dcells = Base::optional("dcells", in.dcells, call_.step_shape({d.H}), "(R, H)");
    if (!in.dh_n.is_none()) Base::array("dh_n", in.dh_n, {d.N, cell_.K()}, "(N, K)");
    if (!in.dc_n.is_none()) Base::array("dc_n", in.dc_n, {d.N, d.H}, "(N, H)");
    Real* const pointers[] = {claim(w_ih, in),   claim(w_hh, in),       claim(b_ih, in),    claim(b_hh, in),
                              claim(w_hr, in),   claim(peephole, in),   claim(norm_ih, in), claim(norm_hh, in),
                              claim(norm_c, in), claim(norm_c_bias, in)};
    args_.dw_ih = pointers[w_ih];
    args_.dw_hh = pointers[w_hh];
    args_.db_ih = pointers[b_ih];
    args_.db_hh = pointers[b_hh];
    args_.dw_hr = pointers[w_hr];
    args_.dpeephole = pointers[peephole];
    args_.dnorm_ih = pointers[norm_ih];
    args_.dnorm_hh = pointers[norm_hh];
    args_.dnorm_c = pointers[norm_c];
    args_.dnorm_c_bias = pointers[norm_c_bias];
    dh_ = copy_or_zeros<Real>(in.dh_n, d.N, cell_.K());
    args_.dh = data<Real>(dh_);
    if (has_cells) {
      py::array carried = copy_or_zeros<Real>(in.dc_n, d.N, d.H);
      args_.dc = data<Real>(carried);
      dc_ = std::move(carried);
    }
    if (in.need_dx) {
      py::array gradient = new_array<Real>(call_.step_shape({d.I}));
      args_.dx = data<Real>(gradient);
      dx_ = std::move(gradient);
    }
    if (in.overwrite) {
      for (py::array& gradient : gradients_) clear(gradient);
    }
  }

  py::tuple run() {
    const Dims& d = Base::dims();
    const OptionKernels<Real>& k = Base::kernels();
    if (!Base::is_empty()) {
      WithoutGil unlocked;
      OptionParameters<Real> parameters{};
      const SharedBuffer packed = weights_.template backward_pack<Real>(parameters);
      args_.packed = packed->template as<Real>();
      Team team(num_threads());
      const Scratch work(static_cast<std::size_t>(k.backward_work_size(cell_, d, team.size())) * sizeof(Real));
      args_.work = work.as<Real>();
      const Index segment = Base::segment(3);
      for (Index last = d.T; last > 0;) {
        if (last < d.T) unlocked.let_python_interrupt();
        const Index first = last > segment ? cut_of_chunks(d, last, last - segment) : 0;
        k.backward(cell_, parameters, d, args_, {first, last}, team);
        last = first;
      }
    }
    return py::make_tuple(std::move(dx_), std::move(dh_), std::move(dc_));
  }

 private:
  const Real* required(const char* name, const py::object& object, const std::vector<Index>& shape, const char* axes) {
    Base::held_.push_back(Base::array(name, object, shape, axes));
    return data<Real>(std::as_const(Base::held_.back()));
  }

  /// The gradient of a parameter: an array of its own, that nothing else which is read or written overlaps.
  Real* claim(Parameter p, const OptionBackwardInputs& in) {
    const char* name = kNames[p];
    const bool given = in.gradients.contains(name) && !py::object(in.gradients[name]).is_none();
    if (given != weights_.has(p)) {
      check_.value_error(std::string("the gradient of ") + name +
                         (given ? " is given; expected None, there is no such parameter" : " is missing"));
    }
    if (!given) return nullptr;
    py::array out = Base::array(name, in.gradients[name], weights_.shape(p), "the parameter's shape");
    check_.writeable(name, out, {&call_.x});
    for (const py::array& other : Base::held_) check_.writeable(name, out, {&other});
    Base::held_.push_back(out);
    gradients_.push_back(out);
    return data<Real>(out);
  }

  OptionBackwardArgs<Real> args_{};
  std::vector<py::array> gradients_;  // of the parameters
  py::array dh_ = no_array();
  py::object dx_ = py::none();
  py::object dc_ = py::none();
};

}  // namespace

void bind_options(py::module_& m) {
  py::class_<OptionWeights>(m, "OptionWeights")
      .def(py::init<const std::string&, const py::dict&, const py::dict&,
                    const std::vector<std::tuple<int, double, double>>&, std::optional<double>, bool, bool, double,
                    double>(),
           py::kw_only(), "cell"_a, "arrays"_a, "connections"_a, "activations"_a, "clip"_a, "coupled"_a,
           "reset_after"_a, "zoneout_h"_a, "zoneout_c"_a)
      .def("invalidate", &OptionWeights::invalidate);
  m.def(
      "option_forward",
      [](OptionWeights& weights, const py::object& x, const py::object& h0, const py::object& c0, bool training,
         const py::object& slots, const py::object& recurrent, const py::object& zoneout_h,
         const py::object& zoneout_c) {
        return with_real(weights, [&]<class Real>() {
          return OptionForwardCall<Real>(weights, x, h0, c0, slots, {recurrent, zoneout_h, zoneout_c}).run(training);
        });
      },
      py::kw_only(), "weights"_a, "x"_a, "h0"_a, "c0"_a, "training"_a.noconvert(), "slots"_a, "recurrent"_a,
      "zoneout_h"_a, "zoneout_c"_a);
  m.def(
      "option_backward",
      [](OptionWeights& weights, const py::object& x, const py::object& h, const py::object& c, const py::object& gates,
         const py::object& dy, const py::object& dcells, const py::object& dh_n, const py::object& dc_n,
         const py::dict& gradients, bool need_dx, bool overwrite, const py::object& slots, const py::object& recurrent,
         const py::object& zoneout_h, const py::object& zoneout_c) {
        const OptionBackwardInputs in{.x = x,
                                      .h = h,
                                      .c = c,
                                      .gates = gates,
                                      .dy = dy,
                                      .dcells = dcells,
                                      .dh_n = dh_n,
                                      .dc_n = dc_n,
                                      .slots = slots,
                                      .gradients = gradients,
                                      .need_dx = need_dx,
                                      .overwrite = overwrite};
        return with_real(weights, [&]<class Real>() {
          return OptionBackwardCall<Real>(weights, in, {recurrent, zoneout_h, zoneout_c}).run();
        });
      },
      py::kw_only(), "weights"_a, "x"_a, "h"_a, "c"_a, "gates"_a, "dy"_a, "dcells"_a, "dh_n"_a, "dc_n"_a, "gradients"_a,
      "need_dx"_a.noconvert(), "overwrite"_a.noconvert(), "slots"_a, "recurrent"_a, "zoneout_h"_a, "zoneout_c"_a);
}

}  // namespace rnnfast::bindings
