"""Compiled kernels of pools (numba, float64), all in one file: the disk cache does not see edits in others.

Forward loops over time and their adjoints, written by hand. B rows side by side, M chunk starts, C changes, T rows of
time, N assets. Prices (Bp, ·, N) have Bp rows that the B rows use in turn, row b that of b mod Bp; their adjoint has
their own shape, so that what several rows say of one price is summed, never averaged.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

_OPTIONS: dict[str, Any] = {"cache": True, "error_model": "numpy", "nogil": True}
_HELPER: dict[str, Any] = {**_OPTIONS, "inline": "always"}

_NEARER = 0.008  # likewise, four terms
_NEAR = 0.03  # |z| up to which six terms of log((1 + z)/(1 − z)) are exact to rounding
_SMALL = 0.05  # |x| up to which the series of e^x − 1 − x below is
_BLOCK = 128  # rows that are worked on together, few enough to stay in the fastest memory
_ROUNDS = 100  # of a search that ends in two or three

KEPT, IN, OUT = 0, 1, 2  # what a trade does with an asset


@njit(**_HELPER)
def _log_ratio(new, old):
    """log(new/old), of full relative accuracy also where they are nearly the same."""
    z = (new - old) / (new + old)
    if abs(z) < _NEAR:
        y = z * z
        return 2.0 * z * (1.0 + y * (1 / 3 + y * (1 / 5 + y * (1 / 7 + y * (1 / 9 + y * (1 / 11))))))
    return math.log(new / old)


@njit(**_OPTIONS)
def _beyond_linear(x):
    """e^x − 1 − x ≥ 0, of full relative accuracy."""
    if abs(x) > _SMALL:
        return math.expm1(x) - x
    tail = 1.0 + x / 9.0 * (1.0 + x / 10.0)
    for order in range(8, 2, -1):
        tail = 1.0 + x / order * tail
    return 0.5 * x * x * tail


# --- the trend of prices ---------------------------------------------------------------------------------------------


@njit(**_OPTIONS)
def trend(prices, decay, denominator_decay, own_denominator, trend, average, weighted, denominator):
    """Fills trend (B, M−1, N) and, for the adjoint, average, weighted, denominator (B, M, N).

    The sum s = λs + (p − e_before) stands for a(1 − λ)/λ, so that nothing is divided by λ or 1 − λ.
    """
    B, N = decay.shape
    M = prices.shape[1]
    for b in range(B):
        paid = prices[b % prices.shape[0]]
        for i in range(N):
            keep = decay[b, i]
            keep_below = denominator_decay[b, i]
            e = h = paid[0, i]
            s = 0.0
            average[b, 0, i], weighted[b, 0, i], denominator[b, 0, i] = e, s, h
            for m in range(1, M):
                gap = paid[m, i] - e
                e += (1.0 - keep) * gap
                s = keep * s + gap
                if own_denominator:
                    h += (1.0 - keep_below) * (paid[m, i] - h)
                else:
                    h = e
                average[b, m, i], weighted[b, m, i], denominator[b, m, i] = e, s, h
                trend[b, m - 1, i] = (1.0 - keep) ** 2 * s / h


@njit(**_OPTIONS)
def trend_adjoint(
    prices, decay, denominator_decay, own_denominator, average, weighted, denominator,
    trend_bar, prices_bar, decay_bar, denominator_decay_bar,
):  # fmt: skip
    """Adds to the last three."""
    B, N = decay.shape
    M = prices.shape[1]
    for b in range(B):
        row = b % prices.shape[0]
        paid = prices[row]
        for i in range(N):
            keep, keep_below = decay[b, i], denominator_decay[b, i]
            new = 1.0 - keep
            e_bar = s_bar = h_bar = 0.0
            for m in range(M - 1, 0, -1):
                bar = trend_bar[b, m - 1, i] / denominator[b, m, i]
                s_bar += bar * new**2
                lower = bar * new**2 * weighted[b, m, i] / denominator[b, m, i]
                decay_bar[b, i] -= 2.0 * new * bar * weighted[b, m, i]
                if own_denominator:
                    h_bar -= lower
                    prices_bar[row, m, i] += h_bar * (1.0 - keep_below)
                    denominator_decay_bar[b, i] -= h_bar * (paid[m, i] - denominator[b, m - 1, i])
                    h_bar *= keep_below
                else:
                    e_bar -= lower
                gap = paid[m, i] - average[b, m - 1, i]
                gap_bar = s_bar + e_bar * new
                decay_bar[b, i] += s_bar * weighted[b, m - 1, i] - e_bar * gap
                s_bar *= keep
                prices_bar[row, m, i] += gap_bar
                e_bar -= gap_bar
            prices_bar[row, 0, i] += e_bar + h_bar


# --- coarse weights --------------------------------------------------------------------------------------------------


@njit(**_OPTIONS)
def _guard(wanted, least, passes, factors, capped, pinned):
    """Weights with the guardrails in place, in the row of `passes` (N+1, N) whose number is returned.

    Row 0 is `wanted` over its sum; each pass caps, pins what is too small to `least` and rescales the rest. pinned (N,)
    is the number of the pass that did it, 0 for none; factors (N+1,), capped (N+1, N) are those of the passes.
    """
    N = wanted.size
    most = 1.0 - (N - 1) * least
    total = wanted.sum()
    done = 0
    for i in range(N):
        passes[0, i] = wanted[i] / total
        pinned[i] = 0
    while True:
        below = False
        for i in range(N):
            below |= pinned[i] == 0 and passes[done, i] < least
        if not below:
            return done
        done += 1
        rest, count = 0.0, 0
        for i in range(N):
            value = passes[done - 1, i]
            capped[done, i] = value > most
            if pinned[i] == 0 and value < least:
                pinned[i] = done
            if pinned[i] != 0:
                count += 1
                passes[done, i] = least
            else:
                passes[done, i] = min(value, most)
                rest += passes[done, i]
        factors[done] = (1.0 - count * least) / rest
        for i in range(N):
            if pinned[i] == 0:
                passes[done, i] *= factors[done]


@njit(**_OPTIONS)
def _guard_adjoint(wanted, done, passes, factors, capped, pinned, bar):
    """Turns the adjoint of guarded weights (N,) into that of `wanted`, in place."""
    N = wanted.size
    for k in range(done, 0, -1):
        inner, rest = 0.0, 0.0
        for i in range(N):
            if pinned[i] == 0 or pinned[i] > k:
                inner += bar[i] * passes[k, i]
                rest += passes[k, i]
        for i in range(N):
            if 0 < pinned[i] <= k or capped[k, i]:
                bar[i] = 0.0
            else:
                bar[i] = factors[k] * (bar[i] - inner / rest)
    inner, total = 0.0, wanted.sum()
    for i in range(N):
        inner += bar[i] * passes[0, i]
    for i in range(N):
        bar[i] = (bar[i] - inner) / total


@njit(**_OPTIONS)
def _fastest(start, end, period, start_bar, end_bar, bar):
    """A bound on the change a minute of the mean of the linear and the geometric path, and its slopes times `bar`.

    With M the larger end and u the mean before it is normalised, |du| ≤ ½(|end − start| + M |log(end/start)|)/period;
    the sum of u is at least 1 − ½ below·above/(below + above), and changes by no more than half the larger of both.
    A shorter way in the same direction has a bound that is shorter by at least as much.
    """
    N = start.size
    above = below = 0.0
    for i in range(N):
        gain = _log_ratio(end[i], start[i])
        above += end[i] * gain
        below -= start[i] * gain
    if not above + below > 0.0:
        return 0.0
    least = 1.0 - 0.5 * below * above / (below + above)
    most, worst = -1.0, 0
    slope = max(above, below)
    for i in range(N):
        larger = max(start[i], end[i])
        way = 0.5 * (abs(end[i] - start[i]) + larger * abs(_log_ratio(end[i], start[i])))
        speed = (way + 0.5 * larger * slope / least) / (least * period)
        if speed > most:
            most, worst = speed, i
    if bar != 0.0:
        i = worst
        up = end[i] > start[i]
        larger, gain = max(start[i], end[i]), abs(_log_ratio(end[i], start[i]))
        scale = bar / (least * period)
        # By the way of the worst asset: |d| + M |log|.
        far, near = 0.5 * (1.0 + gain + 1.0), 0.5 * (-1.0 - larger / min(start[i], end[i]))
        far += 0.5 * slope / least
        if up:
            end_bar[i] += scale * far
            start_bar[i] += scale * near
        else:
            start_bar[i] += scale * far
            end_bar[i] += scale * near
        slope_bar = scale * 0.5 * larger / least
        least_bar = -scale * 0.5 * larger * slope / least**2 - bar * most / least
        share = 1.0 / (below + above) ** 2
        above_bar = -0.5 * least_bar * below**2 * share
        below_bar = -0.5 * least_bar * above**2 * share
        if above >= below:
            above_bar += slope_bar
        else:
            below_bar += slope_bar
        for j in range(N):
            gain = _log_ratio(end[j], start[j])
            end_bar[j] += above_bar * (gain + 1.0) - below_bar * start[j] / end[j]
            start_bar[j] += below_bar * (1.0 - gain) - above_bar * end[j] / start[j]
    return most


@njit(**_OPTIONS)
def coarse(initial, changes, least, largest, period, curved, start, rate, target):
    """Fills the last three (B, C, N) from weights (B, N), changes (B, C, N); `curved`: for the mean of both paths."""
    B, C, N = changes.shape
    wanted, none = np.empty(N), np.empty(N)
    passes, factors = np.empty((N + 1, N)), np.empty(N + 1)
    capped, pinned = np.zeros((N + 1, N), np.bool_), np.zeros(N, np.int64)
    for b in range(B):
        for c in range(C):
            for i in range(N):
                start[b, c, i] = initial[b, i] if c == 0 else target[b, c - 1, i]
                wanted[i] = start[b, c, i] + changes[b, c, i]
            done = _guard(wanted, least, passes, factors, capped, pinned)
            fastest = 0.0
            if curved:
                fastest = _fastest(start[b, c], passes[done], period, none, none, 0.0)
            else:
                for i in range(N):
                    fastest = max(fastest, abs(passes[done, i] - start[b, c, i]) / period)
            scale = largest / fastest if fastest > largest else 1.0
            for i in range(N):
                rate[b, c, i] = scale * (passes[done, i] - start[b, c, i]) / period
                if scale < 1.0:
                    target[b, c, i] = start[b, c, i] + rate[b, c, i] * period
                else:
                    target[b, c, i] = passes[done, i]


@njit(**_OPTIONS)
def coarse_adjoint(
    changes, least, largest, period, curved, start, start_bar, rate_bar, target_bar, initial_bar, changes_bar
):  # fmt: skip
    """Fills the last two."""
    B, C, N = changes.shape
    wanted, bar, from_bar, moved = np.empty(N), np.empty(N), np.empty(N), np.empty(N)
    passes, factors = np.empty((N + 1, N)), np.empty(N + 1)
    capped, pinned = np.zeros((N + 1, N), np.bool_), np.zeros(N, np.int64)
    none, later = np.empty(N), np.empty(N)
    for b in range(B):
        later[:] = 0.0
        for c in range(C - 1, -1, -1):
            for i in range(N):
                wanted[i] = start[b, c, i] + changes[b, c, i]
            done = _guard(wanted, least, passes, factors, capped, pinned)
            fastest, worst = 0.0, 0
            if curved:
                fastest = _fastest(start[b, c], passes[done], period, none, none, 0.0)
            else:
                for i in range(N):
                    speed = abs(passes[done, i] - start[b, c, i]) / period
                    if speed > fastest:
                        fastest, worst = speed, i
            limited = fastest > largest
            scale = largest / fastest if limited else 1.0
            # target = start + scale·way and rate = scale·way/period, with way = guarded − start.
            scale_bar = 0.0
            for i in range(N):
                target_bar_i = target_bar[b, c, i] + later[i]
                moved[i] = target_bar_i + rate_bar[b, c, i] / period
                scale_bar += moved[i] * (passes[done, i] - start[b, c, i])
                bar[i] = scale * moved[i]
                from_bar[i] = start_bar[b, c, i] + target_bar_i - scale * moved[i]
            if limited:
                fastest_bar = -scale / fastest * scale_bar
                if curved:
                    _fastest(start[b, c], passes[done], period, from_bar, bar, fastest_bar)
                else:
                    signed = fastest_bar / period if passes[done, worst] > start[b, c, worst] else -fastest_bar / period
                    bar[worst] += signed
                    from_bar[worst] -= signed
            _guard_adjoint(wanted, done, passes, factors, capped, pinned, bar)
            for i in range(N):
                changes_bar[b, c, i] = bar[i]
                later[i] = from_bar[i] + bar[i]
        initial_bar[b] = later


# --- reserves without a fee ------------------------------------------------------------------------------------------


@njit(**_OPTIONS)
def _free_steps(before, now, paid_before, paid, steps, shares, squares):
    """Fills steps with w log(p'/p) − w' log(w'/w) and shares with w'/p', element by element; all 1-D.

    One division serves all three, in a loop without branches, which the compiler makes vectors of.
    """
    for i in range(steps.size):
        paid_sum, weight_sum = paid[i] + paid_before[i], now[i] + before[i]
        inverse = 1.0 / (paid[i] * paid_sum * weight_sum)
        z = (paid[i] - paid_before[i]) * (paid[i] * weight_sum * inverse)
        v = (now[i] - before[i]) * (paid[i] * paid_sum * inverse)
        shares[i] = now[i] * (paid_sum * weight_sum * inverse)
        y, x = z * z, v * v
        squares[i] = y + x
        z += z * y * (1 / 3 + y * (1 / 5 + y * (1 / 7)))
        v += v * x * (1 / 3 + x * (1 / 5 + x * (1 / 7)))
        steps[i] = 2.0 * (before[i] * z - now[i] * v)
    near = True
    for i in range(steps.size):
        near &= squares[i] < _NEARER**2
    if not near:
        for i in range(steps.size):
            steps[i] = before[i] * _log_ratio(paid[i], paid_before[i]) - now[i] * _log_ratio(now[i], before[i])
            shares[i] = now[i] / paid[i]


@njit(**_OPTIONS)
def reserves_free(initial, weights, prices, reserves):
    """Fills reserves (B, T, N): wV/p with log V = Σ w Δlog p − Σ w' Δlog w over all rows, and what was off at first."""
    B, T, N = weights.shape
    scale, grown = np.empty(N), np.empty(_BLOCK)
    steps, squares = np.empty(_BLOCK * N), np.empty(_BLOCK * N)
    for b in range(B):
        paid, weight, held = prices[b % prices.shape[0]].reshape(T * N), weights[b].reshape(T * N), reserves[b]
        flat = held.reshape(T * N)
        for i in range(N):
            scale[i] = initial[b, i] * paid[i] / weight[i]
            held[0, i] = initial[b, i]
        log_value = 0.0
        for first in range(1, T, _BLOCK):
            low, high = first * N, min(first + _BLOCK, T) * N
            _free_steps(
                weight[low - N : high - N], weight[low:high], paid[low - N : high - N], paid[low:high],
                steps[: high - low], flat[low:high], squares,
            )  # fmt: skip
            count = min(_BLOCK, T - first)
            begin, farthest = math.exp(log_value), 0.0
            passed, at = 0.0, 0
            for t in range(count):
                for _ in range(N):
                    passed += steps[at]
                    at += 1
                grown[t] = passed
                farthest = max(farthest, abs(passed))
            log_value += passed
            if farthest < _SMALL:
                for t in range(count):
                    x = grown[t]
                    tail = 1.0 + x * (1 / 5 + x * (1 / 30 + x * (1 / 210 + x * (1 / 1680))))
                    grown[t] = begin * (1.0 + x * (1.0 + x * (1 / 2 + x * (1 / 6 + x * (1 / 24) * tail))))
            else:
                for t in range(count):
                    grown[t] = begin * math.exp(grown[t])
            at = low
            for t in range(count):
                for i in range(N):
                    flat[at] *= scale[i] * grown[t]
                    at += 1


@njit(**_OPTIONS)
def reserves_free_adjoint(
    initial, weights, prices, reserves, reserves_bar, with_prices, initial_bar, weights_bar, prices_bar
):  # fmt: skip
    """Fills the adjoints of initial reserves and weights, adds to that of prices where it is wanted."""
    B, T, N = weights.shape
    whole = np.empty(N)
    for b in range(B):
        row = b % prices.shape[0]
        paid = prices[row]
        value_bar = 0.0
        for i in range(N):
            whole[i] = 0.0
            weights_bar[b, T - 1, i] = 0.0
        for t in range(T - 1, 0, -1):
            for i in range(N):
                elastic = reserves_bar[b, t, i] * reserves[b, t, i]
                value_bar += elastic
                whole[i] += elastic
                weights_bar[b, t, i] += elastic / weights[b, t, i]
                if with_prices:
                    prices_bar[row, t, i] -= elastic / paid[t, i]
            for i in range(N):
                before, now = weights[b, t - 1, i], weights[b, t, i]
                weights_bar[b, t - 1, i] = value_bar * _log_ratio(paid[t, i], paid[t - 1, i])
                if now != before:
                    weights_bar[b, t, i] -= value_bar * (_log_ratio(now, before) + 1.0)
                    weights_bar[b, t - 1, i] += value_bar * now / before
                else:
                    weights_bar[b, t, i] -= value_bar
                    weights_bar[b, t - 1, i] += value_bar
                if with_prices:
                    prices_bar[row, t, i] += value_bar * before / paid[t, i]
                    prices_bar[row, t - 1, i] -= value_bar * before / paid[t - 1, i]
        for i in range(N):
            initial_bar[b, i] = reserves_bar[b, 0, i] + whole[i] / initial[b, i]
            weights_bar[b, 0, i] -= whole[i] / weights[b, 0, i]
            if with_prices:
                prices_bar[row, 0, i] += whole[i] / paid[0, i]


# --- reserves with fees ----------------------------------------------------------------------------------------------


@njit(**_OPTIONS)
def _trade(held, weights, prices, gamma, gas, rebalancing, noise, take, after, side, logs):
    """The most profitable trade at prices (N,), if there is one that pays: fills after, side (N,), logs (N,).

    Returns whether it happens, log μ − log of the largest pR/w, and by what noise volume multiplies reserves. logs are
    those of pR/w over the largest.
    """
    N = held.size
    low, high = np.inf, 0.0
    for i in range(N):
        logs[i] = prices[i] * held[i] / weights[i]
        low, high = min(low, logs[i]), max(high, logs[i])
        after[i] = held[i]
        side[i] = KEPT
    if low >= gamma * high:
        return False, 0.0, 1.0
    lowest = 0.0
    for i in range(N):
        logs[i] = _log_ratio(logs[i], high)
        lowest = min(lowest, logs[i])
    log_gamma = math.log(gamma)
    # Σ w (log π̂ − log π) rises in log μ from ≤ 0 at `left` to ≥ 0 at `right`; Newton's step is exact on each piece.
    left, right = lowest - log_gamma, 0.0
    level = 0.5 * (left + right)
    for _ in range(_ROUNDS):
        moved, weight, pull = False, 0.0, 0.0
        for i in range(N):
            to = IN if logs[i] < level + log_gamma else OUT if logs[i] > level else KEPT
            moved |= to != side[i]
            side[i] = to
            if to != KEPT:
                weight += weights[i]
                pull += weights[i] * (logs[i] - log_gamma if to == IN else logs[i])
        if not moved:
            break
        root = pull / weight
        if root > level:
            left = level
        else:
            right = level
        level = root if left <= root <= right else 0.5 * (left + right)
    mu = high * math.exp(level)
    if gas > 0.0 or rebalancing > 0.0:
        # As Σ over assets out of w·a equals Σ over assets in of w·b, the profit is a sum of terms that are all ≥ 0.
        profit, volume = 0.0, 0.0
        for i in range(N):
            if side[i] == OUT:
                profit += weights[i] * _beyond_linear(logs[i] - level)
                volume += weights[i] * math.expm1(logs[i] - level)
            elif side[i] == IN:
                profit += weights[i] * _beyond_linear(logs[i] - level - log_gamma)
                volume -= weights[i] * math.expm1(logs[i] - level - log_gamma)
        if mu * profit - gas < 0.5 * rebalancing * mu * volume:
            for i in range(N):
                side[i] = KEPT
            return False, 0.0, 1.0
    bought, value = 0.0, 0.0
    for i in range(N):
        if side[i] != KEPT:
            after[i] = weights[i] * mu / prices[i]
        if side[i] == IN:
            after[i] -= held[i] * (1.0 - gamma) / gamma
            bought += prices[i] * (after[i] - held[i])
        value += prices[i] * after[i]
    scale = 1.0 + noise * bought / value
    for i in range(N):
        taken = take * (after[i] - held[i]) if side[i] == IN else 0.0
        after[i] = scale * after[i] - taken
    return True, level, scale


@njit(**_OPTIONS)
def _trade_adjoint(
    held, weights, prices, gamma, noise, take, after, side, logs, level, scale, bar, weights_bar, prices_bar
):  # fmt: skip
    """Turns the adjoint of reserves after a trade (N,) into that of reserves before it; adds to the last two."""
    N = held.size
    log_gamma = math.log(gamma)
    bought, value, scale_bar = 0.0, 0.0, 0.0
    for i in range(N):
        if side[i] == IN:  # after = scale·traded − take·(traded − held)
            after[i] = (after[i] - take * held[i]) / (scale - take)
            bought += prices[i] * (after[i] - held[i])
        else:
            after[i] /= scale
        value += prices[i] * after[i]
        scale_bar += bar[i] * after[i]
    bought_bar, value_bar = noise * scale_bar / value, -noise * bought * scale_bar / value**2
    mu_bar, weight = 0.0, 0.0  # of log μ
    for i in range(N):
        traded_bar, held_bar = scale * bar[i] + value_bar * prices[i], 0.0
        prices_bar[i] += value_bar * after[i]
        if side[i] == IN:
            traded_bar += bought_bar * prices[i] - take * bar[i]
            held_bar = take * bar[i] - bought_bar * prices[i] - traded_bar * (1.0 - gamma) / gamma
            prices_bar[i] += bought_bar * (after[i] - held[i])
        if side[i] == KEPT:
            bar[i] = traded_bar
            continue
        target = after[i] + (held[i] * (1.0 - gamma) / gamma if side[i] == IN else 0.0)  # wμ/p
        mu_bar += traded_bar * target
        weights_bar[i] += traded_bar * target / weights[i]
        prices_bar[i] -= traded_bar * target / prices[i]
        bar[i] = held_bar
        weight += weights[i]
    for i in range(N):
        if side[i] != KEPT:
            share = mu_bar / weight
            bar[i] += share * weights[i] / held[i]
            prices_bar[i] += share * weights[i] / prices[i]
            weights_bar[i] += share * (logs[i] - (log_gamma if side[i] == IN else 0.0) - 1.0 - level)


@njit(**_OPTIONS)
def reserves_fees(initial, weights, prices, gamma, gas, rebalancing, noise, take, every, reserves):
    """Fills reserves (B, T, N)."""
    B, T, N = weights.shape
    after, logs, side = np.empty(N), np.empty(N), np.empty(N, np.int64)
    held = np.empty(N)
    for b in range(B):
        paid = prices[b % prices.shape[0]]
        for i in range(N):
            held[i] = initial[b, i]
            reserves[b, 0, i] = initial[b, i]
        for t in range(1, T):
            if t % every == 0:
                for step in range(2):
                    _trade(
                        held, weights[b, t - every + step * every], paid[t], gamma, gas, rebalancing, noise, take,
                        after, side, logs,
                    )  # fmt: skip
                    held, after = after, held
            for i in range(N):
                reserves[b, t, i] = held[i]


@njit(**_OPTIONS)
def reserves_fees_adjoint(
    initial, weights, prices, gamma, gas, rebalancing, noise, take, every, reserves, reserves_bar,
    initial_bar, weights_bar, prices_bar,
):  # fmt: skip
    """Fills the adjoint of initial reserves, adds to the last two; trades are made again, row by row."""
    B, T, N = weights.shape
    bar = np.empty(N)
    middle, first_logs, first_side = np.empty(N), np.empty(N), np.empty(N, np.int64)
    after, logs, side = np.empty(N), np.empty(N), np.empty(N, np.int64)
    for b in range(B):
        row = b % prices.shape[0]
        paid = prices[row]
        bar[:] = 0.0
        for t in range(T - 1, 0, -1):
            for i in range(N):
                bar[i] += reserves_bar[b, t, i]
            if t % every == 0:
                old, new = weights[b, t - every], weights[b, t]
                held = reserves[b, t - 1]
                first, first_level, first_scale = _trade(
                    held, old, paid[t], gamma, gas, rebalancing, noise, take, middle, first_side, first_logs
                )  # fmt: skip
                second, level, scale = _trade(
                    middle, new, paid[t], gamma, gas, rebalancing, noise, take, after, side, logs
                )  # fmt: skip
                if second:
                    _trade_adjoint(
                        middle, new, paid[t], gamma, noise, take, after, side, logs, level, scale, bar,
                        weights_bar[b, t], prices_bar[row, t],
                    )  # fmt: skip
                if first:
                    _trade_adjoint(
                        held, old, paid[t], gamma, noise, take, middle, first_side, first_logs, first_level,
                        first_scale, bar, weights_bar[b, t - every], prices_bar[row, t],
                    )  # fmt: skip
        for i in range(N):
            initial_bar[b, i] = bar[i] + reserves_bar[b, 0, i]
