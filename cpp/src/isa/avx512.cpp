// SPDX-License-Identifier: MIT
// The kernels for AVX-512 F, BW, DQ and VL. CMakeLists.txt sets the flags.
#define RNNFAST_ISA avx512
#include "kernels/table.h"

namespace rnnfast::avx512 {

constinit const IsaKernels<float> kFloatKernels = isa_kernels<float>();
constinit const IsaKernels<double> kDoubleKernels = isa_kernels<double>();

}  // namespace rnnfast::avx512
