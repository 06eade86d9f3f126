"""The pool once more, slowly: lists of floats, the equations as they stand in docs/pools.md, trades by enumeration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

Row = list[float]


def squareplus(x: float) -> float:
    return 0.5 * (x + math.sqrt(x * x + 4.0))


def decay_for_memory(days: float, chunk_minutes: int) -> float:
    """By bisection of the memory, which rises in λ."""
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        if 6.0 * middle / (1.0 - middle) ** 3 * (2.0 * chunk_minutes / 1440.0) ** 3 < days**3:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def price_trend(prices: Sequence[Row], decay: Row, below: Row | None) -> list[Row]:
    n = len(decay)
    columns = []
    for i in range(n):
        lam, e, a, h, column = decay[i], prices[0][i], 0.0, prices[0][i], []
        for row in prices[1:]:
            e = e + (1.0 - lam) * (row[i] - e)
            a = lam * a + (row[i] - e) / (1.0 - lam)
            h = e if below is None else h + (1.0 - below[i]) * (row[i] - h)
            column.append(a / (lam / (1.0 - lam) ** 3 * h))
        columns.append(column)
    return [list(row) for row in zip(*columns, strict=True)]


def weight_changes(trend: Sequence[Row], k: Row, q: Row, s: Row) -> list[Row]:
    rows = []
    for g in trend:
        signal = [math.copysign(abs(x / (2.0 * b)) ** a, x) for x, a, b in zip(g, q, s, strict=True)]
        mean = sum(a * b for a, b in zip(k, signal, strict=True)) / sum(k)
        rows.append([a * (b - mean) for a, b in zip(k, signal, strict=True)])
    return rows


def guarded(wanted: Row, least: float) -> Row:
    total = sum(wanted)
    x = [w / total for w in wanted]
    n = len(x)
    fixed: set[int] = set()
    while any(x[i] < least for i in range(n) if i not in fixed):
        x = [min(value, 1.0 - (n - 1) * least) for value in x]
        fixed |= {i for i in range(n) if x[i] < least}
        rest = sum(x[i] for i in range(n) if i not in fixed)
        share = (1.0 - len(fixed) * least) / rest
        x = [least if i in fixed else x[i] * share for i in range(n)]
    return x


def coarse_weights(
    weights: Row, changes: Sequence[Row], least: float, largest: float, period: int
) -> tuple[list[Row], list[Row], list[Row]]:
    starts, rates, targets = [], [], []
    for change in changes:
        goal = guarded([w + d for w, d in zip(weights, change, strict=True)], least)
        rate = [(a - b) / period for a, b in zip(goal, weights, strict=True)]
        scale = min(1.0, largest / max(max(map(abs, rate)), 1e-300))
        rate = [scale * r for r in rate]
        starts.append(weights)
        rates.append(rate)
        weights = [w + r * period for w, r in zip(weights, rate, strict=True)]
        targets.append(weights)
    return starts, rates, targets


def fine_weights(
    initial: Row, coarse: tuple[list[Row], list[Row], list[Row]], minutes: int, chunk: int, period: int, curved: bool
) -> list[Row]:
    rows = []
    for minute in range(minutes):
        # The last price that is known before this minute is that of minute − 1.
        seen = (minute - 1) // chunk - 1 if minute > 0 else -1
        if seen < 0:
            rows.append(initial)
            continue
        start, rate, target = (part[seen] for part in coarse)
        j = min(minute - (seen + 1) * chunk, period)
        row = [s + r * j for s, r in zip(start, rate, strict=True)]
        if curved:
            row = [0.5 * (x + s * (t / s) ** (j / period)) for x, s, t in zip(row, start, target, strict=True)]
            row = [x / sum(row) for x in row]
        rows.append(row)
    return rows


def reserves_without_fees(reserves: Row, weights: Sequence[Row], prices: Sequence[Row]) -> list[Row]:
    rows = [reserves]
    for (w, v), (p, r) in zip(itertools.pairwise(weights), itertools.pairwise(prices), strict=True):
        n = range(len(w))
        moved = math.prod((r[i] / p[i]) ** w[i] for i in n)
        reweighted = math.prod((v[i] / w[i]) ** v[i] for i in n)
        reserves = [reserves[i] * moved / (r[i] / p[i]) * (v[i] / w[i]) / reweighted for i in n]
        rows.append(reserves)
    return rows


def best_trade(reserves: Row, weights: Row, prices: Row, gamma: float) -> Row:
    """Of all splits into in, out and nothing, the trade within its split that earns most; zeros where none earns."""
    n = len(reserves)
    best, most = [0.0] * n, 0.0
    for split in itertools.product((-1, 0, 1), repeat=n):
        if 1 not in split or -1 not in split:
            continue
        # Lagrange: pR̂/w = ν/γ̂ with γ̂ = 1/γ for what comes in; ν from the invariant, by bisection.
        low, high = -60.0, 60.0

        def after(log_nu: float, split: tuple[int, ...] = split) -> Row:
            nu = math.exp(log_nu)
            return [
                reserves[i] if split[i] == 0 else weights[i] * nu * (gamma if split[i] > 0 else 1.0) / prices[i]
                for i in range(n)
            ]

        for _ in range(120):
            middle = 0.5 * (low + high)
            if sum(w * math.log(a / b) for w, a, b in zip(weights, after(middle), reserves, strict=True)) < 0.0:
                low = middle
            else:
                high = middle
        moved = [a - b for a, b in zip(after(0.5 * (low + high)), reserves, strict=True)]
        if any(move * sign < 0.0 for move, sign in zip(moved, split, strict=True)):
            continue
        trade = [move / gamma if move > 0.0 else move for move in moved]
        profit = -sum(t * p for t, p in zip(trade, prices, strict=True))
        if profit > most:
            best, most = trade, profit
    return best


def reserves_with_fees(
    reserves: Row, weights: Sequence[Row], prices: Sequence[Row], *, fee: float, gas: float = 0.0,
    rebalancing: float = 0.0, noise: float = 0.0, share: float = 0.0, every: int = 1,
) -> list[Row]:  # fmt: skip
    rows = [reserves]
    for t in range(1, len(weights)):
        if t % every == 0:
            for w in (weights[t - every], weights[t]):
                p = prices[t]
                trade = best_trade(reserves, w, p, 1.0 - fee)
                profit = -sum(x * y for x, y in zip(trade, p, strict=True)) - gas
                volume = sum(abs(x) * y for x, y in zip(trade, p, strict=True))
                if profit < 0.5 * rebalancing * volume:
                    continue
                traded = [a + b for a, b in zip(reserves, trade, strict=True)]
                brought = sum(max(x, 0.0) * y for x, y in zip(trade, p, strict=True))
                value = sum(x * y for x, y in zip(traded, p, strict=True))
                scale = 1.0 + noise * fee * (1.0 - share) * brought / value
                reserves = [scale * a - max(b, 0.0) * fee * share for a, b in zip(traded, trade, strict=True)]
        rows.append(reserves)
    return rows
