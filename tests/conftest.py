"""Fixtures of all tests: every instruction set the machine has, both float types, repeatable random numbers."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import numpy as np
import pytest

ISAS = ("baseline", "avx2", "avx512")

# Isolation of the function-scoped fixtures `isa` and `threads` is not needed between the examples of one test.
hypothesis.settings.register_profile(
    "rnnfast",
    derandomize=True,
    max_examples=40,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("rnnfast")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "exhaustive" not in config.getoption("markexpr"):
        skip = pytest.mark.skip(reason="exhaustive: takes minutes, run with -m exhaustive")
        for item in items:
            if "exhaustive" in item.keywords:
                item.add_marker(skip)


def pytest_report_header() -> list[str]:
    try:
        import rnnfast as rf

        info = rf.build_info()
    except ImportError as error:
        return [f"rnnfast cannot be imported: {error}"]
    absent = [name for name in ISAS if name not in info["isas"]]
    return [
        f"rnnfast: {info}",
        f"numpy {np.__version__}; instruction sets tested: {', '.join(info['isas'])}"
        + (f"; not on this machine: {', '.join(absent)}" if absent else ""),
    ]


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test with the kernels of one instruction set; skipped where the machine or the build lacks it."""
    import rnnfast as rf
    from rnnfast import _core

    info = rf.build_info()
    if request.param not in info["isas"]:
        pytest.skip(f"{request.param}: this machine and build have only {', '.join(info['isas'])}")
    _core.set_isa(request.param)
    assert rf.build_info()["isa"] == request.param
    yield request.param
    _core.set_isa(info["isa"])


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype:
    return np.dtype(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240229)


@pytest.fixture
def restore_threads() -> Iterator[None]:
    """Put the number of threads back after a test that changes it."""
    import rnnfast as rf

    before = rf.get_num_threads()
    yield
    rf.set_num_threads(before)
