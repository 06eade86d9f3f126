"""What smoothing of the clearing buys and costs.

Where a learner's portfolio stands in a corner of its limits, a small change of its action changes nothing: the exact
gradient of the reward is zero. Smoothed, every limit has a gradient, of another market. Measured against τ: the share
of months in which the gradient of the rewards of two months in the first month's action is zero, or weak (below a
hundredth of the median exact gradient that is not zero); how far prices and
gradients are from the exact ones of the same state; and what policies trained on it are worth on the exact market.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hmgym.agents.evaluation import evaluate
from hmgym.agents.networks import SquashedGaussianPolicy
from hmgym.analysis.figures import MUTED, SERIES, layout, log_scale, new_figure, save
from hmgym.diagnostics.gradients.reporting import counted, format_table, quantiles, title
from hmgym.diagnostics.gradients.rollouts import Setting, run_agent
from hmgym.envs.differentiable import DifferentiableMarkets

SCHEDULES: dict[str, dict[str, float]] = {
    "exact": {"smoothing": 0.0},
    "constant 1e-2": {"smoothing": 1e-2},
    "1e-1 to 1e-4": {"smoothing": 1e-1, "last_smoothing": 1e-4},
    "1e-2 to 1e-4": {"smoothing": 1e-2, "last_smoothing": 1e-4},
}
"""Hyperparameters of the gradient agents, by name."""

_WEAK = 1e-2  # of the median gradient among those that are not zero


@dataclass(frozen=True, kw_only=True)
class SmoothingSettings:
    """What is compared.

    Attributes:
        smoothing: τ, besides the exact 0.
        months: of the rollout whose states are looked at, every second one.
        deviation: of the exploring policy that the rollout follows, before tanh.
        seeds: training runs of each schedule; 0 trains nothing.
        timesteps: of a training run.
        episodes: that a trained policy is evaluated on.
        seed: of everything.
    """

    smoothing: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    months: int = 24
    deviation: float = 0.5
    seeds: int = 2
    timesteps: int = 16_384
    episodes: int = 512
    seed: int = 0


def measure(setting: Setting, policy: SquashedGaussianPolicy, settings: SmoothingSettings) -> dict[str, Any]:
    """Shares of zero gradients, biases and results of training, ready for JSON."""
    rows = _biases(setting, policy, settings)
    return {
        "env_id": setting.env_id, "settings": asdict(settings), "rows": rows, "training": _training(setting, settings),
    }  # fmt: skip


def _biases(setting: Setting, policy: SquashedGaussianPolicy, settings: SmoothingSettings) -> list[dict[str, Any]]:
    markets = setting.markets(settings.seed)
    random = torch.Generator().manual_seed(settings.seed)
    taus = (*settings.smoothing, 0.0)  # the exact market last: its state is the one that goes on
    found: dict[float, list[tuple[Tensor, Tensor]]] = {tau: [] for tau in taus}
    for _ in counted(range(settings.months // 2), f"smoothing {title(setting.env_id)}"):
        markets.restart()
        start = markets.state_dict()
        shape = (2, setting.num_markets, 1, policy.action_size)
        noise = settings.deviation * torch.randn(shape, generator=random, dtype=torch.float64) / policy.deviation
        for tau in taus:
            markets.load_state_dict(start)
            markets.smoothing = tau
            found[tau].append(_two_months(markets, policy, noise))
            markets.detach()
    exact_prices, exact = (torch.cat(part) for part in zip(*found[0.0], strict=True))
    length = exact.norm(dim=1)
    moved = length > 0.0
    weak = _WEAK * float(length[moved].median()) if bool(moved.any()) else 0.0
    rows = []
    for tau in sorted(taus):
        prices, gradient = (torch.cat(part) for part in zip(*found[tau], strict=True))
        gap = (gradient - exact).norm(dim=1)
        own = gradient.norm(dim=1)
        cosine = (gradient * exact).sum(1)[moved] / (own * length)[moved].clamp(min=1e-300)
        rows.append(
            {
                "smoothing": tau, "count": len(own), "zero": float((own == 0.0).double().mean()),
                "weak": float((own < weak).double().mean()),
                "zero_by_entry": (gradient == 0.0).double().mean(0).tolist(),
                "price_bias": quantiles((prices - exact_prices).abs().amax(1)),
                "gradient_bias": quantiles((gap / length)[moved]),
                "mean_gradient_bias": float((gradient - exact).mean(0).norm() / exact.mean(0).norm()),
                "cosine": quantiles(cosine), "gradient_where_exact_is_zero": quantiles(own[~moved]),
                "gradient": quantiles(own), "variance": float(gradient.var(0).sum()),
            }
        )  # fmt: skip
    return rows


def _two_months(markets: DifferentiableMarkets, policy: SquashedGaussianPolicy, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Log prices (E, N) of the first month, and the gradient (E, size) of both months' rewards in its action."""
    action = policy(markets.observe(), noise[0])[0].detach().requires_grad_()
    first = markets.step(action)
    prices = torch.log(markets.state.prices).detach()
    alive = ~first.ended
    markets.restart()
    second = markets.step(policy(markets.observe(), noise[1])[0].detach())
    rewards = first.reward + torch.where(alive, second.reward, torch.zeros_like(second.reward))
    (gradient,) = torch.autograd.grad(rewards.sum(), action)
    return prices, gradient[:, 0]


def _training(setting: Setting, settings: SmoothingSettings) -> list[dict[str, Any]]:
    """Mean returns on the exact market of policies trained by every schedule."""
    runs = [(name, seed) for seed in range(settings.seeds) for name in SCHEDULES]
    returns: dict[str, list[float]] = {name: [] for name in SCHEDULES}
    for name, seed in counted(runs, f"training {title(setting.env_id)}"):
        policy = run_agent(setting, settings.seed + seed, settings.timesteps, SCHEDULES[name])
        run = evaluate(
            policy, setting.env_id, episodes=settings.episodes, env_kwargs=dict(setting.env_kwargs), name=name
        )
        returns[name].append(float(run.returns.mean()))
    return [
        {"schedule": name, "returns": values, "mean": float(np.mean(values)), **SCHEDULES[name]}
        for name, values in returns.items()
        if values
    ]


def table(results: list[dict[str, Any]]) -> str:
    """One line a smoothing, then one a schedule."""
    header = [
        "environment", "tau", "zero gradient", "weak", "price bias", "95 %", "gradient bias", "of its mean", "cosine",
        "variance",
    ]  # fmt: skip
    lines, trained = [], []
    for result in results:
        name = title(result["env_id"])
        for row in result["rows"]:
            lines.append(
                [
                    name, f"{row['smoothing']:g}", f"{row['zero']:.1%}", f"{row['weak']:.1%}",
                    f"{row['price_bias']['median']:.1e}", f"{row['price_bias']['q95']:.1e}",
                    f"{row['gradient_bias']['median']:.1e}",
                    f"{row['mean_gradient_bias']:.1e}", f"{row['cosine']['median']:.3f}", f"{row['variance']:.1e}",
                ]
            )  # fmt: skip
        for row in result["training"]:
            each = " ".join(f"{value:.3f}" for value in row["returns"])
            trained.append([name, row["schedule"], f"{row['mean']:.3f}", each])
    text = format_table(header, lines)
    if trained:
        text += "\n\n" + format_table(["environment", "schedule", "mean return", "by seed"], trained)
    return text


@layout()
def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Share of weak gradients and biases against τ; returns by schedule, where any were trained."""
    figure = new_figure(5.0)
    (shares, prices), (gradients, training) = figure.subplots(2, 2)
    for panel in (shares, prices, gradients):
        log_scale(panel, "x", [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1])
        panel.set_xlabel("τ")
    for panel in (prices, gradients):
        log_scale(panel, "y")
    for number, (result, colour) in enumerate(zip(results, SERIES, strict=False)):
        rows = [row for row in result["rows"] if row["smoothing"] > 0.0]
        taus = [row["smoothing"] for row in rows]
        exact = result["rows"][0]
        shares.plot(taus, [row["weak"] for row in rows], "o-", color=colour, label=title(result["env_id"]))
        shares.axhline(exact["weak"], color=colour, ls="--", lw=0.8)
        prices.plot(taus, [row["price_bias"]["median"] for row in rows], "o-", color=colour)
        prices.plot(taus, [row["price_bias"]["q95"] for row in rows], ":", color=colour)
        gradients.plot(taus, [row["gradient_bias"]["median"] for row in rows], "o-", color=colour)
        gradients.plot(taus, [row["mean_gradient_bias"] for row in rows], "s--", color=colour)
        for place, row in enumerate(result["training"]):
            at = np.full(len(row["returns"]), place + 0.15 * number)
            base = result["training"][0]["mean"]
            training.plot(at, np.array(row["returns"]) - base, "o", color=colour)
            training.plot(at[:1], [row["mean"] - base], "_", color=colour, ms=16.0)
    shares.plot([], [], "--", color=MUTED, lw=0.8, label="exact")
    shares.yaxis.set_major_formatter(lambda y, _: f"{y:.0%}")
    shares.set(ylabel="months with a weak gradient", ylim=(-0.02, 1.0))
    shares.legend()
    prices.plot([], [], "o-", color=MUTED, label="median")
    prices.plot([], [], ":", color=MUTED, label="95 % quantile")
    prices.set_ylabel("bias of log prices")
    prices.legend()
    gradients.plot([], [], "o-", color=MUTED, label="one market, median")
    gradients.plot([], [], "s--", color=MUTED, label="mean over markets")
    gradients.set_ylabel("bias of the gradient over its length")
    gradients.legend()
    training.set(ylabel="return on the exact market,\nless mean of the exact schedule")
    training.set_xticks(range(len(SCHEDULES)), list(SCHEDULES))
    save(figure, path)
