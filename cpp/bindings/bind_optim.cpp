// SPDX-License-Identifier: MIT
#include <algorithm>
#include <vector>

#include "arrays.h"
#include "bind.h"
#include "gil.h"
#include "rnnfast/training.h"

namespace rnnfast::bindings {
namespace {

using namespace py::literals;

Rule rule_named(const std::string& name) {
  constexpr const char* kNames[kRules] = {
      "sgd", "momentum", "nesterov", "rmsprop", "rmsprop_momentum", "rmsprop_centered", "rmsprop_both", "adam"};
  for (int k = 0; k < kRules; ++k) {
    if (name == kNames[k]) return static_cast<Rule>(k);
  }
  throw py::value_error("optimizer_step: rule is '" + name + "'; expected 'sgd', 'momentum', 'nesterov', 'rmsprop', " +
                        "'rmsprop_momentum', 'rmsprop_centered', 'rmsprop_both' or 'adam'");
}

template <class Real>
py::array vector(const Checker& check, const char* name, py::handle object) {
  return check.ranked<Real>(name, object, 1, "(size,)");
}

struct Scalars {
  double lr, decay, keep, momentum, beta1, beta2, eps, root_correction;
};

/// Steps every one of `parameters`; if one of them would not be finite, neither they nor the buffers change.
template <class Real>
bool step_all(Rule rule, const py::list& parameters, const py::object& grad, const py::object& before,
              const py::list& buffers, const Scalars& s) {
  const Checker check("optimizer_step");
  const py::array g = vector<Real>(check, "grad", grad);
  const Index size = g.size();
  const char* origin = "the size of grad";
  const int wanted = kRuleBuffers[static_cast<int>(rule)];
  py::array old = check.shaped<Real>("before", before, {1 + wanted, size}, "(1 + buffers, size)", "from rule and grad");
  check.writeable("before", old, {&g});
  if (static_cast<int>(buffers.size()) != wanted) {
    check.value_error("buffers has " + std::to_string(buffers.size()) + " arrays; expected " + std::to_string(wanted) +
                      ", from rule");
  }
  OptimizerStep<Real> step{};
  py::array held[kMaxBuffers];
  for (int k = 0; k < wanted; ++k) {
    held[k] = check.shaped<Real>("buffers", buffers[static_cast<std::size_t>(k)], {size}, "(size,)", origin);
    check.writeable("buffers", held[k], {&g, &old, k > 0 ? &held[0] : nullptr, k > 1 ? &held[1] : nullptr});
  }
  std::vector<py::array> parts;
  parts.reserve(parameters.size());
  Index total = 0;
  for (const py::handle part : parameters) {
    parts.push_back(vector<Real>(check, "parameters", part));
    check.writeable("parameters", parts.back(),
                    {&g, &old, wanted > 0 ? &held[0] : nullptr, wanted > 1 ? &held[1] : nullptr,
                     wanted > 2 ? &held[2] : nullptr});
    total += parts.back().size();
  }
  if (total != size) {
    check.value_error("parameters have " + std::to_string(total) + " numbers; expected " + std::to_string(size) + ", " +
                      origin);
  }
  step.lr = static_cast<Real>(s.lr);
  step.decay = static_cast<Real>(s.decay);
  step.keep = static_cast<Real>(s.keep);
  step.momentum = static_cast<Real>(s.momentum);
  step.forget1 = static_cast<Real>(1 - s.beta1);
  step.forget2 = static_cast<Real>(1 - s.beta2);
  step.memory2 = static_cast<Real>(s.beta2);
  step.eps = static_cast<Real>(s.eps);
  step.root_correction = static_cast<Real>(s.root_correction);

  std::vector<Real*> values;
  values.reserve(parts.size());
  for (py::array& part : parts) values.push_back(data<Real>(part));
  Real* const saved = data<Real>(old);
  Real* memory[kMaxBuffers] = {};
  for (int k = 0; k < wanted; ++k) memory[k] = data<Real>(held[k]);

  const WithoutGil unlocked;
  bool finite = true;
  Index start = 0;
  for (std::size_t k = 0; k < values.size(); ++k) {
    step.count = parts[k].size();
    step.g = data<Real>(g) + start;
    step.p = values[k];
    step.before[0] = saved + start;
    for (int b = 0; b < wanted; ++b) {
      step.buffers[b] = memory[b] + start;
      step.before[1 + b] = saved + (1 + b) * size + start;
    }
    finite = training_kernels<Real>().step[static_cast<int>(rule)](step) && finite;
    start += step.count;
  }
  if (!finite) {
    start = 0;
    for (std::size_t k = 0; k < values.size(); ++k) {
      std::copy_n(saved + start, parts[k].size(), values[k]);
      start += parts[k].size();
    }
    for (int b = 0; b < wanted; ++b) std::copy_n(saved + (1 + b) * size, size, memory[b]);
  }
  return finite;
}

bool step_of(const py::list& parameters, const py::object& grad, const py::object& before, const py::list& buffers,
             const std::string& rule, double lr, double decay, double keep, double momentum, double beta1, double beta2,
             double eps, double root_correction) {
  const Scalars scalars{lr, decay, keep, momentum, beta1, beta2, eps, root_correction};
  const Rule named = rule_named(rule);
  return py::isinstance<py::array_t<double>>(grad) ? step_all<double>(named, parameters, grad, before, buffers, scalars)
                                                   : step_all<float>(named, parameters, grad, before, buffers, scalars);
}

template <class Real>
bool finite_of(const py::object& x) {
  const py::array array = vector<Real>(Checker("all_finite"), "x", x);
  return training_kernels<Real>().all_finite(data<Real>(array), array.size());
}

template <class Real>
double squares_of(const py::object& x) {
  const py::array array = vector<Real>(Checker("sum_of_squares"), "x", x);
  return training_kernels<Real>().sum_of_squares(data<Real>(array), array.size());
}

template <class Real>
double norm_of(const py::object& x) {
  const py::array array = vector<Real>(Checker("norm"), "x", x);
  return training_kernels<Real>().norm(data<Real>(array), array.size());
}

template <class Real>
void scale_in_place(const py::object& x, double factor) {
  const Checker check("scale");
  py::array array = vector<Real>(check, "x", x);
  check.writeable("x", array);
  training_kernels<Real>().scale(data<Real>(array), static_cast<Real>(factor), array.size());
}

template <class Real>
void clip_in_place(const py::object& x, double limit) {
  const Checker check("clip");
  py::array array = vector<Real>(check, "x", x);
  check.writeable("x", array);
  training_kernels<Real>().clip(data<Real>(array), static_cast<Real>(limit), array.size());
}

template <class Real>
void add_scaled_in_place(const py::object& sum, const py::object& x, double factor) {
  const Checker check("add_scaled");
  py::array to = vector<Real>(check, "sum", sum);
  const py::array from = check.shaped<Real>("x", x, {to.size()}, "(size,)", "the size of sum");
  check.writeable("sum", to, {&from});
  training_kernels<Real>().add_scaled(data<Real>(to), data<Real>(from), static_cast<Real>(factor), to.size());
}

template <class Real>
void add_rows_in_place(const py::object& table, const py::array_t<Index, py::array::c_style>& index,
                       const py::object& rows) {
  const Checker check("add_rows");
  py::array to = check.ranked<Real>("table", table, 2, "(entries, width)");
  if (index.ndim() != 1) check.value_error("index has " + std::to_string(index.ndim()) + " axes; expected (count,)");
  const py::array from = check.shaped<Real>("rows", rows, {index.size(), to.shape(1)}, "(count, width)",
                                            "count from index, width from table");
  check.writeable("table", to, {&from, &index});
  const Index* const numbers = index.data();
  for (Index m = 0; m < index.size(); ++m) {
    if (numbers[m] < 0 || numbers[m] >= to.shape(0)) {
      check.value_error("index[" + std::to_string(m) + "] is " + std::to_string(numbers[m]) + "; expected 0.." +
                        std::to_string(to.shape(0) - 1) + ", from table");
    }
  }
  const WithoutGil unlocked;
  training_kernels<Real>().add_rows(data<Real>(to), numbers, data<Real>(from), from.shape(0), from.shape(1));
}

using Indices = py::array_t<Index, py::array::c_style>;

template <class Real>
double cross_entropy_of(const py::object& logits, const Indices& target, const py::object& weights, double factor,
                        const py::object& derivative) {
  const Checker check("cross_entropy");
  const py::array z = check.ranked<Real>("logits", logits, 2, "(rows, classes)");
  const Index rows = z.shape(0), classes = z.shape(1);
  py::array d = check.shaped<Real>("derivative", derivative, {rows, classes}, "(rows, classes)", "from logits");
  py::array w = no_array();
  if (!weights.is_none()) w = check.shaped<double>("weights", weights, {rows}, "(rows,)", "from logits");
  check.writeable("derivative", d, {&z, &target, weights.is_none() ? nullptr : &w});
  if (target.ndim() != 1 || target.shape(0) != rows) {
    check.value_error("target has another shape than (rows,) = (" + std::to_string(rows) + ",), from logits");
  }
  const double* const factors = data_or_null<double>(weights);
  const Index* const numbers = target.data();
  for (Index m = 0; m < rows; ++m) {
    if ((numbers[m] < 0 || numbers[m] >= classes) && (factors == nullptr || factors[m] != 0)) {
      check.value_error("target[" + std::to_string(m) + "] is " + std::to_string(numbers[m]) + "; expected 0.." +
                        std::to_string(classes - 1) + ", from logits");
    }
  }
  const Real* const from = data<Real>(z);
  Real* const to = data<Real>(d);
  const WithoutGil unlocked;
  return training_kernels<Real>().cross_entropy(from, numbers, factors, factor, to, rows, classes);
}

}  // namespace

void bind_optim(py::module_& m) {
  m.def("optimizer_step", &step_of, "parameters"_a, "grad"_a, "before"_a, "buffers"_a, "rule"_a, "lr"_a,
        "decay"_a = 0.0, "keep"_a = 1.0, "momentum"_a = 0.0, "beta1"_a = 0.0, "beta2"_a = 0.0, "eps"_a = 0.0,
        "root_correction"_a = 1.0);
  m.def(
      "all_finite", [](const py::object& x) { return is_double(x) ? finite_of<double>(x) : finite_of<float>(x); },
      "x"_a);
  m.def(
      "cross_entropy",
      [](const py::object& logits, const Indices& target, const py::object& weights, double factor,
         const py::object& derivative) {
        return is_double(logits) ? cross_entropy_of<double>(logits, target, weights, factor, derivative)
                                 : cross_entropy_of<float>(logits, target, weights, factor, derivative);
      },
      "logits"_a, "target"_a.noconvert(), "weights"_a, "factor"_a, "derivative"_a);
  m.def(
      "sum_of_squares", [](const py::object& x) { return is_double(x) ? squares_of<double>(x) : squares_of<float>(x); },
      "x"_a);
  m.def("norm", [](const py::object& x) { return is_double(x) ? norm_of<double>(x) : norm_of<float>(x); }, "x"_a);
  m.def(
      "scale",
      [](const py::object& x, double factor) {
        is_double(x) ? scale_in_place<double>(x, factor) : scale_in_place<float>(x, factor);
      },
      "x"_a, "factor"_a);
  m.def(
      "clip",
      [](const py::object& x, double limit) {
        is_double(x) ? clip_in_place<double>(x, limit) : clip_in_place<float>(x, limit);
      },
      "x"_a, "limit"_a);
  m.def(
      "add_scaled",
      [](const py::object& sum, const py::object& x, double factor) {
        is_double(sum) ? add_scaled_in_place<double>(sum, x, factor) : add_scaled_in_place<float>(sum, x, factor);
      },
      "sum"_a, "x"_a, "factor"_a);
  m.def(
      "add_rows",
      [](const py::object& table, const py::array_t<Index, py::array::c_style>& index, const py::object& rows) {
        is_double(table) ? add_rows_in_place<double>(table, index, rows) : add_rows_in_place<float>(table, index, rows);
      },
      "table"_a, "index"_a.noconvert(), "rows"_a);
}

}  // namespace rnnfast::bindings
