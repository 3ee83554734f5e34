"""A fully recurrent network with blocks of connections left out, beside the same network with all of them.

    python bench/sparsity.py                  # 1024 units, 90 % of the blocks absent; some minutes
    python bench/sparsity.py --threads 2

Pairs are timed in turn (pairs.py), after the sparse network's answer was compared with that of a dense one whose absent
connections have weight 0. The ratio is the median over the pairs of the dense time by the sparse one.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import rnnfast as rf
from pairs import CLOCKS, check_agreement, time_pairs

PAIRS = 31


def training(layer: Any, x: Any, dy: Any) -> Callable[[], Any]:
    def train() -> Any:
        y, _, tape = layer.forward(x)
        return {"y": y, **layer.backward(tape, dy).params}

    return train


def inference(layer: Any, x: Any, _: Any) -> Callable[[], Any]:
    return lambda: {"y": layer(x)[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"units": 1024, "inputs": 64, "steps": 50, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--blocks", type=int, nargs="+", default=[16, 32, 64], help="side of a block")
    parser.add_argument("--absent", type=float, default=0.9, help="share of the blocks (default: 0.9)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a comparison (default: 5)")
    options = parser.parse_args()
    rf.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    U, I, T = options.units, options.inputs, options.steps  # noqa: E741
    print("| block | N | inference, ms | by dense | training, ms | by dense |\n|---:|---:|---:|---:|---:|---:|")
    for side in options.blocks:
        blocks = rng.permuted(np.arange((U // side) ** 2)).reshape(U // side, U // side)
        connectivity = np.kron(blocks >= options.absent * blocks.size, np.ones((side, side), bool))
        sparse = rf.FRNN(I, U, connectivity=connectivity, seed=0)
        dense, same = rf.FRNN(I, U, seed=0), rf.FRNN(I, U, seed=0)
        same.load_state_dict(sparse.state_dict())
        for N in options.batch:
            x, dy = (rng.standard_normal((T, N, width), dtype="float32") for width in (I, U))
            wanted = training(same, x, dy)()
            wanted["weight_hh_l0"] = np.where(connectivity, wanted["weight_hh_l0"], 0)
            check_agreement(training(sparse, x, dy)(), wanted, "float32")
            row = [str(side), str(N)]
            for run in (inference, training):
                pairs = time_pairs(run(sparse, x, dy), run(dense, x, dy), options.seconds, PAIRS, CLOCKS["wall"])
                row += [f"{statistics.median(pairs.ours) * 1e3:.1f}", f"{statistics.median(pairs.ratios):.2f}"]
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
