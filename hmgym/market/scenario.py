"""Scenarios: who is in the market.

`Market` keeps what every market has (prices, fundamental value, news, signal and regime, cash, holdings, wealth, units)
and runs the month. A scenario owns who the investors are: what they remember, the shocks they draw, what they demand,
and who pays whom after the trade. Another scenario is a folder of its own and a line in
`hmgym.market.registry.SCENARIOS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from hmgym.investors.draws import Layout
from hmgym.market.demand import Demand, Trade
from hmgym.market.settlement import Settlement

if TYPE_CHECKING:
    from hmgym.market.config import MarketConfig
    from hmgym.market.shocks import InitialShocks, Shocks
    from hmgym.market.state import MarketState


class Scenario(Protocol):
    """Everything about the investors of E markets; pure functions of tensors, learners first among the investors.

    It is made from a `MarketConfig` and the market's `Fundamentals`.
    """

    config_type: type[MarketConfig]
    """configuration that it is made from"""
    result_type: str
    """what `hmgym.simulate` returns of it, as its place ``"module:name"``; a `SimulationResult`"""
    numpy_ready: bool
    """whether it takes numpy arrays as well as tensors (`hmgym.arrays`): environments then run in half the time"""
    accounts: tuple[str, ...]
    """names of its cash accounts, besides the investors' own"""
    layouts: tuple[Layout, Layout]
    """of the initial and of the monthly shocks, those of every market (`hmgym.market.shocks`) included"""

    def initial(self, shocks: InitialShocks) -> MarketState:
        """The first state."""

    def open(self, state: MarketState, shocks: Shocks | None) -> tuple[MarketState, Any]:
        """Begin a month: newcomers take their seats. Also what was promised before the trade and `settle` must keep.

        Without shocks newcomers are seated with whatever of theirs is not drawn.
        """

    def demand(self, state: MarketState, promised: Any) -> Demand:
        """What the investors post, learners as their own traits say."""

    def settle(self, state: MarketState, promised: Any, trade: Trade) -> Settlement:
        """Who pays whom after the trade."""

    def advance(self, state: MarketState, settled: Settlement, log_return: Tensor, shocks: Shocks) -> Any:
        """The scenario's own part of the next state, prices having moved by `log_return` (E, N)."""

    def drift(self, own: Any) -> Tensor | None:
        """What the scenario's own part of a state adds to next month's news, (E, N); None for nothing."""

    def coming(self, own: Any, news: dict[str, Tensor]) -> dict[str, Tensor]:
        """Next month's news, the drift added, its variance, signal and regime as the scenario has them.

        Args:
            own: the scenario's own part of the next state.
            news: by name, as the market's fundamentals draw it (`Fundamentals.move_on`).
        """
