"""Vectors for whole numbers: characters, words, categories."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import _core
from rnnfast._arrays import Array, as_array
from rnnfast._checks import integer
from rnnfast.layers.base import PLAIN, Layer, Run


class Embedding(Layer):
    """A learnt vector for each of the numbers 0 .. num_embeddings - 1: ``y = weight[x]``.

    It stands first in a model, whose x then is an array of integers: (T, N), or (N, T) with ``batch_first``, or
    (N, ...) without recurrent layers.

    Parameters
    ----------
    num_embeddings : int
        How many numbers there are, at least 1.
    embedding_dim : int
        Length of their vectors, at least 1.
    dtype : {"float32", "float64"}
        Of the vectors.
    seed : int, optional
        Of the initial values, N(0, 1). None: other values every time.

    Attributes
    ----------
    parameters : Parameters
        ``weight`` (num_embeddings, embedding_dim), that of ``torch.nn.Embedding``.

    Raises
    ------
    TypeError
        If a size is no integer, or ``dtype`` is neither float32 nor float64.
    ValueError
        If a size is below 1.
    """

    takes_integers = True

    def __init__(
        self, num_embeddings: int, embedding_dim: int, *, dtype: Any = "float32", seed: int | None = None
    ) -> None:
        self.num_embeddings = integer("Embedding", "num_embeddings", num_embeddings, 1)
        self.embedding_dim = integer("Embedding", "embedding_dim", embedding_dim, 1)
        super().__init__(dtype, {"weight": (self.num_embeddings, self.embedding_dim)})
        generator = self.generator(seed)
        self.parameters["weight"][...] = generator.standard_normal((self.num_embeddings, self.embedding_dim))
        self.parameters.changed()

    def gives(self, width: int | None) -> int:
        return self.embedding_dim

    def config(self) -> dict[str, Any]:
        return {
            "num_embeddings": self.num_embeddings,
            "embedding_dim": self.embedding_dim,
            "dtype": self.dtype.name,
        }

    def check_numbers(self, x: Array, who: str) -> None:
        """TypeError or ValueError naming ``who`` unless ``x`` has numbers that have a vector, and nothing else."""
        if x.dtype.kind not in "iu":
            raise TypeError(f"{who} has dtype {x.dtype}; expected integers 0..{self.num_embeddings - 1} for Embedding")
        if x.size and (x.min() < 0 or x.max() >= self.num_embeddings):
            at = np.argwhere((x < 0) | (x >= self.num_embeddings))[0].tolist()
            raise ValueError(
                f"{who}{at} is {x[tuple(at)]}; expected a number 0..{self.num_embeddings - 1}, from num_embeddings"
            )

    def __call__(self, x: Any) -> Array:
        """Vectors of the numbers ``x``.

        Parameters
        ----------
        x : array_like of int, any shape
            Each from 0 to num_embeddings - 1.

        Returns
        -------
        ndarray, shape (*x.shape, embedding_dim)

        Raises
        ------
        TypeError
            If ``x`` does not hold integers.
        ValueError
            If one of them has no vector.
        """
        x = as_array(x, "Embedding: x")
        self.check_numbers(x, "Embedding: x")
        return self.apply(x)

    def apply(self, x: Array, run: Run = PLAIN) -> Array:
        return self.parameters["weight"].take(x, axis=0)

    def trace(self, x: Array, run: Run = PLAIN) -> tuple[Array, Any]:
        return self.apply(x), x

    def pull_back(self, tape: Any, dy: Array, grad: Array, need_dx: bool) -> Array | None:
        grad[...] = 0
        rows = np.ascontiguousarray(dy).reshape(-1, self.embedding_dim)
        index = np.ascontiguousarray(tape, np.intp).reshape(-1)
        _core.add_rows(self.parameters.views(grad)["weight"], index, rows)
        return None
