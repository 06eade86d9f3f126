"""What a market of funds carries from month to month."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class FundsTraits:
    """What does not change."""

    fees: Tensor  # (E, F) of net asset value a year, to the management companies
    information_costs: Tensor  # (E, F) of net asset value a year, from them to the vendor
    risk_aversion: Tensor  # (E, R) λ of the retail investors
    pull: Tensor  # (E, R, 1) share of the gap to value that they expect to close in a month
    signal_weights: Tensor  # (E, M, K) of the managers, style included
    signal_share: Tensor  # (E, M, 1, 2) θ: how much of a private value or growth signal is the true one


@dataclass(frozen=True, kw_only=True)
class FundsState:
    """E markets of R retail investors and F funds, M of them active; all learners share one private signal."""

    exogenous_fields: ClassVar[tuple[str, ...]] = ("traits", "target_share", "signals", "errors", "noise")

    traits: FundsTraits
    target_share: Tensor  # (E, R) of retail wealth, which flows in kind lead to
    units: Tensor  # (E, R, F) of each fund that each retail investor holds
    unit_value: Tensor  # (E, F) net asset value a unit, money, at the end of the month
    record: Tensor  # (E, F) average monthly return over an index portfolio with the same share of cash, after fees
    trend: Tensor  # (E, N) average monthly log return, which momentum funds go by
    signals: Tensor  # (E, N, K) the true signals z
    errors: Tensor  # (E, M, N, 2) the managers' own noise in the value and growth signals
    noise: Tensor  # (E, R, 2 N + F) of the retail investors' policy, standard normal

    @property
    def managers(self) -> int:
        """M, active funds with the learners, who are the first of them."""
        return int(self.traits.signal_weights.shape[1])
