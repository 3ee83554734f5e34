"""Learning rates that change during training: factors of the optimizer's own ``lr``.

``fit(..., schedule=...)`` sets ``optimizer.lr`` before every step and puts it back at the end. The product of two
schedules is one: ``WarmUp(500) * Cosine(30)``.
"""

from __future__ import annotations

import math
from typing import Any

from rnnfast._checks import integer, number


class Schedule:
    """What all schedules have in common.

    Parameters
    ----------
    unit : {"epoch", "step"}
        What time is counted in: epochs that are done, or steps of the optimizer.

    Notes
    -----
    A schedule of one's own is a subclass with `at`.
    """

    def __init__(self, unit: str = "epoch") -> None:
        if unit not in ("epoch", "step"):
            raise ValueError(f"{type(self).__name__}: unit is {unit!r}; expected 'epoch' or 'step'")
        self.unit = unit

    def at(self, time: int) -> float:
        """The factor after ``time`` epochs or steps."""
        raise NotImplementedError

    def multiplier(self, epoch: int, step: int) -> float:
        """The factor for the step that follows ``epoch`` epochs and ``step`` steps of this training."""
        return self.at(epoch if self.unit == "epoch" else step)

    def begin(self) -> None:
        """A training begins."""

    def epoch_end(self, loss: float) -> None:
        """An epoch ended with this validation loss, or training loss if there is no validation data."""

    def state(self) -> dict[str, Any]:
        """What has to be kept to go on later (values that JSON can hold)."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""

    def __mul__(self, other: Schedule) -> Product:
        if not isinstance(other, Schedule):
            return NotImplemented
        return Product(self, other)

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"{type(self).__name__}({options})"


class Step(Schedule):
    """``factor ** (time // every)``, ``torch.optim.lr_scheduler.StepLR``.

    Parameters
    ----------
    every : int
        Time between two changes, at least 1.
    factor : float
        What the learning rate is multiplied by at each.
    unit : {"epoch", "step"}

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If one is out of range.
    """

    def __init__(self, every: int, factor: float = 0.1, unit: str = "epoch") -> None:
        super().__init__(unit)
        self.every = integer("Step", "every", every, 1)
        self.factor = number("Step", "factor", factor, 0)

    def at(self, time: int) -> float:
        return float(self.factor ** (time // self.every))


class Cosine(Schedule):
    """Half a wave of the cosine from 1 to ``floor``, ``torch.optim.lr_scheduler.CosineAnnealingLR``.

    Parameters
    ----------
    duration : int
        Time until ``floor`` is reached, at least 1; it stays there.
    floor : float
        Smallest factor, from 0 to 1.
    unit : {"epoch", "step"}

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If one is out of range.

    References
    ----------
    Loshchilov & Hutter (2017), SGDR: stochastic gradient descent with warm restarts, ICLR.
    """

    def __init__(self, duration: int, floor: float = 0.0, unit: str = "epoch") -> None:
        super().__init__(unit)
        self.duration = integer("Cosine", "duration", duration, 1)
        self.floor = number("Cosine", "floor", floor, 0)

    def at(self, time: int) -> float:
        share = min(time, self.duration) / self.duration
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * share)) / 2


class WarmUp(Schedule):
    """A straight line from ``start`` to 1, ``torch.optim.lr_scheduler.LinearLR``.

    Parameters
    ----------
    duration : int
        Time until 1 is reached, at least 1.
    start : float
        First factor, from 0 to 1. With 0 the first step changes nothing.
    unit : {"step", "epoch"}

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If one is out of range.
    """

    def __init__(self, duration: int, start: float = 0.1, unit: str = "step") -> None:
        super().__init__(unit)
        self.duration = integer("WarmUp", "duration", duration, 1)
        self.start = number("WarmUp", "start", start, 0)

    def at(self, time: int) -> float:
        return self.start + (1 - self.start) * min(time, self.duration) / self.duration


class ReduceOnPlateau(Schedule):
    """Less when the loss no longer falls, ``torch.optim.lr_scheduler.ReduceLROnPlateau``.

    The loss is that of the validation data, or of the training if there are none.

    Parameters
    ----------
    factor : float
        What the learning rate is multiplied by.
    patience : int
        Epochs without improvement that are borne; the next one changes the learning rate.
    threshold : float
        An improvement is a loss below ``best * (1 - threshold)``.
    cooldown : int
        Epochs after a change in which none is counted.
    floor : float
        Smallest factor of all.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If one is out of range.
    """

    def __init__(
        self, factor: float = 0.1, patience: int = 10, threshold: float = 1e-4, cooldown: int = 0, floor: float = 0.0
    ) -> None:
        super().__init__("epoch")
        self.factor = number("ReduceOnPlateau", "factor", factor, 0, 1)
        self.patience = integer("ReduceOnPlateau", "patience", patience, 0)
        self.threshold = number("ReduceOnPlateau", "threshold", threshold, 0, 1)
        self.cooldown = integer("ReduceOnPlateau", "cooldown", cooldown, 0)
        self.floor = number("ReduceOnPlateau", "floor", floor, 0)
        self.begin()

    def begin(self) -> None:
        self._now = 1.0
        self._best: float | None = None
        self._waited = 0
        self._cooling = 0

    def at(self, time: int) -> float:
        return self._now

    def epoch_end(self, loss: float) -> None:
        if self._best is None or loss < self._best * (1 - self.threshold):
            self._best = loss if math.isfinite(loss) else self._best
            self._waited = 0
        else:
            self._waited += 1
        if self._cooling:
            self._cooling -= 1
            self._waited = 0
        if self._waited > self.patience:
            self._now = max(self._now * self.factor, self.floor)
            self._cooling, self._waited = self.cooldown, 0

    def state(self) -> dict[str, Any]:
        return {"now": self._now, "best": self._best, "waited": self._waited, "cooling": self._cooling}

    def restore(self, state: dict[str, Any]) -> None:
        self._now, self._best = state["now"], state["best"]
        self._waited, self._cooling = state["waited"], state["cooling"]


class Product(Schedule):
    """The product of schedules, made by ``*``."""

    def __init__(self, *parts: Schedule) -> None:
        super().__init__()
        self.parts = parts

    def multiplier(self, epoch: int, step: int) -> float:
        return math.prod(part.multiplier(epoch, step) for part in self.parts)

    def begin(self) -> None:
        for part in self.parts:
            part.begin()

    def epoch_end(self, loss: float) -> None:
        for part in self.parts:
            part.epoch_end(loss)

    def state(self) -> dict[str, Any]:
        return {"parts": [part.state() for part in self.parts]}

    def restore(self, state: dict[str, Any]) -> None:
        for part, kept in zip(self.parts, state["parts"], strict=True):
            part.restore(kept)

    def __repr__(self) -> str:
        return " * ".join(map(repr, self.parts))
