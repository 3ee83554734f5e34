"""What training was like."""

from __future__ import annotations

from typing import Any


class History:
    """The course of a training, one number an epoch.

    Attributes
    ----------
    loss : list of float
        Mean loss of the epoch's minibatches, each taken before the step that it caused.
    val_loss : list of float
        Loss on the validation data after the epoch; empty without validation data.
    seconds : list of float
        Duration of the epoch, validation included.
    lr : list of float
        Learning rate at the end of the epoch.
    interrupted : bool
        Whether Ctrl-C ended the training.
    """

    def __init__(self) -> None:
        self.loss: list[float] = []
        self.val_loss: list[float] = []
        self.seconds: list[float] = []
        self.lr: list[float] = []
        self.interrupted = False

    def append(self, loss: float, val_loss: float | None, seconds: float, lr: float) -> None:
        """Record an epoch."""
        self.loss.append(loss)
        self.lr.append(lr)
        self.seconds.append(seconds)
        if val_loss is not None:
            self.val_loss.append(val_loss)

    def plot(self, ax: Any = None) -> Any:
        """Draw the losses over the epochs.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw. None: on a new figure.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        if ax is None:
            try:
                from matplotlib import pyplot
            except ImportError as error:
                raise ImportError("History.plot needs matplotlib: pip install 'rnnfast[cli]'") from error
            ax = pyplot.subplots()[1]
        epochs = range(1, len(self) + 1)
        ax.plot(epochs, self.loss, label="training")
        if self.val_loss:
            ax.plot(epochs, self.val_loss, label="validation")
            ax.legend()
        ax.set_xlabel("epoch")
        ax.set_ylabel("loss")
        return ax

    def __len__(self) -> int:
        return len(self.loss)

    def __repr__(self) -> str:
        if not self.loss:
            return f"History(0 epochs{', interrupted' if self.interrupted else ''})"
        parts = [f"{len(self)} epochs", f"loss {self.loss[0]:.4g} -> {self.loss[-1]:.4g}"]
        if self.val_loss:
            best = min(range(len(self)), key=self.val_loss.__getitem__)
            parts.append(f"val_loss {self.val_loss[-1]:.4g}, best {self.val_loss[best]:.4g} in epoch {best + 1}")
        parts.append(f"{sum(self.seconds):.3g} s")
        return f"History({', '.join(parts)}{', interrupted' if self.interrupted else ''})"
