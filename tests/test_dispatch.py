"""The instruction set asked for is the one that runs, a wrong one is an error, and wide code cannot leak out."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rnnfast as rf
from cases import CELLS
from compare import assert_same_bits
from harness import python, random_problem, run_forward, run_training
from rnnfast import _core

ALL_ISAS = ("baseline", "avx2", "avx512")

REPORT = """
import hashlib, sys
import numpy as np, rnnfast as rf
layer = rf.LSTM(11, 37, seed=1)
x = np.random.default_rng(0).standard_normal((9, 5, 11)).astype(np.float32)
print(rf.build_info()["isa"], hashlib.sha256(layer(x)[0].tobytes()).hexdigest())
"""


def report(isa: str | None) -> list[str]:
    environment = {} if isa is None else {"RNNFAST_ISA": isa}
    result = python(REPORT, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def bits_in_this_process() -> str:
    import hashlib

    layer = rf.LSTM(11, 37, seed=1)
    x = np.random.default_rng(0).standard_normal((9, 5, 11)).astype(np.float32)
    return hashlib.sha256(layer(x)[0].tobytes()).hexdigest()


def test_environment_chooses_what_runs(isa):
    """By what `build_info` says and by the bits, which are those of the same kernels chosen by the private call."""
    assert report(isa) == [isa, bits_in_this_process()]


def test_default_is_the_best_there_is():
    assert report(None)[0] == rf.build_info()["isas"][-1]


@pytest.mark.parametrize("value", ["", "avx", "AVX2", "avx2 ", "sse9", "baseline,avx2", "0"])
def test_unknown_value_is_an_error_that_says_so(value):
    result = python(REPORT, env={"RNNFAST_ISA": value})
    assert result.returncode != 0
    assert "RNNFAST_ISA" in result.stderr
    assert repr(value)[1:-1] in result.stderr and "baseline" in result.stderr


@pytest.mark.parametrize("name", ALL_ISAS)
def test_unsupported_value_is_an_error_that_says_so(name):
    if name in rf.build_info()["isas"]:
        pytest.skip(f"this machine has {name}")
    result = python(REPORT, env={"RNNFAST_ISA": name})
    assert result.returncode != 0
    assert "RNNFAST_ISA" in result.stderr and name in result.stderr and "not supported" in result.stderr
    with pytest.raises(RuntimeError, match="not supported"):
        _core.set_isa(name)


@pytest.mark.parametrize("cell", CELLS)
def test_a_layer_follows_a_change_of_instruction_set(cell, dtype, rng):
    """Packed weights are laid out for one instruction set; those of another must not be read."""
    info = rf.build_info()
    inputs, upstream = random_problem(rng, cell, 3, 5, 9, 21, dtype)
    fresh = {}
    try:
        for name in info["isas"]:
            _core.set_isa(name)
            fresh[name] = run_forward(cell, inputs, dtype)[0], run_training(cell, inputs, upstream, dtype)[1]["x"]
        from harness import layer_with, pack_state

        layer = layer_with(cell, inputs, dtype)
        state = pack_state(inputs["h0"], inputs["c0"])
        dstate = pack_state(upstream["dh_n"], upstream["dc_n"])
        for name in [*info["isas"], *reversed(info["isas"])]:
            _core.set_isa(name)
            y, _, tape = layer.forward(inputs["x"], state)
            assert_same_bits(y, fresh[name][0], f"y with {name}")
            assert_same_bits(layer.backward(tape, upstream["dy"], dstate).x, fresh[name][1], f"dx with {name}")
    finally:
        _core.set_isa(info["isa"])


@pytest.mark.parametrize("cell", [rf.LSTM, rf.GRU])
@pytest.mark.parametrize("hidden", [5, 16, 45])
def test_layer_normalisation_has_the_same_bits_with_all_fused_multiply_adds(cell, hidden, dtype, rng):
    info = rf.build_info()
    if not {"avx2", "avx512"} <= set(info["isas"]):
        pytest.skip("this machine has not both of AVX2 and AVX-512")
    x = rng.standard_normal((6, 3, 7)).astype(dtype)
    results = {}
    try:
        for name in ("avx2", "avx512"):
            _core.set_isa(name)
            layer = cell(7, hidden, layer_norm=True, dtype=dtype, seed=1)
            y, _, tape = layer.forward(x)
            results[name] = y.copy(), layer.backward(tape, x[..., :1] * y).flat
    finally:
        _core.set_isa(info["isa"])
    for one, other, what in zip(*results.values(), ("y", "gradient"), strict=True):
        assert_same_bits(one, other, what)


def wide_objects() -> list[tuple[str, Path]]:
    directory = os.environ.get("RNNFAST_BUILD_DIR")
    if not directory:
        pytest.skip("RNNFAST_BUILD_DIR does not say where the object files are")
    if shutil.which("nm") is None:
        pytest.skip("nm is not installed")
    found = [
        (isa, path)
        for isa in ("avx2", "avx512")
        for path in Path(directory).rglob("*")
        if path.suffix in (".o", ".obj") and path.name.split(".")[0] == isa
    ]
    assert {isa for isa, _ in found} == {"avx2", "avx512"}, (
        f"object files of avx2 and avx512 under {directory}: {found}"
    )
    return found


def test_weak_symbols_of_wide_units_carry_their_namespace():
    """A weak symbol may be kept by the linker for everyone; with AVX code in it, older machines would stop there."""
    for isa, path in wide_objects():
        listing = subprocess.run(
            ["nm", "--demangle", "--defined-only", str(path)], capture_output=True, text=True, check=True
        ).stdout
        symbols = [line.split(maxsplit=2)[1:] for line in listing.splitlines() if line]
        assert symbols, path
        shared = [name for kind, name in symbols if kind in "WwVvu" and f"rnnfast::{isa}::" not in name]
        assert not shared, f"{path.name}: {shared}"


def test_strong_symbols_of_wide_units_carry_their_namespace():
    """What a wide unit exports by the same name as another unit would be a link error or, in an archive, a lottery."""
    for isa, path in wide_objects():
        listing = subprocess.run(
            ["nm", "--demangle", "--defined-only", "--extern-only", str(path)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        names = [line.split(maxsplit=2)[2] for line in listing.splitlines() if line]
        assert names, path
        assert not [name for name in names if isa not in name], path
