"""Losses: a value to make small, and its derivative by the prediction.

A loss is an object with four parts: which targets belong to a prediction (`Loss.target_shape`), what their values may
be (`Loss.check_target`), over how many terms it is a mean (`Loss.count`), and value and derivative
(`Loss.differentiate`). A loss of one's own is a subclass, and `fit` takes an instance of it like a name.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast._arrays import Array, as_float_array


class Loss:
    """What all losses have in common. Calling one gives ``(value, dL/dprediction)``."""

    def target_shape(self, prediction_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the targets that belong to predictions of ``prediction_shape``."""
        return prediction_shape

    def check_target(self, target: Any, prediction_shape: tuple[int, ...], dtype: np.dtype[Any], who: str) -> Array:
        """``target`` as the array that `differentiate` takes; TypeError or ValueError, naming ``who``, otherwise."""
        return as_float_array(target, dtype, who)

    def count(self, target: Array) -> float:
        """Number of terms of the mean, by which the losses of minibatches are weighted."""
        return target.size

    def differentiate(self, prediction: Array, target: Array) -> tuple[float, Array]:
        """Value and derivative for arrays whose shapes and values have been checked."""
        raise NotImplementedError

    def __call__(self, prediction: Any, target: Any) -> tuple[float, Array]:
        """Value of the loss, and its derivative by the prediction.

        Parameters
        ----------
        prediction : ndarray, float32 or float64
            What the model gave.
        target : array_like
            Of the shape that `target_shape` gives, of at least one element.

        Returns
        -------
        value : float
            Mean over all elements of ``target``, added up in float64.
        gradient : ndarray
            dL/dprediction, of the shape and dtype of ``prediction``.

        Raises
        ------
        TypeError
            If the dtype of ``target`` does not suit.
        ValueError
            If a shape does not fit, an array is empty, or a target is out of range.
        """
        who = type(self).__name__
        prediction = np.asarray(prediction)
        prediction = as_float_array(prediction, np.result_type(prediction, np.float32), f"{who}: prediction")
        target = self.check_target(target, prediction.shape, prediction.dtype, f"{who}: target")
        if target.shape != self.target_shape(prediction.shape):
            raise ValueError(
                f"{who}: target has shape {target.shape}; expected {self.target_shape(prediction.shape)}, "
                f"from prediction of shape {prediction.shape}"
            )
        if prediction.size == 0:
            raise ValueError(f"{who}: prediction has shape {prediction.shape}; expected at least one element")
        return self.differentiate(prediction, target)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class MSE(Loss):
    """Mean squared error over all elements, ``torch.nn.MSELoss``."""

    def check_target(self, target: Any, prediction_shape: tuple[int, ...], dtype: np.dtype[Any], who: str) -> Array:
        found = getattr(target, "dtype", None)
        if isinstance(found, np.dtype) and found.kind in "iu":
            raise TypeError(f"{who} has dtype {found}; expected {dtype}; class numbers go with loss='cross_entropy'")
        return as_float_array(target, dtype, who)

    def differentiate(self, prediction: Array, target: Array) -> tuple[float, Array]:
        error = prediction - target
        value = np.square(error, dtype=np.float64).sum() / error.size
        error *= 2 / error.size
        return float(value), error


class CrossEntropy(Loss):
    """Mean over the targets of ``-log softmax(prediction)[target]``, ``torch.nn.CrossEntropyLoss``.

    Predictions are logits (..., C), C classes on the last axis; targets (...) are integers 0..C-1.
    """

    def target_shape(self, prediction_shape: tuple[int, ...]) -> tuple[int, ...]:
        return prediction_shape[:-1]

    def check_target(self, target: Any, prediction_shape: tuple[int, ...], dtype: np.dtype[Any], who: str) -> Array:
        array = np.asarray(target)
        if array.dtype.kind not in "iu":
            raise TypeError(f"{who} has dtype {array.dtype}; expected integers, the class numbers of cross_entropy")
        if not prediction_shape:
            raise ValueError(f"{who}: the prediction has shape (); expected (..., C), C classes on the last axis")
        classes = prediction_shape[-1]
        if array.size and (array.min() < 0 or array.max() >= classes):
            at = tuple(map(int, np.argwhere((array < 0) | (array >= classes))[0]))
            raise ValueError(
                f"{who}{list(at)} is {array[at]}; expected a class number 0..{classes - 1}, "
                f"from the prediction's last axis of {classes}"
            )
        return np.ascontiguousarray(array, dtype=np.intp)

    def differentiate(self, prediction: Array, target: Array) -> tuple[float, Array]:
        logits = prediction.reshape(-1, prediction.shape[-1])
        rows, classes = np.arange(len(logits)), target.reshape(-1)
        shifted = logits - logits.max(axis=1, keepdims=True)
        softmax = np.exp(shifted)
        total = softmax.sum(axis=1, keepdims=True)
        value = (np.log(total[:, 0], dtype=np.float64) - shifted[rows, classes]).sum() / len(rows)
        softmax /= total
        softmax[rows, classes] -= 1
        softmax /= len(rows)
        return float(value), softmax.reshape(prediction.shape)


mse = MSE()
cross_entropy = CrossEntropy()

_LOSSES: dict[str, Loss] = {"mse": mse, "cross_entropy": cross_entropy}


def get(loss: str | Loss, who: str) -> Loss:
    """The loss of a name, or ``loss`` itself if it is one already."""
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, str):
        raise TypeError(f"{who}: loss is {type(loss).__name__}; expected one of {list(_LOSSES)} or a Loss")
    if loss not in _LOSSES:
        raise ValueError(f"{who}: loss is {loss!r}; expected one of {list(_LOSSES)}")
    return _LOSSES[loss]
