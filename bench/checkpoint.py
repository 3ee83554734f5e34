"""Memory and time of one training step with and without checkpoints: the table of docs/layers.md.

    python bench/checkpoint.py                                  # T = 10 000, N = 16, H = 256; some minutes
    python bench/checkpoint.py --steps 1000 --repeats 1

Each way is run in turn, on one thread, and the fastest of its runs counts; time is that of the CPU, so that other
programs do not count. Gradients are compared to the bit first. The tape is what is kept beyond the input and the
output; the peak is that of all arrays that forward and backward make.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from typing import Any

import numpy as np
import rnnfast as rf

WAYS: dict[str, Any] = {"all states": False, "checkpoint=True": True, "checkpoint=256": 256}


def train(layer: Any, x: Any, dy: Any, checkpoint: Any) -> tuple[float, float, int, Any]:
    """CPU seconds of forward and of backward, bytes of the tape, gradient of the parameters."""
    start = time.process_time()
    _, _, tape = layer.forward(x, checkpoint=checkpoint)
    middle = time.process_time()
    size = tape.nbytes
    flat = layer.backward(tape, dy).flat
    return middle - start, time.process_time() - middle, size, flat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=["LSTM", "GRU"], choices=["RNN", "LSTM", "GRU"])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--inputs", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    rf.set_num_threads(1)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((options.steps, options.batch, options.inputs), dtype="float32")
    dy = rng.standard_normal((options.steps, options.batch, options.hidden), dtype="float32")
    print("| cell | | tape, MB | peak, MB | forward, s | backward, s | together | ratio |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for cell in options.cells:
        layer = getattr(rf, cell)(options.inputs, options.hidden, seed=0)
        runs: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        sizes: dict[str, int] = {}
        gradients: dict[str, Any] = {}
        peaks: dict[str, int] = {}
        for way, checkpoint in WAYS.items():
            tracemalloc.start()
            _, _, sizes[way], gradients[way] = train(layer, x, dy, checkpoint)
            peaks[way] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            if not np.array_equal(gradients[way], gradients["all states"]):
                raise SystemExit(f"{cell}: gradients with {way} are not those of a whole tape")
        for _ in range(options.repeats):
            for way, checkpoint in WAYS.items():
                forward, backward, _, _ = train(layer, x, dy, checkpoint)
                runs[way].append((forward, backward))
        fastest = {way: min(sum(run) for run in runs[way]) for way in WAYS}
        for way in WAYS:
            forward, backward = min(runs[way], key=sum)
            print(
                f"| {cell} | {way} | {sizes[way] / 1e6:.1f} | {peaks[way] / 1e6:.0f} | {forward:.1f} | "
                f"{backward:.1f} | {fastest[way]:.1f} | {fastest[way] / fastest['all states']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
