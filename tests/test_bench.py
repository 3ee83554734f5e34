"""The comparison with peers and `rnnfast bench`: what they refuse, and what they write. No times are judged here."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path
from typing import Any

import harness
import pytest
from harness import python

BENCH = Path(__file__).parents[1] / "bench"
# What a peer's module imports.
PEERS = {"torch": ["torch"], "onnxruntime": ["onnxruntime", "onnx"], "openvino": ["openvino", "onnx"], "jax": ["jax"]}
ONE_SHAPE = ["--quick", "--only", "*/*/step-32"]

# Runs compare.py after replacing or hiding peers: {"torch": None} hides one, {"torch": "2 * y"} is a peer whose answer
# is that expression of the right one.
COMPARE = """
import json, runpy, sys, types
import numpy as np
sys.path.insert(0, sys.argv[1])
from rnnfast.cli.workload import prepare

def module(expression):
    def prepare_wrong(problem, case):
        call, answer = prepare(problem, case.mode)
        return call, lambda result: {"y": eval(expression, {"np": np, "y": answer(result)["y"]})}
    return types.SimpleNamespace(version=lambda: "0", lacks=lambda case: "", prepare=prepare_wrong)

for name, expression in json.loads(sys.argv[2]).items():
    sys.modules[f"peers.{name}"] = None if expression is None else module(expression)
sys.argv = [sys.argv[1] + "/compare.py", *sys.argv[3:]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def compare(*arguments: str, peers: dict[str, str | None] | None = None) -> Any:
    return python(COMPARE, str(BENCH), json.dumps(peers or {}), *arguments)


def read_results(folder: Path) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} in results.json")

    return json.loads((folder / "results.json").read_text(), parse_constant=refuse)


def shapes() -> list[dict[str, str]]:
    with (BENCH / "shapes.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_shapes_are_many_and_different() -> None:
    found = shapes()
    sizes = [tuple(int(row[axis]) for axis in "TNIH") for row in found]
    assert len(found) >= 24
    assert len({row["name"] for row in found}) == len(set(sizes)) == len(found)
    assert all(set(row["cells"].split()) <= {"rnn", "lstm", "gru"} and row["cells"] for row in found)
    assert {row["quick"] for row in found} == {"", "yes"}
    for axis, (low, high) in zip("TNIH", [(1, 2000), (1, 256), (1, 1000), (8, 1024)], strict=True):
        values = [int(row[axis]) for row in found]
        assert min(values) == low and max(values) >= high, f"{axis} is {min(values)} to {max(values)}"
    assert any(H % 2 for *_, H in sizes), "no odd number of hidden units"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--peers", "torch,keras"], "'keras' is none of torch, onnxruntime, openvino, jax"),
        (["--dtype", "float16"], "'float16' is none of float32, float64"),
        (["--threads", "0"], "'0' is not a whole number from 1 to 256"),
        (["--threads", "1,"], "'' is not a whole number"),
        (["--only", "lstm/training/nowhere"], "--only lstm/training/nowhere: fits no case"),
        (["--quick", "--only", "*/*/batch-1024"], "fits no case of --quick"),
        (["--clock", "cpu", "--threads", "1,2"], "CPU time adds up; expected --threads 1"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_compare_refuses(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = compare(*arguments, "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_compare_refuses_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    done = compare(*ONE_SHAPE, "--out", str(tmp_path / "out"))
    assert done.returncode == 2 and "is a file" in done.stderr
    assert (tmp_path / "out").read_text() == "mine"


def test_compare_names_the_extra_of_a_missing_peer(tmp_path: Path) -> None:
    done = compare(*ONE_SHAPE, "--peers", "jax", "--out", str(tmp_path), peers={"jax": None})
    assert done.returncode == 2
    assert "jax" in done.stderr and "rnnfast[bench]" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("peer", PEERS)
def test_compare_times_a_peer(peer: str, tmp_path: Path) -> None:
    missing = [name for name in PEERS[peer] if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed; pip install 'rnnfast[bench]'")
    done = compare(*ONE_SHAPE, "--peers", peer, "--threads", "1", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    record = read_results(tmp_path)
    assert set(record) >= {"complete", "date", "rnnfast", "versions", "missing", "machine", "settings", "results"}
    assert record["complete"] is True and record["rnnfast"]["isa"] and record["versions"][peer]
    (machine,) = record["machine"]
    assert machine["fma_peak"] > 1e8 and machine["threads"] == 1 and machine["dtype"] == "float32"
    assert all(value > 1e7 for value in machine["bandwidth_by_bytes"].values())
    assert {(r["cell"], r["mode"]) for r in record["results"]} == {
        (cell, mode) for cell in ("rnn", "lstm", "gru") for mode in ("inference", "training", "step")
    }
    for r in record["results"]:
        assert [r[axis] for axis in "TNIH"] == [1, 1, 8, 32]
        assert r["flops"] == {"rnn": 1, "lstm": 4, "gru": 3}[r["cell"]] * 2 * 32 * 40 * (
            1 + 2 * (r["mode"] == "training")
        )
        assert r["limit"] > 0 and 0 < r["fastest"] <= r["seconds"] and r["bound"]
        assert r["share"] == pytest.approx(r["limit"] / r["fastest"])
        compared = r["peers"][peer]
        if r["mode"] == "training" and peer in ("onnxruntime", "openvino"):
            assert compared == {"skipped": "does not train"} and r["ratio"] is None
        else:
            assert r["best_peer"] == peer and r["ratio"] == compared["ratio"] > 0 and compared["seconds"] > 0
            assert min(compared["ratios"]) <= r["ratio"] <= max(compared["ratios"])
    text = (tmp_path / "results.md").read_text()
    assert "| step-32 | 1 | 1 | 8 | 32 | lstm | " in text and peer in text
    if importlib.util.find_spec("matplotlib"):
        for name in ("speedup.png", "limit.png"):
            assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_compare_without_peers_times_rnnfast_alone(tmp_path: Path) -> None:
    arguments = ["--quick", "--only", "gru/inference/step-32", "--clock", "cpu", "--out", str(tmp_path)]
    done = compare(*arguments, peers=dict.fromkeys(PEERS))
    assert done.returncode == 0, done.stderr
    record = read_results(tmp_path)
    (r,) = record["results"]
    assert set(record["missing"]) == set(PEERS) and record["settings"]["clock"] == "cpu"
    assert r["ratio"] is r["best_peer"] is None and r["seconds"] > 0
    text = (tmp_path / "results.md").read_text()
    assert "No peers to compare with." in text and "Times are CPU time." in text


@pytest.mark.parametrize("wrong", ["y * 1.0001", "y * np.nan", "y[:, :, 1:]", "0 * y", "1 / 0"])
def test_compare_does_not_time_a_wrong_answer(wrong: str, tmp_path: Path) -> None:
    pattern = ["--quick", "--only", "lstm/inference/one-32", "--peers", "torch,jax", "--out", str(tmp_path)]
    done = compare(*pattern, peers={"torch": wrong, "jax": "y * 1.0000001"})
    assert done.returncode == 1
    reason = "failed with ZeroDivisionError" if wrong == "1 / 0" else "y "
    assert f"not timed, lstm/inference/one-32, torch: {reason}" in done.stderr
    (r,) = read_results(tmp_path)["results"]
    assert set(r["peers"]["torch"]) == {"wrong"}
    assert r["best_peer"] == "jax", "a peer that is right is timed all the same"


def test_command_bench_prints_a_line_a_shape() -> None:
    done = harness.run("-m", "rnnfast", "bench", "--cell", "gru", "--threads", "1", "--seconds", "1")
    assert done.returncode == 0, done.stderr
    machine, layer, blank, head, *rows = done.stdout.splitlines()
    assert "GFLOP/s" in machine and "1 thread:" in machine and layer.startswith("GRU, float32") and not blank
    assert " ".join(head.split()) == "T N I H | inference GFLOP/s share | training GFLOP/s share"
    assert len(rows) == 10 and all(row.count("%") == 2 for row in rows)


@pytest.mark.parametrize("arguments", [["--threads", "0"], ["--cell", "frnn"], ["--dtype", "int8"], ["--seconds", "x"]])
def test_command_bench_refuses(arguments: list[str]) -> None:
    done = harness.run("-m", "rnnfast", "bench", *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("rnnfast bench: argument ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("script", "options", "rows"),
    [
        ("ragged.py", ["--steps", "6", "--batch", "3", "--inputs", "2", "--hidden", "5", "--cells", "lstm", "gru"], 2),
        ("sparsity.py", ["--units", "32", "--inputs", "2", "--steps", "3", "--batch", "1", "4", "--blocks", "8"], 2),
    ],
)
def test_small_comparisons_run(script, options, rows):
    """They compare results before they time anything, and end with an error if these differ."""
    result = harness.run(str(BENCH / script), *options, "--seconds", "0.01")
    assert result.returncode == 0, result.stderr
    assert sum(line.startswith("| ") for line in result.stdout.splitlines()) == rows + 1, result.stdout
