"""The command `rnnfast`: wrong input is one line and exit code 2, and nothing of the test part reaches the training.

Oracles are small files whose right reading is written beside them, and the same file with another test part.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rnnfast as rf
from rnnfast.cli import main
from rnnfast.cli.baselines import seasonal
from rnnfast.cli.csv_table import read_table
from rnnfast.cli.dates import Step, find_dates, shift_months
from rnnfast.cli.errors import CliError
from rnnfast.cli.networks import KINDS, train
from rnnfast.cli.output import write_whole
from rnnfast.cli.problem import SHIPPED, Problem, load_problem, make_problem
from rnnfast.cli.series import Series, make_series

SMALL = ["--lookback", "5", "--horizon", "3", "--hidden", "4", "--epochs", "2", "--quiet"]
TEST_ROWS = 30


def day(k: int) -> str:
    return str(np.datetime64("2021-01-01") + k)


def good_rows(count: int = 150) -> list[list[str]]:
    """Header and ``count`` days of two waves and a word."""
    rng = np.random.default_rng(5)
    waves = [(10 + 5 * np.sin(k / 9) + rng.normal(), 3 * np.cos(k / 5)) for k in range(count)]
    return [
        ["date", "temp", "wind", "sky"],
        *([day(k), f"{a:.2f}", f"{b:.3f}", "sun"] for k, (a, b) in enumerate(waves)),
    ]


def text_of(rows: list[list[str]], delimiter: str = ",") -> str:
    return "".join(delimiter.join(row) + "\n" for row in rows)


def with_cell(row: int, column: str, cell: str, count: int = 150) -> str:
    """The good file with one cell changed; ``row`` as an editor counts, from 1."""
    rows = good_rows(count)
    rows[row - 1][rows[0].index(column)] = cell
    return text_of(rows)


def without_column(*names: str) -> str:
    rows = good_rows()
    keep = [k for k, name in enumerate(rows[0]) if name not in names]
    return text_of([[row[k] for k in keep] for row in rows])


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "data.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


GOOD = text_of(good_rows())
TEMP = ["--column", "temp"]

# What is wrong: content of the file, options, what the line must say.
BAD_FILES: dict[str, tuple[str | bytes, list[str], list[str]]] = {
    "empty": ("", TEMP, ["is empty", "header"]),
    "blank lines only": ("\n\n  \n", TEMP, ["is empty"]),
    "header only": ("date,temp\n", TEMP, ["no other rows"]),
    "no header": ("1,2\n3,4\n", TEMP, ["row 1", "header"]),
    "same column twice": ("temp,temp\n1,2\n", TEMP, ["2 columns named 'temp'"]),
    "binary": (b"\x89PNG\x00\x01", TEMP, ["binary", "byte 4"]),
    "late zero byte": (GOOD.encode() * 20 + b"\x00", TEMP, ["row 3021", "zero byte"]),
    "latin-1": (b"date,temp\n2021-01-01,1\n" + b"2021-01-02,\xe9\n", TEMP, ["row 3", "UTF-8", "0xe9"]),
    "latin-1 after a byte order mark": (b"\xef\xbb\xbfa\n1\n\xe9\n", TEMP, ["row 3", "UTF-8", "0xe9"]),
    "row too long": (GOOD.replace("sun\n", "sun,1\n", 3).replace("sun,1\n", "sun\n", 2), TEMP, ["row 4", "5", "4"]),
    "row too short": (with_cell(9, "sky", "").replace(",\n", "\n"), TEMP, ["row 9 has 3 cells", "expected 4"]),
    "open quote": (GOOD + '"2021', TEMP, ["row 152", "CSV"]),
    "unknown column": (GOOD, ["--column", "tmp"], ["no column 'tmp'", "did you mean 'temp'?", "wind"]),
    "other case": (GOOD, ["--column", "TEMP"], ["did you mean 'temp'?"]),
    "unknown input": (GOOD, [*TEMP, "--inputs", "wind,rain"], ["no column 'rain'"]),
    "empty input": (GOOD, [*TEMP, "--inputs", "wind,"], ["--inputs", "'wind,'"]),
    "several columns": (GOOD, [], ["--column", "temp, wind"]),
    "dates as column": (GOOD, ["--column", "date"], ["'date' holds the dates"]),
    "dates as input": (GOOD, [*TEMP, "--inputs", "date"], ["'date' holds the dates"]),
    "words as column": (GOOD, ["--column", "sky"], ["row 2", "'sky'", "'sun'", "text"]),
    "words as input": (GOOD, [*TEMP, "--inputs", "sky"], ["row 2", "'sky'", "'sun'", "text"]),
    "text in the column": (with_cell(17, "temp", "warm"), TEMP, ["row 17", "'temp'", "'warm'"]),
    "text in another column": (with_cell(99, "wind", "3 m/s"), TEMP, ["row 99", "'wind'", "'3 m/s'"]),
    "text after blank lines": ("\n\n" + with_cell(17, "temp", "warm"), TEMP, ["row 19", "'warm'"]),
    "text after a cell of two lines": (
        with_cell(17, "temp", "warm").replace("sun", '"sun\nrain"', 1),
        TEMP,
        ["row 18", "'warm'"],
    ),
    "decimal comma": (with_cell(5, "temp", "'1,5'").replace("'1,5'", '"1,5"'), TEMP, ["row 5", "'1,5'", "point"]),
    "digits with underscore": (with_cell(5, "temp", "1_5"), TEMP, ["row 5", "'1_5'"]),
    "infinity": (with_cell(151, "temp", "-inf"), TEMP, ["row 151", "'temp'", "'-inf'", "finite"]),
    "too large": (with_cell(3, "wind", "1e999"), TEMP, ["row 3", "'wind'", "'1e999'"]),
    "absurd": (with_cell(140, "wind", "1e50"), TEMP, ["'wind'", "1e+50", day(138), "standard deviations"]),
    "only missing cells": (without_column("wind").replace("sun", "NA"), ["--column", "sky"], ["'sky'", "no numbers"]),
    "constant": (without_column("wind").replace("sun", "3"), ["--column", "sky"], ["'sky'", "constant"]),
    "no date": (with_cell(33, "date", ""), TEMP, ["row 33", "'date'", "missing", "2021-01-01"]),
    "no such date": (with_cell(33, "date", "2021-02-30"), TEMP, ["row 33", "'date'", "'2021-02-30'"]),
    "dates repeated": (GOOD + GOOD.split("\n", 1)[1], TEMP, ["150 of 300 rows", day(0), "row 2 and 152"]),
    "too few rows": (text_of(good_rows(20)), TEMP, ["20 rows", "at least", "--lookback 5", "--horizon 3"]),
    "no target in the test part": (
        text_of([[*r[:1], "" if k > 120 else r[1], *r[2:]] for k, r in enumerate(good_rows())]),
        TEMP,
        ["test part", "0 w"],
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_forecast_says_in_one_line_what_is_wrong_with_a_file(
    name: str, write: Callable[[str | bytes], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, options, said = BAD_FILES[name]
    path = write(content)
    assert main(["forecast", str(path), *SMALL, *options, "--out", str(tmp_path / "out")]) == 2
    assert_one_line(capsys, [*said, "data.csv" if "--inputs" not in said else ""])
    assert not (tmp_path / "out").exists()


BAD_OPTIONS: dict[str, tuple[list[str], list[str]]] = {
    **{
        f"{option} {value}": ([option, value], [option, value, "whole number from"])
        for option in ("--horizon", "--lookback", "--hidden", "--epochs")
        for value in ("0", "-3", "1.5", "many", "", "99999999999")
    },
    "--seed -1": (["--seed", "-1"], ["--seed", "'-1'"]),
    "no value": (["--column"], ["--column", "expected one argument"]),
    "unknown option": (["--layers", "3"], ["--layers"]),
    "abbreviated option": (["--col", "temp_max"], ["--col"]),
    "no such file": (["absent.csv"], ["absent.csv", "no such file"]),
    "name of two lines": (["a\nb"], ["a\\nb: no such file"]),
    "name with a zero byte": (["a\0b"], ["cannot be read"]),
    "a folder": ([str(Path(__file__).parent)], ["is a folder"]),
    "out is a file": (["--out", __file__], ["--out", "is a file"]),
    "out below a file": (["--out", __file__ + "/x"], ["--out", "cannot be written"]),
    "horizon longer than the data": (["--horizon", "900"], ["1461 rows", "at least"]),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_forecast_says_in_one_line_what_is_wrong_with_an_option(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options, said = BAD_OPTIONS[name]
    monkeypatch.chdir(tmp_path)
    assert main(["forecast", *options]) == 2
    assert_one_line(capsys, said)
    assert not list(tmp_path.iterdir())


def assert_one_line(capsys: pytest.CaptureFixture[str], said: list[str]) -> None:
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("rnnfast") and printed.err.endswith("\n") and printed.err.count("\n") == 1, (
        printed.err
    )
    for part in said:
        assert part in printed.err


@pytest.mark.parametrize("argv", [[], ["bake"], ["info", "--fast"]])
def test_main_says_in_one_line_what_is_wrong_with_a_command(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    assert_one_line(capsys, ["--help"])


def test_forecast_without_matplotlib_names_the_extra_before_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["forecast", "--out", str(tmp_path / "out")]) == 2
    assert_one_line(capsys, ["matplotlib", "pip install 'rnnfast[cli]'"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("lookback", "horizon"), [(1, 1), (5, 3), (30, 7), (3, 40)])
def test_too_few_rows_names_the_least_number_that_works(
    lookback: int, horizon: int, write: Callable[[str | bytes], Path]
) -> None:
    with pytest.raises(CliError, match="at least") as refused:
        load_problem(write(text_of(good_rows(10))), "temp", None, lookback, horizon)
    needed = int(str(refused.value).split("at least ")[1].split()[0])
    load_problem(write(text_of(good_rows(needed))), "temp", None, lookback, horizon)
    with pytest.raises(CliError, match=f"at least {needed} "):
        load_problem(write(text_of(good_rows(needed - 1))), "temp", None, lookback, horizon)


def run_small(path: Path, out: Path, *options: str) -> dict:
    assert main(["forecast", str(path), *TEMP, *SMALL, *options, "--out", str(out)]) == 0
    return json.loads((out / "forecast.json").read_text(encoding="utf-8"))


def test_forecast_leaves_four_files_that_agree(
    write: Callable[[str | bytes], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(GOOD)
    description = run_small(path, tmp_path / "out")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")
    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert files == {"forecast.png", "forecast.csv", "forecast.safetensors", "forecast.json"}
    assert (tmp_path / "out" / "forecast.png").read_bytes().startswith(b"\x89PNG")
    assert [s["forecast"] for s in description["scores"]] == ["same as today", "same weekday last week", *KINDS]

    with (tmp_path / "out" / "forecast.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["date"] for row in rows] == [day(150), day(151), day(152)]
    # The forecast can be made again from the saved network and its description alone.
    assert description["inputs"] == ["temp", "wind"]
    values = np.array([[float(cell) for cell in row[1:3]] for row in good_rows()[1:]])
    scaled = (values - description["input_mean"]) / description["input_std"]
    x = scaled[None, -description["lookback"] :].astype(np.float32)
    model = rf.load(tmp_path / "out" / "forecast.safetensors")
    y = model.predict(x.reshape(1, -1) if description["network"] == "FFNN" else x)[0]
    again = values[-1, 0] + y * description["output_scale"]
    np.testing.assert_allclose([float(row["forecast"]) for row in rows], again, rtol=1e-6)


def test_forecast_repeats_itself_with_the_same_seed_only(write: Callable[[str | bytes], Path], tmp_path: Path) -> None:
    path = write(GOOD)
    results = [run_small(path, tmp_path / name, "--seed", seed) for name, seed in (("a", "3"), ("b", "3"), ("c", "4"))]
    networks = [(tmp_path / name / "forecast.safetensors").read_bytes() for name in "abc"]
    assert results[0] == results[1] and networks[0] == networks[1]
    assert results[0]["scores"][-1] != results[2]["scores"][-1]


def test_forecast_prints_what_it_read_the_table_and_the_files(
    write: Callable[[str | bytes], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = [option for option in SMALL if option != "--quiet"]
    assert main(["forecast", str(write(with_cell(8, "wind", "NA"))), *TEMP, *options, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    for part in (
        "150 rows, 2021-01-01 to 2021-05-30",
        "missing cells (wind 1)",
        "no column of numbers: sky",
        "RMSE +3 days",
    ):
        assert part in printed
    for name in ("same as today", *KINDS, *map(str, out.iterdir())):
        assert name in printed


@pytest.mark.parametrize("horizon", ["1", "3"])
def test_forecast_draws_any_name_and_horizon(
    horizon: str, write: Callable[[str | bytes], Path], tmp_path: Path
) -> None:
    path = write(GOOD.replace("temp", r"_$x_{$ \ü", 1))
    options = [*SMALL, "--horizon", horizon, "--column", r"_$x_{$ \ü", "--out", str(tmp_path / "out")]
    assert main(["forecast", str(path), *options]) == 0
    assert (tmp_path / "out" / "forecast.png").stat().st_size > 10_000


def test_default_forecast_has_a_recurrent_network_better_than_both_naive_forecasts(tmp_path: Path) -> None:
    assert main(["forecast", "--quiet", "--out", str(tmp_path)]) == 0
    description = json.loads((tmp_path / "forecast.json").read_text(encoding="utf-8"))
    scores = {score.pop("forecast"): score for score in description["scores"]}
    today, last_year = scores["same as today"], scores["same day last year"]
    # The naive errors are facts of the data: worked out from the file here.
    temp = np.array([float(cell) for cell in read_table(SHIPPED).columns["temp_max"]])
    ahead = np.arange(1, 8)
    origins = np.arange(1461 - 365 - 1, 1461 - 7)
    truth = temp[origins[:, None] + ahead]
    assert today["rmse"] == pytest.approx(np.sqrt(np.mean((temp[origins, None] - truth) ** 2)), rel=1e-12)
    assert last_year["mae"] == pytest.approx(np.mean(abs(temp[origins[:, None] + ahead - 365] - truth)), rel=1e-12)
    better = [
        kind
        for kind in ("RNN", "LSTM")
        if all(scores[kind][error] < min(today[error], last_year[error]) for error in ("rmse", "mae"))
    ]
    assert better


def other_test_part(series: Series) -> Series:
    values = series.values.copy()
    values[-TEST_ROWS:] = np.random.default_rng(1).normal(100, 50, values[-TEST_ROWS:].shape)
    return replace(series, values=values)


def good_series(write: Callable[[str | bytes], Path]) -> Series:
    return make_series(read_table(write(GOOD)), "temp", None)


def test_nothing_of_the_test_part_reaches_training_or_scaling(write: Callable[[str | bytes], Path]) -> None:
    series = good_series(write)
    one, other = (make_problem(s, 5, 3, None) for s in (series, other_test_part(series)))
    assert one.split.test == 150 - TEST_ROWS
    for attribute in ("mean", "std", "change"):
        np.testing.assert_array_equal(getattr(one.scaling, attribute), getattr(other.scaling, attribute))
    for part in ("training", "validation", "before_test"):
        np.testing.assert_array_equal(getattr(one, part).x, getattr(other, part).x)
        np.testing.assert_array_equal(getattr(one, part).y, getattr(other, part).y)
    assert (one.test.y != other.test.y).all()
    for kind in KINDS:
        networks = [train(kind, problem, 4, 2, 0, False) for problem in (one, other)]
        assert networks[0].validation == networks[1].validation
        np.testing.assert_array_equal(networks[0].model.parameters.flat, networks[1].model.parameters.flat)


def test_networks_are_trained_to_choose_the_epochs_and_then_on_all_data_before_the_test(
    write: Callable[[str | bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = make_problem(good_series(write), 5, 3, None)
    fit, calls = rf.Sequential.fit, []

    def recorded(model: rf.Sequential, x: np.ndarray, y: np.ndarray, **options: Any) -> rf.History:
        calls.append((len(x), options["epochs"], options["validation_data"]))
        history = fit(model, x, y, **options)
        if history.val_loss:
            history.val_loss[:] = [3.0, 1.0, 2.0]
        return history

    monkeypatch.setattr(rf.Sequential, "fit", recorded)
    assert train("RNN", problem, 4, 3, 0, False).epochs == 2
    (count, epochs, held_out), (final_count, final_epochs, nothing) = calls
    assert (count, epochs) == (len(problem.training.x), 3)
    assert (final_count, final_epochs, nothing) == (len(problem.before_test.x), 2, None)
    np.testing.assert_array_equal(held_out[1], problem.validation.y)


def test_scaling_comes_from_the_training_part_alone(write: Callable[[str | bytes], Path]) -> None:
    series = good_series(write)
    problem = make_problem(series, 5, 3, None)
    training = series.values[: problem.split.validation]
    np.testing.assert_allclose(problem.scaling.mean, training.mean(axis=0))
    np.testing.assert_allclose(problem.scaling.std, training.std(axis=0))
    changes = np.concatenate([training[h:, 0] - training[:-h, 0] for h in (1, 2, 3)])
    assert problem.scaling.change == pytest.approx(np.sqrt(np.mean(changes**2)), rel=0.02)


def test_windows_end_at_their_origin_and_parts_share_no_target(write: Callable[[str | bytes], Path]) -> None:
    series = good_series(write)
    problem = make_problem(series, 5, 3, None)
    split, scaling = problem.split, problem.scaling
    parts = {
        "training": (problem.training, 0, split.validation),
        "validation": (problem.validation, split.validation, split.test),
        "before_test": (problem.before_test, 0, split.test),
        "test": (problem.test, split.test, 150),
    }
    for name, (windows, first, stop) in parts.items():
        assert first <= windows.origins.min() + 1 and windows.origins.max() + 3 == stop - 1, name
        for at in (0, len(windows.origins) // 2, -1):
            origin = windows.origins[at]
            seen = windows.x[at, :, :2] * scaling.std + scaling.mean
            np.testing.assert_allclose(seen, series.values[origin - 4 : origin + 1], rtol=1e-5, atol=1e-5)
            expected = series.values[origin + 1 : origin + 4, 0]
            np.testing.assert_allclose(
                problem.values_of(windows.y[[at]], windows.origins[[at]])[0], expected, rtol=1e-5
            )
    assert problem.test.origins.min() + 1 == split.test


def test_missing_cells_are_filled_with_what_was_known_and_never_scored(write: Callable[[str | bytes], Path]) -> None:
    rows = good_rows()
    for k in (60, 61, 130):
        rows[k + 1][1] = ("", "NaN", "null")[k % 3]
    rows[90][2] = "N/A"
    series = make_series(read_table(write(text_of(rows))), "temp", None)
    assert series.values[60, 0] == series.values[61, 0] == series.values[59, 0]
    assert series.values[89, 1] == series.values[88, 1]
    assert np.flatnonzero(~series.observed).tolist() == [60, 61, 130]
    problem = make_problem(series, 5, 3, None)
    for windows in (problem.training, problem.before_test, problem.test):
        targets = windows.origins[:, None] + np.arange(1, 4)
        assert not np.isin(targets, [60, 61, 130]).any()
    # A gap is filled the same way whatever comes after it.
    cut = make_series(read_table(write(text_of(rows[:62]))), "temp", None)
    np.testing.assert_array_equal(cut.values, series.values[:61])


def test_rows_before_the_first_value_are_left_out(write: Callable[[str | bytes], Path]) -> None:
    rows = good_rows()
    rows[1][2] = rows[2][2] = ""
    series = make_series(read_table(write(text_of(rows))), "temp", None)
    assert len(series.values) == 148 and str(series.dates[0])[:10] == day(2)
    assert any("2 rows before" in note for note in series.notes)


def test_constant_inputs_are_left_out(write: Callable[[str | bytes], Path]) -> None:
    series = make_series(read_table(write(GOOD.replace("sun", "3"))), "temp", None)
    assert series.names == ["temp", "wind", "sky"]
    problem = make_problem(series, 5, 3, None)
    assert problem.input_names == ["temp", "wind"]
    assert any("constant" in note and "sky" in note for note in problem.series.notes)


DIALECTS = {
    "comma": (",", str.encode),
    "semicolon": (";", str.encode),
    "tab": ("\t", str.encode),
    "byte order mark": (",", lambda text: text.encode("utf-8-sig")),
    "utf-16": (";", lambda text: text.encode("utf-16")),
    "windows lines": (",", lambda text: text.replace("\n", "\r\n").encode()),
    "quoted": (",", lambda text: text.replace("sun", '"sun, ""hot"""').encode()),
    "blanks": (";", lambda text: text.replace(";", " ; ").encode()),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_read_table_takes_every_dialect(name: str, write: Callable[[str | bytes], Path]) -> None:
    delimiter, encode = DIALECTS[name]
    table = read_table(write(encode(text_of(good_rows(), delimiter))))
    header, *body = good_rows()
    assert list(table.columns) == header
    assert table.rows == list(range(2, 152))
    for k in (0, 1, 2):
        assert table.columns[header[k]] == [row[k] for row in body]
    assert set(table.columns["sky"]) == {'sun, "hot"' if name == "quoted" else "sun"}


DATES = {
    "iso": (["2021-03-01", "2021-03-02"], "2021-03-01"),
    "iso with time": (["2021-03-01T06:30", "2021-03-01T06:45"], "2021-03-01T06:30"),
    "iso with blank": (["2021-03-01 06:30:05.250", "2021-03-01 06:30:05.500"], "2021-03-01T06:30:05.250"),
    "iso in a zone": (["2021-03-01T06:30:00+02:00", "2021-03-01T05:30:00Z"], "2021-03-01T04:30"),
    "slashes": (["2021/03/01", "2021/03/02"], "2021-03-01"),
    "points": (["1.3.2021", "2.3.2021"], "2021-03-01"),
    "points with time": (["01.03.2021 06:30", "01.03.2021 07:30"], "2021-03-01T06:30"),
    "american": (["03/01/2021", "03/31/2021"], "2021-03-01"),
    "british": (["01/03/2021", "31/03/2021"], "2021-03-01"),
    "american, by even steps": (["03/01/2021", "03/02/2021", "03/03/2021"], "2021-03-01"),
    "british, by even steps": (["01/03/2021", "02/03/2021", "03/03/2021"], "2021-03-01"),
    "month in words": (["1 Mar 2021", "2 Mar 2021"], "2021-03-01"),
    "month": (["2021-03", "2021-04"], "2021-03-01"),
    "digits": (["20210301", "20210302"], "2021-03-01"),
    "year": (["2021", "2022"], "2021-01-01"),
}


@pytest.mark.parametrize("name", DATES)
def test_find_dates_reads_common_formats(name: str, write: Callable[[str | bytes], Path]) -> None:
    cells, first = DATES[name]
    table = read_table(write(text_of([["value", "day"], *([str(k), cell] for k, cell in enumerate(cells))])))
    found = find_dates(table, [])
    assert found is not None and found[0] == "day"
    assert found[1][0] == np.datetime64(first)
    assert (np.diff(found[1]) > np.timedelta64(0)).all()


def test_find_dates_leaves_numbers_alone(write: Callable[[str | bytes], Path]) -> None:
    table = read_table(write("count,size\n2021,20210301\n2022,20210302\n"))
    assert find_dates(table, []) is None


@pytest.mark.parametrize(
    ("dates", "step"),
    [
        (["2021-01-31", "2021-02-28", "2021-03-31", "2021-04-30"], Step(months=1)),
        (["2020-11-30", "2021-02-28", "2021-05-31"], Step(months=3)),
        (["2021-01-15", "2021-02-15", "2021-03-15"], Step(months=1)),
        (["2019-06-01", "2020-06-01", "2021-06-01"], Step(months=12)),
        (["2021-01-01", "2021-01-08", "2021-01-15"], Step(7 * 86_400_000_000)),
        (["2021-01-01", "2021-01-02", "2021-01-09", "2021-01-31"], None),
    ],
)
def test_series_knows_its_step(dates: list[str], step: Step | None, write: Callable[[str | bytes], Path]) -> None:
    series = make_series(
        read_table(write(text_of([["date", "a"], *([d, str(k)] for k, d in enumerate(dates))]))), "a", None
    )
    assert series.step == step


def test_shift_months_stops_at_the_end_of_a_month() -> None:
    dates = np.array(["2020-02-29T06:00", "2020-01-31", "2021-05-15"], "datetime64[us]")
    assert (
        shift_months(dates, -12).tolist()
        == np.array(["2019-02-28T06:00", "2019-01-31", "2020-05-15"], dates.dtype).tolist()
    )


def test_series_puts_rows_in_order_of_time_and_says_so(write: Callable[[str | bytes], Path]) -> None:
    header, *body = good_rows()
    whole = make_series(read_table(write(text_of([header, *body]))), "temp", None)
    shuffled = make_series(read_table(write(text_of([header, *body[::-1]]))), "temp", None)
    np.testing.assert_array_equal(shuffled.values, whole.values)
    assert any("sorted" in note for note in shuffled.notes)

    repeated = [header, *body[:40], [body[39][0], "99", "99", "sun"], *body[40:]]
    series = make_series(read_table(write(text_of(repeated))), "temp", None)
    np.testing.assert_array_equal(series.values, whole.values)
    assert any("row 41 and 42" in note for note in series.notes)

    absent = make_series(read_table(write(text_of([header, *body[:40], *body[42:]]))), "temp", None)
    assert len(absent.values) == 150 and np.flatnonzero(~absent.observed).tolist() == [40, 41]
    assert any("2 dates are absent" in note for note in absent.notes)

    uneven = make_series(read_table(write(text_of([header, *body[::3], *body[1::3]]))), "temp", None)
    assert uneven.step is None and len(uneven.values) == 100
    assert any("varies from 1 day to 2 days" in note for note in uneven.notes)


def dated_series(step: Step, rows: int, start: str = "2019-01-01") -> Series:
    """A series whose values are their row numbers."""
    first = np.datetime64(start, "us")
    dates = np.concatenate([[first], step.after(first, rows - 1)])
    return Series("test", ["a"], np.arange(rows, dtype=float)[:, None], np.ones(rows, bool), dates, step, [])


def test_same_day_last_year_has_the_same_date_and_never_looks_past_the_origin() -> None:
    series = dated_series(Step(86_400_000_000), 1500)
    origins = np.arange(400, 900)
    name, values = seasonal(series, 401, origins, 400)
    assert name == "same day last year" and values is not None
    assert (values <= origins[:, None]).all()
    for n, h in ((0, 1), (30, 1), (100, 365), (100, 366), (250, 400)):
        target = series.dates[origins[n] + h].astype("datetime64[D]").tolist()
        used = series.dates[int(values[n, h - 1])].astype("datetime64[D]").tolist()
        assert used.year in (target.year - 1, target.year - 2)
        assert (used.month, used.day) == (
            (2, 28) if (target.month, target.day) == (2, 29) else (target.month, target.day)
        )


@pytest.mark.parametrize(
    ("step", "rows", "name", "season"),
    [
        (Step(86_400_000_000), 100, "same weekday last week", 7),
        (Step(3_600_000_000), 100, "same time yesterday", 24),
        (Step(7 * 86_400_000_000), 200, "same week last year", 52),
        (Step(months=1), 60, "same month last year", 12),
    ],
)
def test_seasonal_forecast_goes_back_whole_seasons(step: Step, rows: int, name: str, season: int) -> None:
    origins = np.arange(season, rows - 2 * season)
    found, values = seasonal(dated_series(step, rows), season + 1, origins, 2 * season)
    assert found == name and values is not None
    back = origins[:, None] + np.arange(1, 2 * season + 1) - values
    assert (back[:, :season] == season).all() and (back[:, season:] == 2 * season).all()


@pytest.mark.parametrize("series", [dated_series(Step(86_400_000_000), 6), dated_series(Step(months=12), 50)])
def test_seasonal_forecast_is_left_out_with_a_reason(series: Series) -> None:
    reason, values = seasonal(series, 5, np.array([4]), 1)
    assert values is None and "no seasonal forecast" in reason


def test_forecast_stops_at_ctrl_c_without_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = rf.Sequential.fit

    def interrupted(model: rf.Sequential, *data: object, **options: object) -> rf.History:
        history = fit(model, *data, **options)
        history.interrupted = True
        return history

    monkeypatch.setattr(rf.Sequential, "fit", interrupted)
    assert main(["forecast", "--epochs", "1", "--quiet", "--out", str(tmp_path / "out")]) == 130
    assert_one_line(capsys, ["interrupted"])
    assert not list((tmp_path / "out").iterdir())


def test_write_whole_leaves_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "forecast.csv"
    path.write_text("old")

    def fail(part: Path) -> None:
        part.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, fail)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["forecast.csv"]


def test_info_prints_what_build_info_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    info = rf.build_info()
    for fact in (info["version"], info["cpu"], info["isa"], *info["isas"], info["compiler"], np.__version__):
        assert fact in printed
    assert f"threads           {rf.get_num_threads()}\n" in printed


@pytest.mark.parametrize("command", [[], ["forecast"], ["info"]])
def test_help_explains_and_exits_with_0(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(" ".join(["usage: rnnfast", *command]))


def test_module_runs_as_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "rnnfast", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"rnnfast {rf.__version__}\n"


def test_shipped_weather_is_complete() -> None:
    problem: Problem = load_problem(None, None, None, 30, 7)
    assert problem.series.values.shape == (1461, 4) and problem.series.observed.all()
    assert problem.series.step == Step(86_400_000_000)
    assert problem.input_names == ["temp_max", "precipitation", "temp_min", "wind", "sin(year)", "cos(year)"]
    assert str(problem.series.dates[problem.split.test])[:10] == "2015-01-01"
