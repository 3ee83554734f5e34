// SPDX-License-Identifier: MIT
// One recurrent layer: packing of its weights, forward, and backpropagation through time.
//
//   rnn   h[t] = f(a),  a = w_ih x[t] + b + w_hh h[t-1],  f = tanh or relu
//   lstm  i,f,o = sigmoid(a), g = tanh(a),  c[t] = f c[t-1] + i g,  h[t] = o tanh(c[t])
//   gru   r,z = sigmoid(a),  n = tanh(w_in x[t] + b_in + r q),  q = w_hn h[t-1] + b_hn,
//         h[t] = (1 - z) n + z h[t-1]
//
// G rows of weights per unit: 1 (rnn), 4 (lstm: i, f, g, o), 3 (gru: r, z, n).
// P values kept per unit and step: 0 (rnn), 4 (lstm: i, f, g, o), 4 (gru: q, r, z, n).
//
// All functions: arrays are dense and in C order, written arrays overlap no other, nothing is allocated or
// thrown, no state is kept, and calls with disjoint outputs may run at the same time. Every element of every
// result except the weight gradients is one chain of multiply-adds in an order that depends on neither the
// number of threads, nor the batch a row stands in, nor how a sequence is cut; weight gradients are summed over
// chunks of rows that depend on the batch's lengths and on the distance from the last step alone.
//
// R = dims.row(T) rows stand in everything kept per step, N + R in h, and in what the caller gives per step (x, dy,
// dcells, dx) at least R, at dims.places: see Dims.
#pragma once

#include "rnnfast/threads.h"
#include "rnnfast/types.h"

namespace rnnfast {

/// Parameters as PyTorch lays them out. No biases: null.
template <class Real>
struct Parameters {
  const Real* w_ih;  // in  (G*H, I)
  const Real* w_hh;  // in  (G*H, H)
  const Real* b_ih;  // in  (G*H)
  const Real* b_hh;  // in  (G*H)
};

/// Pointers of one forward call.
template <class Real>
struct ForwardArgs {
  const Real* x;       // in   (R, I)
  const Real* packed;  // in   written by pack_forward for the same sizes; null in training where runs_unpacked
  const Parameters<Real>* raw;  // in   in its place
  Real* h;             // io   (N+R, H)  slot 0 holds h0; slots 1..T are written
  Real* c;             // io   lstm only. Training: (N+R, H) like h. Inference: (N, H), c0 in, last state out
  Real* gates;         // out  (R, P, H)  training only: kept for backward. Null for rnn and in inference
  Real* work;          // tmp  forward_work_size elements
  bool last_units_first = false;  // order of the units in step 0; it alternates, for the sake of the cache
};

/// Pointers of one backward call. Gradients of activations are overwritten, those of weights as `overwrite` says.
template <class Real>
struct BackwardArgs {
  const Real* x;       // in   (R, I)
  const Real* packed;  // in   written by pack_backward for the same sizes; null where runs_unpacked
  const Parameters<Real>* raw;  // in   in its place
  const Real* h;       // in   (N+R, H)  as forward left it
  const Real* c;       // in   (N+R, H)  lstm only
  const Real* gates;   // in   (R, P, H)  as forward kept them. Null for rnn
  const Real* dy;      // in   (R, H)    null means zeros
  const Real* dcells;  // in   (R, H)    lstm only: gradient of the cell state after every step. Null means zeros
  Real* dh;            // io   (N, H)  gradient of each sequence's last hidden state in, of its initial one out
  Real* dc;            // io   (N, H)  lstm only: the same of the cell state
  Real* dx;            // out  (R, I)  null if not wanted
  Real* dw_ih;         // io   (G*H, I)
  Real* dw_hh;         // io   (G*H, H)
  Real* db_ih;         // io   (G*H)  null without biases
  Real* db_hh;         // io   (G*H)  null without biases
  bool overwrite;      // the steps that end at T write dw and db instead of adding to what stands there
  Real* work;          // tmp  backward_work_size elements
};

/// At most so many rows are multiplied with weights as they are.
inline constexpr Index kUnpackedRows = 4;
/// From more rows on the weights of one step are packed as a whole.
inline constexpr Index kRowsWorthPacking = 64;

/// Whether training may go without packed weights: packing pays if they are used several times. The bits are the same.
inline bool forward_runs_unpacked(const Dims& dims) { return dims.T == 1 && dims.slots == nullptr; }
inline bool backward_runs_unpacked(const Dims& dims) {
  return forward_runs_unpacked(dims) && dims.N <= kRowsWorthPacking;
}

/// The kernels of one cell and float type for one instruction set. Work and packed buffers are 64-byte aligned.
template <class Real>
struct CellKernels {
  Index gates_per_unit;   // G
  Index planes_per_unit;  // P
  bool has_cell_state;

  /// Elements of packed weights, and the packing itself: a copy, to be repeated when parameters change.
  Index (*forward_pack_size)(LayerDims dims);
  void (*pack_forward)(LayerDims dims, const Parameters<Real>& parameters, Real* packed, Team& team);
  Index (*backward_pack_size)(LayerDims dims);
  void (*pack_backward)(LayerDims dims, const Parameters<Real>& parameters, Real* packed, Team& team);

  /// T, N, I, H >= 1. Costs 2 G R H (I + H) flops; backward with dx twice as many.
  /// Forward runs some of the steps, those before them having been run.
  Index (*forward_work_size)(const Dims& dims, bool training, int threads);
  void (*forward)(const Dims& dims, const ForwardArgs<Real>& args, bool training, StepRange steps, Team& team);
  /// Backward runs steps.last-1 down to steps.first, those after them having been run, dh and dc carried over. The
  /// bits are those of one call if steps.first is one of the places where weight gradients are cut anyway (chunks.h).
  Index (*backward_work_size)(const Dims& dims, int threads);
  void (*backward)(const Dims& dims, const BackwardArgs<Real>& args, StepRange steps, Team& team);
};

/// The kernels for the instruction set in use. Source: dispatch.cpp.
template <class Real>
const CellKernels<Real>& kernels(Cell cell) noexcept;

}  // namespace rnnfast
