// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>

namespace rnnfast {

/// Sizes and positions. Signed: backpropagation counts time down, and an unsigned `t >= 0` never ends.
using Index = std::ptrdiff_t;

/// The cells, in the order of the kernel tables.
enum class Cell { rnn_tanh, rnn_relu, lstm, gru };
inline constexpr int kCells = 4;

/// Sizes of one layer: I inputs and H hidden units.
struct LayerDims {
  Index I;
  Index H;
};

/// Sizes of one call: T time steps of N sequences.
struct Dims {
  Index T;
  Index N;
  Index I;
  Index H;
};

// One rule for all gradients: weight gradients accumulate (+=), activation gradients are overwritten (=).

}  // namespace rnnfast
