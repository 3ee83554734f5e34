"""The repository around the package: one version, a README that runs, and files that are at home on any machine."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import mutants
import pytest
import rnnfast as rf
from harness import run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

COMMANDS = [
    "python3 -m venv .venv && .venv/bin/pip install '.[cli]' && .venv/bin/rnnfast forecast",
    "python3 -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/pytest",
]

# Hosts of registries, and places that only one machine has. The spaces keep this file from finding itself.
HOSTS = ("py pi.org", "python hosted.org", "py torch.org/whl", "ana conda.org", "--index -url", "--extra-index -url")
PLACES = ("/t mp/", "/wo rk/", "/ro ot/", "/ho me/", "/op t/", "/us r/local/")
FOREIGN = [text.replace(" ", "") for text in (*HOSTS, *PLACES)]


def repository_files() -> list[Path]:
    """What is, or is about to be, under version control."""
    try:
        listing = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"not a checkout: {error}")
    return [path for path in (ROOT / name for name in listing.split("\0") if name) if path.is_file()]


def test_version_is_the_same_everywhere():
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (declared,) = re.findall(r'^version = "(.+)"$', pyproject, re.MULTILINE)
    newest = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[0]
    assert {declared, rf.__version__, rf.build_info()["version"], newest} == {declared}


def test_errors_to_plant_fit_the_sources():
    """One that no longer fits is not planted, and nobody sees whether a test notices it."""
    assert mutants.misfits(ROOT) == []


def test_readme_code_runs(tmp_path, monkeypatch):
    """All blocks one after the other, as a reader would paste them; warnings are errors."""
    blocks = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 5
    monkeypatch.chdir(tmp_path)
    Path("readme.py").write_text("\n".join(blocks), encoding="utf-8")
    result = run("-W", "error", "readme.py")
    assert result.returncode == 0, result.stderr
    printed = result.stdout.splitlines()
    # What the README says a line prints, in a comment of that line or the line after it.
    for expected in ("(50, 32, 8) (256, 64)", "LSTM: state[0] has shape (3, 64); expected (D*L, N, H) = (1, 32, 64), "):
        assert f"# {expected}" in README
        assert any(line.startswith(expected) for line in printed), printed


def test_readme_and_ci_have_the_same_two_commands():
    """CI reads them out of the README, by this pattern; written down a second time, they would drift apart."""
    assert re.findall(r"^python3 -m venv \.venv && .*$", README, re.MULTILINE) == COMMANDS
    ci = ROOT / ".ci" / "run"
    if not ci.is_file():
        pytest.skip("not a checkout: sdists have no .ci")
    script = ci.read_text(encoding="utf-8")
    assert "grep '^python3 -m venv" in script
    assert not any(command in script for command in COMMANDS)


def test_links_in_documents_lead_somewhere():
    broken = [
        f"{path.name}: {target}"
        for path in ROOT.glob("*.md")
        for target in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8"))
        if "://" not in target and not (ROOT / target).exists()
    ]
    assert not broken


def test_files_name_no_registry_and_no_path_of_one_machine():
    found = []
    for path in repository_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {foreign}" for foreign in FOREIGN if foreign in text]
    assert not found


def test_package_never_unpickles_nor_evaluates():
    for path in Path(rf.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules = {(node.module or "").partition(".")[0]}
            else:
                modules = set()
            assert not modules & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}, path
            if isinstance(node, ast.Call):
                assert getattr(node.func, "id", None) not in ("eval", "exec"), path
                allowed = [k for k in node.keywords if k.arg == "allow_pickle" and getattr(k.value, "value", 1)]
                assert not allowed, path
