"""Values of options, checked while they are read."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable


def whole(low: int, high: int) -> Callable[[str], int]:
    """A reader of whole numbers from ``low`` to ``high``."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return value

    return read


def names(text: str) -> list[str]:
    """Names with commas between them; a name that holds a comma stands in double quotes."""
    try:
        found = [name.strip() for name in next(csv.reader([text], skipinitialspace=True, strict=True), [])]
    except csv.Error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of names with commas between them: {error}") from None
    if not found or not all(found):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of names with commas between them")
    return found
