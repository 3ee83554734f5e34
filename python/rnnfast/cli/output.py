"""Files written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from rnnfast.cli.errors import CliError


def prepare_folder(folder: Path) -> None:
    """Make ``folder`` and try to write into it; CliError when that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "rnnfast-write-test", lambda path: path.write_bytes(b""))
        (folder / "rnnfast-write-test").unlink()
    except FileExistsError:
        raise CliError(f"--out {folder}: is a file; expected a folder") from None
    except OSError as error:
        raise CliError(f"--out {folder}: cannot be written: {error.strerror or error}") from None


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file beside ``path``, which takes its place in one step.

    An interrupted or failed run thus leaves the old file or the new one, never half of one.
    """
    part = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
