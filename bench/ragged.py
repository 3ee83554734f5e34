"""Training on sequences of different lengths, beside PyTorch's packed sequences and a dense batch of as many steps.

    python bench/ragged.py                    # T = 200, N = 64, I = 64, H = 128; some minutes
    python bench/ragged.py --threads 2

Lengths are drawn evenly from 1 to T. A sample is forward and backward, with the gradient of x. Pairs are timed in turn
(pairs.py) after all gradients were compared; the ratio is the median over the pairs of the other's time by ours.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import rnnfast as rf
from pairs import CLOCKS, check_agreement, time_pairs
from rnnfast.cli.workload import LAYERS

PAIRS = 31


def ours(layer: Any, x: Any, dy: Any, lengths: Any) -> Callable[[], Any]:
    def train() -> Any:
        y, _, tape = layer.forward(x, lengths=lengths)
        return y, layer.backward(tape, dy)

    return train


def packed(torch: Any, layer: Any, x: Any, dy: Any, lengths: Any) -> Callable[[], Any]:
    """The same in PyTorch."""
    module = getattr(torch.nn, type(layer).__name__)(layer.input_size, layer.hidden_size)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in layer.state_dict().items()})
    counts, upstream = torch.from_numpy(lengths), torch.from_numpy(dy)

    def train() -> Any:
        module.zero_grad()
        inputs = torch.from_numpy(x).requires_grad_()
        rows = torch.nn.utils.rnn.pack_padded_sequence(inputs, counts, enforce_sorted=False)
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(module(rows)[0], total_length=len(x))
        y.backward(upstream)
        return y.detach().numpy(), inputs.grad.numpy(), {n: p.grad.numpy() for n, p in module.named_parameters()}

    return train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=["lstm", "gru", "rnn"], choices=list(LAYERS))
    for name, value in {"steps": 200, "batch": 64, "inputs": 64, "hidden": 128, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--seconds", type=float, default=10.0, help="of a comparison (default: 10)")
    options = parser.parse_args()
    rf.set_num_threads(options.threads)
    try:
        import torch

        torch.set_num_threads(options.threads)
    except ImportError:
        torch = None
        print("PyTorch is not installed: compared with a dense batch only")
    rng = np.random.default_rng(0)
    T, N, I, H = options.steps, options.batch, options.inputs, options.hidden  # noqa: E741
    lengths = rng.integers(1, T + 1, N)
    steps = round(int(lengths.sum()) / N)
    x, dy = (rng.standard_normal((T, N, width), dtype="float32") for width in (I, H))
    for n, length in enumerate(lengths):
        dy[length:, n] = 0  # PyTorch reads it

    print("| cell | ragged, ms | by PyTorch, packed | by our dense batch of as many steps |\n|---|---:|---:|---:|")
    for cell in options.cells:
        layer = LAYERS[cell](I, H, seed=0)
        ragged = ours(layer, x, dy, lengths)
        others = {"dense": ours(layer, x[:steps], dy[:steps], None)}
        if torch is not None:
            others["torch"] = packed(torch, layer, x, dy, lengths)
            (y, grads), (y_torch, dx_torch, theirs) = ragged(), others["torch"]()
            wanted = {"y": y_torch, "dx": dx_torch, **theirs}
            check_agreement({"y": y, "dx": grads.x, **grads.params}, wanted, "float32")
        taken = {
            name: time_pairs(ragged, other, options.seconds, PAIRS, CLOCKS["wall"]) for name, other in others.items()
        }
        ratios = {name: f"{statistics.median(pairs.ratios):.2f}" for name, pairs in taken.items()}
        own = statistics.median(t for pairs in taken.values() for t in pairs.ours)
        print(f"| {cell} | {own * 1e3:.1f} | {ratios.get('torch', '')} | {ratios['dense']} |", flush=True)


if __name__ == "__main__":
    main()
