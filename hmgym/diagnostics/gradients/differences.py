"""Gradient of the return of a rollout against central differences, along the length of the rollout.

For every market the gradient g of its return over H months in the parameters of its policy, feedback through
observations included, and unit directions d (g itself, and random ones):

    error = |g·d − (R(φ + h d) − R(φ − h d)) / 2h| / |g|

Demand has kinks, and a ruin is a jump. Where one lies between φ − h d and φ + h d the difference is no derivative. A
jump is known by who was ruined at the two ends, a kink (smoothed: a sharp bend) by a second, smaller step, whose
difference then is another number.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmgym.agents.analytic_policy_gradient import WindowSettings
from hmgym.agents.networks import SquashedGaussianPolicy
from hmgym.analysis.figures import MUTED, SERIES, layout, log_scale, new_figure, plain, save
from hmgym.diagnostics.gradients.reporting import counted, format_table, quantiles, share, title
from hmgym.diagnostics.gradients.rollouts import OwnParameters, Sample, Setting, parameters_of

Array = NDArray[np.float64]
_TINY = 1e-300


@dataclass(frozen=True, kw_only=True)
class DifferenceSettings:
    """What is compared.

    Attributes:
        months: lengths of the rollout.
        smoothing: of the clearing, 0 is exact.
        seeds: markets, each with its own draws and its own parameters.
        directions: random ones, besides the gradient itself.
        step: h.
        smaller_step: as a share of `step`.
        tolerance: two steps whose differences are further apart than this share of |g| have met a kink.
        rounding: of a return; what it explains is no kink.
        spread: standard deviation of what is added to every parameter, so that no market has another one's policy.
        seed: of everything.
    """

    months: tuple[int, ...] = (1, 2, 3, 6, 12, 24)
    smoothing: tuple[float, ...] = (0.0, 1e-4, 1e-3, 1e-2)
    seeds: int = 64
    directions: int = 4
    step: float = 1e-5
    smaller_step: float = 0.25
    tolerance: float = 1e-5
    rounding: float = 1e-13
    spread: float = 0.1
    seed: int = 0


def measure(setting: Setting, policy: SquashedGaussianPolicy, settings: DifferenceSettings) -> dict[str, Any]:
    """Errors by length and smoothing, ready for JSON."""
    random = torch.Generator().manual_seed(settings.seed)
    center = parameters_of(policy, setting.num_markets)
    center += settings.spread * torch.randn(center.shape, generator=random, dtype=torch.float64)
    cases = [(months, tau) for tau in settings.smoothing for months in settings.months]
    rows = []
    for months, tau in counted(cases, f"differences {title(setting.env_id)}"):
        found = _compare(setting, policy, settings, center, months, tau)
        moved = found.length > 0.0
        relative = found.error[:, moved] / found.length[moved]
        kinked, jumped = found.kinked[:, moved], found.jumped[:, moved]
        smooth = ~kinked & ~jumped
        rows.append(
            {
                "months": months, "smoothing": tau, "count": int(relative.size),
                "jumped": share(jumped), "kinked": share(kinked & ~jumped),
                "all": quantiles(relative), "away_from_kinks": quantiles(relative[smooth]),
                "along_gradient": quantiles(relative[0][smooth[0]]), "gradient": quantiles(found.length),
                "flat_markets": int((~moved).sum()),
                "worst_slope_where_flat": float(found.error[:, ~moved].max(initial=0.0)),
            }
        )  # fmt: skip
    return {"env_id": setting.env_id, "settings": asdict(settings), "rows": rows}


class _Comparison(NamedTuple):
    """Of every direction, the gradient's own first, and every market."""

    error: Array  # (directions, E)
    kinked: NDArray[np.bool_]  # (directions, E) two steps disagree
    jumped: NDArray[np.bool_]  # (directions, E) others are ruined at the two ends
    length: Array  # (E,) of the gradient


def _compare(
    setting: Setting, policy: SquashedGaussianPolicy, settings: DifferenceSettings, center: Tensor, months: int,
    tau: float,
) -> _Comparison:  # fmt: skip
    window = WindowSettings(horizon=months, feedback=True, smoothing=tau)
    agent = OwnParameters(setting.markets(settings.seed, tau), policy, window, settings.seed)
    start = agent.state_dict()

    def rollout(parameters: Tensor) -> Sample:
        agent.load_state_dict(start)
        return agent.sample(parameters)

    leaf = center.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(rollout(leaf).returns.sum(), leaf)
    length = gradient.norm(dim=1)
    random = torch.Generator().manual_seed(settings.seed + 1)
    steps = (settings.step, settings.smaller_step * settings.step)
    doubt = settings.tolerance * length + settings.rounding / steps[1]
    errors, kinked, jumped = [], [], []
    for number in range(settings.directions + 1):
        direction = gradient
        if number:
            direction = torch.randn(center.shape, generator=random, dtype=torch.float64)
        direction = direction / direction.norm(dim=1, keepdim=True).clamp(min=_TINY)
        slopes, other = [], torch.zeros(len(center), dtype=torch.bool)
        for step in steps:
            with torch.no_grad():
                above, below = rollout(center + step * direction), rollout(center - step * direction)
            slopes.append((above.returns - below.returns) / (2.0 * step))
            other |= (above.ruined != below.ruined).any(-1).any(0)
        errors.append(((gradient * direction).sum(1) - slopes[0]).abs())
        kinked.append((slopes[0] - slopes[1]).abs() > doubt)
        jumped.append(other)
    error, kink, jump = (torch.stack(part).numpy() for part in (errors, kinked, jumped))
    return _Comparison(error, kink, jump, length.numpy())


def table(results: list[dict[str, Any]]) -> str:
    """One line a length and smoothing."""
    header = ["environment", "tau", "months", "median", "95 %", "worst", "worst elsewhere", "kinks", "jumps"]
    lines = [
        [
            title(result["env_id"]), f"{row['smoothing']:g}", str(row["months"]), f"{row['all']['median']:.1e}",
            f"{row['all']['q95']:.1e}", f"{row['all']['worst']:.1e}", f"{row['away_from_kinks']['worst']:.1e}",
            f"{row['kinked']:.2%}", f"{row['jumped']:.2%}",
        ]
        for result in results
        for row in result["rows"]
    ]  # fmt: skip
    return format_table(header, lines)


@layout()
def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Error against length: median, and worst away from kinks."""
    figure = new_figure(3.0)
    panels = figure.subplots(1, len(results), squeeze=False, sharey=True)[0]
    for panel, result in zip(panels, results, strict=True):
        log_scale(panel, "x", result["settings"]["months"])
        log_scale(panel, "y")
        for tau, colour in zip(result["settings"]["smoothing"], SERIES, strict=False):
            rows = [row for row in result["rows"] if row["smoothing"] == tau]
            months = [row["months"] for row in rows]
            name = "exact" if tau == 0.0 else f"τ = {plain(tau)}"
            panel.plot(months, [row["all"]["median"] for row in rows], "o-", color=colour, label=name)
            worst = np.array([row["away_from_kinks"]["worst"] for row in rows], np.float64)
            panel.plot(months, worst, "v:", color=colour, lw=1.0)
        panel.plot([], [], "v:", color=MUTED, label="worst away from kinks")
        panel.axhline(1e-4, color=MUTED, lw=0.6)
        panel.set(title=title(result["env_id"]), xlabel="months")
    panels[0].set_ylabel("relative error, median")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    save(figure, path)
