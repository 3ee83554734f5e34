"""A layer of one's own: all that `rnnfast.Sequential` asks of a layer, in its shortest form."""

from __future__ import annotations

from typing import Any

from rnnfast.layers.base import PLAIN, Layer, Run


class Flatten(Layer):
    """(N, ...) to (N, the rest as one axis)."""

    def __init__(self) -> None:
        super().__init__("float32", {})

    def config(self) -> dict[str, Any]:
        return {}

    def apply(self, x: Any, run: Run = PLAIN) -> Any:
        return x.reshape(len(x), -1)

    def trace(self, x: Any, run: Run = PLAIN) -> tuple[Any, Any]:
        return self.apply(x), x.shape

    def pull_back(self, tape: Any, dy: Any, grad: Any, need_dx: bool) -> Any:
        return dy.reshape(tape)
