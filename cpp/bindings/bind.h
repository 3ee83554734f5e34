// SPDX-License-Identifier: MIT
// One function a topic; module.cpp calls them all.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

namespace rnnfast::bindings {

/// What a number of threads has to be, for messages.
std::string expected_threads();

void bind_weights(pybind11::module_& m);
void bind_recurrent(pybind11::module_& m);
void bind_options(pybind11::module_& m);
void bind_dense(pybind11::module_& m);
void bind_stream(pybind11::module_& m);
void bind_optim(pybind11::module_& m);
void bind_rows(pybind11::module_& m);
void bind_runtime(pybind11::module_& m);
void bind_testing(pybind11::module_& m);

}  // namespace rnnfast::bindings
