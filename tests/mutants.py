"""Plant mistakes in a private copy of the C++ sources, one at a time, and show that the tests find every one.

    python tests/mutants.py [--only NAME ...] [--list] [--write]

Every mutant is a textual replacement that must match exactly once: when the sources move on, this script says so
instead of testing nothing. For each mutant the copy is rebuilt, which compiles the units that the change reaches, and
the test files of its part run in their order until one fails. Takes about half a minute a mutant. Exit code 1 if one
survives. Needs what building needs (CMake, a compiler, pybind11) and the tests' own requirements.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_suffix(".md")

# What a build and its tests need of the project.
COPIED = ("CMakeLists.txt", "pyproject.toml", "cpp", "python", "tests")

# The fast tests of the kernels, those first that find most soonest.
TESTS = (
    "test_minimal.py",
    "test_backward.py",
    "test_forward.py",
    "test_gaps.py",
    "test_zero_state.py",
    "test_properties.py",
    "test_arguments.py",
    "test_activations.py",
    "test_dispatch.py",
)
# Those of layers whose sequences differ in length and of several layers, which nothing else would see.
STRUCTURE_TESTS = ("test_ragged.py", "test_states.py", "test_structure.py", "test_checkpoint.py", "test_threads.py")
# Those of cells with options and of few connections.
OPTION_TESTS = ("test_options.py", "test_frnn.py")
# Those of the fully connected layer.
DENSE_TESTS = ("test_dense.py",)
# Those of what is not the layers' own: the kernels of training.
TRAINING_TESTS = ("test_optim.py", "test_losses.py", "test_small_layers.py")

# A mutant may wait for something that never comes. The slowest of the files takes a tenth of this.
SECONDS_PER_FILE = 600

LSTM, GRU, RNN = "cpp/src/cells/lstm.h", "cpp/src/cells/gru.h", "cpp/src/cells/rnn.h"
FORWARD, BACKWARD = "cpp/src/kernels/forward.h", "cpp/src/kernels/backward.h"
WEIGHT_GRAD, PACK = "cpp/src/kernels/weight_grad.h", "cpp/src/kernels/pack.h"
TYPES = "cpp/include/rnnfast/types.h"
ZONEOUT = "cpp/src/cells/zoneout.h"
LSTM_OPTIONS, GRU_OPTIONS = "cpp/src/cells/lstm_options.h", "cpp/src/cells/gru_options.h"
NORMALIZE, PRODUCT = "cpp/src/cells/normalize.h", "cpp/src/kernels/product.h"
OPTION_BACKWARD, FUNCTIONS = "cpp/src/kernels/option_backward.h", "cpp/src/simd/functions.h"
SPARSITY = "cpp/src/sparsity.cpp"
DENSE, ROWS, OUTER = (f"cpp/src/kernels/{name}.h" for name in ("dense", "rows", "outer"))
COPY_ROWS = "cpp/src/rows.cpp"
TILE, TEAM = "cpp/src/kernels/tile.h", "cpp/src/kernels/team.h"
CREW, COLUMNS = "cpp/src/kernels/crew.h", "cpp/src/kernels/columns.h"
SLICES = "cpp/src/kernels/slices.h"
MATH, VEC = "cpp/src/simd/math.h", "cpp/src/simd/vec.h"
OPTIM, LOSS, BIND_OPTIM = "cpp/src/kernels/optim.h", "cpp/src/kernels/loss.h", "cpp/bindings/bind_optim.cpp"
CALL, RUN_CALLS = "cpp/bindings/recurrent_call.h", "cpp/bindings/run_calls.h"
STREAM, WEIGHTS = "cpp/bindings/bind_stream.cpp", "cpp/bindings/weights.h"
ARRAYS = "cpp/bindings/arrays.h"


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    old: str
    new: str
    why: str
    isa: str = ""  # the instruction set without which nobody can see it


MUTANTS = (
    # The maths of the cells.
    Mutant(
        "lstm-swap-i-f",
        LSTM,
        "auto& [i, f, g, o] = a;",
        "auto& [f, i, g, o] = a;",
        "input and forget gate trade places",
    ),
    Mutant(
        "lstm-swap-i-f-backward",
        LSTM,
        "auto& [i, f, g, o] = gates;",
        "auto& [f, i, g, o] = gates;",
        "the same, only in the derivative",
    ),
    Mutant("lstm-g-sigmoid", LSTM, "g = tanh<Real>(g);", "g = sigmoid<Real>(g);", "the candidate cannot be negative"),
    Mutant("lstm-h-without-tanh", LSTM, "return a[3] * tanh<Real>(c);", "return a[3] * c;", "h leaves (-1, 1)"),
    Mutant(
        "lstm-lose-dc-carry",
        LSTM,
        "carry = dc * f;",
        "carry = Vec<Real>{};",
        "no gradient through the cell state: the point of an LSTM",
    ),
    Mutant(
        "lstm-carry-without-f", LSTM, "carry = dc * f;", "carry = dc;", "the gradient of c ignores what was forgotten"
    ),
    Mutant(
        "lstm-dc-without-tanh-slope",
        LSTM,
        "fma(dh * o, tanh_slope<Real>(tanh_c), carry)",
        "dh * o + carry",
        "tanh(c) differentiated as c",
    ),
    Mutant(
        "lstm-dg-without-slope",
        LSTM,
        "dc * i * tanh_slope<Real>(g)",
        "dc * i",
        "the candidate's tanh differentiated as the identity",
    ),
    Mutant(
        "lstm-df-of-new-c",
        LSTM,
        "dc * c_prev * sigmoid_slope<Real>(f)",
        "dc * c * sigmoid_slope<Real>(f)",
        "c[t] for c[t-1]",
    ),
    Mutant(
        "lstm-do-of-c", LSTM, "dh * tanh_c * sigmoid_slope<Real>(o)", "dh * c * sigmoid_slope<Real>(o)", "c for tanh(c)"
    ),
    Mutant(
        "gru-reset-of-input",
        GRU,
        "fma(r, q, n)",
        "r * (q + n)",
        "r also scales the input's part, as if applied before the sum",
    ),
    Mutant("gru-swap-z", GRU, "fma(z, h_prev - n, n)", "fma(z, n - h_prev, h_prev)", "z and 1 - z trade places"),
    Mutant("gru-no-direct-path", GRU, "carry = dh * z;", "carry = Vec<Real>{};", "dh past the gates is lost"),
    Mutant(
        "gru-dq-without-r", GRU, "q = dn * r;", "q = dn;", "the recurrent product's gradient ignores the reset gate"
    ),
    Mutant(
        "gru-dr-without-q",
        GRU,
        "dr = dn * q * sigmoid_slope<Real>(r)",
        "dr = dn * sigmoid_slope<Real>(r)",
        "the reset gate's gradient ignores what it scales",
    ),
    Mutant(
        "gru-dn-swap-z",
        GRU,
        "dh * (splat(Real(1)) - z) * tanh_slope<Real>(n)",
        "dh * z * tanh_slope<Real>(n)",
        "z for 1 - z in the derivative alone",
    ),
    Mutant("gru-dz-sign", GRU, "dh * (h_prev - n)", "dh * (n - h_prev)", "the update gate learns the wrong way"),
    Mutant(
        "gru-recurrent-gate-order",
        GRU,
        "kRecurrentGate[kProducts] = {2, 0, 1}",
        "kRecurrentGate[kProducts] = {2, 1, 0}",
        "w_hh and b_hh of r and z trade places, in both directions",
    ),
    Mutant(
        "relu-slope-at-negative",
        RNN,
        "select<Real>(h == Vec<Real>{}, Vec<Real>{}, dh)",
        "dh",
        "dead units pass gradients on",
    ),
    Mutant(
        "relu-swallows-nan",
        RNN,
        "select<Real>(a < Vec<Real>{}, Vec<Real>{}, a)",
        "select<Real>(a > Vec<Real>{}, a, Vec<Real>{})",
        "a NaN becomes 0 unseen",
    ),
    Mutant(
        "rnn-no-tanh-slope",
        RNN,
        "return dh * tanh_slope<Real>(h);",
        "return dh;",
        "tanh differentiated as the identity",
    ),
    # Forward.
    Mutant(
        "forward-skip-last-step",
        FORWARD,
        "for (Index t = t0; t < t0 + steps; ++t)",
        "for (Index t = t0; t + 1 < t0 + steps; ++t)",
        "the last step of a chunk is not computed",
    ),
    Mutant(
        "forward-chunk-offset",
        FORWARD,
        "x[r] = args.x + d.place(d.row(t0 + step) + rows.first + row) * d.I;",
        "x[r] = args.x + d.place(d.row(t0 - (t0 > 0) + step) + rows.first + row) * d.I;",
        "later chunks project the inputs of a step too early",
    ),
    Mutant(
        "forward-bias-plane",
        FORWARD,
        "load(bias<V>(kInputPlane + p,",
        "load(bias(p,",
        "GRU: projections start from the biases of another gate",
    ),
    Mutant(
        "forward-no-recurrent-bias",
        FORWARD,
        ": load(bias<V>(plane, tile.first_block + u))",
        ": Vec<Real>{}",
        "GRU: b_hn is lost",
    ),
    Mutant(
        "forward-c-stays",
        FORWARD,
        "step.c_new = args.c + (training ? to : first_row * d.H);",
        "step.c_new = args.c + (training ? from : first_row * d.H);",
        "training overwrites c[t-1] and leaves c[t] unwritten",
    ),
    Mutant(
        "forward-h-of-first-thread",
        FORWARD,
        "const Index from = (d.slot(t) + first_row) * d.H;",
        "const Index from = d.slot(t) * d.H;",
        "every thread takes the first one's previous states",
    ),
    Mutant(
        "forward-gates-of-first-thread",
        FORWARD,
        ": d.row(t) + row) * row_size;",
        ": d.row(t) + row - rows.first) * row_size;",
        "every thread keeps its gates where the first one does",
    ),
    Mutant("forward-one-scratch", FORWARD, "args.work + member * scratch", "args.work", "threads share one scratch"),
    Mutant(
        "forward-no-barrier",
        FORWARD,
        "if (barrier != nullptr) barrier->wait();",
        "",
        "threads that divide units read h[t-1] before all of it is there",
    ),
    # Backward.
    Mutant(
        "backward-no-dy-at-last-step",
        BACKWARD,
        "if (args.dy != nullptr) dh_row = dh_row",
        "if (args.dy != nullptr && step.row + d.N < d.row(d.T)) dh_row = dh_row",
        "the last step's own gradient is ignored",
    ),
    Mutant(
        "backward-no-barrier",
        BACKWARD,
        "if (barrier != nullptr) barrier->wait();",
        "",
        "threads that divide units read da[t+1] before all of it is there",
    ),
    Mutant(
        "backward-skip-first-step",
        BACKWARD,
        "t >= first; --t",
        "t > first; --t",
        "the first step of a chunk is not differentiated",
    ),
    Mutant(
        "backward-through-itself",
        BACKWARD,
        "const Step& next = steps[(t + 1) % 2];",
        "const Step& next = steps[t % 2];",
        "a step takes the gradient that comes through itself, not through the next one",
    ),
    Mutant(
        "backward-no-dh0",
        BACKWARD,
        "{ pass_on(",
        "{ if (first > 0) pass_on(",
        "dh is not passed on to the initial state",
    ),
    Mutant(
        "backward-carry-twice",
        BACKWARD,
        "const Range inner = t + 1 < last ? ",
        "const Range inner = t + 1 < d.T ? ",
        "GRU: the direct path is added twice where two chunks meet",
    ),
    Mutant(
        "backward-h-for-h-prev",
        BACKWARD,
        "h_prev = load_lanes(step.h_prev + at, width)",
        "h_prev = load_lanes(step.h + at, width)",
        "h[t] for h[t-1] in the cell's derivative",
    ),
    Mutant(
        "backward-dx-plane",
        BACKWARD,
        "return gradients[row] + CellMath::kInputPlane * d.H;",
        "return gradients[row];",
        "GRU: dx is made of the recurrent products' gradients",
    ),
    Mutant(
        "backward-dx-row",
        BACKWARD,
        "store_lanes(to + u * L, load(acc.at(tile, r, u, 1)), lanes_left<Real>((tile.first_block",
        "store_lanes(to + u * L, load(acc.at(tile, tile.rows - 1 - r, u, 1)), lanes_left<Real>((tile.first_block",
        "dx of one sequence is given to another",
    ),
    Mutant(
        "weight-grad-h-for-h-prev",
        WEIGHT_GRAD,
        "args.h + (d.slot(t) + n) * d.H);",
        "args.h + (d.slot(t + 1) + n) * d.H);",
        "h[t] for h[t-1] in dw_hh",
    ),
    Mutant(
        "weight-grad-all-threads-all-gates",
        BACKWARD,
        "weight_grad.add(0, member, split.threads)",
        "weight_grad.add(0, 0, 1)",
        "every thread adds every weight gradient",
    ),
    # Weight gradients.
    Mutant(
        "weight-grad-share-not-packed",
        WEIGHT_GRAD,
        "share(piece.rows.size(), member, members)",
        "share(piece.rows.size(), 0, members)",
        "of the inputs only the first thread's share is packed",
    ),
    Mutant(
        "weight-grad-later-pieces",
        BACKWARD,
        "weight_grad.pack(piece, member",
        "weight_grad.pack(0, member",
        "later pieces of a chunk take the inputs of the first one",
    ),
    Mutant(
        "weight-grad-overwrites",
        WEIGHT_GRAD,
        "before + load_lanes(sums + j, width)",
        "load_lanes(sums + j, width)",
        "= for +=: earlier chunks are lost",
    ),
    Mutant(
        "weight-grad-one-piece",
        BACKWARD,
        "piece < weight_grad.pieces()",
        "piece < 1",
        "rows of a step beyond the first piece are dropped",
    ),
    Mutant(
        "weight-grad-columns-reversed",
        WEIGHT_GRAD,
        "h_prev[column - d.I]",
        "h_prev[d.I + d.H - 1 - column]",
        "columns of w_hh trade places where x and h share a register",
    ),
    Mutant(
        "weight-grad-swap-x-h",
        WEIGHT_GRAD,
        "if (column < d.I) return x[column];",
        "if (column < d.I) return column < d.H ? h_prev[column] : x[column];",
        "h stands where x belongs",
    ),
    Mutant(
        "weight-grad-input-gate",
        WEIGHT_GRAD,
        "kRecurrentGate[recurrent_product<CellMath>(plane)] * d.H + unit;",
        "kInputGate[recurrent_product<CellMath>(plane)] * d.H + unit;",
        "GRU: dw_hh goes to another gate's rows",
    ),
    Mutant(
        "weight-grad-no-db-hh",
        WEIGHT_GRAD,
        "add_columns(args.db_hh +",
        "if (false) add_columns(args.db_hh +",
        "db_hh stays zero",
    ),
    Mutant(
        "weight-grad-bias-row",
        WEIGHT_GRAD,
        "for (Index m = 0; m < piece.rows.size(); ++m, from",
        "for (Index m = 1; m < piece.rows.size(); ++m, from",
        "biases miss the first row of every piece",
    ),
    # Tiles, packing, threads.
    Mutant(
        "tile-rows-off-by-one",
        TILE,
        "body(TileRange{first, last - first, block, U,",
        "body(TileRange{first, last - first - (tile > 0 && last - first > 1), block, U,",
        "the last row of every later tile is left out",
    ),
    Mutant(
        "tile-drop-remaining-blocks",
        TILE,
        "(group < wider ? 1 : 0);",
        "(group < wider && group == 0 ? 1 : 0);",
        "where blocks are cut unevenly, later groups of them lack one",
    ),
    Mutant(
        "tile-second-part",
        TILE,
        "operands[product].b += operands[product].b_stride;",
        "operands[product].b += 0;",
        "where gates are packed in two parts, those of the second get the weights of the first",
        isa="avx2",
    ),
    Mutant(
        "tile-second-of-two",
        TILE,
        "operands[product].a.row += some;",
        "operands[product].a.row += 0;",
        "of two tiles one below the other the second has the inputs of the first",
        isa="avx2",
    ),
    Mutant(
        "tile-one-product-short",
        TILE,
        "k < operands.depth;",
        "k + 1 < operands.depth;",
        "the last term of every sum is missing",
    ),
    Mutant(
        "tile-one-operand",
        TILE,
        "++product < count);",
        "++product < 1);",
        "of two products in one go the second one is left out",
    ),
    Mutant(
        "tile-first-block-for-all",
        TILE,
        "(load(b + u * b_stride + p * L))",
        "(load(b + p * L))",
        "few rows: every block of units gets the first one's weights",
    ),
    Mutant(
        "tile-first-block-for-all-rows",
        TILE,
        "unit[u][p] = load(b + u * b_stride + p * L);",
        "unit[u][p] = load(b + p * L);",
        "many rows: the same",
    ),
    Mutant(
        "tile-one-row-first-blocks",
        TILE,
        "body(TileRange{0, 1, block, U});",
        "body(TileRange{0, 1, blocks.first, U});",
        "a single row gets its first blocks of units again and again",
    ),
    Mutant(
        "pack-transpose-lanes",
        PACK,
        "((J & Step) == 0 ? J + Step : L + J)",
        "((J & Step) == 0 ? J : L + J)",
        "lanes are doubled instead of exchanged",
    ),
    Mutant(
        "pack-bias-plane",
        PACK,
        "parameters.b_hh[CellMath::kRecurrentGate[of_recurrent] * d.H + j]",
        "parameters.b_hh[CellMath::kInputGate[of_recurrent] * d.H + j]",
        "GRU: recurrent biases of the wrong gates",
    ),
    Mutant(
        "pack-one-bias",
        PACK,
        "sum += parameters.b_ih[CellMath::kInputGate[of_input] * d.H + j];",
        "sum = parameters.b_ih[0];",
        "every unit gets the first one's input bias",
    ),
    Mutant(
        "pack-gate-order",
        PACK,
        "w + gate[p] * H * columns, H, columns, blocks);",
        "w + p * H * columns, H, columns, blocks);",
        "GRU: backward multiplies by another gate's w_hh",
    ),
    Mutant(
        "team-shares-overlap",
        TEAM,
        "count * (member + 1) / members}",
        "count * (member + 1) / members + (member + 1 < members)}",
        "two threads work on the same row",
    ),
    Mutant(
        "team-shares-gap",
        TEAM,
        "{count * member / members,",
        "{count * member / members + (member > 0),",
        "no thread works on the first row of a share",
    ),
    # Registers and activations.
    Mutant(
        "load-drop-tail-lane",
        VEC,
        ": load_partial(p, width);",
        ": load_partial(p, width - 1);",
        "the last unit of a partial register is read as 0",
    ),
    Mutant(
        "store-drop-tail-lane",
        VEC,
        "store_partial(p, v, width);",
        "store_partial(p, v, width - 1);",
        "the last unit of a partial register is not written",
    ),
    Mutant(
        "avx2-mask-too-wide",
        VEC,
        "lane < static_cast<Int>(width)",
        "lane <= static_cast<Int>(width)",
        "partial loads and stores touch one element too many",
        isa="avx2",
    ),
    Mutant(
        "avx512-double-mask",
        VEC,
        "_mm512_maskz_loadu_pd(static_cast<__mmask8>((1U << width) - 1U), p)",
        "_mm512_maskz_loadu_pd(static_cast<__mmask8>((1U << width) - 2U), p)",
        "one float type of one instruction set loses a lane",
        isa="avx512",
    ),
    Mutant(
        "sigmoid-branches-swapped",
        MATH,
        "const Power<Real> e = power<kShift, Real>(x, -C::kLog2E);",
        "const Power<Real> e = power<kShift, Real>(x, C::kLog2E);",
        "the power of two of sigmoid(-x) for that of sigmoid(x)",
    ),
    Mutant(
        "sigmoid-tail-cut",
        MATH,
        "kSigmoidLeast = -104.0F;",
        "kSigmoidLeast = -87.0F;",
        "results below 1e-38 are too large",
    ),
    Mutant(
        "sigmoid-swallows-nan",
        VEC,
        "  return _mm512_maskz_max_ps(0xFFFF, low, x);",
        "  return _mm512_maskz_max_ps(0xFFFF, x, low);",
        "a NaN becomes a gate of 0 or 1",
    ),
    Mutant(
        "sigmoid-slope", MATH, "return s * (splat(Real(1)) - s);", "return s;", "half of the gates' slope is missing"
    ),
    Mutant(
        "tanh-sign",
        MATH,
        "as_real<Real>(as_bits<Real>(result) | (as_bits<Real>(x) & as_bits<Real>(splat(Real(-0.0)))))",
        "result",
        "tanh of a negative number is positive",
    ),
    Mutant(
        "exp-double-last-term",
        MATH,
        "2.5114065751952249935e-8",
        "2.5114065751952249935e-9",
        "float64 loses its last digits",
    ),
    # Bindings: what surrounds the kernels.
    Mutant(
        "other-byte-order",
        ARRAYS,
        "type.num() == py::dtype::num_of<Real>() && type.byteorder() == '=';",
        "type.num() == py::dtype::num_of<Real>();",
        "numbers in the other byte order are taken for this machine's",
    ),
    Mutant("stale-pack", WEIGHTS, " && version_ == version", "", "new parameters, old packed weights"),
    Mutant("pack-of-other-isa", WEIGHTS, " && isa_ == isa", "", "weights packed for another instruction set are read"),
    Mutant(
        "pack-in-use",
        WEIGHTS,
        "buffer_.use_count() == 1",
        "buffer_ != nullptr",
        "weights change under a call that another thread runs",
    ),
    Mutant(
        "swap-packs",
        WEIGHTS,
        "return refresh<Real>(backward_, k.backward_pack_size",
        "return refresh<Real>(forward_, k.backward_pack_size",
        "backward takes forward's packed weights for its own",
    ),
    Mutant("stream-state-stays", STREAM, "std::memcpy(h, h_new, bytes);", "", "every step starts from the first state"),
    Mutant(
        "stream-reset-forgets-c",
        STREAM,
        "if (has_c) std::memcpy(c_->as<Real>(), c.data(), bytes);",
        "",
        "a reset stream keeps its old cell state",
    ),
    Mutant(
        "ignore-dc-n",
        CALL,
        "copy_or_zeros<Real>(in.dc_n, d.N, d.H)",
        "copy_or_zeros<Real>(py::none(), d.N, d.H)",
        "the last cell state's gradient is ignored",
    ),
    Mutant(
        "segment-c",
        RUN_CALLS,
        "    call.run({t, std::min(T, t + segment)}, team);",
        "    call.run({t, std::min(T, t + segment) - (t > 0)}, team);",
        "long calls: the last step of a part is left out where a call is cut to look for Ctrl-C",
    ),
    Mutant(
        "segment-gates",
        CALL,
        "return last > segment ? cut_of_chunks(dims(), last, last - segment) : 0;",
        "return last > segment ? last - segment : 0;",
        "long backward calls: sums of weight gradients are cut in other places",
    ),
    # Training: optimizers and losses.
    Mutant(
        "sgd-nesterov-is-momentum",
        OPTIM,
        "return kNesterov ? fma(splat(s.momentum), m, g) : m;",
        "return m;",
        "Nesterov does not look ahead",
    ),
    Mutant(
        "adam-no-correction",
        OPTIM,
        "square_root<Real>(v) / splat(s.root_correction)",
        "square_root<Real>(v)",
        "the first steps of Adam are too long",
    ),
    Mutant(
        "adam-eps-inside",
        OPTIM,
        " / splat(s.root_correction) + splat(s.eps));",
        " / splat(s.root_correction));",
        "Adam divides by 0",
    ),
    Mutant(
        "rmsprop-uncentred",
        OPTIM,
        "variance = fma(-a, a, v);",
        "variance = v;",
        "the mean of g stays in its square",
    ),
    Mutant(
        "decay-ignored",
        OPTIM,
        "const Vec<Real> g = fma(splat(s.decay), p, load_lanes(s.g + at, width));",
        "const Vec<Real> g = load_lanes(s.g + at, width);",
        "weight decay as a part of the gradient is lost",
    ),
    Mutant("keep-ignored", OPTIM, "splat(s.keep) * p);", "p);", "AdamW decays nothing"),
    Mutant(
        "padding-is-judged",
        OPTIM,
        "if (width >= kLanes<Real>) {\n      bad |= not_finite<Real>(next);",
        "if (true) {\n      bad |= not_finite<Real>(next);",
        "0 / 0 in the padding of a register stops the training",
    ),
    Mutant(
        "norm-overflows",
        OPTIM,
        "if (squares - squares == 0) return",
        "if (true) return",
        "large gradients have no norm",
    ),
    Mutant(
        "step-not-taken-back",
        BIND_OPTIM,
        "std::copy_n(saved + start, parts[k].size(), values[k]);",
        "",
        "a step that is not finite leaves its parameters",
    ),
    Mutant(
        "memory-not-taken-back",
        BIND_OPTIM,
        "std::copy_n(saved + (1 + b) * size, size, memory[b]);",
        "static_cast<void>(b);",
        "a step that is not finite leaves its momentum",
    ),
    Mutant(
        "step-judged-by-last-part",
        BIND_OPTIM,
        "finite = training_kernels<Real>().step[static_cast<int>(rule)](step) && finite;",
        "finite = training_kernels<Real>().step[static_cast<int>(rule)](step);",
        "only the last layer's parameters are looked at",
    ),
    Mutant(
        "buffers-of-first-part",
        BIND_OPTIM,
        "memory[b] + start;",
        "memory[b];",
        "layers share the first one's momentum",
    ),
    Mutant(
        "cross-entropy-padding-counts",
        LOSS,
        "sum.at(at) = sum.at(at) + load_lanes(d + at, width);",
        "sum.at(at) = sum.at(at) + exp_of_negative<Real>(load_lanes(row + at, width) - splat(greatest));",
        "classes that do not exist take their share",
    ),
    Mutant(
        "cross-entropy-largest-of-tail",
        LOSS,
        "lanes = select<Real>(v > lanes, v, lanes);",
        "lanes = v;",
        "exp of a positive number where the largest logit stands early",
    ),
    Mutant(
        "cross-entropy-weight",
        LOSS,
        "d[target[m]] -= static_cast<Real>(factor * weight);",
        "d[target[m]] -= static_cast<Real>(factor);",
        "the target's part of the derivative has no weight",
    ),
    # Sequences of different lengths.
    Mutant(
        "ragged-rows-of-first-step",
        TYPES,
        "slots[t + 2] - slots[t + 1];",
        "slots[2] - slots[1];",
        "sequences that have ended go on",
    ),
    Mutant(
        "ragged-inner-rows",
        BACKWARD,
        "intersection(rows, {0, d.rows(t + 1)})",
        "rows",
        "sequences that end early take the gradient of a later step of another one",
    ),
    Mutant(
        "dcells-ignored",
        BACKWARD,
        "if (args.dcells != nullptr) carry = carry +",
        "if (false) carry = carry +",
        "the gradient of cell states is ignored",
    ),
    Mutant(
        "wavefront-too-early",
        RUN_CALLS,
        "const std::size_t behind = w.chained ? k : 0;",
        "const std::size_t behind = 0;",
        "a layer does not wait for the one below",
    ),
    # The fully connected layer, and rows that are not packed.
    Mutant(
        "dense-bias-of-block",
        DENSE,
        "copy_row(y, args.b + columns.first, columns.size());",
        "copy_row(y, args.b, columns.size());",
        "outputs that are divided among threads all get the first biases",
    ),
    Mutant(
        "dense-slope-lost",
        DENSE,
        "load_lanes(args.dy + m, width) * function.slope(load_lanes(args.y + m, width))",
        "load_lanes(args.dy + m, width)",
        "the gradient ignores the activation",
    ),
    Mutant(
        "dense-activation-of-block",
        DENSE,
        "activate(*f, args.y + columns.first, rows, columns.size(), d.outputs)",
        "activate(*f, args.y, rows, columns.size(), d.outputs)",
        "the activation goes to the first outputs only",
    ),
    Mutant(
        "dense-dx-not-cleared",
        DENSE,
        "clear(args.dx + row * d.inputs + columns.first, columns.size());",
        "(void)row;",
        "dx is added to what was there",
    ),
    Mutant(
        "unpacked-forward-block",
        FORWARD,
        "Pack::pack_block(layer, *args.raw, number, block,",
        "Pack::pack_block(layer, *args.raw, mine.first, block,",
        "a single step computes all units with the weights of the first",
    ),
    Mutant(
        "narrow-plane-not-kept",
        FORWARD,
        "constexpr bool kReachesBeyond = V < P &&",
        "constexpr bool kReachesBeyond = V < 0 &&",
        "GRU of few last units: zeros times an infinite h are added to the wrong plane",
    ),
    Mutant(
        "narrow-bias",
        FORWARD,
        "V < P ? pack.narrow_bias + plane * pack.narrow_units",
        "V < P ? pack.narrow_bias",
        "few last units: all gates have the bias of the first",
    ),
    Mutant(
        "narrow-block-forgotten-backwards",
        PACK,
        "if (has_narrow && backwards) for_each_narrow_tile(rows, body);",
        "",
        "few last units are computed in every other step only",
    ),
    Mutant(
        "transposed-bias",
        FORWARD,
        "splat(bias(plane, block)[unit])",
        "splat(bias(plane, block)[0])",
        "a single step of many rows: all units of a block have the bias of the first",
    ),
    Mutant(
        "transposed-plane",
        FORWARD,
        "if (recurrent >= 0) multiply<1>(tile, acc.data, 1, w_hh, states);",
        "if (recurrent >= 0 && plane > 0) multiply<1>(tile, acc.data, 1, w_hh, states);",
        "a single step of many rows: the first plane does not see the old state",
    ),
    Mutant(
        "transposed-rest-of-rows",
        FORWARD,
        "const Index rows = lanes_left<Real>(block * L, d.N);",
        "const Index rows = lanes_left<Real>(block * L, d.N - 1);",
        "a single step of many rows: the last one does not count",
    ),
    Mutant(
        "unpacked-backward-carry",
        BACKWARD,
        "if (!CellMath::kPassesStateOn) clear_rows(dh",
        "clear_rows(dh",
        "a single step of a GRU: what passes its gates by is lost",
    ),
    Mutant(
        "unpacked-backward-gates",
        BACKWARD,
        "args.raw->w_hh + CellMath::kRecurrentGate[p] * d.H * d.H",
        "args.raw->w_hh + p * d.H * d.H",
        "a single step of a GRU: gates take each other's weights",
    ),
    Mutant(
        "unpacked-rest-of-columns",
        ROWS,
        "Vec<Real> sum = load_lanes(out[r] + unit, width);",
        "Vec<Real> sum{};",
        "few rows: what is in the last columns is forgotten",
    ),
    Mutant(
        "fetching-tile-repeats-weights",
        TILE,
        "b += kStepsAFetch * P * kLanes<Real>;",
        "b += (kStepsAFetch - 1) * P * kLanes<Real>;",
        "a tile that fetches the next weights goes back by one input every 32",
    ),
    Mutant(
        "unpacked-units-last-input",
        ROWS,
        "for (Index j = 0; j < width; ++j) {\n        for (int r = 0; r < R; ++r) total[r]",
        "for (Index j = 0; j + 1 < width; ++j) {\n        for (int r = 0; r < R; ++r) total[r]",
        "a single step of few rows: the last input is left out where inputs do not fill the lanes",
    ),
    Mutant(
        "unpacked-units-gate",
        FORWARD,
        "w + (gate[p] * d.H + unit) * in.stride",
        "w + (p * d.H + unit) * in.stride",
        "a single step of few sequences of a GRU: gates take each other's recurrent weights",
    ),
    Mutant(
        "outer-row-not-added",
        OUTER,
        "(adds ? load_lanes(to + k, left) : Vec<Real>{}) + sum",
        "sum",
        "weight gradients of few rows overwrite those of the others",
    ),
    Mutant(
        "outer-row-added-to-nothing",
        OUTER,
        "(adds ? load_lanes(to + k, left) : Vec<Real>{}) + sum",
        "load_lanes(to + k, left) + sum",
        "weight gradients of one step are added to what was in memory",
    ),
    Mutant(
        "pieces-overwrite-each-other",
        WEIGHT_GRAD,
        " || first > 0};",
        "};",
        "of a step of many rows only the last piece is in the weight gradients",
    ),
    Mutant(
        "chunks-overwrite-each-other",
        WEIGHT_GRAD,
        "!args.overwrite || steps.last < d.T ||",
        "!args.overwrite ||",
        "of a long sequence only the first chunk is in the weight gradients",
    ),
    Mutant(
        "columns-added-to-nothing",
        WEIGHT_GRAD,
        "adds ? load_lanes(to + j, width) : Vec<Real>{};",
        "load_lanes(to + j, width);",
        "weight gradients are added to what was in memory",
    ),
    Mutant(
        "no-steps-leave-gradients",
        CALL,
        "if (in.overwrite && is_empty()) {",
        "if (false) {",
        "without any step weight gradients are what was in memory",
    ),
    Mutant(
        "parts-start-anew",
        ROWS,
        "load_lanes(out[tile.first_row + r] + column, lanes_left<Real>(column, columns))",
        "Vec<Real>{}",
        "a single step of some rows: only the last rows of the weights are in dx",
    ),
    Mutant(
        "parts-of-first-rows",
        ROWS,
        "{in.data + first, in.stride}",
        "{in.data, in.stride}",
        "a single step of some rows: all parts of the weights meet the first gates",
    ),
    Mutant(
        "outer-first-row-only",
        OUTER,
        "from[m] = b[m];",
        "from[m] = b[0];",
        "weight gradients of few rows take the first row for all",
    ),
    Mutant(
        "outer-too-many-rows",
        OUTER,
        "if (rows < R) return add_outer_row",
        "if (rows + (R == kOuterRows) < R) return add_outer_row",
        "of a few rows less than the most, weight gradients take one row more than there is",
    ),
    Mutant(
        "sparse-row-chains-end-together",
        PRODUCT,
        "steps = least(steps, group.left);",
        "steps = most(steps, group.left);",
        "blocks that pass side by side take as many inputs as the longest of them",
    ),
    Mutant(
        "sparse-row-rest",
        PRODUCT,
        "if (group.left == 0) continue;",
        "if (group.left >= 0) continue;",
        "the last blocks of a row alone are left out",
    ),
    Mutant(
        "sparse-second-of-two",
        PRODUCT,
        "w.data + (first + v * depth) * L",
        "w.data + first * L",
        "of two blocks with the same connections the second gets the weights of the first",
    ),
    Mutant(
        "sparse-two-across-shares",
        PRODUCT,
        "least<Index>(2, least(ranges.alike[next], blocks.last - next))",
        "least<Index>(2, ranges.alike[next])",
        "a block at the border of two threads gets its products twice",
    ),
    Mutant(
        "sparse-alike-by-number",
        SPARSITY,
        "std::ranges::equal(bounds_of(block), bounds_of(block + 1))",
        "bounds_of(block).size() == bounds_of(block + 1).size()",
        "a block gets the connections of the one before",
    ),
    Mutant(
        "sparse-inputs-from-the-first",
        TILE,
        "return row[r][input[k]];",
        "return row[r][k];",
        "a block's weights meet the first inputs, not its own",
    ),
    Mutant(
        "places-of-x",
        FORWARD,
        "x[r] = args.x + d.place(step.row + row) * d.I;",
        "x[r] = args.x + (step.row + row) * d.I;",
        "a ragged batch reads its inputs as if they stood in order",
    ),
    Mutant(
        "places-of-dy",
        BACKWARD,
        "const Index given = d.place(step.row + row) * d.H + unit;",
        "const Index given = (step.row + row) * d.H + unit;",
        "a ragged batch reads dL/dy as if it stood in order",
    ),
    Mutant(
        "places-of-dx",
        BACKWARD,
        "args.dx + d.place(row) * d.I + block * L",
        "args.dx + row * d.I + block * L",
        "a ragged batch writes dL/dx as if it stood in order",
    ),
    Mutant(
        "places-of-inputs",
        WEIGHT_GRAD,
        "args.x + d.place(d.row(t) + n) * d.I",
        "args.x + (d.row(t) + n) * d.I",
        "weight gradients of a ragged batch take inputs as if they stood in order",
    ),
    Mutant(
        "padding-of-dx-kept",
        CALL,
        "if (args_.dx != nullptr) call_.clear_unused(args_.dx, dims().I, team);",
        "",
        "dL/dx of padding is what was in memory",
    ),
    Mutant(
        "dx-of-no-steps-kept",
        CALL,
        "if (is_empty()) clear(gradient);",
        "",
        "dL/dx of a batch without steps is what was in memory",
    ),
    Mutant(
        "copied-rows-keep-padding",
        COPY_ROWS,
        "std::memset(to[row], 0, width);",
        "(void)to;",
        "padding is not cleared",
    ),
    Mutant(
        "copied-rows-of-others",
        COPY_ROWS,
        "for (Index row = count * member / members; row < last; ++row) body(row);",
        "for (Index row = count * member / members + (member > 0); row < last; ++row) body(row);",
        "a row is left out where threads divide them",
    ),
    Mutant(
        "cleared-rows-in-use",
        COPY_ROWS,
        "if (is_used[row] == 0)",
        "if (is_used[row] != 0)",
        "padding is kept, and what is not padding is cleared",
    ),
    Mutant(
        "columns-last-group",
        COLUMNS,
        "first < columns.last; first += kWidth)",
        "first + kWidth <= columns.last; first += kWidth)",
        "gates that do not fill a group do not learn",
    ),
    Mutant(
        "columns-one-part",
        COLUMNS,
        "part < parts; ++part",
        "part < 1; ++part",
        "of more inputs than the L2 cache holds the last ones have no gradient",
    ),
    Mutant(
        "columns-wider-tiles",
        COLUMNS,
        "width + (number < wider ? 1 : 0)",
        "width",
        "inputs that no even cut takes have no gradient",
    ),
    Mutant(
        "columns-one-half",
        COLUMNS,
        "if (count > kWidth) put_half",
        "if (count > L) put_half",
        "where a register is two groups of gates, the second one does not learn",
        isa="avx2",
    ),
    Mutant(
        "slices-first-alone",
        SLICES,
        "pass < slices; ++pass",
        "pass < 1; ++pass",
        "of many weights only the first slice is multiplied",
        isa="avx512",
    ),
    Mutant(
        "slices-same-inputs",
        SLICES,
        "factor.a[tile.first_row + r] + slice.k.first",
        "factor.a[tile.first_row + r]",
        "every slice of the weights multiplies the first inputs",
        isa="avx512",
    ),
    Mutant(
        "cells-together-of-the-first",
        FORWARD,
        "open(first_cell + j, a[j], c[j])",
        "open(first_cell, a[j], c[j])",
        "rows finished together all have the gates of the first one",
    ),
    Mutant(
        "gradient-rows-not-packed-at-the-end",
        WEIGHT_GRAD,
        "    pack_rows(piece, fetched);\n  }",
        "  }",
        "the last rows of a piece add to weight gradients what was in memory",
    ),
    # Cells with options.
    Mutant(
        "peephole-of-old-cell",
        LSTM_OPTIONS,
        "f_(peek(o_row(gates), p_o_, q, unit, width))",
        "f_(peek(o_row(gates), p_o_, old, unit, width))",
        "the output gate sees the old cell state",
    ),
    Mutant(
        "peephole-gradient-lost",
        LSTM_OPTIONS,
        "if (p_f_ != nullptr) dc_prev = fma(df,",
        "if (false) dc_prev = fma(df,",
        "no gradient through the forget gate's peephole",
    ),
    Mutant("coupled-gradient", LSTM_OPTIONS, "coupled_ ? old - g : old;", "old;", "coupled: f moves c, but not i"),
    Mutant(
        "norm-gain-lost",
        NORMALIZE,
        "const Vec<Real> rest = inner - mean - load_lanes(normalized + j, width) * along;",
        "const Vec<Real> rest = inner - mean;",
        "the variance's part of the gradient is lost",
    ),
    Mutant(
        "norm-of-c-for-sum",
        LSTM_OPTIONS,
        "store_lanes(factors.dnorm + unit, dq, width);",
        "store_lanes(factors.dnorm + unit, dout, width);",
        "gain and bias of the cell's normalisation learn wrongly",
    ),
    Mutant(
        "zoneout-inverted",
        ZONEOUT,
        "return fma(kept, old, (splat(Real(1)) - kept) * fresh);",
        "return fma(kept, fresh, (splat(Real(1)) - kept) * old);",
        "the new state stays where the old one should",
    ),
    Mutant(
        "zoneout-carry-lost",
        ZONEOUT,
        "const Vec<Real> of_old = d * kept;",
        "const Vec<Real> of_old{};",
        "no gradient past a unit that kept its state",
    ),
    Mutant(
        "gru-before-r",
        GRU_OPTIONS,
        "store_lanes(da + j, d * load_lanes(u + j, width) * f_.slope(r), width);",
        "store_lanes(da + j, d * f_.slope(r), width);",
        "the reset gate's gradient lacks the state",
    ),
    Mutant("clip-slope", FUNCTIONS, "if (!bounded) return inner;", "return inner;", "clipped pre-activations learn"),
    Mutant(
        "elu-slope",
        FUNCTIONS,
        "case Function::elu: return select<Real>(zero < y, one, y + alpha);",
        "case Function::elu: return select<Real>(zero < y, one, alpha);",
        "the derivative of Elu is alpha",
    ),
    Mutant(
        "recurrent-mask-backward",
        OPTION_BACKWARD,
        "add_row(dh[n], du[n], mask, K);",
        "add_row(dh[n], du[n], static_cast<const Real*>(nullptr), K);",
        "dropped units get gradients",
    ),
    Mutant(
        "projection-gradient",
        OPTION_BACKWARD,
        "outer(args.dw_hr, H, {chunk.dh, K}, chunk.output,",
        "outer(args.dw_hr, H, {chunk.dh, K}, chunk.candidate,",
        "the projection learns from c",
    ),
    Mutant(
        "sparse-run-cut",
        SPARSITY,
        "to.offset.back() += last - first;",
        "to.offset.back() += last - first - 1;",
        "the weights of neighbouring blocks overlap",
    ),
    Mutant(
        "sparse-gradient-group",
        PRODUCT,
        "for (Index group = share.rows.first / step;",
        "for (Index group = share.rows.first / step + 1;",
        "the first rows of a layer with options do not learn",
    ),
    Mutant(
        "zero-state-of-the-first-sequence",
        ROWS,
        "    if (any) return false;",
        "    if (any) return true;",
        "a batch whose first state begins with a zero counts as one without states",
    ),
    Mutant(
        "zero-state-at-every-step",
        FORWARD,
        "t == 0 ? &first_w_hh : &pack.w_hh",
        "&first_w_hh",
        "no step of a batch that begins with zeros sees its previous state",
    ),
    Mutant(
        "zero-state-inputs-shifted",
        WEIGHT_GRAD,
        "moving{inputs + zeros * L,",
        "moving{inputs,",
        "recurrent weights learn from states of other rows where the first ones are left out",
    ),
    Mutant(
        "zero-state-gradient-not-written",
        WEIGHT_GRAD,
        "if (zeros == count && piece.adds) return;",
        "if (zeros == count) return;",
        "the gradient of w_hh keeps what was in memory after a single step from zeros",
    ),
    Mutant(
        "crew-does-not-wait",
        CREW,
        "if (!divides_) wait();",
        "",
        "a row's cell is computed before all threads have made their products",
    ),
    Mutant(
        "crew-does-not-wait-for-inputs",
        CREW,
        "    wait();\n    RNNFAST_ISA",
        "    RNNFAST_ISA",
        "products are made of units that another thread has not computed yet",
    ),
    Mutant(
        "crew-all-own-the-rows",
        CREW,
        "return member_ == 0 ? rows : 0;",
        "return rows;",
        "every thread of a crew computes the cell of the same row",
    ),
    Mutant(
        "crew-share-of-weights",
        PRODUCT,
        "return {begin(member), begin(member + 1)};",
        "return {begin(member), begin(member + 1) - (member + 1 < members ? 1 : 0)};",
        "a block of outputs between two threads gets no products",
    ),
)


def misfits(root: Path) -> list[str]:
    """What is wrong with the replacements: texts that do not occur exactly once, names that occur twice."""
    found = []
    for mutant in MUTANTS:
        count = (root / mutant.file).read_text(encoding="utf-8").count(mutant.old)
        if count != 1:
            found.append(f"{mutant.name}: {mutant.file} has {count} times, expected once: {mutant.old}")
    names = [mutant.name for mutant in MUTANTS]
    return found + [f"{name}: the name of two mutants" for name in sorted({n for n in names if names.count(n) > 1})]


def tests_of(mutant: Mutant) -> tuple[str, ...]:
    """The files that can see a mutant, those that find most soonest first."""
    if mutant.file in (OPTIM, LOSS, BIND_OPTIM):
        return TRAINING_TESTS
    if mutant.file == DENSE:
        return DENSE_TESTS
    if mutant.file == COPY_ROWS:
        return STRUCTURE_TESTS
    of_options = (ZONEOUT, LSTM_OPTIONS, GRU_OPTIONS, NORMALIZE, PRODUCT, CREW, OPTION_BACKWARD, FUNCTIONS, SPARSITY)
    if mutant.file in of_options:
        return OPTION_TESTS
    return TESTS + STRUCTURE_TESTS + OPTION_TESTS


class Workshop:
    """A private copy of the project: built out of source, changed and tested there."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        ignored = shutil.ignore_patterns("__pycache__", "_core*.so", "_core*.pyd", ".hypothesis")
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, tree / name, ignore=ignored)
            else:
                shutil.copy2(ROOT / name, tree / name)
        # Compiling takes half as long, and a mistake is one at every level of optimisation.
        build_rules = tree / "CMakeLists.txt"
        build_rules.write_text(build_rules.read_text(encoding="utf-8").replace("-O3", "-O1"), encoding="utf-8")
        # An editable installation finds its own package before anything on the path; here it must not.
        (tree / "python/sitecustomize.py").write_text(
            "import sys\n\nsys.meta_path[:] = [f for f in sys.meta_path if 'ScikitBuild' not in type(f).__name__]\n",
            encoding="utf-8",
        )
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("RNNFAST_")}
        self.environment["PYTHONPATH"] = str(tree / "python")
        # Tools installed beside the interpreter, whether or not its environment is active.
        self.environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

    def run(self, *command: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.tree, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    def demand(self, *command: str) -> str:
        """Output of a command that must succeed."""
        result = self.run(*command)
        if result.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{result.stdout[-4000:]}{result.stderr[-4000:]}")
        return result.stdout.strip()

    def configure(self) -> None:
        pybind11 = self.demand(sys.executable, "-m", "pybind11", "--cmakedir")
        generator = ["-G", "Ninja"] if shutil.which("ninja", path=self.environment["PATH"]) else []
        options = {
            "SKBUILD": "1",
            "CMAKE_CXX_FLAGS_RELEASE": "-O1 -DNDEBUG",
            "pybind11_DIR": pybind11,
            "Python_EXECUTABLE": sys.executable,
        }
        self.demand("cmake", "-S", ".", "-B", "build", *generator, *(f"-D{k}={v}" for k, v in options.items()))

    def build(self) -> None:
        self.demand("cmake", "--build", "build", "--parallel", "1")
        (module,) = (path for path in (self.tree / "build").glob("_core*") if path.suffix in (".so", ".pyd"))
        shutil.copy2(module, self.tree / "python/rnnfast")

    def instruction_sets(self) -> list[str]:
        """Those that can be tested, from the module under test: this also proves that it is the one of the copy."""
        code = "import rnnfast as rf; print(rf._core.__file__, *rf.build_info()['isas'], sep='\\n')"
        file, *isas = self.demand(sys.executable, "-c", code).splitlines()
        if self.tree.resolve() not in Path(file).resolve().parents:
            sys.exit(f"the tests would import {file}, not the copy under {self.tree}")
        return isas

    def failing_test(self, file: str) -> str | None:
        """The first test of a file that fails, or at which the process crashes or hangs."""
        command = (sys.executable, "-m", "pytest", "-x", "-v", "--tb=no", "-p", "no:cacheprovider", f"tests/{file}")
        try:
            result = self.run(*command, timeout=SECONDS_PER_FILE)
        except subprocess.TimeoutExpired as expired:
            output = expired.stdout or b""
            return last_started(output if isinstance(output, str) else output.decode(), file) + " (hangs)"
        if result.returncode == 0:
            return None
        return last_started(result.stdout, file) + (" (crashes)" if result.returncode < 0 else "")

    def killer(self, files: tuple[str, ...]) -> str | None:
        for file in files:
            if (self.tree / "tests" / file).exists() and (failed := self.failing_test(file)) is not None:
                return failed
        return None


def last_started(output: str, file: str) -> str:
    """The test that a verbose run named last."""
    line = rf"^tests/({re.escape(file)}::.*?)(?: (?:PASSED|FAILED|SKIPPED|ERROR)\b.*)?$"
    started = re.findall(line, output, re.MULTILINE)
    return started[-1].strip() if started else file


@dataclass(frozen=True)
class Result:
    mutant: Mutant
    verdict: str  # "killed", "survived" or "not tested"
    by: str
    seconds: float


def try_out(workshop: Workshop, mutant: Mutant, isas: list[str]) -> Result:
    if mutant.isa and mutant.isa not in isas:
        return Result(mutant, "not tested", f"this machine has no {mutant.isa}", 0)
    path = workshop.tree / mutant.file
    original = path.read_text(encoding="utf-8")
    path.write_text(original.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        workshop.build()
        started = time.monotonic()
        killer = workshop.killer(tests_of(mutant))
        seconds = time.monotonic() - started
    finally:
        path.write_text(original, encoding="utf-8")
    return Result(mutant, "survived" if killer is None else "killed", killer or "", seconds)


def row_of(result: Result) -> str:
    """The result as a row of the page."""
    mutant = result.mutant
    by = f"`{result.by}`" if result.verdict == "killed" else f"{result.verdict} {result.by}".strip()
    file = mutant.file.removeprefix("cpp/").removeprefix("src/")
    return f"| {mutant.name} | {file} | {mutant.why} | {by} | {result.seconds:.1f} |"


def page_of(rows: dict[str, str]) -> str:
    """The page with the rows of those mutants that there are, in their order."""
    shown = [rows[mutant.name] for mutant in MUTANTS if mutant.name in rows]
    survived = sum("| survived" in row for row in shown)
    lines = [
        "# Mutants",
        "",
        "Mistakes planted in the C++ sources one at a time, and the first test that fails for each. `tests/mutants.py`",
        "holds the replacements, and brings this page up to date with `--write`. Seconds are those of tests, up to the",
        "failure.",
        "",
        f"{len(shown)} of {len(MUTANTS)} mutants were tried: {len(shown) - survived} killed, {survived} survived.",
        "",
        "| mutant | file | what goes wrong | found by | s |",
        "|---|---|---|---|---:|",
        *shown,
    ]
    return "\n".join(lines) + "\n"


def rows_of_page() -> dict[str, str]:
    """The rows of the page as it is."""
    lines = TABLE.read_text(encoding="utf-8").splitlines() if TABLE.exists() else []
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| ")}


def main() -> int:
    parser = argparse.ArgumentParser(description="Plant mistakes in a copy of the kernels; show that tests find them.")
    names = [mutant.name for mutant in MUTANTS]
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help="try these mutants alone")
    parser.add_argument("--list", action="store_true", help="print the mutants and whether they still fit the sources")
    parser.add_argument("--write", action="store_true", help=f"write what was found to {TABLE.name}")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{m.name}: {m.file}: {m.why}" for m in MUTANTS))
    if wrong := misfits(ROOT):
        sys.exit("\n".join(wrong))
    if options.list:
        return 0
    if hasattr(os, "nice"):
        os.nice(10)

    results = []
    with tempfile.TemporaryDirectory(prefix="rnnfast-mutants-") as directory:
        workshop = Workshop(Path(directory))
        workshop.configure()
        workshop.build()
        isas = workshop.instruction_sets()
        if (
            failed := workshop.killer(TESTS + STRUCTURE_TESTS + OPTION_TESTS + DENSE_TESTS + TRAINING_TESTS)
        ) is not None:
            sys.exit(f"the unchanged sources already fail {failed}")
        print("unchanged sources: all tests pass", flush=True)
        for mutant in MUTANTS:
            if not options.only or mutant.name in options.only:
                result = try_out(workshop, mutant, isas)
                results.append(result)
                print(f"{mutant.name}: {result.verdict} {result.by} ({result.seconds:.1f} s)", flush=True)
                if options.write:
                    TABLE.write_text(page_of(rows_of_page() | {mutant.name: row_of(result)}), encoding="utf-8")
    return int(any(result.verdict == "survived" for result in results))


if __name__ == "__main__":
    sys.exit(main())
