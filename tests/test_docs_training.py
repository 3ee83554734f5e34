"""The blocks of docs/training.md, run one after the other as a reader would; warnings are errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from harness import python

PAGE = Path(__file__).resolve().parents[1] / "docs" / "training.md"


def test_the_page_runs(tmp_path, monkeypatch):
    if not PAGE.is_file():
        pytest.skip("not a checkout: sdists have no docs")
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 7
    monkeypatch.chdir(tmp_path)
    same_bits = "\ncheck = regression()\ncheck.fit(x, y, epochs=6, callbacks=[rf.EarlyStopping(patience=3)], "
    same_bits += "validation_data=held_out, progress=False)\n"
    same_bits += "assert (check.parameters.flat == again.parameters.flat).all()\n"
    result = python("import warnings\nwarnings.simplefilter('error')\n" + "\n".join(blocks) + same_bits)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("History(5 epochs, loss 0.2")
