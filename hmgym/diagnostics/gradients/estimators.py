"""Bias and variance of estimates of the gradient of E[return over H months] in the policy's parameters.

    pathwise       ∇ R(φ, ε, ξ), backpropagated through the market, feedback through observations included
    detached       the same with observations taken as given
    less news      either of them, of the return less the unforeseeable part of the news (what the agents ascend)
    smoothed       the pathwise one of the smoothed market
    score          Σ_t ∇ log π(a_t | o_t) (G_t − b_t), G_t the rewards from month t on: no gradient of the market;
                   b_t is the mean of G_t over the other markets ("score"), or G_t of the same market without
                   exploration ("score, twin"), which takes out what the market does by itself

All share the exploring policy, its noise ε and the shocks ξ, so that differences are estimated better than the terms.
The score estimate is unbiased whatever the return looks like; the pathwise one is where returns are continuous.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hmgym.agents.analytic_policy_gradient import WindowSettings
from hmgym.agents.networks import SquashedGaussianPolicy
from hmgym.analysis.figures import INK, MUTED, SERIES, layout, log_scale, new_figure, save
from hmgym.diagnostics.gradients.moments import Moments
from hmgym.diagnostics.gradients.reporting import counted, format_table, title
from hmgym.diagnostics.gradients.rollouts import MakeMarkets, OwnParameters, Sample, parameters_of

_EXACT = "pathwise"
_RESOLVED = 2.0  # times the variance of its mean that a squared length must be, to be divided by
_TINY = 1e-300


@dataclass(frozen=True, kw_only=True)
class EstimatorSettings:
    """What is estimated.

    Attributes:
        months: H.
        smoothing: of the smoothed estimates.
        samples: markets an estimate is averaged over; a quarter more choose the direction that biases are measured
            along.
        deviation: σ of the exploring policy, before tanh.
        surprise_weight: share of the unforeseeable part of the news that "less news" takes out; 0 leaves these out.
        seed: of everything.
    """

    months: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    smoothing: tuple[float, ...] = (1e-4, 1e-3, 1e-2)
    samples: int = 512
    deviation: float = 0.3
    surprise_weight: float = WindowSettings.surprise_weight
    seed: int = 0


def measure(
    make: MakeMarkets, policy: SquashedGaussianPolicy, settings: EstimatorSettings, label: str
) -> dict[str, Any]:
    """Every estimate's variance and its bias against the exact pathwise one, by H, ready for JSON.

    Args:
        make: from a seed and the smoothing to markets at their start.
        policy: whose gradient is estimated, at its own parameters.
        settings: horizons, sample sizes.
        label: of the progress bar.
    """
    rows = []
    for months in counted(settings.months, label):
        rows += _at(make, policy, settings, months)
    return {"settings": asdict(settings), "rows": rows}


def _at(
    make: MakeMarkets, policy: SquashedGaussianPolicy, settings: EstimatorSettings, months: int
) -> list[dict[str, Any]]:
    size = make(0, 0.0).num_markets
    batches = max(2, round(settings.samples / size))
    pilots = max(1, batches // 4)
    pilot = sum(_pilot(make, policy, settings, months, number) for number in range(batches, batches + pilots))
    assert isinstance(pilot, Tensor)
    direction = pilot / pilot.norm().clamp(min=_TINY)
    moments: dict[str, Moments] = {}
    gaps: dict[str, Moments] = {}
    ruins = 0.0
    for number in range(batches):
        estimates, ruined = _estimates(make, policy, settings, months, number)
        ruins += ruined / batches
        for name, rows in estimates.items():
            moments.setdefault(name, Moments(direction)).add(rows)
            gaps.setdefault(name, Moments(direction)).add(rows - estimates[_EXACT])
    exact = moments[_EXACT]
    length, along = exact.squared_length, exact.along().mean
    resolved = length > _RESOLVED * exact.variance / exact.count and along > 0.0
    found = []
    for name, own in moments.items():
        gap = gaps[name].along()
        relative = gap.ci95[1] - gap.mean
        found.append(
            {
                "months": months, "estimator": name, "samples": gap.count, "variance": own.variance,
                "variance_over_pathwise": own.variance / max(exact.variance, _TINY),
                "bias_over_noise": gap.mean / math.sqrt(max(exact.variance, _TINY)),
                "squared_length": own.squared_length, "along": own.along().mean, "bias": gap.mean,
                "bias_ci95": gap.ci95, "standard_errors": 1.96 * gap.mean / max(relative, _TINY),
                "resolved": resolved, "relative_bias": gap.mean / along if resolved else None,
                "relative_bias_ci95": [end / along for end in gap.ci95] if resolved else None,
                "noise_over_gradient": math.sqrt(own.variance / length) if resolved else None,
                "relative_bias_length": math.sqrt(max(gaps[name].squared_length, 0.0) / length) if resolved else None,
                "ruins_a_market_month": ruins,
            }
        )  # fmt: skip
    return found


def _window(settings: EstimatorSettings, months: int, **changes: Any) -> WindowSettings:
    fixed = {"horizon": months, "deviation": settings.deviation, "surprise_weight": settings.surprise_weight}
    return WindowSettings(**{**fixed, "surprise": "posterior", "feedback": True, **changes})


def _seed(settings: EstimatorSettings, months: int, number: int) -> int:
    return int(np.random.SeedSequence([settings.seed, months, number]).generate_state(1)[0])


def _sample(
    make: MakeMarkets, policy: SquashedGaussianPolicy, settings: EstimatorSettings, months: int, number: int,
    **changes: Any,
) -> tuple[Tensor, Sample]:  # fmt: skip
    """Parameters (E, P), one row a market, and what batch `number` does with them."""
    seed, window = _seed(settings, months, number), _window(settings, months, **changes)
    agent = OwnParameters(make(seed, window.smoothing or 0.0), policy, window, seed)
    leaf = parameters_of(policy, agent.markets.num_markets).requires_grad_()
    return leaf, agent.sample(leaf)


def _gradients(leaf: Tensor, sample: Sample, surprise_weight: float) -> tuple[Tensor, Tensor]:
    """Gradients (E, P) of each market's return, and of the return less the news that nobody could foresee."""
    (whole,) = torch.autograd.grad(sample.returns.sum(), leaf, retain_graph=True)
    if not sample.surprise.requires_grad:
        return whole, whole
    (surprise,) = torch.autograd.grad(sample.surprise.sum(), leaf, retain_graph=True)
    return whole, whole - surprise_weight * surprise


def _pilot(
    make: MakeMarkets, policy: SquashedGaussianPolicy, settings: EstimatorSettings, months: int, number: int
) -> Tensor:
    """Sum over markets of the estimate with the least noise; any direction will do that others' noise is not in."""
    leaf, sample = _sample(make, policy, settings, months, number, feedback=False)
    return _gradients(leaf, sample, settings.surprise_weight)[1].sum(0)


def _estimates(
    make: MakeMarkets, policy: SquashedGaussianPolicy, settings: EstimatorSettings, months: int, number: int
) -> tuple[dict[str, Tensor], float]:
    """Every estimate, one row (E, P) a market, of one batch; and ruins a market and month."""
    leaf, sample = _sample(make, policy, settings, months, number)
    with torch.no_grad():
        _, twin = _sample(make, policy, settings, months, number, deviation=0.0)
    to_go = _to_go(sample.rewards)
    others = (to_go.sum(1, keepdim=True) - to_go) / (to_go.shape[1] - 1)

    def score(baseline: Tensor) -> Tensor:
        weighted = (sample.log_likelihoods * (to_go - baseline)).sum()
        return torch.autograd.grad(weighted, leaf, retain_graph=True)[0]

    estimates = {}
    estimates[_EXACT], less_news = _gradients(leaf, sample, settings.surprise_weight)
    detached = _gradients(
        *_sample(make, policy, settings, months, number, feedback=False), settings.surprise_weight
    )  # fmt: skip
    estimates["detached"] = detached[0]
    if settings.surprise_weight > 0.0:
        estimates |= {"pathwise, less news": less_news, "detached, less news": detached[1]}
    for tau in settings.smoothing:
        smooth = _sample(make, policy, settings, months, number, smoothing=tau)
        estimates[f"smoothed {tau:g}"] = _gradients(*smooth, 0.0)[0]
    estimates |= {"score": score(others), "score, twin": score(_to_go(twin.rewards))}
    return estimates, float(sample.ruined.double().sum(-1).mean())


def _to_go(rewards: Tensor) -> Tensor:
    """Rewards (H, E) from each month on."""
    return rewards.flip(0).cumsum(0).flip(0)


def table(results: list[dict[str, Any]]) -> str:
    """One line a horizon and estimator."""
    header = [
        "environment", "policy", "months", "estimator", "variance / pathwise", "noise / gradient",
        "bias along gradient", "95 %", "bias / noise", "standard errors",
    ]  # fmt: skip
    lines = []
    for result in results:
        for row in result["rows"]:
            shown = ["-"] * 3
            if row["resolved"]:
                low, high = row["relative_bias_ci95"]
                noise, bias = row["noise_over_gradient"], row["relative_bias"]
                shown = [f"{noise:.1f}", f"{bias:+.4f}", f"{low:+.4f} to {high:+.4f}"]
            lines.append(
                [
                    title(result["env_id"]), result["policy"], str(row["months"]), row["estimator"],
                    f"{row['variance_over_pathwise']:.3g}", *shown, f"{row['bias_over_noise']:+.4f}",
                    f"{row['standard_errors']:+.1f}",
                ]
            )  # fmt: skip
    return format_table(header, lines)


_SHOWN = {
    _EXACT: SERIES[0], "detached": SERIES[3], "pathwise, less news": SERIES[2], "detached, less news": SERIES[1],
    "score": SERIES[7], "score, twin": SERIES[4], "smoothed 0.01": SERIES[5],
}  # fmt: skip
"""Estimators in the figures, and their colours; the table and the JSON have all."""

_BIASES = ("detached", "pathwise, less news", "detached, less news", "smoothed 0.01", "score, twin")


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Two figures, a panel an environment and policy: variance of one sample, and bias, both against the horizon."""
    for name, draw in (("variance", _draw_variance), ("bias", _draw_bias)):
        with layout():
            figure = new_figure(2.4 * -(-len(results) // 2) + 0.5)
            panels = figure.subplots(-(-len(results) // 2), 2, squeeze=False, sharex=True).ravel()
            for panel, result in zip(panels, results, strict=False):
                log_scale(panel, "x", sorted({row["months"] for row in result["rows"]}))
                panel.set_title(f"{title(result['env_id'])}, {result['policy']}")
                draw(panel, result["rows"])
            for panel in panels[-2:]:
                panel.set_xlabel("months")
            for panel in panels[len(results) :]:
                panel.set_axis_off()
            panels[0].set_ylabel("variance of one sample" if name == "variance" else "bias along the gradient")
            entries = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
            if entries:
                figure.legend(entries.values(), entries.keys(), loc="outside upper center", ncols=4)
            save(figure, path.with_stem(f"{path.stem}_{name}"))


def _draw_variance(panel: Any, rows: list[dict[str, Any]]) -> None:
    log_scale(panel, "y")
    for name, colour in _SHOWN.items():
        own = [row for row in rows if row["estimator"] == name]
        if own and not name.startswith("smoothed"):
            months, variance = ([row[key] for row in own] for key in ("months", "variance"))
            panel.plot(months, variance, "o-", color=colour, label=name)
    exact = [row for row in rows if row["estimator"] == _EXACT]
    length = [row["squared_length"] if row["resolved"] else np.nan for row in exact]
    panel.plot([row["months"] for row in exact], length, ":", color=INK, label="squared length of the gradient")


def _draw_bias(panel: Any, rows: list[dict[str, Any]]) -> None:
    panel.axhline(0.0, color=MUTED, lw=0.6)
    panel.set_yscale("symlog", linthresh=0.1)
    panel.yaxis.set_major_formatter(lambda y, _: f"{y:+.0%}" if y else "0")
    for number, name in enumerate(_BIASES):
        own = [row for row in rows if row["estimator"] == name and row["resolved"]]
        if own:
            middle = np.array([row["relative_bias"] for row in own])
            ends = np.array([row["relative_bias_ci95"] for row in own])
            beside = 1.07 ** (number - 0.5 * (len(_BIASES) - 1))  # so that intervals do not cover one another
            panel.errorbar(
                beside * np.array([row["months"] for row in own]), middle, np.abs(ends.T - middle), fmt="o", lw=1.0,
                capsize=2.0, color=_SHOWN[name], label=name,
            )  # fmt: skip
