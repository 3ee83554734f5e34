"""A CSV file as columns of text, every cell with the row it came from."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from rnnfast.cli.errors import CliError, listing, quote

MAX_BYTES = 1 << 30
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})


@dataclass(frozen=True)
class Table:
    """Text of a CSV file.

    Attributes
    ----------
    label : str
        How messages call the file.
    columns : dict of str to list of str
        Cells by column name, without the blanks around them.
    rows : list of int
        Row number of each cell in the file, counted in lines from 1; the header is usually row 1.
    """

    label: str
    columns: dict[str, list[str]]
    rows: list[int]

    def require(self, name: str) -> list[str]:
        """Cells of the column ``name``; CliError with the nearest names when there is none."""
        if name in self.columns:
            return self.columns[name]
        by_folded = {known.casefold(): known for known in self.columns}
        close = [by_folded[c] for c in get_close_matches(name.casefold(), by_folded, n=3)]
        hint = f"; did you mean {' or '.join(quote(c) for c in close)}?" if close else ""
        raise CliError(f"{self.label} has no column {quote(name)}{hint} (columns: {listing(list(self.columns))})")

    def named_in(self, text: str) -> list[str]:
        """The columns that ``text`` lists with commas between them; names that hold a comma stand in double quotes.

        Raises
        ------
        CliError
            If a name is empty or no column.
        """
        if text in self.columns:
            return [text]
        try:
            names = [name.strip() for name in next(csv.reader([text], skipinitialspace=True, strict=True), [])]
        except csv.Error:
            names = []
        if not names or not all(names):
            raise CliError(f"--inputs {quote(text)} is no list of column names with commas between them")
        for name in names:
            self.require(name)
        return names

    def where(self, name: str, at: int) -> str:
        """File, row and column of a cell, for messages."""
        return f"{self.label}: row {self.rows[at]}, column {quote(name)}"


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no value: empty, NA, N/A, NaN, null or None in any case."""
    return cell.casefold() in MISSING


def read_table(path: Path, label: str | None = None) -> Table:
    """Read a CSV file with a header; the delimiter is comma, semicolon or tab, the text UTF-8 or UTF-16.

    Raises
    ------
    CliError
        If the file cannot be read, is no text, has no header, no rows, or a row of another length than the header.
    """
    label = label or str(path)
    text = _decode(_read_bytes(path, label), label)
    delimiter = _sniff(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    records: list[tuple[int, list[str]]] = []
    start = 1
    try:
        for record in reader:
            if any(cell.strip() for cell in record):
                records.append((start, [cell.strip() for cell in record]))
            start = reader.line_num + 1
    except csv.Error as error:
        raise CliError(f"{label}: row {start} is no valid CSV: {error}") from None
    if not records:
        raise CliError(f"{label} is empty; expected a header row and rows of numbers")
    (_, header), *body = records
    names = _names(header, label)
    if not body:
        raise CliError(f"{label} has a header row and no other rows")
    for number, record in body:
        if len(record) != len(names):
            raise CliError(f"{label}: row {number} has {len(record)} cells; expected {len(names)}, from the header")
    columns = {name: [record[k] for _, record in body] for k, name in enumerate(names)}
    return Table(label, columns, [number for number, _ in body])


def _read_bytes(path: Path, label: str) -> bytes:
    try:
        if path.is_dir():
            raise CliError(f"{label} is a folder; expected a CSV file")
        with path.open("rb") as file:
            head = file.read(1 << 16)
            if b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise CliError(f"{label} is a binary file (byte {head.index(0)} is zero); expected CSV text")
            data = head + file.read(MAX_BYTES - len(head) + 1)
    except FileNotFoundError:
        raise CliError(f"{label}: no such file") from None
    except (OSError, ValueError) as error:
        raise CliError(f"{label} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MAX_BYTES:
        raise CliError(f"{label} is larger than {MAX_BYTES >> 30} GiB")
    return data


def _decode(data: bytes, label: str) -> str:
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    encoding, name = ("utf-16", "UTF-16") if wide else ("utf-8-sig", "UTF-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        # The codec counts from behind the byte order mark.
        row = error.object.count(b"\n", 0, error.start) + 1
        raise CliError(f"{label}: row {row} is not {name} text (byte 0x{error.object[error.start]:02x})") from None
    if "\0" in text:
        raise CliError(f"{label}: row {text.count(chr(10), 0, text.index(chr(0))) + 1} holds a zero byte; is it text?")
    return text


def _sniff(text: str) -> str:
    """The delimiter that cuts the header into most cells; the comma when none does."""
    header = next((line for line in io.StringIO(text, newline=None) if line.strip()), "")
    return max(",;\t", key=lambda delimiter: len(next(csv.reader([header], delimiter=delimiter))))


def _names(header: list[str], label: str) -> list[str]:
    if all(_is_number(cell) for cell in header):
        raise CliError(f"{label}: row 1 holds numbers ({listing(header, 3)}); expected a header with column names")
    names = [cell or f"column {k}" for k, cell in enumerate(header, 1)]
    for name in names:
        if names.count(name) > 1:
            raise CliError(f"{label}: the header has {names.count(name)} columns named {quote(name)}")
    return names


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
