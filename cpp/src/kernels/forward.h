// SPDX-License-Identifier: MIT
// Forward over a whole sequence, generic over cell, float type and instruction set.
//
// Step by step a tile sums the input and the recurrent product and computes the cell from the accumulators. For few
// rows with many inputs the input products of a chunk of steps come first (project), since several rows use each weight
// then. Chunks are small enough that what is projected is still in the L2 cache when its step comes. In
// training the projections are written to where the gates will be kept, so the gates overwrite them; the simple RNN
// projects into h itself.
//
// Sequences usually begin with a state of zeros, of which the first step makes no products.
#pragma once

#include "kernels/rows.h"
#include "kernels/slices.h"
#include "kernels/team.h"

namespace rnnfast::RNNFAST_ISA {

template <class CellMath, class Real>
class Forward {
 public:
  static Index work_size(const Dims& d, bool training, int threads) {
    if (needs_scratch(training)) return threads * scratch_size(d, choose(d, threads));
    if (!forward_runs_unpacked(d)) return 0;
    const Index bias = Pack::bias_size({d.I, d.H});
    if (d.N <= kUnpackedRows) return bias;
    return bias + (rows_fill_lanes(d) ? transposed_size(d, threads) : threads * Pack::block_size({d.I, d.H}));
  }

  static void run(const Dims& d, const ForwardArgs<Real>& args, bool training, StepRange steps, Team& team) {
    assert(0 <= steps.first && steps.first < steps.last && steps.last <= d.T);
    assert(args.packed != nullptr || (training && forward_runs_unpacked(d)));
    if (args.packed == nullptr) {
      Pack::pack_bias({d.I, d.H}, *args.raw, args.work);
      if (d.N <= kUnpackedRows) {
        run_few_rows(d, args, team);
      } else {
        (rows_fill_lanes(d) ? run_transposed : run_by_blocks)(d, args, team);
      }
      return;
    }
    // The units of a single step need nothing of each other.
    const bool waits = d.T > 1;
    Split split = choose(d, team.size());
    if (waits) split = split.confirmed(team, d, P, steps);
    const Forward self(d, args, training, chunk_steps(d, split), Pack({d.I, d.H}, args.packed));
    // Threads that share the rows share their pre-activations, too.
    const Index scratch = needs_scratch(training) && !split.by_units ? scratch_size(d, split) : 0;
    Barrier barrier(split.threads);
    for (Index first = steps.first; first < steps.last;) {
      const StepRange stretch = split.stretch(d, first, steps.last);
      parallel(team, split.threads, [&](int member) {
        self.run_part(stretch, split.part(d, stretch, self.pack.blocks, member), args.work + member * scratch,
                      split.by_units && waits ? &barrier : nullptr);
      });
      first = stretch.last;
    }
  }

 private:
  using Pack = ForwardPack<CellMath, Real>;
  static constexpr int L = kLanes<Real>;
  static constexpr int P = CellMath::kProducts;
  static constexpr int kPlanes = CellMath::kPlanes;
  static constexpr int kInputPlane = CellMath::kInputPlane;
  static constexpr int kRecurrentPlane = CellMath::kRecurrentPlane;
  static constexpr Index kChunkBytes = 256 * 1024;  // of pre-activations: a part of any L2 cache

  const Dims& d;
  const ForwardArgs<Real>& args;
  const bool training;
  const Index chunk;  // steps that are projected at once
  const Pack pack;
  const bool starts_from_zero;
  Panels<Real> first_w_hh;  // what step 0 multiplies

  Forward(const Dims& dims, const ForwardArgs<Real>& a, bool keep, Index chunk_size, const Pack& weights)
      : d(dims),
        args(a),
        training(keep),
        chunk(chunk_size),
        pack(weights),
        starts_from_zero(is_zero(a.h, dims.rows(0) * dims.H)),
        first_w_hh(weights.w_hh) {
    if (starts_from_zero) first_w_hh.depth = 0;
  }

  /// One step of training for few rows: the weights pass as they are. Threads share the units. The biases are packed.
  static void run_few_rows(const Dims& d, const ForwardArgs<Real>& args, Team& team) {
    const int members = choose(d, team.size()).threads;
    const Forward self(d, args, true, 1, Pack({d.I, d.H}, args.work, args.work));
    const Step only = self.step_at(0, 0, self.gate_rows(0, {0, d.N}, nullptr));
    parallel(team, members, [&](int member) {
      const Range mine = share(self.pack.blocks, member, members);
      for (Index block = mine.first; block < mine.last; ++block) {
        const TileRange tile{0, d.N, block, 1};
        Accumulators<Real> acc;
        for (Index r = 0; r < d.N; ++r) {
          for (int plane = 0; plane < kPlanes; ++plane) {
            store(acc.at(tile, r, 0, kPlanes) + plane * L, load(self.bias(plane, block)));
          }
        }
        const Index unit = block * L;
        const auto add = [&](int plane, const Real* w, const int (&gate)[P], RowsIn<Real> in) {
          for (int p = 0; p < P; ++p) {
            for_few_rows(d.N, [&]<int R>() {
              add_unpacked_units<R>(acc.data + (plane + p) * L, kPlanes * L, w + (gate[p] * d.H + unit) * in.stride,
                                    lanes_left<Real>(unit, d.H), in.stride, in);
            });
          }
        };
        add(kInputPlane, args.raw->w_ih, CellMath::kInputGate, {args.x, d.I});
        if (!self.starts_from_zero) add(kRecurrentPlane, args.raw->w_hh, CellMath::kRecurrentGate, {args.h, d.H});
        self.finish_units(acc.data, L, tile, unit, only);
      }
    });
  }

  /// The same for any number of rows: every block of weights is packed just before it is used, and forgotten.
  static void run_by_blocks(const Dims& d, const ForwardArgs<Real>& args, Team& team) {
    const LayerDims layer{d.I, d.H};
    const int members = choose(d, team.size()).threads;
    parallel(team, members, [&](int member) {
      Real* const block = args.work + Pack::bias_size(layer) + member * Pack::block_size(layer);
      const Forward self(d, args, true, 1, Pack(layer, block, args.work));
      const Range mine = share(self.pack.blocks, member, members);
      for (Index number = mine.first; number < mine.last; ++number) {
        Pack::pack_block(layer, *args.raw, number, block, !self.starts_from_zero);
        self.run_part({0, 1}, {{0, d.N}, {number, number + 1}}, nullptr, nullptr);
      }
    });
  }

  /// Whether the rows of one step are so many that they may stand in the lanes, and not so many that packing pays.
  static bool rows_fill_lanes(const Dims& d) {
    return blocks_of<Real>(d.N) * L - d.N <= L / 4 && d.N <= kRowsWorthPacking;
  }

  /// Of inputs and states in lanes, and for each thread a block of pre-activations both ways round.
  static Index transposed_size(const Dims& d, int threads) {
    return blocks_of<Real>(d.N) * L * (d.I + d.H) + threads * block_both_ways_size(d);
  }
  static Index block_both_ways_size(const Dims& d) { return (blocks_of<Real>(d.N) * L + d.N * kPlanes) * L; }

  /// One step of training whose rows stand in the lanes: the weights pass as they are, and nothing of them is packed.
  static void run_transposed(const Dims& d, const ForwardArgs<Real>& args, Team& team) {
    const LayerDims layer{d.I, d.H};
    const int members = choose(d, team.size()).threads;
    const Index blocks = blocks_of<Real>(d.N);
    const Forward self(d, args, true, 1, Pack(layer, args.work, args.work));
    Real* const x = args.work + Pack::bias_size(layer);
    Real* const h = x + blocks * L * d.I;
    for (Index block = 0; block < blocks; ++block) {
      const Index rows = lanes_left<Real>(block * L, d.N);
      transpose(x + block * L * d.I, L, args.x + block * L * d.I, d.I, rows, d.I);
      if (!self.starts_from_zero) transpose(h + block * L * d.H, L, args.h + block * L * d.H, d.H, rows, d.H);
    }
    const Panels<Real> inputs{x, d.I, d.I * L};
    const Panels<Real> states{h, self.starts_from_zero ? 0 : d.H, d.H * L};
    const Step only = self.step_at(0, 0, self.gate_rows(0, {0, d.N}, nullptr));
    parallel(team, members, [&](int member) {
      Real* const sums = h + blocks * L * d.H + member * block_both_ways_size(d);
      Real* const acc = sums + blocks * L * L;
      const Range mine = share(self.pack.blocks, member, members);
      for (Index block = mine.first; block < mine.last; ++block) {
        for (int plane = 0; plane < kPlanes; ++plane) {
          self.sum_plane(plane, block, inputs, states, sums);
          transpose(acc + plane * L, kPlanes * L, sums, blocks * L, lanes_left<Real>(block * L, d.H), d.N);
        }
        self.finish_units(acc, L, {0, d.N, block, 1}, block * L, only);
      }
    });
  }

  /// sums[unit of the block][row of the batch] = pre-activations of a plane.
  void sum_plane(int plane, Index block, const Panels<Real>& inputs, const Panels<Real>& states, Real* sums) const {
    const int input = input_product<CellMath>(plane);
    const int recurrent = recurrent_product<CellMath>(plane);
    const Index rows = blocks_of<Real>(d.N);
    for_each_tile<1>(lanes_left<Real>(block * L, d.H), {0, rows}, [&](const TileRange& tile) {
      Accumulators<Real> acc;
      const Real* w_ih[kMaxRows<1>];
      const Real* w_hh[kMaxRows<1>];
      for (Index r = 0; r < tile.rows; ++r) {
        const Index unit = tile.first_row + r;
        if (input >= 0) w_ih[r] = args.raw->w_ih + (CellMath::kInputGate[input] * d.H + block * L + unit) * d.I;
        if (recurrent >= 0)
          w_hh[r] = args.raw->w_hh + (CellMath::kRecurrentGate[recurrent] * d.H + block * L + unit) * d.H;
        for (Index u = 0; u < tile.blocks; ++u) store(acc.at(tile, r, u, 1), splat(bias(plane, block)[unit]));
      }
      if (input >= 0) multiply<1>(tile, acc.data, 1, w_ih, inputs);
      if (recurrent >= 0) multiply<1>(tile, acc.data, 1, w_hh, states);
      for (Index r = 0; r < tile.rows; ++r) {
        for (Index u = 0; u < tile.blocks; ++u) {
          store(sums + ((tile.first_row + r) * rows + tile.first_block + u) * L, load(acc.at(tile, r, u, 1)));
        }
      }
    });
  }

  static Split choose(const Dims& d, int available) { return Split::choose<Real>(d, P, available); }

  static bool needs_scratch(bool training) { return CellMath::kKeepsGates && !training; }

  /// At most, so that scratch memory is enough for every thread.
  static Index rows_of_a_thread(const Dims& d, Split split) {
    return split.by_units || d.slots != nullptr ? d.N : (d.N + split.threads - 1) / split.threads;
  }

  static Index chunk_steps(const Dims& d, Split split) {
    const Index steps = kChunkBytes / (rows_of_a_thread(d, split) * kPlanes * d.H * static_cast<Index>(sizeof(Real)));
    return most<Index>(1, least(steps, d.T));
  }

  static Index scratch_size(const Dims& d, Split split) {
    return chunk_steps(d, split) * rows_of_a_thread(d, split) * kPlanes * d.H;
  }

  /// Where the pre-activations, and in training the gates, of a chunk of steps of some rows are.
  struct GateRows {
    const Dims& d;
    Real* data;  // of step 0, row 0 of the batch; scratch: of step t0, the first of these rows
    Index t0;
    Range rows;
    bool is_scratch;
    Index row_size;

    Real* at(Index t, Index row) const {
      return data + (is_scratch ? (t - t0) * rows.size() + row - rows.first : d.row(t) + row) * row_size;
    }
  };

  GateRows gate_rows(Index t0, Range rows, Real* scratch) const {
    if (!CellMath::kKeepsGates) return {d, args.h + d.N * d.H, t0, rows, false, d.H};
    return {d, training ? args.gates : scratch, t0, rows, !training, kPlanes * d.H};
  }

  /// Where one step of some rows reads and writes. Pointers are to the first of these rows.
  struct Step {
    Index row;  // of x, before it is placed
    const Real* h_prev;
    Real* h_new;
    const Real* c_prev;  // null without cell states, like c_new
    Real* c_new;
    Real* gates;  // pre-activations before
    Index gates_size;  // from row to row
    const Panels<Real>* w_hh;
  };

  Step step_at(Index t, Index first_row, const GateRows& gates) const {
    const Index from = (d.slot(t) + first_row) * d.H;
    const Index to = (d.slot(t + 1) + first_row) * d.H;
    Step step{.row = d.row(t) + first_row,
              .h_prev = args.h + from,
              .h_new = args.h + to,
              .c_prev = nullptr,
              .c_new = nullptr,
              .gates = gates.at(t, first_row),
              .gates_size = gates.row_size,
              .w_hh = t == 0 ? &first_w_hh : &pack.w_hh};
    if constexpr (CellMath::kHasCellState) {
      step.c_prev = args.c + (training ? from : first_row * d.H);
      step.c_new = args.c + (training ? to : first_row * d.H);
    }
    return step;
  }

  /// Whether input and recurrent products are summed in one go, step by step, instead of chunk by chunk: it saves
  /// the way of the pre-activations through memory, but reads w_ih at every step, which one or two rows do not repay,
  /// nor more of them if it comes from far away. The bits are the same.
  bool sum_at_once(Index rows) const {
    const Index few_inputs = rows == 2 ? 66 : kIsAvx2 ? 16 : 2;
    const bool is_far = P * d.H * d.I * static_cast<Index>(sizeof(Real)) > kFarBytes;
    const Index few_rows = kHasSlices && is_far ? kTooFewForSlices<P> : 2;
    return d.T == 1 || d.slots != nullptr || rows > few_rows || d.I <= few_inputs;
  }

  /// One thread's part of the given steps.
  void run_part(StepRange range, const Part& part, Real* scratch, Barrier* barrier) const {
    const bool at_once = sum_at_once(part.rows.size());
    for (Index t0 = range.first; t0 < range.last; t0 += chunk) {
      const Index steps = least(range.last - t0, chunk);
      const GateRows gates = gate_rows(t0, part.rows, scratch);
      if (!at_once) {
        pack.for_each_tile_of(steps * part.rows.size(), part.blocks, false,
                              [&]<int V>(const TileRange& tile) { project<V>(tile, t0, part.rows, gates); });
      }
      for (Index t = t0; t < t0 + steps; ++t) {
        const Range rows = intersection(part.rows, {0, d.rows(t)});
        if (rows.size() > 0) {
          const Step step = step_at(t, rows.first, gates);
          const bool last_units_first = (t % 2 == 1) != args.last_units_first;
          Range blocks = part.blocks;
          if (at_once && worth_slices<P, Real>(rows.size(), P * d.H * (d.I + d.H))) {
            advance_in_slices(rows.size(), intersection(blocks, {0, pack.full_blocks}), last_units_first, step);
            blocks.first = most(blocks.first, pack.full_blocks);
          }
          pack.for_each_tile_of(rows.size(), blocks, last_units_first,
                                [&]<int V>(const TileRange& tile)
                                    __attribute__((always_inline)) { advance<V>(tile, step, at_once); });
        }
        if (barrier != nullptr) barrier->wait();
      }
    }
  }

  /// a[t, n, plane] = b + w_ih x[t, n], for the planes with an input product.
  template <int V>
  void project(const TileRange& tile, Index t0, Range rows, const GateRows& gates) const {
    Accumulators<Real> acc;
    const Real* x[kMaxRows<V>];
    Real* to[kMaxRows<V>];
    const Index distance = pack.template distance<V>();
    const Index height = rows.size();
    for (Index r = 0; r < tile.rows; ++r) {
      const Index step = (tile.first_row + r) / height;
      const Index row = (tile.first_row + r) % height;
      x[r] = args.x + d.place(d.row(t0 + step) + rows.first + row) * d.I;
      to[r] = gates.at(t0 + step, rows.first + row) + kInputPlane * d.H;
      for (Index u = 0; u < tile.blocks; ++u) {
        for (int p = 0; p < P; ++p) {
          store(acc.at(tile, r, u, P) + p * distance, load(bias<V>(kInputPlane + p, tile.first_block + u)));
        }
      }
    }
    multiply<V>(tile, acc.data, P, x, pack.w_ih);
    for (Index r = 0; r < tile.rows; ++r) {
      for (Index u = 0; u < tile.blocks; ++u) {
        const Index unit = (tile.first_block + u) * L;
        for (int p = 0; p < P; ++p) {
          store_lanes(to[r] + p * d.H + unit, load(acc.at(tile, r, u, P) + p * distance), lanes_left<Real>(unit, d.H));
        }
      }
    }
  }

  /// One time step of one tile: sums what is missing of the pre-activations, all of them or w_hh h[t-1], and computes
  /// the cell.
  template <int V>
  RNNFAST_INLINE void advance(const TileRange& tile, const Step& step, bool at_once) const {
    static_assert(kMaxRows<V> * kPlanes <= Accumulators<Real>::kSize / L);
    Accumulators<Real> acc;
    const Real* x[kMaxRows<V>];
    const Real* h_prev[kMaxRows<V>];
    const Index distance = pack.template distance<V>();
    for (Index r = 0; r < tile.rows; ++r) {
      const Index row = tile.first_row + r;
      x[r] = args.x + d.place(step.row + row) * d.I;
      h_prev[r] = step.h_prev + row * d.H;
      prefetch_results(step, row, tile);
    }
    if (at_once && kInputPlane == kRecurrentPlane) {
      static_assert(kInputPlane != kRecurrentPlane || kPlanes == P);
      const Start<Real> start{bias<V>(kInputPlane, tile.first_block), 0, L, V < P ? L : pack.blocks * L};
      multiply<V>(tile, acc.data, kPlanes, start, x, pack.w_ih, h_prev, *step.w_hh);
    } else if (kInputPlane == kRecurrentPlane && V == P && d.H % L == 0) {
      const Real* projected = step.gates + tile.first_row * step.gates_size + tile.first_block * L;
      multiply<V>(tile, acc.data, kPlanes, Start<Real>{projected, step.gates_size, L, d.H}, h_prev, *step.w_hh);
    } else {
      for (Index r = 0; r < tile.rows; ++r) {
        const Real* from = step.gates + (tile.first_row + r) * step.gates_size;
        for (Index u = 0; u < tile.blocks; ++u) {
          const Index unit = (tile.first_block + u) * L;
          for (int plane = 0; plane < kPlanes; ++plane) {
            const bool projected = !at_once && plane >= kInputPlane && plane < kInputPlane + P;
            store(acc.at(tile, r, u, kPlanes) + plane * distance,
                  projected ? load_lanes(from + plane * d.H + unit, lanes_left<Real>(unit, d.H))
                            : load(bias<V>(plane, tile.first_block + u)));
          }
        }
      }
      if (at_once) multiply<V>(tile, acc.data + kInputPlane * distance, kPlanes, x, pack.w_ih);
      add_recurrent<V>(tile, acc, h_prev, *step.w_hh);
    }
    for (Index u = 0; u < tile.blocks; ++u) {
      finish_units(acc.at(tile, 0, u, kPlanes), distance, tile, (tile.first_block + u) * L, step);
    }
  }

  /// The same for whole blocks of units, whose weights are many.
  __attribute__((noinline)) void advance_in_slices(Index rows, Range blocks, bool last_units_first,
                                                   const Step& step) const {
    Factor<Real> factors[] = {{pack.w_ih, kInputPlane, {}}, {*step.w_hh, kRecurrentPlane, {}}};
    for (Index row = 0; row < rows; ++row) {
      factors[0].a[row] = args.x + d.place(step.row + row) * d.I;
      factors[1].a[row] = step.h_prev + row * d.H;
    }
    multiply_in_slices<P>(
        rows, blocks, last_units_first, factors, kPlanes,
        [&](const TileRange& tile, Accumulators<Real>& acc) {
          for (Index r = 0; r < tile.rows; ++r) {
            for (Index u = 0; u < tile.blocks; ++u) {
              for (int plane = 0; plane < kPlanes; ++plane) {
                store(acc.at(tile, r, u, kPlanes) + plane * L, load(bias(plane, tile.first_block + u)));
              }
            }
          }
        },
        [&](const TileRange& tile) {
          for (Index r = 0; r < tile.rows; ++r) prefetch_results(step, tile.first_row + r, tile);
        },
        [&](const TileRange& tile, Accumulators<Real>& acc) {
          for (Index u = 0; u < tile.blocks; ++u) {
            finish_units(acc.at(tile, 0, u, kPlanes), L, tile, (tile.first_block + u) * L, step);
          }
        });
  }

  template <int V>
  RNNFAST_INLINE void add_recurrent(const TileRange& tile, Accumulators<Real>& acc, const Real* const* h_prev,
                                    const Panels<Real>& w_hh) const {
    // The last lanes of a narrow block's registers reach into the plane that follows those of the product. They hold
    // zeros times h, which is not zero where h is infinite.
    constexpr bool kReachesBeyond = V < P && kRecurrentPlane + P < kPlanes;
    const Index beyond = (kRecurrentPlane + P) * pack.template distance<V>();
    Vec<Real> kept[kMaxRows<V>];
    for (Index r = 0; kReachesBeyond && r < tile.rows; ++r) kept[r] = load(acc.at(tile, r, 0, kPlanes) + beyond);
    multiply<V>(tile, acc.data + kRecurrentPlane * pack.template distance<V>(), kPlanes, h_prev, w_hh);
    for (Index r = 0; kReachesBeyond && r < tile.rows; ++r) store(acc.at(tile, r, 0, kPlanes) + beyond, kept[r]);
  }

  RNNFAST_INLINE void finish_units(const Real* acc, Index distance, const TileRange& tile, Index unit,
                                   const Step& step) const {
    const bool full = d.H - unit >= L;
    if (!CellMath::kKeepsGates || tile.rows == 1) {
      full ? finish<true, false>(acc, L, tile, unit, step) : finish<false, false>(acc, distance, tile, unit, step);
    } else {
      full ? finish<true, true>(acc, L, tile, unit, step) : finish<false, true>(acc, distance, tile, unit, step);
    }
  }

  /// Cells whose gates open together before their outputs follow: a cell alone would wait for its own results.
  static constexpr Index kCellsAtOnce = 8;

  /// The cells of a tile's rows and one block of units, from their pre-activations. Not inlined, so that the constants
  /// of the activations stay in registers from row to row.
  template <bool Full, bool Together>
  __attribute__((noinline)) void finish(const Real* acc, Index distance, const TileRange& tile, Index unit,
                                        const Step& step) const {
    if (Full) distance = L;
    const Index width = Full ? L : d.H - unit;
    const Index first = tile.first_row * d.H + unit;
    const Real* h_prev = step.h_prev + first;
    Real* h_new = step.h_new + first;
    const Real* c_prev = nullptr;
    Real* c_new = nullptr;
    if constexpr (CellMath::kHasCellState) {
      c_prev = step.c_prev + first;
      c_new = step.c_new + first;
    }
    Real* gates = step.gates + tile.first_row * step.gates_size + unit;
    const Index acc_stride = tile.blocks * kPlanes * L;
    // Lanes beyond the last unit must be numbers: what happens to be in memory may be some that take a hundred times as
    // long.
    const auto open = [&](Index r, Vec<Real>(&a)[kPlanes], Vec<Real>& c) __attribute__((always_inline)) {
      const Real* from = acc + r * acc_stride;
      for (int plane = 0; plane < kPlanes; ++plane) a[plane] = load_lanes(from + plane * distance, width);
      c = CellMath::kHasCellState ? load_lanes(c_prev + r * d.H, width) : Vec<Real>{};
      CellMath::template open_gates<Real>(a, c);
    };
    const auto put_out = [&](Index r, Vec<Real>(&a)[kPlanes], Vec<Real> c) __attribute__((always_inline)) {
      const Vec<Real> h = CellMath::template output<Real>(a, load_lanes(h_prev + r * d.H, width), c);
      if constexpr (CellMath::kHasCellState) store_lanes(c_new + r * d.H, c, width);
      store_lanes(h_new + r * d.H, h, width);
      if (CellMath::kKeepsGates && training) {
        for (int plane = 0; plane < kPlanes; ++plane) {
          store_lanes(gates + (r * kPlanes + plane) * d.H, a[plane], width);
        }
      }
    };
    if constexpr (Together) {
      Vec<Real> a[kCellsAtOnce][kPlanes];
      Vec<Real> c[kCellsAtOnce];
      for (Index first_cell = 0; first_cell < tile.rows; first_cell += kCellsAtOnce) {
        const Index cells = least(kCellsAtOnce, tile.rows - first_cell);
        for (Index j = 0; j < cells; ++j) open(first_cell + j, a[j], c[j]);
        for (Index j = 0; j < cells; ++j) put_out(first_cell + j, a[j], c[j]);
      }
    } else {
      const Index rows = CellMath::kKeepsGates ? 1 : tile.rows;
      for (Index r = 0; r < rows; ++r) {
        Vec<Real> a[kPlanes];
        Vec<Real> c;
        open(r, a, c);
        put_out(r, a, c);
      }
    }
  }

  /// The cache lines that finish() will write, fetched while the products are summed.
  RNNFAST_INLINE void prefetch_results(const Step& step, Index row, const TileRange& tile) const {
    for (Index u = 0; u < tile.blocks; ++u) {
      const Index at = row * d.H + (tile.first_block + u) * L;
      __builtin_prefetch(step.h_new + at, 1);
      if constexpr (CellMath::kHasCellState) __builtin_prefetch(step.c_new + at, 1);
    }
  }

  template <int V = P>
  const Real* bias(int plane, Index block) const {
    return V < P ? pack.narrow_bias + plane * pack.narrow_units : pack.bias + (plane * pack.blocks + block) * L;
  }
};

}  // namespace rnnfast::RNNFAST_ISA
