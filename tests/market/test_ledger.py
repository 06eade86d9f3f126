"""The ledger moves money and never makes any."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hmgym.market.ledger import INVESTORS, Ledger

CASH = torch.tensor([[5.0, -1.0, 2.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
ACCOUNTS = {name: torch.zeros(2, dtype=torch.float64) for name in ("bank", "exchange", "fund")}


def total(ledger):
    return ledger.cash.sum(-1) + sum(ledger.accounts.values())


def test_every_payment_leaves_one_account_and_reaches_another():
    ledger = Ledger(CASH, ACCOUNTS)
    paid = torch.tensor([[1.0, 0.0, 0.5], [0.0, -2.0, 0.0]], dtype=torch.float64)
    ledger.pay(INVESTORS, "exchange", paid)
    ledger.pay("bank", INVESTORS, 0.5 * paid)
    ledger.pay("exchange", "fund", torch.tensor([0.25, 1.0], dtype=torch.float64))
    torch.testing.assert_close(ledger.cash, CASH - 0.5 * paid)
    expected = {"bank": [-0.75, 1.0], "exchange": [1.25, -3.0], "fund": [0.25, 1.0]}
    for name, balance in ledger.accounts.items():
        assert balance.tolist() == expected[name]
    torch.testing.assert_close(total(ledger), CASH.sum(-1))
    assert all(not account.any() for account in ACCOUNTS.values())  # what came in is left as it was


def test_many_at_once():
    ledger = Ledger(CASH, ACCOUNTS)
    received = torch.tensor([[3.0, -1.0, -1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    ledger.net(received, fund=-received.sum(-1))
    torch.testing.assert_close(total(ledger), CASH.sum(-1))
    assert ledger.accounts["fund"].tolist() == [-1.0, 0.0]


@pytest.mark.parametrize("seed", range(5))
def test_random_payments_conserve(seed):
    rng = np.random.default_rng(seed)
    cash = rng.normal(size=(3, 7)) * 10.0 ** rng.integers(-3, 9, (3, 7))
    ledger = Ledger(cash, {name: np.zeros(3) for name in ACCOUNTS})
    for _ in range(50):
        source, to = rng.choice([INVESTORS, *ACCOUNTS], 2, replace=False)
        shape = (3, 7) if INVESTORS in (source, to) else (3,)
        ledger.pay(source, to, rng.normal(size=shape) * 10.0 ** rng.integers(-3, 9))
    gross = abs(ledger.cash).sum(-1) + sum(abs(account) for account in ledger.accounts.values())
    assert (abs(total(ledger) - cash.sum(-1)) <= 1e-14 * gross).all()


def test_an_account_that_is_not_there():
    with pytest.raises(KeyError, match="no account 'purse'; there are bank, exchange, fund"):
        Ledger(CASH, ACCOUNTS).pay(INVESTORS, "purse", CASH)
