"""Ctrl-C that waits while something must not be left half-done."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any


class Shield:
    """While it is entered, Ctrl-C is held back during ``with shield.up():`` and comes at its end.

    Elsewhere in the block Ctrl-C does what it did before. Outside the main thread, where Python never runs signal
    handlers, and where the program has switched Ctrl-C off, there is nothing to hold.
    """

    def __init__(self) -> None:
        self._held = False
        self._pending: tuple[int, FrameType | None] | None = None
        self._before: Any = None

    def __enter__(self) -> Shield:
        before = signal.getsignal(signal.SIGINT)
        if callable(before):
            self._before = before
            try:
                signal.signal(signal.SIGINT, self._handle)
            except ValueError:  # not in the main thread
                self._before = None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def up(self) -> _Up:
        return _Up(self)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._held:
            self._pending = (number, frame)
        else:
            self._before(number, frame)


class _Up:
    def __init__(self, shield: Shield) -> None:
        self.shield = shield

    def __enter__(self) -> None:
        self.shield._held = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.shield._held = False
        pending, self.shield._pending = self.shield._pending, None
        if pending is not None:
            self.shield._before(*pending)
