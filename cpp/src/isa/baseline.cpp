// SPDX-License-Identifier: MIT
// The kernels for the instruction set every machine of the architecture has: SSE2 on x86-64, NEON on aarch64.
// CMakeLists.txt sets the flags and RNNFAST_REAL.
#define RNNFAST_ISA baseline
#include "kernels/table.h"

namespace rnnfast::baseline {

template const IsaKernels<RNNFAST_REAL>& kernels<RNNFAST_REAL>() noexcept;

}  // namespace rnnfast::baseline
