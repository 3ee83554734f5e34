"""Data files that lie inside Python packages."""

from __future__ import annotations

import csv
import gzip
import importlib.util
from pathlib import Path

from rnnfast.cli.errors import CliError


def package_file(package: str, path: str, install: str) -> Path:
    """Where ``path`` of an installed package lies.

    The package is found, not imported: what it needs for other purposes does not have to be installed.

    Parameters
    ----------
    package : str
        Name of a top-level package.
    path : str
        Below the package's folder.
    install : str
        What to give to ``pip install``, for the message.

    Raises
    ------
    CliError
        If the package or the file is missing.
    """
    spec = importlib.util.find_spec(package)
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    for folder in folders:
        if (file := Path(folder, path)).is_file():
            return file
    found = f"package {package} has no file {path}" if folders else f"package {package} is not installed"
    raise CliError(f"{found}; pip install {install} brings the data, or --data FILE names it")


def read_columns(path: Path, names: list[str]) -> dict[str, list[str]]:
    """The named columns of a CSV file with a header, gzip or not, as text; CliError if it has not all of them."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            missing = [name for name in names if name not in header]
            if missing:
                raise CliError(f"{path}: has no column {missing[0]}; expected {', '.join(names)}")
            places = [header.index(name) for name in names]
            rows = [[row[place] for place in places] for row in reader if row]
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{path}: cannot be read: {error}") from None
    except IndexError:
        raise CliError(f"{path}: line {reader.line_num} has fewer columns than the header") from None
    if not rows:
        raise CliError(f"{path}: has no rows")
    return {name: [row[k] for row in rows] for k, name in enumerate(names)}
