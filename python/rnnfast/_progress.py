"""How training shows how far it is: a bar if tqdm is installed, else a line an epoch."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


def text(row: dict[str, float | None]) -> str:
    """An epoch's numbers, those that exist, as ``loss 0.1234  val_loss 0.2345``."""
    return "  ".join(f"{name} {value:.4g}" for name, value in row.items() if value is not None)


class Lines:
    """A line an epoch on standard error."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def epoch_done(self, epoch: int, row: dict[str, float | None]) -> None:
        print(f"epoch {epoch:{len(str(self.epochs))}}/{self.epochs}  {text(row)}", file=sys.stderr)


class Silence(Lines):
    """Nothing."""

    def epoch_done(self, epoch: int, row: dict[str, float | None]) -> None:
        pass


class Bar(Lines):
    """One tqdm bar over the epochs."""

    def __init__(self, epochs: int, done: int, tqdm: Any) -> None:
        super().__init__(epochs)
        self.bar = tqdm(total=epochs, initial=done, unit="epoch", file=sys.stderr)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.close()

    def epoch_done(self, epoch: int, row: dict[str, float | None]) -> None:
        self.bar.set_postfix_str(text(row), refresh=False)
        self.bar.update(1)


def progress(show: bool, epochs: int, done: int) -> Lines:
    """What `fit` tells about its epochs, of which some may be ``done``; a context manager."""
    if not show:
        return Silence(epochs)
    try:
        from tqdm import tqdm  # type: ignore[import-untyped]
    except ImportError:
        return Lines(epochs)
    return Bar(epochs, done, tqdm)
