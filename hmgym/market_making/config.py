"""What the market maker's environment runs with: the chain's parameters and its step, in one record."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from hmgym.checks import check_number, integer
from hmgym.market_making.inventory_hjb import InventoryHJB


@dataclass(frozen=True, kw_only=True)
class QuotingConfig:
    """A simulated market and its market maker; the defaults are those of Avellaneda and Stoikov's table.

    Units: those of price, of money (price × share) and of time are the user's own.

    Attributes:
        volatility: σ ≥ 0 of mid, price / √time.
        arrival_rate: A > 0, fills a time at mid.
        depth_decay: k > 0, 1 / price.
        horizon: T > 0, time.
        steps: into which the horizon is cut.
        max_inventory: Q ≥ 1, shares: nothing is bought at Q and nothing sold at −Q.
        running_penalty: φ ≥ 0 of the reward "inventory_penalty", money / (share² time).
        terminal_penalty: a ≥ 0 likewise, money / share².
        risk_aversion: γ ≥ 0 of the baselines that maximise expected utility, 1 / money.
        initial_mid: price.
        drift: μ of mid, price / time.
        impact: ξ ≥ 0, by which a fill moves mid against the market maker, price.

    Raises:
        ValueError: an argument is none of these.
    """

    volatility: float = 2.0
    arrival_rate: float = 140.0
    depth_decay: float = 1.5
    horizon: float = 1.0
    steps: int = 200
    max_inventory: int = 30
    running_penalty: float = 0.2
    terminal_penalty: float = 0.0
    risk_aversion: float = 0.1
    initial_mid: float = 100.0
    drift: float = 0.0
    impact: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", integer("steps", self.steps, 1))
        check_number("initial_mid", self.initial_mid, 0.0, strict=True)
        self.problem("utility"), self.problem("inventory_penalty")  # which check what is theirs

    @property
    def dt(self) -> float:
        """Length of a step, time."""
        return self.horizon / self.steps

    def problem(self, reward: str = "inventory_penalty") -> InventoryHJB:
        """The problem whose solution is the best policy for a reward.

        Args:
            reward: "inventory_penalty", risk neutral with the penalties; "pnl", risk neutral without them; "utility",
                expected utility of profit with the risk aversion γ and no penalty.

        Raises:
            ValueError: `reward` is none of these.
        """
        if reward not in ("inventory_penalty", "pnl", "utility"):
            raise ValueError(f'`reward` must be "inventory_penalty", "pnl" or "utility", got {reward!r}')
        penalised = reward == "inventory_penalty"
        return InventoryHJB(
            volatility=self.volatility, arrival_rate=self.arrival_rate, depth_decay=self.depth_decay,
            horizon=self.horizon, max_inventory=self.max_inventory, drift=self.drift, impact=self.impact,
            risk_aversion=self.risk_aversion if reward == "utility" else 0.0,
            running_penalty=self.running_penalty if penalised else 0.0,
            terminal_penalty=self.terminal_penalty if penalised else 0.0,
        )  # fmt: skip

    def replace(self, **changes: Any) -> QuotingConfig:
        """A copy with some attributes changed, checked again."""
        return dataclasses.replace(self, **changes)
