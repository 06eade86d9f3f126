"""The ledger: every payment leaves one account and reaches another.

Accounts are those of the investors, one each, and named ones that a scenario or a price mechanism declares. Nothing
else moves cash, so the sum of all accounts stays what it was, to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

INVESTORS = "investors"
"""In `Ledger.pay`: each investor pays, or gets, its own amount."""


class Ledger:
    """Cash accounts of E markets during a month.

    Args:
        cash: (E, B) of the investors.
        accounts: the named accounts, (E,) each.
    """

    def __init__(self, cash: Tensor, accounts: Mapping[str, Tensor]) -> None:
        self.cash = cash
        """(E, B) of the investors, now"""
        self._before = accounts
        self._received: dict[str, Tensor] = {}

    def pay(self, source: str, to: str, amount: Tensor) -> None:
        """Move `amount` of money from one account to another; a negative one goes the other way.

        Args:
            source, to: a named account or `INVESTORS`, not both the investors (see `net`).
            amount: (E, B) where investors are a party, else (E,).

        Raises:
            KeyError: there is no such account.
        """
        total = amount
        if source == INVESTORS:
            self.cash, total = self.cash - amount, amount.sum(-1)
        else:
            self._post(source, -(total.sum(-1) if to == INVESTORS else total))
        if to == INVESTORS:
            self.cash = self.cash + amount
        else:
            self._post(to, total)

    def net(self, received: Tensor, **others: Tensor) -> None:
        """Settle among many at once: what each investor (E, B) and each named account (E,) receives.

        All of it adds up to nothing, or the ledger would not; rounding is the caller's.
        """
        self.cash = self.cash + received
        for name, amount in others.items():
            self._post(name, amount)

    @property
    def accounts(self) -> dict[str, Tensor]:
        """The named accounts, (E,) each, now."""
        received = self._received
        return {
            name: balance + received[name] if name in received else balance for name, balance in self._before.items()
        }

    def _post(self, name: str, amount: Tensor) -> None:
        if name not in self._before:
            raise KeyError(f"no account {name!r}; there are {', '.join(self._before)}")
        self._received[name] = self._received[name] + amount if name in self._received else amount
