"""What every layer has in common: named parameters in one flat buffer, and the protocol of `Sequential`."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from rnnfast._arrays import Array, as_array, float_dtype

_size_limit: ContextVar[int | None] = ContextVar("size_limit", default=None)


@contextmanager
def limited_size(elements: int) -> Iterator[None]:
    """Refuse parameters of more than ``elements`` numbers, before memory is taken, while the block runs.

    A file that names huge layers then costs no more than the tensors that it holds.
    """
    token = _size_limit.set(elements)
    try:
        yield
    finally:
        _size_limit.reset(token)


class Parameters:
    """Named arrays that are views of one contiguous buffer.

    One buffer makes an optimizer step or a global norm one operation on one array.

    Attributes
    ----------
    shapes : dict of str to tuple of int
        The shape of every parameter, in the order of the buffer.
    size : int
        Numbers in all of them.
    dtype : numpy.dtype
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype[Any]) -> None:
        self.shapes = dict(shapes)
        self.size = sum(math.prod(shape) for shape in self.shapes.values())
        self.dtype = dtype
        limit = _size_limit.get()
        if limit is not None and self.size > limit:
            raise ValueError(f"parameters of shapes {self.shapes} are {self.size} numbers; expected at most {limit}")
        self._version = 0
        self.on_change: Callable[[], object] = lambda: None
        self._lay_out()
        try:
            self._flat: Array = np.zeros(self.size, dtype)
        except (ValueError, MemoryError):
            raise MemoryError(f"parameters of shapes {self.shapes} are {self.size} numbers; expected fewer") from None
        self._views = self.views(self._flat)

    @property
    def flat(self) -> Array:
        """Every parameter, one after the other in the order of their names, shape (size,)."""
        return self._flat

    @property
    def version(self) -> int:
        """Grows at every change, so that whatever was derived from the values knows that it is stale."""
        return self._version

    def views(self, flat: Array) -> dict[str, Array]:
        """The parameters' names and shapes laid over another buffer of the same size, such as a gradient."""
        return {name: flat[span].reshape(shape) for name, span, shape in self._places}

    def _lay_out(self) -> None:
        """Find where every parameter lies in a flat buffer."""
        self._places: list[tuple[str, slice, tuple[int, ...]]] = []
        start = 0
        for name, shape in self.shapes.items():
            stop = start + math.prod(shape)
            self._places.append((name, slice(start, stop), shape))
            start = stop

    @property
    def parts(self) -> list[Parameters]:
        """Those whose buffers, one after the other, hold the values."""
        return [self]

    def subtract(self, delta: Array) -> None:
        """Take ``delta``, shape (size,), from the values."""
        # Said before as well as after: if an exception comes between, nothing stale stays in use.
        self.changed()
        self._flat -= delta
        self.changed()

    def assign(self, values: Array) -> None:
        """Set all values, shape (size,)."""
        self.changed()
        self._flat[...] = values
        self.changed()

    def changed(self) -> None:
        """Say that the values were written to; calls ``on_change``, by which packed copies learn of it."""
        self._version += 1
        self.on_change()

    def __getitem__(self, name: str) -> Array:
        return self._views[name]

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    # A copy's views must be of the copy's buffer.

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_views", "on_change")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._views = self.views(self._flat)
        self.on_change = lambda: None


class JoinedParameters(Parameters):
    """The parameters of several layers, each name with its layer's prefix: "0.weight".

    The values stay in the layers' buffers, whose addresses the kernels hold; nothing is kept twice, and a layer may
    stand in several models. Gradients and what optimizers remember are flat over all layers.
    """

    def __init__(self, parts: Mapping[str, Parameters], dtype: np.dtype[Any]) -> None:
        self.shapes = {f"{prefix}.{name}": part.shapes[name] for prefix, part in parts.items() for name in part}
        self.size = sum(part.size for part in parts.values())
        self.dtype = dtype
        self._lay_out()
        self._parts = dict(parts)
        self._buffers = [buffer for part in parts.values() if part.size for buffer in part.parts]

    @property
    def flat(self) -> Array:
        """A read-only copy of all values."""
        flat = np.concatenate([np.empty(0, self.dtype), *(part.flat for part in self._buffers)])
        flat.flags.writeable = False
        return flat

    @property
    def version(self) -> int:
        return sum(part.version for part in self._parts.values())

    @property
    def parts(self) -> list[Parameters]:
        return self._buffers

    def subtract(self, delta: Array) -> None:
        start = 0
        for part in self._buffers:
            part.subtract(delta[start : start + part.size])
            start += part.size

    def assign(self, values: Array) -> None:
        start = 0
        for part in self._buffers:
            part.assign(values[start : start + part.size])
            start += part.size

    def changed(self) -> None:
        for part in self._buffers:
            part.changed()

    def __getitem__(self, name: str) -> Array:
        prefix, _, rest = name.partition(".")
        return self._parts[prefix][rest]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class Run:
    """One pass of a model over a batch: what layers need beside the input.

    Parameters
    ----------
    lengths : ndarray of int, shape (N,), optional
        Valid steps of every sequence; what comes after them is padding. None: all steps of all sequences.
    seed : tuple of int
        From which, with ``path``, the random numbers of this pass follow.
    carry : dict, optional
        States of recurrent layers by their ``path``: where this pass begins (zeros if a layer has none there), and,
        afterwards, where it ended. None: every pass begins with zeros.
    path : tuple of int
        The layer's place in the model.
    """

    __slots__ = ("carry", "lengths", "path", "seed")

    def __init__(
        self,
        lengths: Array | None = None,
        seed: tuple[int, ...] = (),
        carry: dict[tuple[int, ...], Any] | None = None,
        path: tuple[int, ...] = (),
    ) -> None:
        self.lengths = lengths
        self.seed = seed
        self.carry = carry
        self.path = path

    def at(self, place: int) -> Run:
        """The same pass, for the layer at ``place`` of a model."""
        return Run(self.lengths, self.seed, self.carry, (*self.path, place))

    def generator(self) -> np.random.Generator:
        """The random numbers of this layer in this pass."""
        return np.random.default_rng([*self.seed, *self.path])


PLAIN = Run()


class Layer:
    """A layer of a `Sequential` model.

    Attributes
    ----------
    dtype : numpy.dtype
        float32 or float64: of the parameters, and of every array that goes in or comes out.
    parameters : Parameters
        Empty for a layer that learns nothing.
    reduces_time : bool
        Whether a sequence (T, N, ...) goes in and one value a sequence (N, ...) comes out.
    takes_integers : bool
        Whether its input is an array of integers, which only a first layer's can be.

    Notes
    -----
    Sequences are time-major in this protocol, whatever layout the model shows. A recurrent layer is one with
    an attribute ``batch_first``.
    """

    reduces_time = False
    takes_integers = False

    def __init__(self, dtype: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.dtype = float_dtype(dtype, f"{type(self).__name__}: dtype")
        self.parameters = Parameters(shapes, self.dtype)

    def _draw_uniform(self, bound: float, seed: Any) -> None:
        """Draw every parameter from U(-bound, bound)."""
        self.parameters.flat[...] = self.generator(seed).uniform(-bound, bound, self.parameters.size)
        self.parameters.changed()

    def generator(self, seed: Any) -> np.random.Generator:
        """The random numbers of ``seed``; TypeError or ValueError naming the layer if it is none."""
        try:
            return np.random.default_rng(seed)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"{type(self).__name__}: seed is {seed!r}; expected None, a whole number >= 0 or a numpy Generator"
            ) from None

    @property
    def takes(self) -> int | None:
        """Numbers on the last axis of its input; None: any."""
        return None

    def gives(self, width: int | None) -> int | None:
        """Numbers on the last axis of its output for an input that has ``width`` there; None: not known."""
        return None

    def config(self) -> dict[str, Any]:
        """Arguments that construct a layer of the same shape (values that JSON can hold)."""
        raise NotImplementedError

    def apply(self, x: Array, run: Run = PLAIN) -> Array:
        """Output for the input ``x``; keeps nothing."""
        raise NotImplementedError

    def trace(self, x: Array, run: Run = PLAIN) -> tuple[Array, Any]:
        """Output for ``x`` in training, and the tape that `pull_back` needs."""
        raise NotImplementedError

    def pull_back(self, tape: Any, dy: Array, grad: Array, need_dx: bool) -> Array | None:
        """Gradient through the layer.

        ``grad``, the shape of ``parameters.flat``, is overwritten with the parameters' gradient.
        Returns dL/dx, or None when ``need_dx`` is false.
        """
        raise NotImplementedError

    def check_numbers(self, x: Array, who: str) -> None:
        """TypeError or ValueError naming ``who`` unless the integers ``x`` suit a layer that takes such."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Array]:
        """Copies of the parameters by name. Changing one does not change the layer: use `load_state_dict`."""
        return {name: self.parameters[name].copy() for name in self.parameters}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set every parameter.

        Parameters
        ----------
        state : mapping of str to array_like
            Exactly the names and shapes of `state_dict`. Arrays of any float dtype and PyTorch CPU tensors
            are accepted and converted to the layer's dtype.

        Raises
        ------
        TypeError
            If ``state`` is no mapping, or a value is no array of floating-point numbers.
        ValueError
            If a name is missing or unknown, or a shape differs. Nothing is changed then.
        """
        who = f"{type(self).__name__}.load_state_dict"
        if not isinstance(state, Mapping):
            raise TypeError(f"{who}: state is {type(state).__name__}; expected a mapping of names to arrays")
        missing = [name for name in self.parameters if name not in state]
        unknown = [name for name in state if name not in self.parameters]
        if missing or unknown:
            raise ValueError(f"{who}: missing parameters {missing}, unknown parameters {unknown}")
        arrays = {}
        for name in self.parameters:
            array = as_array(state[name], f"{who}: {name}")
            if array.dtype.kind != "f":
                raise TypeError(f"{who}: {name} has dtype {array.dtype}; expected floating-point numbers")
            if array.shape != self.parameters[name].shape:
                raise ValueError(
                    f"{who}: {name} has shape {array.shape}; expected {self.parameters[name].shape}, "
                    f"from the sizes that {type(self).__name__} was made with"
                )
            arrays[name] = array
        self._check_values(arrays, who)
        for name, array in arrays.items():
            self.parameters[name][...] = array
        self.parameters.changed()

    def _check_values(self, arrays: Mapping[str, Array], who: str) -> None:
        """ValueError naming ``who`` if parameters of the right names and shapes have values that cannot be."""

    # A shallow copy would share parameters whose kernels only one of the two could tell of changes.

    def __copy__(self) -> Layer:
        return copy.deepcopy(self)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.config().items())
        return f"{type(self).__name__}({arguments})"
