"""The safetensors format, read strictly and written atomically.

A file is the length of a header (8 bytes, little-endian), the header in JSON: ``{"name": {"dtype": "F32", "shape":
[2, 3], "data_offsets": [0, 24]}, ..., "__metadata__": {"key": "text"}}``, and the tensors' bytes, which the offsets
must cover without gap or overlap. Nothing in a file is ever executed, and no memory is taken that the length of the
file does not vouch for.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from rnnfast._arrays import Array
from rnnfast.io import strict_json

_DTYPES = {
    "BOOL": np.dtype("?"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

# About 100 000 tensors, or the connections of 8000 units. The format allows 100 MB, which would cost a gigabyte of
# memory to parse.
_MAX_HEADER = 12 << 20
_MAX_AXES = 8


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Parameters
    ----------
    path : str or path
        A regular file, or a link to one.

    Returns
    -------
    tensors : dict of str to ndarray
        In the order of their bytes in the file.
    metadata : dict of str to str
        Empty if the file has none.

    Raises
    ------
    OSError
        If the file cannot be opened or read.
    ValueError
        If it is not a valid safetensors file. This is known before memory for the tensors is taken.
    """
    try:
        # Opened without waiting: a pipe would keep us for ever.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("not a regular file")
            entries, metadata = _read_header(file, status.st_size)
            return {name: _read_tensor(file, *entry) for name, entry in entries.items()}, metadata
    except IsADirectoryError:
        raise ValueError(f"{os.fspath(path)}: a directory; expected a safetensors file") from None
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}; expected a safetensors file") from None


def write(
    path: str | os.PathLike[str], tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors and metadata to a safetensors file.

    The bytes go to a new file beside ``path``, which takes its name when everything is on the disk.

    Parameters
    ----------
    path : str or path
        Replaced if it exists. If it is a link, what it points to is replaced.
    tensors : mapping of str to ndarray
        Booleans, integers and floats of up to 64 bits.
    metadata : mapping of str to str, optional
        Free text.

    Raises
    ------
    OSError
        If the file cannot be written; nothing is left of it then.
    TypeError
        If a dtype has no name in the format, or a name or a text is not a str.
    ValueError
        If ``path`` exists and is not a regular file, or the header would be too long for `read`.
    """
    target = os.path.realpath(path)
    if os.path.lexists(target) and not os.path.isfile(target):
        raise ValueError(f"{target}: not a regular file; expected a file that may be replaced")
    arrays = {name: _little_endian(name, array) for name, array in tensors.items()}
    header = _header(arrays, metadata or {})
    temporary = f"{target}.{os.urandom(8).hex()}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(len(header).to_bytes(8, "little"))
            file.write(header)
            for array in _in_file_order(arrays).values():
                file.write(array.reshape(-1).view(np.uint8).data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    _sync_directory(os.path.dirname(target))


def _read_header(
    file: BinaryIO, file_size: int
) -> tuple[dict[str, tuple[np.dtype[Any], tuple[int, ...]]], dict[str, str]]:
    if file_size < 8:
        raise ValueError(f"{file_size} bytes long, too short for a header")
    length = int.from_bytes(_read_exactly(file, 8), "little")
    if length > file_size - 8:
        raise ValueError(f"header of {length} bytes in a file of {file_size}")
    if length > _MAX_HEADER:
        raise ValueError(f"header of {length} bytes, more than the {_MAX_HEADER} that are read")
    text = _read_exactly(file, length)
    if not text.startswith(b"{"):
        raise ValueError("header does not start with '{'")
    try:
        header = strict_json.parse(text.decode("utf-8"))
    except ValueError as error:
        raise ValueError(f"header is not valid: {error}") from None
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("__metadata__ is not a mapping of texts to texts")
    return _entries(header, file_size - 8 - length), metadata


def _entries(header: dict[str, Any], data_size: int) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """dtype and shape of the tensors in the order of their bytes, which they cover exactly."""
    spans = {name: _entry(name, entry) for name, entry in header.items()}
    entries, end = {}, 0
    for name, (start, stop, dtype, shape) in sorted(spans.items(), key=lambda item: item[1][:2]):
        if start != end:
            raise ValueError(f"{_short(name)} begins at byte {start}, the tensor before it ends at {end}")
        if stop - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{_short(name)} has {stop - start} bytes for shape {shape} of {_NAMES[dtype]}")
        entries[name] = (dtype, shape)
        end = stop
    if end != data_size:
        raise ValueError(f"tensors end at byte {end} of {data_size}")
    return entries


def _entry(name: str, entry: Any) -> tuple[int, int, np.dtype[Any], tuple[int, ...]]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{_short(name)} is not described by dtype, shape and data_offsets alone")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"{_short(name)} has dtype {_short(dtype)}, none of {', '.join(_DTYPES)}")
    if not _are_sizes(shape) or len(shape) > _MAX_AXES:
        raise ValueError(f"{_short(name)} has shape {_short(shape)}, not up to {_MAX_AXES} sizes")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{_short(name)} has data_offsets {_short(offsets)}, not two that ascend")
    return offsets[0], offsets[1], _DTYPES[dtype], tuple(shape)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 1 << 63 for size in value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _read_tensor(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    array: Array = np.empty(shape, dtype)
    view = array.reshape(-1).view(np.uint8).data
    while view:
        got = file.readinto(view)  # type: ignore[attr-defined]
        if not got:
            raise ValueError("file ended while it was read")
        view = view[got:]
    return array.astype(dtype.newbyteorder("="), copy=False)


def _read_exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise ValueError("file ended while it was read")
    return data


def _little_endian(name: str, array: Any) -> Array:
    if not isinstance(name, str):
        raise TypeError(f"safetensors.write: the name {name!r} is {type(name).__name__}; expected str")
    array = np.asarray(array)
    little = array.dtype.newbyteorder("<")
    if little not in _NAMES:
        raise TypeError(f"safetensors.write: {name} has dtype {array.dtype}; expected one of {', '.join(_DTYPES)}")
    # ascontiguousarray would make a scalar a vector.
    return np.require(array.astype(little, copy=False), requirements=["C"])


def _in_file_order(arrays: dict[str, Array]) -> dict[str, Array]:
    """Widest elements first, so that every tensor is aligned."""
    return dict(sorted(arrays.items(), key=lambda item: -item[1].itemsize))


def _header(arrays: dict[str, Array], metadata: Mapping[str, str]) -> bytes:
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"safetensors.write: metadata {key!r}: {value!r}; expected texts")
    if "__metadata__" in arrays:
        raise ValueError("safetensors.write: a tensor is named __metadata__; expected another name")
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name, array in _in_file_order(arrays).items():
        offsets = [start, start + array.nbytes]
        header[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": offsets}
        start += array.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    if len(text) > _MAX_HEADER:
        raise ValueError(f"safetensors.write: header of {len(text)} bytes; expected at most {_MAX_HEADER}")
    return text


def _sync_directory(directory: str) -> None:
    """Make a new name in a directory last, where the system can."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
