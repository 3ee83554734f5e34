// SPDX-License-Identifier: MIT
// Running without Python's lock, and coming back to it.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <thread>
#if defined(__GLIBCXX__)
#include <cxxabi.h>
#endif

namespace rnnfast::bindings {

/// Drops the GIL for its lifetime, unless the work takes less time than dropping it: few multiply-adds, or as many as
/// take the same time.
///
/// A daemon thread that asks for the GIL while the interpreter is being torn down is ended by CPython before 3.14 by
/// unwinding its stack, which a destructor may not allow. Such a thread waits here instead, until the process is gone.
class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  explicit WithoutGil(double work) : state_(work < kWorthDropping ? nullptr : PyEval_SaveThread()) {}
  ~WithoutGil() { take(); }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

  /// Lets Python handle signals: throws if a handler raised, such as KeyboardInterrupt's. A GIL that was kept is
  /// dropped from then on.
  void let_python_interrupt() {
    take();
    const bool raised = PyErr_CheckSignals() != 0;
    if (raised) {
      pybind11::error_already_set error;
      state_ = PyEval_SaveThread();
      throw error;
    }
    state_ = PyEval_SaveThread();
  }

 private:
  static constexpr double kWorthDropping = 2e4;  // some 2 us

  void take() {
    if (state_ == nullptr) return;
#if defined(__GLIBCXX__)
    try {
      PyEval_RestoreThread(state_);
    } catch (abi::__forced_unwind&) {
      while (true) std::this_thread::sleep_for(std::chrono::hours(1));
    }
#else
    PyEval_RestoreThread(state_);
#endif
  }

  PyThreadState* state_;  // null: the GIL was not dropped
};

}  // namespace rnnfast::bindings
