"""Settlement: who pays whom after the market has cleared.

Every payment leaves one account and reaches another; the sum of all cash, investors' and named accounts together,
never changes. Order: trades and trading cost; interest and dividends; the close, where learners' unit values are
struck; flows toward target wealth; consumption or issuance; ruin.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hmgym.market.config import MarketConfig


@dataclass(frozen=True)
class Settlement:
    """Accounts after a period."""

    cash: Tensor  # (E, B)
    wealth: Tensor  # (E, B)
    unit_value: Tensor  # (E, L)
    reward: Tensor  # (E, L)
    ruined: Tensor  # (E, B) bool
    balances: Tensor  # (E, 5), in the order of ACCOUNTS


def settle(
    config: MarketConfig,
    *,
    prices: Tensor,
    holdings: Tensor,
    old_holdings: Tensor,
    cash: Tensor,
    wealth: Tensor,
    unit_value: Tensor,
    target_share: Tensor,
    balances: Tensor,
    value: Tensor,
    supply: Tensor,
    estate: Tensor | None = None,
) -> Settlement:
    """Settle one period at the clearing prices.

    Args:
        config: rates.
        prices: (E, N) clearing prices; holdings: (E, B, N) after the trade; old_holdings: (E, B, N) before it.
        cash: (E, B) before the trade; wealth: (E, B) at the last close, what unit values are returns on.
        unit_value: (E, L); target_share: (E, B); balances: (E, 5) of the named accounts.
        value: (E, N) fundamental value, which dividends are a share of; supply: (E, N) shares.
        estate: (E, N) shares that the default fund sold in this clearing, None for none.
    """
    n_learners = unit_value.shape[-1]
    price = prices.unsqueeze(1)
    trades = (holdings - old_holdings) * price
    cash = cash - trades.sum(-1)
    costs: Tensor | None = None
    if config.trading_cost:
        cost = config.trading_cost * trades.abs().sum(-1)
        cash, costs = cash - cost, cost.sum(-1)
    interest = config.interest_rate * cash
    dividends = (holdings * (config.dividend_yield * value).unsqueeze(1)).sum(-1)
    cash = cash + interest + dividends
    invested = (holdings * price).sum(-1)
    closing = cash + invested  # wealth at the close, before flows

    target = target_share * closing.sum(-1, keepdim=True)
    positive = closing.clamp(min=0.0)
    market_value = (supply * prices).sum(-1, keepdim=True)
    consumption = config.cash_adjustment * (cash.sum(-1, keepdim=True) - config.cash_ratio * market_value)
    eaten_share = consumption / positive.sum(-1, keepdim=True)
    cash = cash + config.flow_rate * (target - closing) - positive * eaten_share
    ended = cash + invested
    ruined = ended < config.ruin_fraction * target
    fund: Tensor | None = None
    reward = unit_value
    if n_learners:
        start = wealth[:, :n_learners]
        raw = unit_value * (closing[:, :n_learners] / start)
        fell = raw < config.ruin_fraction
        ruined = torch.cat([fell, ruined[:, n_learners:]], 1)
        floored = raw.clamp(min=config.ruin_fraction)
        if bool(fell.any()):
            # The fund's holders get the floor: the default fund tops the fund up to floor × units.
            topup = (floored - raw) * (start / unit_value)
            cash = torch.cat([cash[:, :n_learners] + topup, cash[:, n_learners:]], 1)
            ended = cash + invested
            fund = -topup.sum(-1)
        reward = torch.log(floored / unit_value)
        unit_value = floored
    if estate is not None:
        sale = estate * prices
        fee = config.trading_cost * sale.abs().sum(-1)
        proceeds = sale.sum(-1) - fee
        fund = proceeds if fund is None else fund + proceeds
        costs = fee if costs is None else costs + fee
    consumed = consumption.squeeze(-1)
    eaten = consumed.clamp(min=0.0)
    nothing = torch.zeros_like(consumed)
    paid = torch.stack(
        [
            eaten,  # households
            consumed - eaten - dividends.sum(-1),  # issuer
            -interest.sum(-1),  # bank
            nothing if costs is None else costs,  # exchange
            nothing if fund is None else fund,  # default fund
        ],
        -1,
    )
    return Settlement(
        cash=cash, wealth=ended, unit_value=unit_value, reward=reward, ruined=ruined, balances=balances + paid
    )
