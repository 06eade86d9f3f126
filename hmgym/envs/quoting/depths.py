"""The action of a market maker: how deep it quotes on either side of mid."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hmgym.checks import check_number
from hmgym.envs.boxes import ActionBox

FloatArray = npt.NDArray[np.float64]


class DepthBox(ActionBox):
    """Depth of the bid below mid and of the ask above it: ``depth = centre + reach · a``, a in [-1, 1].

    Args:
        centre: depth at a = 0, price.
        reach: how far it goes from there, price.
    """

    def __init__(self, centre: float, reach: float) -> None:
        super().__init__(("bid_depth", "ask_depth"))
        check_number("reach", reach, 0.0, strict=True)
        self.centre, self.reach = float(centre), float(reach)

    def to_depths(self, action: Any) -> Any:
        """Depths (…, 2), bid first, of actions (…, 2), arrays or tensors."""
        return self.centre + self.reach * action

    def from_depths(self, bid: npt.ArrayLike, ask: npt.ArrayLike) -> FloatArray:
        """Actions (E, 2) of depths (E,), the nearest there are; NaN, no quote, is the deepest."""
        depths = np.stack([np.asarray(bid, np.float64), np.asarray(ask, np.float64)], -1)
        actions = np.clip((depths - self.centre) / self.reach, -1.0, 1.0)
        return np.where(np.isnan(actions), 1.0, actions)

    def describe(self, action: npt.ArrayLike) -> str:
        """One action for tables: ``"bid 0.67, ask 0.67 from mid"``."""
        bid, ask = self.to_depths(self.check(np.asarray(action)[None], 1)[0, 0])
        return f"bid {bid:.3g}, ask {ask:.3g} from mid"
