"""The same training in PyTorch: what a figure of ours is compared with."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import numpy as np
import rnnfast as rf
from rnnfast.cli.errors import CliError

from common.networks import Training


def train_lstm(
    model: rf.Sequential, data: tuple[Any, Any], validation: tuple[Any, Any], steps: int, how: Training, dropout: float
) -> tuple[float, list[float]]:
    """Train embedding, LSTM, dropout and dense layer from the parameters of ``model``, which gets the best ones back.

    Optimizer, clipping, learning rates, and the order of the batches are those of `rnnfast.Sequential.fit` with a
    cosine schedule; only the random numbers of the dropout differ. Returns the seconds
    that it took, and the validation loss of every epoch.
    """
    try:
        import torch
    except ImportError as error:
        raise CliError(f"--peer torch: PyTorch is not installed ({error})") from None
    torch.set_num_threads(rf.get_num_threads())
    torch.manual_seed(how.seed)
    embedding, lstm, dense = (model.layers[k] for k in (0, 1, 3))
    net = torch.nn.ModuleList(
        [
            torch.nn.Embedding(embedding.num_embeddings, embedding.embedding_dim),
            torch.nn.LSTM(lstm.input_size, lstm.hidden_size, batch_first=True),
            torch.nn.Linear(dense.in_features, dense.out_features),
        ]
    )
    drop = torch.nn.Dropout(dropout)
    for module, layer in zip(net, (embedding, lstm, dense), strict=True):
        module.load_state_dict({name: torch.from_numpy(array) for name, array in layer.state_dict().items()})

    def run(x: Any, state: Any) -> Any:
        y, state = net[1](net[0](x), state)
        return net[2](drop(y)), state

    def loss(logits: Any, y: Any) -> Any:
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten())

    x, y = (torch.from_numpy(np.ascontiguousarray(part)) for part in data)
    vx, vy = (torch.from_numpy(np.ascontiguousarray(part)) for part in validation)
    optimizer = torch.optim.Adam(net.parameters(), how.lr)
    losses: list[float] = []
    begin = time.perf_counter()
    best: Any = None
    for epoch in range(how.epochs):
        factor = 0.02 + 0.98 * (1 + math.cos(math.pi * epoch / how.epochs)) / 2
        optimizer.param_groups[0]["lr"] = how.lr * factor
        drop.train()
        state = None
        for start in range(0, x.shape[1], steps):
            logits, state = run(x[:, start : start + steps], state)
            state = tuple(part.detach() for part in state)
            optimizer.zero_grad()
            loss(logits, y[:, start : start + steps]).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), how.clip_norm)
            optimizer.step()
        drop.eval()
        with torch.no_grad():
            losses.append(float(loss(run(vx, None)[0], vy)))
        if how.progress:
            print(f"PyTorch: epoch {epoch + 1}/{how.epochs}  val_loss {losses[-1]:.4f}", file=sys.stderr)
        if losses[-1] == min(losses):
            best = [{name: array.clone() for name, array in module.state_dict().items()} for module in net]
    seconds = time.perf_counter() - begin
    for state_dict, layer in zip(best, (embedding, lstm, dense), strict=True):
        layer.load_state_dict(state_dict)
    return seconds, losses
