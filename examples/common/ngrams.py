"""Character n-grams with interpolated Kneser-Ney smoothing: what a language model has to beat.

Kneser & Ney (1995), ICASSP; in the interpolated form of Chen & Goodman (1999), Computer Speech & Language 13(4), with
one discount for each order, ``n1 / (n1 + 2 n2)``. The probability of symbol w after the n - 1 symbols g is

    p(w | g) = max(count(g w) - discount, 0) / count(g) + discount * kinds(g) / count(g) * p(w | g without its first)

where, below the highest order, the count of an n-gram is the number of different symbols that stand before it, and
kinds(g) is the number of different symbols that follow g. Below the first order all symbols are equally probable.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class KneserNey:
    """All orders up to the highest, from one text.

    Parameters
    ----------
    text : ndarray of int, shape (T,)
        Symbols 0 to ``symbols - 1``.
    order : int
        The highest order: n - 1 symbols are seen before the one that is predicted.
    symbols : int
        ``symbols ** (order + 1)`` has to fit into 63 bits, since an n-gram is one number.
    """

    def __init__(self, text: Any, order: int, symbols: int) -> None:
        if symbols ** (order + 1) >= 2**63:
            raise ValueError(f"KneserNey: order {order} with {symbols} symbols does not fit into 63 bits")
        self.order, self.symbols = order, symbols
        self._grams = [np.unique(_codes(text, n, symbols), return_counts=True) for n in range(1, order + 2)]
        self._tables = {}

    def probabilities(self, text: Any, start: int, order: int | None = None) -> Any:
        """Probability of each of ``text[start:]`` after what stands before it, shape (T - start,).

        ``start`` is at least ``order - 1``; ``order`` by default the highest.
        """
        order = self.order if order is None else order
        if start < order - 1:
            raise ValueError(f"KneserNey.probabilities: start is {start}; expected at least order - 1 = {order - 1}")
        p = np.full(len(text) - start, 1 / self.symbols)
        for n in range(1, order + 1):
            grams, counts, discount, contexts, totals, kinds = self._table(n, highest=n == order)
            codes = _codes(text, n, self.symbols)[start - n + 1 :]
            count = _look_up(codes, grams, counts)
            total = _look_up(codes // self.symbols, contexts, totals)
            kind = _look_up(codes // self.symbols, contexts, kinds)
            seen = total > 0  # a context that never was leaves all to the shorter one
            new = (np.maximum(count - discount, 0) + discount * kind * p) / np.maximum(total, 1)
            p = np.where(seen, new, p)
        return p

    def _table(self, n: int, highest: bool) -> Any:
        """N-grams, their counts, the discount; contexts, the sums of their counts, and how many kinds follow."""
        if (n, highest) not in self._tables:
            grams, counts = self._grams[n - 1]
            if not highest:
                # Codes of the next order without their first symbol: each stands for one symbol before the n-gram.
                grams, counts = np.unique(self._grams[n][0] % self.symbols**n, return_counts=True)
            once, twice = (counts == 1).sum(), (counts == 2).sum()
            discount = once / (once + 2 * twice) if once else 0.5
            contexts, first = np.unique(grams // self.symbols, return_index=True)
            kinds = np.diff(np.append(first, len(grams)))
            self._tables[n, highest] = grams, counts, discount, contexts, np.add.reduceat(counts, first), kinds
        return self._tables[n, highest]


def _codes(text: Any, n: int, symbols: int) -> Any:
    """Each n-gram of the text as a number whose last digit, of base ``symbols``, is its last symbol."""
    codes = np.zeros(len(text) - n + 1, np.int64)
    for k in range(n):
        codes = codes * symbols + text[k : k + len(codes)]
    return codes


def _look_up(codes: Any, table: Any, values: Any) -> Any:
    """The value of each code, 0 where the table has none."""
    place = np.minimum(np.searchsorted(table, codes), len(table) - 1)
    return np.where(table[place] == codes, values[place], 0)
