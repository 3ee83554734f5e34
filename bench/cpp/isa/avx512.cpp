// SPDX-License-Identifier: MIT
#define RNNFAST_ISA avx512
#include "parts_isa.h"
