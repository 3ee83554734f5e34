"""The documentation: every Python block runs, links lead somewhere, nothing public is missing, the site builds."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import rnnfast as rf
from rnnfast import callbacks, losses, schedules

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))
if not PAGES:
    pytest.skip("not a checkout: there is no docs/", allow_module_level=True)
by_page = pytest.mark.parametrize("page", PAGES)

# A block that cannot run has `<!-- not run: why -->` on the line before it.
BLOCK = re.compile(r"^(<!-- not run: .+ -->\n)?( *)```python\n(.*?)^\2```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^()\s]+)\)")


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors_of(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def run(arguments, cwd, **environment):
    paths = [str(Path(rf.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))} | environment
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240
    )


def blocks_of(page: str) -> list[str]:
    return [textwrap.dedent(code) for skipped, _, code in BLOCK.findall(text_of(page)) if not skipped]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)])
def test_blocks_of_a_page_are_one_program(page, tmp_path):
    """Run as a reader would, from top to bottom; warnings are errors."""
    assert len(BLOCK.findall(text_of(page))) == text_of(page).count("```python\n")
    program = tmp_path / "page.py"
    program.write_text("\n".join(blocks_of(page)), encoding="utf-8")
    result = run(["-W", "error", str(program)], tmp_path, MPLBACKEND="agg", OMP_NUM_THREADS="1")
    assert result.returncode == 0, result.stderr


@by_page
def test_links_lead_somewhere(page):
    for link in LINK.findall(without_code(text_of(page))):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (DOCS / page).parent / file if file else DOCS / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target.read_text(encoding="utf-8")), link


@by_page
def test_pages_begin_with_their_title(page):
    text = text_of(page)
    assert text.startswith("# ") and text.endswith("\n")


def test_pictures_are_small_and_shown():
    shown = {Path(link).name for page in PAGES for link in LINK.findall(text_of(page))}
    for picture in (DOCS / "images").iterdir():
        assert picture.name in shown, picture
        assert picture.stat().st_size < 150e3, picture


def classes_of(module) -> set[str]:
    return {name for name, one in vars(module).items() if inspect.isclass(one) and one.__module__ == module.__name__}


def test_the_reference_has_everything_public():
    reference = "".join(text_of(page) for page in PAGES if page.startswith("api/"))
    documented = set(re.findall(r"^::: rnnfast\.(?:\w+\.)*(\w+)$", reference, re.MULTILINE))
    for name in rf.__all__:
        assert name in documented or f"`rf.{name}`" in reference, name
    # What others make: the product of two schedules, and classes weighted by `fit`.
    made = {"Product", "WeightedClasses"}
    for module in (losses, schedules, callbacks):
        assert not classes_of(module) - made - documented


@pytest.mark.parametrize("layer", [rf.RNN, rf.LSTM, rf.GRU, rf.FRNN])
def test_the_page_on_layers_has_every_option(layer):
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`\n]+`", text_of("layers.md") + text_of("frnn.md")))))
    options = inspect.signature(layer).parameters.keys() - {"input_size", "dtype", "units"}
    assert not options - words


def test_the_site_builds_without_warnings(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install '.[docs]'")
    pytest.importorskip("material", reason="mkdocs-material is not installed: pip install '.[docs]'")
    pytest.importorskip("mkdocstrings_handlers.python", reason="mkdocstrings-python is not installed")
    arguments = ["-m", "mkdocs", "build", "--strict", "--config-file", str(ROOT / "mkdocs.yml")]
    result = run([*arguments, "--site-dir", str(tmp_path / "site")], ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "site" / "api" / "layers.html").stat().st_size > 50_000
