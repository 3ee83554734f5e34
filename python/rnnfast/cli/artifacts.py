"""The files that ``rnnfast forecast`` leaves behind."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rnnfast as rf
from rnnfast.cli.networks import Trained
from rnnfast.cli.output import write_whole
from rnnfast.cli.plot import draw
from rnnfast.cli.problem import Problem
from rnnfast.cli.results import Results


def write_files(folder: Path, problem: Problem, networks: list[Trained], results: Results) -> Iterator[Path]:
    """Write picture, forecast, network and its description; each path as soon as the file is there."""
    scores = [*results.naive, *results.trained]
    for name, write in (
        ("forecast.png", lambda path: draw(path, problem, scores, networks, results.chosen)),
        ("forecast.csv", lambda path: _write_forecast(path, results)),
        ("forecast.safetensors", results.best.model.save),
        ("forecast.json", lambda path: path.write_text(_description(problem, results), encoding="utf-8")),
    ):
        write_whole(folder / name, write)
        yield folder / name


def _write_forecast(path: Path, results: Results) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["date", "forecast", "test_rmse"])
        rows.writerows(zip(results.ahead, results.newest.tolist(), results.chosen.rmse_by_step.tolist(), strict=True))


def _description(problem: Problem, results: Results) -> str:
    """What it takes to use the saved network, and how good it is, as JSON."""
    scaling = problem.scaling
    description: dict[str, Any] = {
        "rnnfast": rf.__version__,
        "source": problem.series.label,
        "network": results.best.kind,
        "target": problem.series.names[0],
        "output": "difference of the target to its last known value, divided by output_scale",
        "output_scale": scaling.change,
        "lookback": problem.lookback,
        "horizon": problem.horizon,
        "inputs": problem.input_names,
        "input_mean": scaling.mean.tolist(),
        "input_std": scaling.std.tolist(),
        "scores": [
            {"forecast": s.name, "rmse": s.rmse, "mae": s.mae, "rmse_by_step": s.rmse_by_step.tolist()}
            for s in (*results.naive, *results.trained)
        ],
    }
    return json.dumps(description, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
