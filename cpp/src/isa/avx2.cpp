// SPDX-License-Identifier: MIT
// The kernels for AVX2 and FMA. CMakeLists.txt sets the flags and RNNFAST_REAL.
#define RNNFAST_ISA avx2
#include "kernels/table.h"

namespace rnnfast::avx2 {

template const IsaKernels<RNNFAST_REAL>& kernels<RNNFAST_REAL>() noexcept;

}  // namespace rnnfast::avx2
