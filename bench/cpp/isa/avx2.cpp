// SPDX-License-Identifier: MIT
#define RNNFAST_ISA avx2
#include "parts_isa.h"
