"""Variance of tomorrow's return: how forecasts are judged, and the classical ones.

Returns are in percent, variances in percent squared. ``h[t]`` is the variance forecast for day t from what was known
at the end of day t - 1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

DAY, WEEK, MONTH = 1, 5, 22  # trading days


def qlike(squared: Any, h: Any) -> Any:
    """Loss ``log h + r^2 / h`` of each day: lowest on average for the true variance, whatever the noise of r^2.

    Patton (2011), Journal of Econometrics 160(1), up to a term without h.
    """
    return np.log(h) + squared / h


def ewma(squared: Any, decay: float = 0.94) -> Any:
    """RiskMetrics: ``h[t] = decay h[t-1] + (1 - decay) r[t-1]^2``, from the mean of the first month on; (T + 1,)."""
    return recursion(squared, 0.0, 1 - decay, 0.0, decay, squared[:MONTH].mean())


def recursion(squared: Any, omega: float, alpha: Any, gamma: float, beta: float, first: float, down: Any = None) -> Any:
    """``h[t] = omega + (alpha + gamma down[t-1]) r[t-1]^2 + beta h[t-1]`` with ``h[0] = first``; shape (T + 1,).

    GARCH(1,1), Bollerslev (1986), Journal of Econometrics 31(3); with ``down``, whether the return was negative, that
    of Glosten, Jagannathan & Runkle (1993), Journal of Finance 48(5).
    """
    news = alpha * squared if down is None else (alpha + gamma * down) * squared
    h = np.empty(len(squared) + 1)
    h[0] = first
    for t, value in enumerate(news):
        h[t + 1] = omega + value + beta * h[t]
    return h


def garch(returns: Any, known: int, asymmetric: bool) -> Any:
    """Forecasts (T + 1,) of a GARCH(1,1) or GJR-GARCH(1,1) of the highest likelihood in the first ``known`` days.

    The package arch finds its parameters.
    """
    from arch import arch_model

    found = arch_model(returns[:known], mean="Zero", p=1, o=int(asymmetric), q=1).fit(disp="off").params
    gamma = found["gamma[1]"] if asymmetric else 0.0
    squared = returns**2
    first = squared[:known].mean()
    return recursion(squared, found["omega"], found["alpha[1]"], gamma, found["beta[1]"], first, returns < 0)


def parkinson(high: Any, low: Any) -> Any:
    """Variance by the range of the day: Parkinson (1980), Journal of Business 53(1). Less noisy than r^2."""
    return (100 * np.log(high / low)) ** 2 / (4 * math.log(2))


def past_mean(values: Any, days: int) -> Any:
    """Mean of the ``days`` values that end with each one; of fewer at the start."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(stop - days, 0)
    return (total[stop] - total[start]) / (stop - start)


def har_inputs(log_range: Any) -> Any:
    """Means over a day, a week and a month: Corsi (2009), Journal of Financial Econometrics 7(2). Shape (T, 3)."""
    return np.stack([past_mean(log_range, days) for days in (DAY, WEEK, MONTH)], axis=1)


def standard_error(series: Any, lags: int = 5) -> float:
    """Of the mean of a series whose neighbours, up to ``lags`` days apart, may be related (Newey & West 1987)."""
    d = series - series.mean()
    variance = (d**2).mean()
    for lag in range(1, lags + 1):
        variance += 2 * (1 - lag / (lags + 1)) * (d[lag:] * d[:-lag]).sum() / len(d)
    return math.sqrt(variance / len(d))


def t_statistic(difference: Any, lags: int = 5) -> float:
    """Mean by standard error (Diebold & Mariano 1995): beyond about 2, the mean is hardly 0 by chance."""
    return float(difference.mean() / standard_error(difference, lags))
