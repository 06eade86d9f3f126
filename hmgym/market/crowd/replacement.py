"""Replacement: newcomers take the seats of investors that were ruined last month."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from hmgym.arrays import namespace
from hmgym.market.ledger import INVESTORS, Ledger
from hmgym.market.state import MarketState


def replace_ruined(state: MarketState, target_share: Tensor) -> tuple[MarketState, Tensor | None]:
    """The state with newcomers' accounts on the seats of the ruined, and the estate (E, N) shares, for sale now.

    A newcomer brings its target wealth, in cash, from the households. The default fund takes an estate's cash and
    positions, pays the households what it was worth at the last close if that is positive, and sells the positions at
    the month's price: it bears the difference. Where nobody is ruined the state comes back as it was, estate None. What
    the newcomers remember is their cohorts' to say.
    """
    ruined = state.ruined
    if not bool(ruined.any()):
        return state, None
    n_learners = state.unit_value.shape[1]
    xp = namespace(state.cash)
    of_ruined = xp.floats(ruined)
    endowment = target_share * state.wealth.sum(-1)[:, None]
    ledger = Ledger(state.cash, state.accounts)
    ledger.pay(INVESTORS, "default_fund", state.cash * of_ruined)
    ledger.pay("default_fund", "households", (xp.at_least(state.wealth, 0.0) * of_ruined).sum(-1))
    ledger.pay("households", INVESTORS, endowment * of_ruined)
    replaced = replace(
        state,
        cash=ledger.cash,
        accounts=ledger.accounts,
        wealth=xp.where(ruined, endowment, state.wealth),
        holdings=state.holdings * xp.floats(~ruined)[..., None],
        unit_value=xp.where(ruined[:, :n_learners], 1.0, state.unit_value),
    )
    return replaced, (state.holdings * of_ruined[..., None]).sum(1)
