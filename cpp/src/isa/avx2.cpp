// SPDX-License-Identifier: MIT
// The kernels for AVX2 and FMA. CMakeLists.txt sets the flags.
#define RNNFAST_ISA avx2
#include "kernels/table.h"

namespace rnnfast::avx2 {

constinit const IsaKernels<float> kFloatKernels = isa_kernels<float>();
constinit const IsaKernels<double> kDoubleKernels = isa_kernels<double>();

}  // namespace rnnfast::avx2
