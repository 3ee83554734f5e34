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

/// Sizes of one call: T time steps of N sequences, and which sequences take part in which step.
///
/// Rows of everything kept per step lie step after step without gaps. In a batch of different lengths the
/// sequences come longest first, so that those of step t are the first rows(t) of the batch. Hidden states are kept
/// in slots: slot 0 holds the N initial states, slot t + 1 those after step t, one row for each sequence of that step.
/// What the caller gives and gets per step (x, dy, dcells, dx) has the same rows, wherever they stand: see places.
struct Dims {
  Index T;
  Index N;
  Index I;
  Index H;
  const Index* slots = nullptr;   // (T+2): first row of every slot, and the end. Null: all N sequences have T steps
  const Index* places = nullptr;  // (R): where in the caller's arrays rows stand, each elsewhere. Null: in order

  /// First row of a slot, 0..T+1.
  Index slot(Index t) const { return slots == nullptr ? t * N : slots[t]; }
  /// First row of step t, 0..T.
  Index row(Index t) const { return slot(t + 1) - N; }
  /// Where a row stands in the caller's arrays.
  Index place(Index row_number) const { return places == nullptr ? row_number : places[row_number]; }
  /// Sequences of step t < T: no more than those of the step before.
  Index rows(Index t) const { return slots == nullptr ? N : slots[t + 2] - slots[t + 1]; }
};

/// Some consecutive steps.
struct StepRange {
  Index first;
  Index last;
};

// One rule for all gradients: weight gradients accumulate (+=), unless a call says that it is the first to write them;
// activation gradients are overwritten (=).

}  // namespace rnnfast
