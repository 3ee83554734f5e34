"""Connections that a layer lacks, and random masks of states and outputs."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnfast._arrays import Array


def parse_connections(who: str, name: str, mask: Any, gates: int, shape: tuple[int, int]) -> Array | None:
    """A mask of a weight matrix, (G*H, K): True where there is a connection. None if nothing is missing.

    Parameters
    ----------
    mask : array_like of bool, shape (G*H, K), or (H, K) for all gates alike, or what `encode` gave
    gates : int
        G.
    shape : tuple of int
        (H, K).
    """
    if mask is None:
        return None
    if isinstance(mask, Mapping):
        mask = decode(who, name, mask, (gates * shape[0], shape[1]))
    array = np.asarray(mask)
    if array.dtype != np.bool_:
        raise TypeError(f"{who}: {name} has dtype {array.dtype}; expected bool")
    if array.shape == shape and gates > 1:
        array = np.concatenate([array] * gates)
    if array.shape != (gates * shape[0], shape[1]):
        raise ValueError(
            f"{who}: {name} has shape {array.shape}; expected {(gates * shape[0], shape[1])}, the weight's, "
            f"or {shape} for all gates alike"
        )
    return None if array.all() else array.copy()


def share_of_blocks(mask: Array) -> float:
    """Share of the blocks of 16 rows and 8 columns in which there is a connection."""
    return float(_blocks(mask, 8).mean())


def absent(mask: Array, units: int, sparse: bool) -> Array:
    """Places in a weight's gradient, counted along its rows, that have to be set to 0.

    Sparse kernels write only where a block of 16 rows and a register's columns, at most 16, has a connection. Gates
    have ``units`` rows each.
    """
    missing: Array = np.logical_not(mask)
    if sparse:
        rows, columns = mask.shape
        written = _blocks(mask, 16)
        if units % 16 != 0:
            # Gates that are multiplied on their own count their blocks from their own first row.
            written[1:] |= written[:-1].copy()
            written[:-1] |= written[1:].copy()
        missing &= written.repeat(16, axis=0).repeat(16, axis=1)[:rows, :columns]
    return np.flatnonzero(missing)


def _blocks(mask: Array, width: int) -> Array:
    """Whether each block of 16 rows and ``width`` columns has a connection."""
    rows, columns = mask.shape
    padded = np.zeros((-(-rows // 16) * 16, -(-columns // width) * width), bool)
    padded[:rows, :columns] = mask
    blocks: Array = np.asarray(padded.reshape(padded.shape[0] // 16, 16, -1, width).any(axis=(1, 3)))
    return blocks


def encode(mask: Array) -> dict[str, Any]:
    """A mask as JSON can hold it, eight connections a byte."""
    return {"shape": list(mask.shape), "bits": base64.b64encode(np.packbits(mask).tobytes()).decode()}


def decode(who: str, name: str, value: Mapping[str, Any], shape: tuple[int, int]) -> Array:
    """The mask that `encode` turned into JSON; it is of the given shape, whatever ``value`` says."""
    if value.keys() != {"shape", "bits"} or value["shape"] != list(shape) or not isinstance(value["bits"], str):
        raise ValueError(f"{who}: {name} is no mask of shape {shape}")
    try:
        packed = np.frombuffer(base64.b64decode(value["bits"], validate=True), np.uint8)
    except ValueError:
        raise ValueError(f"{who}: {name} is no mask of shape {shape}") from None
    size = shape[0] * shape[1]
    if len(packed) != -(-size // 8):
        raise ValueError(f"{who}: {name} has {len(packed)} bytes; expected {-(-size // 8)} for shape {shape}")
    return np.unpackbits(packed, count=size).reshape(shape).astype(bool)


def inverted_dropout(generator: np.random.Generator, p: float, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Zero with probability ``p``, else 1 / (1 - p), so that the mean is 1."""
    kept = generator.random(shape, np.float32) >= p
    scaled: Array = np.multiply(kept, 1 / (1 - p) if p < 1 else 0, dtype=dtype)
    return scaled


def zoneout_mask(generator: np.random.Generator, p: float, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """One with probability ``p``, where the old state stays, else zero."""
    return (generator.random(shape, np.float32) < p).astype(dtype)
