"""The classical long-memory tasks: what an RNN forgets, an LSTM and a GRU remember, and a feed-forward network never
knew. Three tasks in which the answer depends on what stood at least ``lag`` steps before it:

* adding (Hochreiter & Schmidhuber 1997): the sum of the two numbers that were marked among the first ones;
* temporal order (ibid.): in which order two of the symbols X and Y came, among random other symbols;
* copy memory (Arjovsky, Shah & Bengio 2016): repeat the first symbols after a long blank.

All networks see the same sequences, new ones at every step, and have the same number of steps to learn. The RNN fails
where the gradient has vanished before it reaches what matters (Bengio, Simard & Frasconi 1994); `rf.gradient_flow`
shows it. The gates of LSTM and GRU start with biases spread over the lags to be bridged (Tallec & Ollivier 2018).

    python examples/memory.py             # lags 10, 100 and 1000, temporal order 2000 as well
    python examples/memory.py --quick     # lags 10 and 50, under half a minute
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rnnfast as rf
from rnnfast.losses import CrossEntropy

# The steps that hold what matters are the first tenth of the lag, but at least ten.
SHORTEST_PART = 10
SYMBOLS, COPIED = 4, 3  # of the copy task: size of its alphabet, symbols to repeat
HIDDEN, BATCH = 32, 32
RNN_RATE = 3e-3  # larger ones make an RNN jump about
# Largest share of the error of guessing with which a task counts as solved; training ends at half of it, and takes
# smaller steps from where it is about to succeed.
SOLVED = 0.01
NEARLY = 0.3
STEPS_A_LOOK = 25
COLOURS = {"FFNN": "#e69f00", "RNN": "#009e73", "LSTM": "#0072b2", "GRU": "#cc79a7"}

Sequences = tuple[Any, Any]


def adding(rng: np.random.Generator, lag: int, count: int) -> Sequences:
    """Numbers in [0, 1) and marks; the target is the sum of the two marked numbers.

    Returns
    -------
    x : ndarray, shape (T, count, 2)
    y : ndarray, shape (count, 1)
    """
    T, first, second = _places(rng, lag, count)
    each = np.arange(count)
    x = np.zeros((T, count, 2), np.float32)
    x[..., 0] = rng.random((T, count), np.float32)
    x[first, each, 1] = x[second, each, 1] = 1
    return x, (x[..., 0] * x[..., 1]).sum(axis=0)[:, None]


def temporal_order(rng: np.random.Generator, lag: int, count: int) -> Sequences:
    """Symbols X, Y and four that mean nothing, one-hot; the target is which of XX, XY, YX, YY came.

    Returns
    -------
    x : ndarray, shape (T, count, 6)
    y : ndarray of int, shape (count,)
    """
    T, first, second = _places(rng, lag, count)
    each = np.arange(count)
    symbols = rng.integers(2, 6, (T, count))
    relevant = rng.integers(0, 2, (2, count))
    symbols[first, each], symbols[second, each] = relevant
    return np.eye(6, dtype=np.float32)[symbols], 2 * relevant[0] + relevant[1]


def copy_memory(rng: np.random.Generator, lag: int, count: int) -> Sequences:
    """Symbols, blanks, a sign to begin, blanks again, one-hot; the targets of the last steps are the first symbols.

    Returns
    -------
    x : ndarray, shape (COPIED + lag + COPIED, count, SYMBOLS + 2)
    y : ndarray of int, shape (COPIED, count)
    """
    blank, begin = SYMBOLS, SYMBOLS + 1
    wanted = rng.integers(0, SYMBOLS, (COPIED, count))
    symbols = np.full((COPIED + lag + COPIED, count), blank)
    symbols[:COPIED] = wanted
    symbols[COPIED + lag - 1] = begin
    return np.eye(SYMBOLS + 2, dtype=np.float32)[symbols], wanted


def _places(rng: np.random.Generator, lag: int, count: int) -> tuple[int, Any, Any]:
    """Number of steps, and one place in each half of the part that is over ``lag`` steps before the last one."""
    part = max(SHORTEST_PART, lag // 10)
    return part + lag, rng.integers(0, part // 2, count), rng.integers(part // 2, part, count)


class LastSteps(CrossEntropy):
    """Cross-entropy of the last steps of a sequence; ``target`` has only these."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def target_shape(self, prediction_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.steps, *prediction_shape[1:-1])

    def differentiate(self, prediction: Any, target: Any) -> tuple[float, Any]:
        value, of_the_last = super().differentiate(prediction[-self.steps :], target)
        gradient = np.zeros_like(prediction)
        gradient[-self.steps :] = of_the_last
        return value, gradient


@dataclass(frozen=True)
class Task:
    """A task, and how its networks are made and judged.

    Attributes
    ----------
    name : str
    make : callable
        ``make(rng, lag, count)`` gives (x, y).
    inputs, outputs : int
        Numbers a step into and out of a network.
    guessing : float
        Error of the best guess: the mean squared error of the mean, or the share of wrong symbols.
    rate : float
        Learning rate, except for the RNN.
    clip : float
        Largest norm of the gradient.
    answers : int
        Steps, at the end, that have a target: 1 means one target a sequence.
    lags : tuple of int
        In ascending order.
    """

    name: str
    make: Callable[[np.random.Generator, int, int], Sequences]
    inputs: int
    outputs: int
    guessing: float
    rate: float
    clip: float
    answers: int = 1
    lags: tuple[int, ...] = (10, 100, 1000)

    def loss(self, kind: str) -> Any:
        if self.make is adding:
            return "mse"
        return LastSteps(self.answers) if self.answers > 1 and kind != "FFNN" else "cross_entropy"

    def network(self, kind: str, lag: int, seed: int) -> rf.Sequential:
        """A network of one of the four kinds; LSTM and GRU are given the lag that they are to bridge."""
        output = rf.Dense(HIDDEN, self.outputs, seed=seed + 1)
        if kind == "FFNN":
            return rf.Sequential(rf.Dense(self.inputs, HIDDEN, "tanh", seed=seed), output)
        recurrent = {"RNN": rf.RNN, "LSTM": rf.LSTM, "GRU": rf.GRU}[kind](self.inputs, HIDDEN, seed=seed)
        if kind != "RNN":
            rf.initialise(recurrent, bias="zeros", chrono=max(lag, SHORTEST_PART), seed=seed)
        return rf.Sequential(recurrent, *([] if self.answers > 1 else [rf.Last()]), output)

    def sequences(self, rng: np.random.Generator, lag: int, count: int, kind: str) -> Sequences:
        """Data for a kind of network: the feed-forward network sees the steps that have a target, one at a time."""
        x, y = self.make(rng, lag, count)
        if kind != "FFNN":
            return x, y
        return x[-self.answers :].reshape(-1, self.inputs), y.reshape(-1) if self.answers > 1 else y

    def error(self, model: rf.Sequential, x: Any, y: Any) -> float:
        """Error of a network as a share of that of guessing."""
        predicted = model.predict(x)
        if self.make is adding:
            return float(((predicted - y) ** 2).mean()) / self.guessing
        return float((predicted[-len(y) :].argmax(axis=-1) != y).mean()) / self.guessing


TASKS = (
    Task("adding", adding, inputs=2, outputs=1, guessing=1 / 6, rate=1e-2, clip=1.0),
    Task("temporal order", temporal_order, 6, 4, guessing=3 / 4, rate=1e-2, clip=1.0, lags=(10, 100, 1000, 2000)),
    Task("copy memory", copy_memory, SYMBOLS + 2, SYMBOLS, 1 - 1 / SYMBOLS, rate=2e-2, clip=0.1, answers=COPIED),
)


@dataclass(frozen=True)
class Result:
    """How one network learnt one task at one lag.

    Attributes
    ----------
    task, network : str
    lag : int
    error : float
        Of 1000 sequences that it has not seen, as a share of the error of guessing.
    steps : int
        Of training.
    seconds : float
        Of processor time, for training.
    """

    task: str
    lag: int
    network: str
    error: float
    steps: int
    seconds: float

    @property
    def solved(self) -> bool:
        return self.error <= SOLVED


def learn(task: Task, kind: str, lag: int, most_steps: int, seed: int, bar: Any) -> tuple[Result, rf.Sequential]:
    """Train a network on new sequences until it solves the task or ``most_steps`` are over."""
    model = task.network(kind, lag, seed)
    rate = RNN_RATE if kind == "RNN" else task.rate
    optimizer = rf.Adam(rate)
    training = np.random.default_rng([seed, lag])
    looked_at = task.sequences(np.random.default_rng([seed, lag, 1]), lag, 250, kind)
    start, steps, error = time.process_time(), 0, 1.0
    while steps < most_steps and error > SOLVED / 2:
        x, y = task.sequences(training, lag, STEPS_A_LOOK * BATCH, kind)
        optimizer.lr = rate if error > NEARLY else rate / 2
        batch = len(x) // STEPS_A_LOOK if kind == "FFNN" else BATCH
        options: Any = {"batch_size": batch, "clip_norm": task.clip, "shuffle": False, "progress": False}
        try:
            history = model.fit(x, y, task.loss(kind), optimizer, epochs=1, **options)
        except rf.NonFiniteError:  # the network is as it was before that step
            rate /= 2
        else:
            if history.interrupted:
                raise KeyboardInterrupt
        steps += STEPS_A_LOOK
        error = task.error(model, *looked_at)
        bar.set_postfix_str(f"{task.name}, lag {lag}, {kind}: error {error:.0%}", refresh=False)
        bar.update(STEPS_A_LOOK * lag)
    bar.update((most_steps - steps) * lag)
    seconds = time.process_time() - start
    test = task.sequences(np.random.default_rng([seed, lag, 2]), lag, 1000, kind)
    return Result(task.name, lag, kind, task.error(model, *test), steps, seconds), model


def table(runs: list[Result]) -> Iterator[str]:
    """The results as lines of a table in Markdown."""
    yield "| task | lag | " + " | ".join(COLOURS) + " |"
    yield "|---|---:|" + "---:|" * len(COLOURS)
    for task, lag in dict.fromkeys((r.task, r.lag) for r in runs):
        cells = []
        for kind in COLOURS:
            (found,) = (r for r in runs if (r.task, r.lag, r.network) == (task, lag, kind))
            text = f"{found.error:.1%}" if found.error < 0.1 else f"{found.error:.0%}"
            cells.append(f"**{text}** ({found.steps} steps)" if found.solved else text)
        yield f"| {task} | {lag} | " + " | ".join(cells) + " |"


def draw_errors(runs: list[Result], path: Path) -> None:
    """Error against lag, a panel a task."""
    figure = _figure(11, 3.9)
    panels = figure.subplots(1, len(TASKS), sharey=True)
    for panel, task in zip(panels, TASKS, strict=True):
        lags = sorted({r.lag for r in runs if r.task == task.name})
        ends = []
        for kind, colour in COLOURS.items():
            errors = [r.error for r in runs if (r.task, r.network) == (task.name, kind)]
            panel.plot(lags, errors, color=colour, lw=2, marker="o", ms=5, clip_on=False)
            ends.append((errors[-1], kind, colour))
        for at, (_, kind, colour) in zip(_apart([end[0] for end in sorted(ends)], 0.085), sorted(ends), strict=True):
            panel.annotate(kind, (lags[-1], at), xytext=(9, 0), textcoords="offset points", color=colour, va="center")
        panel.set_xscale("log")
        panel.set_xticks(lags, [f"{lag / 1000:g}k" if lag >= 1000 else str(lag) for lag in lags])
        panel.minorticks_off()
        panel.set_xlim(lags[0] / 1.3, lags[-1] * (lags[-1] / lags[0]) ** 0.28)
        panel.set_ylim(-0.04, 1.15)
        _style(panel, task.name, "lag: steps to remember")
    panels[0].set_yticks([0, 0.25, 0.5, 0.75, 1], ["0: solved", "", "0.5", "", "1: guessing"])
    panels[0].set_ylabel("error, as a share of guessing's")
    _save(figure, path)


def draw_gradients(flows: list[tuple[str, dict[str, rf.GradientFlow]]], path: Path) -> None:
    """Gradients through time on the same data, a panel before and one after training."""
    figure = _figure(11, 4.2)
    for panel, (title, compared) in zip(figure.subplots(1, len(flows), sharey=True), flows, strict=True):
        rf.GradientFlow.compare(compared, panel)
        panel.set_title(title, loc="left", fontsize=11)
    _save(figure, path)


def _apart(sorted_values: list[float], distance: float) -> list[float]:
    """The values moved up where they would be closer than ``distance``."""
    moved: list[float] = []
    for value in sorted_values:
        moved.append(value if not moved else max(value, moved[-1] + distance))
    return moved


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _style(panel: Any, title: str, x: str) -> None:
    panel.set_title(title, loc="left", fontsize=11)
    panel.set_xlabel(x)
    panel.grid(color="#e6e6e6", lw=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Software": None})
    print(f"picture: {path}")


def gradients_of(task: Task, lag: int, trained: dict[str, rf.Sequential], seed: int) -> list[tuple[str, Any]]:
    """Gradient flow of RNN and LSTM on the same sequences, as they were made and as they were trained."""
    x, y = task.make(np.random.default_rng([seed, lag, 3]), lag, BATCH)
    output = rf.Dense(HIDDEN, task.outputs, seed=seed + 1)
    plain = rf.Sequential(rf.LSTM(task.inputs, HIDDEN, seed=seed), rf.Last(), output)
    made = {kind: task.network(kind, lag, seed) for kind in ("RNN", "LSTM")}
    both = {"before": {**made, "LSTM without chrono": plain}, "after": trained}
    return [
        (
            f"{task.name}, lag {lag}: {when} training",
            {kind: rf.gradient_flow(network, x, y, task.loss(kind)) for kind, network in networks.items()},
        )
        for when, networks in both.items()
    ]


def run(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    chosen = sorted(set(args.lags or ([10, 50] if args.quick else [])))
    most_steps = args.steps or (1000 if args.quick else 4000)
    args.out.mkdir(parents=True, exist_ok=True)
    runs: list[Result] = []
    models = {}
    jobs = [(task, lag, kind) for task in TASKS for lag in chosen or task.lags for kind in COLOURS]
    with tqdm(total=sum(most_steps * lag for _, lag, _ in jobs), unit="step", unit_scale=True, file=sys.stderr) as bar:
        for task, lag, kind in jobs:
            result, models[task.name, lag, kind] = learn(task, kind, lag, most_steps, args.seed, bar)
            runs.append(result)
            (args.out / "memory.json").write_text(json.dumps([asdict(r) for r in runs], indent=1) + "\n")
    print("\n".join(table(runs)))
    print("Errors on 1000 new sequences as a share of guessing's; bold: solved, at most 1 %.")
    draw_errors(runs, args.out / "memory-lags.png")
    task = TASKS[0]
    lags = chosen or task.lags
    lag = lags[len(lags) // 2]
    trained = {kind: models[task.name, lag, kind] for kind in ("RNN", "LSTM")}
    draw_gradients(gradients_of(task, lag, trained, args.seed), args.out / "memory-gradients.png")


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="short lags, few steps: shows that all of it runs")
    options.add_argument(
        "--lags", type=positive, nargs="+", metavar="LAG", help="default: 10 100 1000, and 2000 for temporal order"
    )
    options.add_argument("--steps", type=positive, help="most steps of training a network; default: 4000")
    options.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    options.add_argument("--out", type=Path, default=Path("memory-results"), metavar="DIR", help="default: %(default)s")
    try:
        run(options.parse_args(arguments))
    except ImportError as error:
        print(f"memory.py: {error}; pip install matplotlib tqdm", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("memory.py: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
