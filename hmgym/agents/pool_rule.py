"""The power-channel rule as a policy of ``hmgym/Pool-v0``, and what else agents are compared with there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hmgym.agents.baselines import Baseline
from hmgym.agents.constant import ConstantPolicy
from hmgym.agents.policy import Policy
from hmgym.checks import check_interval, check_number
from hmgym.envs import make_markets
from hmgym.envs.pool_rule_box import RuleBox, memory_of
from hmgym.envs.pool_weights import PoolWeightsState
from hmgym.pools import price_trend, weight_changes


class PowerChannelStrategy:
    """Changes of weights by the rule, from the rows of prices that a step shows.

    Args:
        decay: λ a row.
        k: weight a unit of signal.
        exponent: q >= 1.
        pre_scaling: s > 0.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, decay: float = 0.7, k: float = 5.0, exponent: float = 1.0, pre_scaling: float = 0.5) -> None:
        check_interval("decay", decay, 0.0, 1.0)
        check_number("k", k, 0.0)
        check_number("exponent", exponent, 1.0)
        check_number("pre_scaling", pre_scaling, 0.0, strict=True)
        self._decay, self._k, self._exponent, self._scale = decay, k, exponent, pre_scaling

    def act(self, state: PoolWeightsState) -> npt.NDArray[np.float64]:
        """Actions (E, N).

        Raises:
            ValueError: an action of the pool sets parameters.
        """
        with torch.no_grad():
            trend = price_trend(torch.from_numpy(state.prices), self._decay)
            return state.action(weight_changes(trend, self._k, self._exponent, self._scale)[:, -1].numpy())


_K = 5.0
_SHORT, _LONG = 0.5, 0.8  # λ a row


def pool_baselines(env_id: str, env_kwargs: Mapping[str, Any]) -> dict[str, Baseline]:
    """Equal weights for ever, and the rule on trends of about three and of about ten rows.

    Where the action sets parameters all three are constant ones, and the rule sees all prices since the episode's
    first; where it moves weights, the rule sees the 13 rows that a step shows, and each change is cut to what an
    action can ask for before the pool's own limits.
    """
    box = make_markets(env_id, 1, **env_kwargs).action_map
    policies: dict[str, Policy]
    if isinstance(box, RuleBox):
        policies = {
            "equal_weights": ConstantPolicy(box.from_rule(memory=memory_of(_SHORT), k=0.0), "equal weights"),
            "rule_short": ConstantPolicy(box.from_rule(memory=memory_of(_SHORT), k=_K), "short trends"),
            "rule_long": ConstantPolicy(box.from_rule(memory=memory_of(_LONG), k=_K), "long trends"),
        }
    else:
        policies = {
            "equal_weights": ConstantPolicy(np.zeros(box.size), "equal weights"),
            "rule_short": PowerChannelStrategy(decay=_SHORT, k=_K),
            "rule_long": PowerChannelStrategy(decay=_LONG, k=_K),
        }
    return {name: Baseline(policy=policy, env_id=env_id, env_kwargs=env_kwargs) for name, policy in policies.items()}
