"""The results of compare.py as Markdown and pictures. ``python bench/report.py results.json`` makes them anew."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rnnfast.cli.bench import duration

Group = tuple[str, str, int]


def write_report(record: dict[str, Any], folder: Path) -> Iterator[Path]:
    """Write results.md and, if matplotlib is installed, the two pictures; each path as soon as it is there."""
    yield folder / "results.json"
    text = folder / "results.md"
    text.write_text(markdown(record), encoding="utf-8")
    yield text
    try:
        from plots import draw_limit, draw_speedup
    except ImportError as error:
        print(f"no pictures: {error}; pip install 'rnnfast[bench]' installs matplotlib", file=sys.stderr)
        return
    if record["results"]:
        if any(r["ratio"] for r in record["results"]):
            draw_speedup(record["results"], folder / "speedup.png")
            yield folder / "speedup.png"
        draw_limit(record["results"], folder / "limit.png")
        yield folder / "limit.png"


def markdown(record: dict[str, Any]) -> str:
    """All of the record that a reader wants."""
    build = record["rnnfast"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines = [
        "# rnnfast and its peers",
        "",
        f"{build['cpu']}, {build['isa']}; rnnfast {build['version']} ({build['compiler']}); {versions}. "
        f"{record['date']}{'' if record['complete'] else ', interrupted'}.",
        "",
        "Ratio: the peer's time by ours, median of alternating pairs; the best peer is the one with the smallest. "
        "Share: of the least time that this machine needs for the multiply-adds and for reading the weights."
        + (" Times are CPU time." if record["settings"]["clock"] == "cpu" else ""),
        "",
        *machine_table(record["machine"]),
        "",
        *summary_table(record["results"]),
    ]
    for group, results in groups(record["results"]).items():
        lines += ["", f"## {title(group)}", "", *results_table(results)]
    return "\n".join(lines) + "\n"


def groups(results: list[dict[str, Any]]) -> dict[Group, list[dict[str, Any]]]:
    """Results by what is not to be averaged over: mode, dtype, threads."""
    found: dict[Group, list[dict[str, Any]]] = {}
    for r in results:
        found.setdefault((r["mode"], r["dtype"], r["threads"]), []).append(r)
    return found


def title(group: Group) -> str:
    mode, dtype, threads = group
    return f"{mode}, {dtype}, {threads} thread{'s' * (threads > 1)}"


def machine_table(machines: list[dict[str, Any]]) -> list[str]:
    levels = list(dict.fromkeys(level for m in machines for level in m["bandwidth"]))
    return table(
        ["threads", "dtype", "peak GFLOP/s", *(f"{level} GB/s" for level in levels)],
        [
            [m["threads"], m["dtype"], f"{m['fma_peak'] / 1e9:.0f}"]
            + [f"{m['bandwidth'][level] / 1e9:.0f}" if level in m["bandwidth"] else "" for level in levels]
            for m in machines
        ],
    )


def summary_table(results: list[dict[str, Any]]) -> list[str]:
    """Geometric means and smallest ratios, against the best peer of each case and against every peer."""
    names = list(dict.fromkeys(name for r in results for name in r["peers"]))
    rows = []
    for group, members in groups(results).items():
        against_best = {f"{r['cell']} {r['shape']}": r["ratio"] for r in members if r["ratio"]}
        if against_best:
            worst = min(against_best, key=against_best.__getitem__)
            each = [[r["peers"][n]["ratio"] for r in members if "ratio" in r["peers"].get(n, {})] for n in names]
            rows.append(
                [
                    title(group),
                    len(against_best),
                    mean(against_best.values()),
                    f"{ratio(against_best[worst])} ({worst})",
                ]
                + [f"{mean(ratios)}, {ratio(min(ratios))}" if ratios else "" for ratios in each]
            )
    if not rows:
        return ["No peers to compare with."]
    head = ["ratio: geometric mean, smallest", "cases", "best peer", "smallest", *names]
    return table(head, rows)


def results_table(results: list[dict[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for r in results for name, peer in r["peers"].items() if "skipped" not in peer))
    return table(
        ["shape", "T", "N", "I", "H", "cell", "time", "GFLOP/s", "share", "bound by", "ratio", *names],
        [
            [r["shape"], r["T"], r["N"], r["I"], r["H"], r["cell"], duration(r["seconds"])]
            + [f"{r['flops'] / r['seconds'] / 1e9:.1f}", f"{r['share']:.0%}", r["bound"]]
            + [ratio(r["ratio"]) if r["ratio"] else ""]
            + [peer_cell(r["peers"].get(name, {})) for name in names]
            for r in results
        ],
    )


def peer_cell(peer: dict[str, Any]) -> str:
    if "wrong" in peer:
        return f"wrong: {peer['wrong']}"
    return f"{duration(peer['seconds'])} ({ratio(peer['ratio'])})" if "ratio" in peer else ""


def table(head: list[str], rows: list[list[Any]]) -> list[str]:
    return [f"| {' | '.join(map(str, row))} |" for row in [head, ["---"] * len(head), *rows]]


def ratio(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def mean(ratios: Iterable[float]) -> str:
    """Their geometric mean."""
    return ratio(math.exp(statistics.fmean(math.log(value) for value in ratios)))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: report.py results.json")
    source = Path(sys.argv[1])
    for path in write_report(json.loads(source.read_text(encoding="utf-8")), source.parent):
        print(path)
