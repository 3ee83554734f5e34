// SPDX-License-Identifier: MIT
#include "bind.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "The kernels of rnnfast. Private: use the classes of rnnfast.";
  rnnfast::bindings::bind_runtime(m);
  rnnfast::bindings::bind_weights(m);
  rnnfast::bindings::bind_recurrent(m);
  rnnfast::bindings::bind_options(m);
  rnnfast::bindings::bind_dense(m);
  rnnfast::bindings::bind_stream(m);
  rnnfast::bindings::bind_optim(m);
  rnnfast::bindings::bind_rows(m);
  rnnfast::bindings::bind_testing(m);
}
