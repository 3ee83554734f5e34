"""The error that a command ends with: one line for the user, no traceback."""


class CliError(Exception):
    """What is wrong and where, in one line without a full stop. The program prints it and exits with code 2."""


def quote(text: str, limit: int = 60) -> str:
    """``text`` in quotes on one line, shortened to ``limit`` characters: what a message shows of the user's data."""
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")


def listing(names: list[str], limit: int = 12) -> str:
    """Names with commas between them, the first ``limit`` of them."""
    shown = [quote(name, 40) if "," in name or len(name) > 40 else name for name in names[:limit]]
    return ", ".join(shown) + (f" and {len(names) - limit} more" if len(names) > limit else "")
