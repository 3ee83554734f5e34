"""What this machine can do at most, measured, and the least time that a computation takes on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rnnfast import _core
from rnnfast.cli.workload import GATES, Sizes

# Powers of two from what any first cache holds to the weights of an LSTM of 2048 units in float64.
BUFFER_SIZES = tuple(1 << exponent for exponent in range(14, 28))
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True)
class Machine:
    """Limits measured on this machine, for all of ``threads`` threads together.

    Attributes
    ----------
    threads : int
    itemsize : int
        Bytes of a number.
    peak : float
        Floating-point operations per second, a multiply-add counting as two.
    bandwidth : dict of int to float
        Bytes per second at which a buffer of so many bytes is read again and again.
    """

    threads: int
    itemsize: int
    peak: float
    bandwidth: dict[int, float]

    def read_seconds(self, size: int, times: int) -> float:
        """Least time to read ``size`` bytes ``times`` times."""
        measured = next((b for b in self.bandwidth if b >= size), max(self.bandwidth))
        return size * times / self.bandwidth[measured]


def measure(threads: int, itemsize: int) -> Machine:
    """Measure the machine with the instruction set in use; takes about a second."""
    return Machine(
        threads,
        itemsize,
        _core.testing.fma_peak(itemsize, threads),
        {size: _core.testing.read_bandwidth(size, threads) for size in BUFFER_SIZES},
    )


def cache_sizes() -> dict[str, int]:
    """Bytes of the data caches that the system tells of: {"L1": 32768, ...}; empty where it does not."""
    sizes = {}
    for cache in sorted(CACHES.glob("index*")):
        try:
            level, kind, size = ((cache / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction" and size.endswith("K"):
            sizes[f"L{level}"] = int(size[:-1]) * 1024
    return sizes


def by_level(machine: Machine, caches: dict[str, int]) -> dict[str, float]:
    """Bandwidth of each cache and of memory: the one measured with the largest buffer that fits half of a cache."""
    found = {}
    for level, size in caches.items():
        fitting = [b for b in machine.bandwidth if b <= size // 2]
        if fitting:
            found[level] = machine.bandwidth[max(fitting)]
    if not caches or max(machine.bandwidth) >= 2 * max(caches.values()):
        found["memory"] = machine.bandwidth[max(machine.bandwidth)]
    return found


@dataclass(frozen=True)
class Limit:
    """Attributes: ``flops`` of the computation, the least ``seconds`` it takes, and what ``bound`` most of them."""

    flops: float
    seconds: float
    bound: str


def limit(machine: Machine, cell: str, mode: str, sizes: Sizes) -> Limit:
    """The roofline: every product takes at least its multiply-adds at peak, and the reading of its weights.

    Weights that meet the inputs are read once for all steps, recurrent ones once a step. Activations are left out: they
    are part of what a program spends beyond the limit.
    """
    T, N, I, H = sizes  # noqa: E741
    gates = GATES[cell]
    w_ih, w_hh = (gates * H * columns * machine.itemsize for columns in (I, H))
    input_flops, recurrent_flops = (2.0 * gates * T * N * H * columns for columns in (I, H))
    # (operations, bytes, how often they are read)
    products = [(input_flops, w_ih, 1), (recurrent_flops, w_hh, T)]
    if mode == "training":
        # dL/dx, dL/dh and the gradients of the weights, which are written once.
        products += [*products, (input_flops + recurrent_flops, w_ih + w_hh, 1)]
    computing = reading = seconds = 0.0
    for flops, size, times in products:
        at_peak, at_bandwidth = flops / machine.peak, machine.read_seconds(size, times)
        seconds += max(at_peak, at_bandwidth)
        if at_peak >= at_bandwidth:
            computing += at_peak
        else:
            reading += at_bandwidth
    return Limit(
        sum(flops for flops, _, _ in products), seconds, "multiply-adds" if computing >= reading else "reading weights"
    )
