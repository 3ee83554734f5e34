// SPDX-License-Identifier: MIT
// The kernels for the instruction set every machine of the architecture has: SSE2 on x86-64, NEON on aarch64.
// CMakeLists.txt sets the flags.
#define RNNFAST_ISA baseline
#include "kernels/table.h"

namespace rnnfast::baseline {

constinit const IsaKernels<float> kFloatKernels = isa_kernels<float>();
constinit const IsaKernels<double> kDoubleKernels = isa_kernels<double>();

}  // namespace rnnfast::baseline
