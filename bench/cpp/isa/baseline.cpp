// SPDX-License-Identifier: MIT
#define RNNFAST_ISA baseline
#include "parts_isa.h"
