// SPDX-License-Identifier: MIT
// The kernels for AVX-512 F, BW, DQ and VL. CMakeLists.txt sets the flags and RNNFAST_REAL.
#define RNNFAST_ISA avx512
#include "kernels/table.h"

namespace rnnfast::avx512 {

template const IsaKernels<RNNFAST_REAL>& kernels<RNNFAST_REAL>() noexcept;

}  // namespace rnnfast::avx512
