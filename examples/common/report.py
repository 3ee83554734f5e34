"""Test errors of baselines and networks: the table, the sentence that says who won, and the files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnfast.cli.output import write_whole

from common.networks import Network


@dataclass(frozen=True)
class Result:
    """One row of the table.

    Attributes
    ----------
    name : str
    scores : dict of str to float
        Test scores by column; the first is the one that counts, and the lower it is the better.
    networks : tuple of Network
        None for a baseline, one for each training of a walk-forward.
    """

    name: str
    scores: dict[str, float]
    networks: tuple[Network, ...] = ()

    @property
    def score(self) -> float:
        return next(iter(self.scores.values()))

    @property
    def validation(self) -> float:
        """Lowest loss on the validation part, mean of the trainings: by this a choice among networks is made."""
        return sum(network.validation for network in self.networks) / len(self.networks)

    @property
    def best_epochs(self) -> list[int]:
        """The epoch of the lowest validation loss of each training."""
        return [epoch for network in self.networks for epoch in network.best]


def chosen(results: list[Result]) -> Result:
    """The network with the lowest validation score: the one that would have been used."""
    return min((r for r in results if r.networks), key=lambda r: r.validation)


def best_baseline(results: list[Result]) -> Result:
    """The baseline with the lowest test score. To choose it with the test part favours the baselines."""
    return min((r for r in results if not r.networks), key=lambda r: r.score)


def against(r: Result, best: Result, ratio: bool) -> str:
    """How the score compares with the best baseline's: in percent, or for scores without a zero the difference."""
    return f"{r.score / best.score - 1:+.1%}" if ratio else f"{r.score - best.score:+.3f}"


def table(results: list[Result], form: str = ".2f", ratio: bool = True) -> list[list[str]]:
    """Rows of text, the header first; a star marks the network chosen by validation."""
    best = best_baseline(results)
    rows = [["", *results[0].scores, "against best baseline", "parameters", "best epoch"]]
    for r in results:
        scores = [f"{score:{form}}" for score in r.scores.values()]
        training = ["", ""]
        if r.networks:
            first, last = min(r.best_epochs), max(r.best_epochs)
            training = [str(r.networks[0].parameters), str(first) if first == last else f"{first}-{last}"]
        star = " *" if r is chosen(results) else ""
        rows.append([r.name + star, *scores, "best baseline" if r is best else against(r, best, ratio), *training])
    return rows


def verdict(results: list[Result], ratio: bool = True) -> list[str]:
    """A sentence for each network: it beats the best baseline, or it loses to it."""
    best, sentences = best_baseline(results), []
    unit = next(iter(results[0].scores))
    for r in results:
        if r.networks:
            word = "beats" if r.score < best.score else "LOSES to"
            change = against(r, best, ratio)
            sentences.append(f"{r.name} {word} the best baseline ({best.name}): {unit} {change}")
    return sentences


def as_text(rows: list[list[str]]) -> str:
    """Columns aligned for a terminal."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def as_markdown(rows: list[list[str]]) -> str:
    """The same as a Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    rule = "|---|" + "---:|" * (len(rows[0]) - 1)
    return "\n".join([lines[0], rule, *lines[1:]])


def publish(folder: Path, results: list[Result], facts: dict[str, Any], form: str = ".2f", ratio: bool = True) -> None:
    """Print table and verdict; write results.md and results.json, which also has ``facts``, into ``folder``."""
    rows, sentences = table(results, form, ratio), verdict(results, ratio)
    print(f"\n{as_text(rows)}\n\n* lowest error on the validation part\n" + "\n".join(sentences))
    record = {
        **facts,
        "results": [
            {
                "name": r.name,
                "scores": r.scores,
                "parameters": r.networks[0].parameters if r.networks else None,
                "validation": r.validation if r.networks else None,
                "best_epochs": r.best_epochs,
            }
            for r in results
        ],
        "verdict": sentences,
    }
    markdown = as_markdown(rows) + "\n\n" + "\n".join(f"- {sentence}" for sentence in sentences) + "\n"
    write_whole(folder / "results.md", lambda path: path.write_text(markdown, encoding="utf-8"))
    write_whole(folder / "results.json", lambda path: path.write_text(json.dumps(record, indent=1), encoding="utf-8"))


def append(folder: Path, paragraphs: list[str]) -> None:
    """More paragraphs for results.md."""
    path = folder / "results.md"
    text = "\n".join([path.read_text(encoding="utf-8"), *(f"{paragraph}\n" for paragraph in paragraphs)])
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
