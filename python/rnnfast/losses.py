"""Losses: a value to make small, and its derivative by the prediction.

A loss is an object with three parts: which targets belong to a prediction (`Loss.target_shape`), what their values may
be (`Loss.check_target`), and value and derivative of every term (`Loss.terms`); the mean over the terms, weighted or
not, is the same for all. A loss of one's own is a subclass, and `fit` takes an instance of it like a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnfast import _core
from rnnfast._arrays import Array, as_array, as_float_array
from rnnfast._checks import number


class Loss:
    """What all losses have in common. Calling one gives ``(value, dL/dprediction)``."""

    def target_shape(self, prediction_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the targets that belong to predictions of ``prediction_shape``."""
        return prediction_shape

    def check_target(self, target: Any, prediction_shape: tuple[int, ...], dtype: np.dtype[Any], who: str) -> Array:
        """``target`` as the array that `terms` takes; TypeError or ValueError, naming ``who``, otherwise."""
        return as_float_array(target, dtype, who)

    def terms(self, prediction: Array, target: Array) -> tuple[Array, Array]:
        """Loss of every target, and its derivative by the prediction, in the shapes of the two.

        The arrays are new, so that they can be changed. A loss that overrides `differentiate` needs no terms.
        """
        raise NotImplementedError

    def weights(self, target: Array, weight: Array | None) -> Array | None:
        """Weight of every term, broadcast against ``target``, from those of the caller; None if all are 1."""
        return weight

    def count(self, target: Array, weight: Array | None = None) -> float:
        """Sum of the terms' weights, by which the mean of a minibatch counts in that of all."""
        weights = self.weights(target, weight)
        if weights is None:
            return target.size
        return float(weights.sum(dtype=np.float64)) * (target.size / weights.size)

    def differentiate(self, prediction: Array, target: Array, weight: Array | None = None) -> tuple[float, Array]:
        """Value and derivative for arrays whose shapes and values have been checked; 0 if all weights are."""
        values, derivative = self.terms(prediction, target)
        weights = self.weights(target, weight)
        if weights is None:
            derivative /= values.size
            return float(values.sum(dtype=np.float64)) / values.size, derivative
        total = self.count(target, weight)
        if total == 0:
            return 0.0, np.zeros_like(prediction)
        derivative *= (weights / total).astype(derivative.dtype, copy=False)
        return float((values * weights).sum(dtype=np.float64)) / total, derivative

    def __call__(self, prediction: Any, target: Any, weight: Any = None) -> tuple[float, Array]:
        """Value of the loss, and its derivative by the prediction.

        Parameters
        ----------
        prediction : ndarray, float32 or float64
            What the model gave.
        target : array_like
            Of the shape that `target_shape` gives, of at least one element.
        weight : array_like, optional
            Weights of the terms, none negative, of the shape of ``target`` or one that broadcasts to it.

        Returns
        -------
        value : float
            Mean over all elements of ``target``, weighted by ``weight``, added up in float64. 0 if all weights are 0.
        gradient : ndarray
            dL/dprediction, of the shape and dtype of ``prediction``.

        Raises
        ------
        TypeError
            If the dtype of ``target`` does not suit.
        ValueError
            If a shape does not fit, an array is empty, or a target or weight is out of range.
        """
        who = type(self).__name__
        prediction = as_array(prediction, f"{who}: prediction")
        prediction = as_float_array(prediction, np.result_type(prediction, np.float32), f"{who}: prediction")
        target = self.check_target(target, prediction.shape, prediction.dtype, f"{who}: target")
        if target.shape != self.target_shape(prediction.shape):
            raise ValueError(
                f"{who}: target has shape {target.shape}; expected {self.target_shape(prediction.shape)}, "
                f"from prediction of shape {prediction.shape}"
            )
        if prediction.size == 0:
            raise ValueError(f"{who}: prediction has shape {prediction.shape}; expected at least one element")
        if weight is None:
            return self.differentiate(prediction, target)
        weight = check_weights(weight, f"{who}: weight")
        if weight.ndim != target.ndim or any(w not in (1, t) for w, t in zip(weight.shape, target.shape, strict=True)):
            raise ValueError(
                f"{who}: weight has shape {weight.shape}; expected {target.shape} or 1 in places, from target"
            )
        return self.differentiate(prediction, target, weight)

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={_text(value)}" for name, value in vars(self).items() if name[0] != "_")
        return f"{type(self).__name__}({options})"


class MSE(Loss):
    """Mean squared error over all elements, ``torch.nn.MSELoss``."""

    def check_target(self, target: Any, prediction_shape: tuple[int, ...], dtype: np.dtype[Any], who: str) -> Array:
        return _real_target(target, dtype, who)

    def terms(self, prediction: Array, target: Array) -> tuple[Array, Array]:
        error = prediction - target
        values = np.square(error, dtype=np.float64)
        error *= 2
        return values, error

    def differentiate(self, prediction: Array, target: Array, weight: Array | None = None) -> tuple[float, Array]:
        if weight is not None:
            return super().differentiate(prediction, target, weight)
        # The same in fewer steps, since this loss is the one of small models.
        error = prediction - target
        value = _core.sum_of_squares(error.reshape(-1)) / error.size
        error *= 2 / error.size
        return value, error


class MAE(Loss):
    """Mean absolute error over all elements, ``torch.nn.L1Loss``. Its derivative where the error is 0 is 0."""

    def check_target(self, target: Any, prediction_shape: tuple[int, ...], dtype: np.dtype[Any], who: str) -> Array:
        return _real_target(target, dtype, who)

    def terms(self, prediction: Array, target: Array) -> tuple[Array, Array]:
        error = prediction - target
        return np.abs(error), np.sign(error)


class Huber(Loss):
    """``error**2 / 2`` up to ``delta`` and ``delta * (|error| - delta / 2)`` beyond, ``torch.nn.HuberLoss``.

    Parameters
    ----------
    delta : float
        Above 0.

    Raises
    ------
    TypeError
        If ``delta`` is no number.
    ValueError
        If it is not above 0.

    References
    ----------
    Huber (1964), Robust estimation of a location parameter, Annals of Mathematical Statistics 35(1).
    """

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = number("Huber", "delta", delta, 0)
        if self.delta == 0:
            raise ValueError("Huber: delta is 0; expected a number above 0")

    def check_target(self, target: Any, prediction_shape: tuple[int, ...], dtype: np.dtype[Any], who: str) -> Array:
        return _real_target(target, dtype, who)

    def terms(self, prediction: Array, target: Array) -> tuple[Array, Array]:
        error = prediction - target
        near: Array = np.clip(error, -self.delta, self.delta)
        # With near = error this is error**2 / 2.
        return near * (error - near / 2), near


class CrossEntropy(Loss):
    """Mean over the targets of ``-log softmax(prediction)[target]``, ``torch.nn.CrossEntropyLoss``.

    Predictions are logits (..., C), C classes on the last axis; targets (...) are integers 0..C-1.

    Parameters
    ----------
    ignore_index : int, optional
        Targets of this number do not count. None: every target counts.
    weight : array_like, shape (C,), optional
        Weights of the classes, none negative. The mean is weighted by them.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If a weight is negative or not finite, or ``weight`` has not one axis.
    """

    def __init__(self, ignore_index: int | None = None, weight: Any = None) -> None:
        if ignore_index is not None and (
            isinstance(ignore_index, bool) or not isinstance(ignore_index, (int, np.integer))
        ):
            raise TypeError(f"CrossEntropy: ignore_index is {ignore_index!r}; expected None or an integer")
        self.ignore_index = None if ignore_index is None else int(ignore_index)
        self.weight = None if weight is None else check_weights(weight, "CrossEntropy: weight")
        if self.weight is not None and self.weight.ndim != 1:
            raise ValueError(f"CrossEntropy: weight has shape {self.weight.shape}; expected (C,), C classes")

    def target_shape(self, prediction_shape: tuple[int, ...]) -> tuple[int, ...]:
        return prediction_shape[:-1]

    def check_target(self, target: Any, prediction_shape: tuple[int, ...], dtype: np.dtype[Any], who: str) -> Array:
        array = as_array(target, who)
        if array.dtype.kind not in "iu":
            raise TypeError(f"{who} has dtype {array.dtype}; expected integers, the class numbers of cross_entropy")
        if not prediction_shape:
            raise ValueError(f"{who}: the prediction has shape (); expected (..., C), C classes on the last axis")
        classes = prediction_shape[-1]
        if self.weight is not None and len(self.weight) != classes:
            raise ValueError(
                f"{who}: there are {len(self.weight)} class weights; expected {classes}, from the prediction"
            )
        if array.size and (array.min() < 0 or array.max() >= classes):
            wrong = (array < 0) | (array >= classes)
            if self.ignore_index is not None:
                wrong &= array != self.ignore_index
            if wrong.any():
                at = tuple(map(int, np.argwhere(wrong)[0]))
                raise ValueError(
                    f"{who}{list(at)} is {array[at]}; expected a class number 0..{classes - 1}, "
                    f"from the prediction's last axis of {classes}"
                )
        return np.require(array, np.intp, "C")  # ascontiguousarray would give a single number an axis

    def weights(self, target: Array, weight: Array | None) -> Array | None:
        if self.ignore_index is not None:
            counts = target != self.ignore_index
            weight = counts.astype(np.float64) if weight is None else weight * counts
        if self.weight is not None:
            # Any class will do for a target that is ignored.
            of_class = self.weight.take(target, mode="clip")
            weight = of_class if weight is None else weight * of_class
        return weight

    def differentiate(self, prediction: Array, target: Array, weight: Array | None = None) -> tuple[float, Array]:
        weights = self.weights(target, weight)
        derivative: Array = np.empty(prediction.shape, prediction.dtype)
        total = float(target.size)
        if weights is not None:
            weights = np.ascontiguousarray(np.broadcast_to(weights, target.shape), np.float64).reshape(-1)
            total = float(weights.sum())
            if total == 0:
                derivative[...] = 0
                return 0.0, derivative
        logits = np.ascontiguousarray(prediction).reshape(-1, prediction.shape[-1])
        of_rows = derivative.reshape(logits.shape)
        return _core.cross_entropy(logits, target.reshape(-1), weights, 1 / total, of_rows) / total, derivative


class WeightedClasses(CrossEntropy):
    """`CrossEntropy` with weights for some of the classes, and 1 for the others."""

    def __init__(self, ignore_index: int | None, weights: Mapping[int, float]) -> None:
        super().__init__(ignore_index)
        self.classes = dict(weights)
        # The last number is that of every class beyond: `weights` clips.
        self._table = np.ones(max(self.classes, default=0) + 2)
        for number_of_class, weight in self.classes.items():
            self._table[number_of_class] = weight

    def check_target(self, target: Any, prediction_shape: tuple[int, ...], dtype: np.dtype[Any], who: str) -> Array:
        array = super().check_target(target, prediction_shape, dtype, who)
        most, classes = max(self.classes, default=0), prediction_shape[-1]
        if most >= classes:
            raise ValueError(f"{who}: class_weight has class {most}; expected 0..{classes - 1}, from the prediction")
        return array

    def weights(self, target: Array, weight: Array | None) -> Array | None:
        of_class = self._table.take(target, mode="clip")
        weight = super().weights(target, weight)
        return of_class if weight is None else weight * of_class


class BCE(Loss):
    """Binary cross-entropy of logits, ``torch.nn.BCEWithLogitsLoss``.

    With ``s = sigmoid(prediction)``, the mean of ``-(pos_weight * target * log(s) + (1 - target) * log(1 - s))``.
    Predictions are logits, targets numbers from 0 to 1 of the same shape and dtype.

    Parameters
    ----------
    pos_weight : float or array_like, optional
        What a target of 1 counts beside one of 0, at least 0; an array has one number for each of the last axis.

    Raises
    ------
    TypeError
        If ``pos_weight`` is no number and no array of numbers.
    ValueError
        If a number in it is negative or not finite.
    """

    def __init__(self, pos_weight: Any = None) -> None:
        self.pos_weight = None if pos_weight is None else check_weights(pos_weight, "BCE: pos_weight")
        if self.pos_weight is not None and self.pos_weight.ndim > 1:
            raise ValueError(f"BCE: pos_weight has shape {self.pos_weight.shape}; expected a number or one axis")

    def check_target(self, target: Any, prediction_shape: tuple[int, ...], dtype: np.dtype[Any], who: str) -> Array:
        array = as_float_array(target, dtype, who)
        outside = ~((array >= 0) & (array <= 1))
        if outside.any():
            at = tuple(map(int, np.argwhere(outside)[0]))
            raise ValueError(f"{who}{list(at)} is {array[at]}; expected numbers from 0 to 1, for bce")
        size = 1 if self.pos_weight is None else self.pos_weight.size
        if size != 1 and prediction_shape[-1:] != (size,):
            raise ValueError(f"{who}: pos_weight has {size} numbers; expected 1 or those of the last axis")
        return array

    def terms(self, prediction: Array, target: Array) -> tuple[Array, Array]:
        # exp of -|z| cannot overflow; log(1 + e) is what max(z, 0) lacks of log(1 + exp(z)).
        e = np.exp(-np.abs(prediction))
        softplus_of_minus = np.maximum(-prediction, 0) + np.log1p(e)  # -log(sigmoid)
        sigmoid = np.where(prediction >= 0, 1, e) / (1 + e)
        if self.pos_weight is None:
            return (1 - target) * prediction + softplus_of_minus, sigmoid - target
        positive = self.pos_weight.astype(prediction.dtype) * target
        negative = 1 - target
        values = positive * softplus_of_minus + negative * (prediction + softplus_of_minus)
        return values, (positive + negative) * sigmoid - positive


mse = MSE()
mae = MAE()
huber = Huber()
cross_entropy = CrossEntropy()
bce = BCE()

_LOSSES: dict[str, Loss] = {"mse": mse, "mae": mae, "huber": huber, "cross_entropy": cross_entropy, "bce": bce}


def get(loss: str | Loss, who: str) -> Loss:
    """The loss of a name, or ``loss`` itself if it is one already."""
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, str):
        raise TypeError(f"{who}: loss is {type(loss).__name__}; expected one of {list(_LOSSES)} or a Loss")
    if loss not in _LOSSES:
        raise ValueError(f"{who}: loss is {loss!r}; expected one of {list(_LOSSES)}")
    return _LOSSES[loss]


def check_weights(weight: Any, who: str) -> Array:
    """``weight`` as float64 numbers, all finite and none negative; TypeError or ValueError naming ``who`` otherwise."""
    array = as_array(weight, who)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{who} has dtype {array.dtype}; expected numbers")
    array = array.astype(np.float64)
    wrong = ~((array >= 0) & (array < np.inf))
    if wrong.any():
        at = tuple(map(int, np.argwhere(wrong)[0]))
        raise ValueError(f"{who}{list(at) or ''} is {array[at]}; expected finite numbers of at least 0")
    return array


def _real_target(target: Any, dtype: np.dtype[Any], who: str) -> Array:
    found = getattr(target, "dtype", None)
    if isinstance(found, np.dtype) and found.kind in "iu":
        raise TypeError(f"{who} has dtype {found}; expected {dtype}; class numbers go with loss='cross_entropy'")
    return as_float_array(target, dtype, who)


def _text(value: Any) -> str:
    return repr(value.tolist() if isinstance(value, np.ndarray) else value)
