"""More assets than a history has: copies of its assets, with the same market and another's months of their own."""

from __future__ import annotations

import functools

import numpy as np

from hmgym.data import PriceHistory, packaged_span

_SHARED = 0.9  # of the variance of the market, by all copies


@functools.lru_cache(maxsize=16)
def widened(span: str, n_assets: int) -> PriceHistory:
    """A packaged span with `n_assets` assets, copies after the originals.

    Every return is β times the mean return of all assets and a rest. The j-th copy of an asset has its β; its rest, and
    a tenth of the variance of its market, are those of other months, j parts of the history on.

    Args:
        span: name of a packaged span.
        n_assets: more than it has.
    """
    history = packaged_span(span)
    returns, names = history.log_returns, history.assets
    months, own = returns.shape
    copies = -(-n_assets // own)
    market = returns.mean(1, keepdims=True)
    centred = market - market.mean()
    common = centred * ((centred * returns).sum(0) / (centred * centred).sum()) + returns.mean(0)
    mean, columns = returns.mean(0), [returns]
    for j in range(1, copies):
        moved = np.roll(np.arange(months), j * months // copies)
        shared = _SHARED**0.5 * (common - mean) + (1.0 - _SHARED) ** 0.5 * (common - mean)[moved]
        columns.append(mean + shared + (returns - common)[moved])
    wide = np.concatenate(columns, 1)[:, :n_assets]
    prices = 100.0 * np.exp(np.concatenate([np.zeros((1, n_assets)), wide.cumsum(0)]))
    labels = [name if j == 0 else f"{name}.{j + 1}" for j in range(copies) for name in names][:n_assets]
    return PriceHistory(
        dates=history.dates, assets=tuple(labels), prices=prices, source=f"{history.source}, widened to {n_assets}"
    )
