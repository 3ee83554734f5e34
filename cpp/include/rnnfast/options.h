// SPDX-License-Identifier: MIT
// Recurrent layers whose cells have options, and layers with few connections.
//
// The plain cells of recurrent.h are computed from registers. What is here needs whole rows (layer normalisation,
// projections, a reset gate before the product), more inputs (peepholes, masks) or other functions; it runs step by
// step: products of all rows, then the cell of each row. Rows, slots and cuts are those of recurrent.h, and so are its
// promises: nothing is allocated or thrown, results depend on neither the number of threads nor the batch.
//
// M = G*H rows of weights, K = P (projection) or H numbers of hidden state, S numbers kept per row for backward, of
// which the first are the activated gates in the order of the weights' rows.
#pragma once

#include <cstdint>

#include "rnnfast/threads.h"
#include "rnnfast/types.h"

namespace rnnfast {

enum class CellKind { rnn, lstm, gru };

/// ONNX's activations.
enum class Function {
  relu,
  tanh,
  sigmoid,
  affine,
  leaky_relu,
  thresholded_relu,
  scaled_tanh,
  hard_sigmoid,
  elu,
  softsign,
  softplus
};
inline constexpr int kFunctions = 11;

struct Activation {
  Function function;
  double alpha;
  double beta;
};

/// What a cell is.
struct OptionCell {
  CellKind kind;
  LayerDims dims;
  Index P;  // numbers of a projected hidden state; 0: no projection
  Activation f, g, h;
  double clip;  // bound of pre-activations; infinite for none
  bool coupled;
  bool reset_after;
  bool layer_norm;
  bool peephole;
  double zoneout_h;  // share of the old state in inference
  double zoneout_c;

  Index gates() const { return kind == CellKind::rnn ? 1 : kind == CellKind::gru || coupled ? 3 : 4; }
  Index M() const { return gates() * dims.H; }
  Index K() const { return P > 0 ? P : dims.H; }
  bool has_cell_state() const { return kind == CellKind::lstm; }
  /// Whether the recurrent products of n do not go where those of r and z go.
  bool splits_n() const { return kind == CellKind::gru && !layer_norm; }
};

/// Which products of a matrix are made: for each block of outputs (a register's lanes), ranges of inputs.
struct Ranges {
  const Index* begin;   // (blocks + 1)  first range of every block
  const Index* bounds;  // (ranges, 2)   first input, and the one after the last
  const Index* offset;  // (ranges + 1)  where a range's weights lie, counted in registers
  const std::int32_t* input;  // (offset[ranges])  the input of every register
  const Index* alike;   // (blocks)      from this block on, how many have the same ranges
};

/// Ranges of the two matrices in each use; all null if a matrix is dense.
struct Connections {
  const Ranges* forward;   // outputs are the weight's rows
  const Ranges* backward;  // outputs are the weight's columns
  const Ranges* gradient;  // outputs are groups of kGradientRows rows, inputs are blocks of columns
};
inline constexpr Index kGradientRows = 16;

template <class Real>
struct OptionParameters {
  const Real* w_ih;         // in  (M, I)
  const Real* w_hh;         // in  (M, K)
  const Real* b_ih;         // in  (M)      null without biases
  const Real* b_hh;         // in  (M)
  const Real* w_hr;         // in  (P, H)   null without projection
  const Real* peephole;     // in  (G-1, H) null without; lstm: i, f, o, or f, o if coupled
  const Real* norm_ih;      // in  (M)      null without layer normalisation
  const Real* norm_hh;      // in  (M)
  const Real* norm_c;       // in  (H)      lstm only
  const Real* norm_c_bias;  // in  (H)
  Connections ih, hh;
  Connections hn;  // of the rows of n, where they are a matrix of their own (gru without normalisation); hh: the others
};

/// Random masks, and what stands for them. Null: none.
template <class Real>
struct OptionMasks {
  const Real* recurrent;  // in  (N, K)  factor of the hidden state in the recurrent product
  const Real* zoneout_h;  // in  (R, H)  1 where the old hidden state stays
  const Real* zoneout_c;  // in  (R, H)
};

template <class Real>
struct OptionForwardArgs {
  const Real* x;  // in   (R, I)
  const Real* packed;  // in   written by pack_forward
  OptionMasks<Real> masks;
  Real* h;  // io   (N+R, K)
  Real* c;  // io   lstm only. Training: (N+R, H). Inference: (N, H)
  Real* kept;  // out  (R, S)  training only
  Real* work;  // tmp  forward_work_size elements
};

/// Gradients of activations are overwritten, those of parameters accumulate (+=). Null: not wanted, or not there.
template <class Real>
struct OptionBackwardArgs {
  const Real* x;  // in   (R, I)
  const Real* packed;  // in   written by pack_backward
  OptionMasks<Real> masks;
  const Real* h;  // in   (N+R, K)
  const Real* c;  // in   (N+R, H)  lstm only
  const Real* kept;  // in   (R, S)
  const Real* dy;  // in   (R, K)
  const Real* dcells;  // in   (R, H)    lstm only
  Real* dh;  // io   (N, K)
  Real* dc;  // io   (N, H)    lstm only
  Real* dx;  // out  (R, I)
  Real* dw_ih;  // io   shapes as the parameters'
  Real* dw_hh;
  Real* db_ih;
  Real* db_hh;
  Real* dw_hr;
  Real* dpeephole;
  Real* dnorm_ih;
  Real* dnorm_hh;
  Real* dnorm_c;
  Real* dnorm_c_bias;
  Real* work;  // tmp  backward_work_size elements
};

/// The kernels of one float type for one instruction set. Work and packed buffers are 64-byte aligned.
template <class Real>
struct OptionKernels {
  Index lanes;  // of a register
  Index (*kept_size)(const OptionCell& cell);
  Index (*forward_pack_size)(const OptionCell& cell, const OptionParameters<Real>& parameters);
  void (*pack_forward)(const OptionCell& cell, const OptionParameters<Real>& parameters, Real* packed);
  Index (*backward_pack_size)(const OptionCell& cell, const OptionParameters<Real>& parameters);
  void (*pack_backward)(const OptionCell& cell, const OptionParameters<Real>& parameters, Real* packed);
  Index (*forward_work_size)(const OptionCell& cell, const Dims& dims, int threads);
  void (*forward)(const OptionCell& cell, const OptionParameters<Real>& parameters, const Dims& dims,
                  const OptionForwardArgs<Real>& args, bool training, StepRange steps, Team& team);
  Index (*backward_work_size)(const OptionCell& cell, const Dims& dims, int threads);
  void (*backward)(const OptionCell& cell, const OptionParameters<Real>& parameters, const Dims& dims,
                   const OptionBackwardArgs<Real>& args, StepRange steps, Team& team);
};

/// The kernels for the instruction set in use. Source: dispatch.cpp.
template <class Real>
const OptionKernels<Real>& option_kernels() noexcept;

}  // namespace rnnfast
