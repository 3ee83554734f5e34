"""JSON of which every text has one meaning and a bounded cost."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def parse(text: str) -> Any:
    """The value of a JSON text.

    Raises
    ------
    ValueError
        If the text is no JSON, names a key twice, has NaN, Infinity or an integer of more than 20 digits, or nests
        too deep.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_integer)
    except RecursionError:
        raise ValueError("JSON nested too deep") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"JSON with the key {key[:80]!r} twice")
            seen.add(key)
    return result


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"JSON with {text}")


def _integer(text: str) -> int:
    # Long integers take quadratic time in older Pythons.
    if len(text) > 20:
        raise ValueError(f"JSON with an integer of {len(text)} digits")
    return int(text)
