"""Replacement: newcomers take the seats of investors that were ruined last month."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hmgym.investors import Population
from hmgym.market.state import ACCOUNTS, MarketState


def replace_ruined(population: Population, state: MarketState, newcomers: Tensor) -> tuple[MarketState, Tensor | None]:
    """The state with newcomers on the seats of the ruined, and the estate (E, N) shares, for sale in this clearing.

    A newcomer brings its target wealth, in cash, from the households. The default fund takes an estate's cash and
    positions, pays the households what it was worth at the last close if that is positive, and sells the positions at
    the clearing price: it bears the difference. Where nobody is ruined the state comes back as it was, estate None.
    `newcomers` are the uniforms (E, B, TRAIT_DRAWS) that their traits are drawn from.
    """
    ruined = state.ruined
    if not bool(ruined.any()):
        return state, None
    of_ruined = ruined.to(torch.float64)
    n_learners = state.unit_value.shape[1]
    endowment = state.target_share * state.wealth.sum(-1, keepdim=True)
    estate_cash = (state.cash * of_ruined).sum(-1)
    estate_worth = (state.wealth.clamp(min=0.0) * of_ruined).sum(-1)
    paid = dict.fromkeys(ACCOUNTS, torch.zeros_like(estate_cash))
    paid["households"] = estate_worth - (endowment * of_ruined).sum(-1)
    paid["default_fund"] = estate_cash - estate_worth
    kept = (~ruined).to(torch.float64).unsqueeze(-1)
    replaced = replace(
        state,
        cash=torch.where(ruined, endowment, state.cash),
        wealth=torch.where(ruined, endowment, state.wealth),
        holdings=state.holdings * kept,
        unit_value=torch.where(ruined[:, :n_learners], 1.0, state.unit_value),
        balances=state.balances + torch.stack(list(paid.values()), -1),
        error=state.error * kept,
        sentiment=state.sentiment * kept,
        traits=population.replace(state.traits, population.draw_traits(newcomers), ruined),
    )
    return replaced, (state.holdings * of_ruined.unsqueeze(-1)).sum(1)
