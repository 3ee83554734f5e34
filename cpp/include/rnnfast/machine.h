// SPDX-License-Identifier: MIT
// What this machine can do at most, measured: the limits that the kernels are judged by.
#pragma once

#include "rnnfast/types.h"

namespace rnnfast {

/// Floating-point operations per second, a multiply-add counting as two, of `threads` threads that do nothing but
/// multiply-adds in the registers of the instruction set in use. Takes some tens of milliseconds.
template <class Real>
double fma_peak(int threads);

/// Bytes per second at which `threads` threads read a buffer of `bytes` in all, each its own part, again and again:
/// the bandwidth of whatever holds a buffer of that size. Throws std::bad_alloc.
double read_bandwidth(Index bytes, int threads);

}  // namespace rnnfast
