"""What `import rnnfast` costs and brings in, and that the stubs of the private module describe that module."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
import rnnfast as rf
from harness import python
from rnnfast import _core

IMPORT_SHARE = 0.3


def import_share() -> float:
    """What `import rnnfast` costs beyond `import numpy`, as a share of that: a slow machine slows both."""
    result = python("import numpy; import rnnfast", env={"PYTHONPROFILEIMPORTTIME": "1", "PYTHONDONTWRITEBYTECODE": ""})
    assert result.returncode == 0, result.stderr
    cumulative = {}
    for line in result.stderr.splitlines():
        if match := re.match(r"import time:\s+\d+ \|\s+(\d+) \|\s+(\S+)$", line):
            cumulative.setdefault(match[2], int(match[1]))
    return cumulative["rnnfast"] / cumulative["numpy"]


def test_import_is_cheap():
    """The best of several, since anything else the machine does makes it slower and nothing makes it faster."""
    shares = []
    for _ in range(6):
        shares.append(import_share())
        if shares[-1] < IMPORT_SHARE:
            return
    pytest.fail(f"import rnnfast costs {min(shares):.2f} of import numpy; expected under {IMPORT_SHARE}")


def test_only_numpy_is_imported():
    code = """
import sys, numpy
before = set(sys.modules)
import rnnfast
known = {"rnnfast", "numpy"} | set(sys.stdlib_module_names)
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before} - known))
"""
    result = python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


def test_import_starts_no_threads_and_needs_no_environment():
    result = python(
        "import threading, os, rnnfast; print(len(os.listdir('/proc/self/task')))", env={"OPENBLAS_NUM_THREADS": "1"}
    )
    assert result.returncode == 0, result.stderr
    if not Path("/proc/self/task").is_dir():
        pytest.skip("counts threads in /proc/self")
    assert result.stdout.split() == ["1"]


def public_names(module_or_class) -> set[str]:
    return {name for name in vars(module_or_class) if not name.startswith("_")}


def stub() -> ast.Module:
    path = Path(rf.__file__).with_name("_core.pyi")
    return ast.parse(path.read_text(encoding="utf-8"))


def stub_functions(body: list[ast.stmt]) -> dict[str, set[tuple[str, ...]]]:
    """Argument names of every overload of every function."""
    functions: dict[str, set[tuple[str, ...]]] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef):
            if any(getattr(d, "attr", getattr(d, "id", "")) == "property" for d in node.decorator_list):
                continue
            arguments = node.args
            names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
            functions.setdefault(node.name, set()).add(tuple(n for n in names if n != "self"))
    return functions


def compiled_arguments(function) -> set[tuple[str, ...]]:
    """Argument names from the signatures that pybind11 writes into docstrings."""
    signatures = re.findall(
        rf"^(?:\d+\. )?{function.__name__}\((.*)\) -> ", inspect.getdoc(function) or "", re.MULTILINE
    )
    assert signatures, f"{function.__name__} has no signature in its docstring"
    found = set()
    for signature in signatures:
        # Brackets hold types with commas of their own.
        flat = signature
        while (shorter := re.sub(r"\[[^\[\]]*\]", "", flat)) != flat:
            flat = shorter
        names = [part.partition(":")[0].partition("=")[0].strip() for part in flat.split(", ") if part]
        found.add(tuple(name for name in names if name not in ("self", "*", "/")))
    return found


def compare(compiled, functions: dict[str, set[tuple[str, ...]]], where: str) -> None:
    for name, arguments in functions.items():
        assert arguments == compiled_arguments(getattr(compiled, name)), f"{where}{name}"


def test_stubs_name_what_the_module_has():
    tree = stub()
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    functions = stub_functions(tree.body)
    described = {*classes, *functions} | {
        node.target.id for node in tree.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    described = {name for name in described if not name.startswith("_")}
    assert described == public_names(_core)
    compare(_core, {name: args for name, args in functions.items() if not name.startswith("_")}, "_core.")


def test_stubs_name_what_the_classes_have():
    for node in stub().body:
        if not isinstance(node, ast.ClassDef) or not isinstance(getattr(_core, node.name, None), type):
            continue
        compiled = getattr(_core, node.name)
        assert "pybind11" in type(compiled).__name__ or compiled.__module__.endswith("_core")
        described = {child.name for child in node.body if isinstance(child, ast.FunctionDef)}
        described |= {
            child.target.id
            for child in node.body
            if isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name)
        }
        assert {name for name in described if not name.startswith("_")} == public_names(compiled), node.name
        compare(compiled, stub_functions(node.body), f"_core.{node.name}.")


def test_version_is_the_same_everywhere():
    from importlib.metadata import PackageNotFoundError, version

    assert rf.__version__ == rf.build_info()["version"]
    try:
        installed = version("rnnfast")
    except PackageNotFoundError:
        pytest.skip("rnnfast is not installed as a distribution")
    assert installed == rf.__version__


def test_package_is_typed_and_never_unpickles():
    package = Path(rf.__file__).parent
    assert (package / "py.typed").is_file()
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            assert not {"pickle", "cPickle", "dill", "marshal", "shelve"} & {n.partition(".")[0] for n in names}, path
