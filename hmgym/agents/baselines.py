"""What an agent is compared with besides the best constant: it belongs to the environment's id."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hmgym.agents.constant import RandomPolicy, no_leverage
from hmgym.agents.policy import Policy
from hmgym.envs import ENVIRONMENTS, ActionMap, make_markets
from hmgym.lazy import imported


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A policy and the environment that it acts in, whose shocks are those of the id that it is compared on.

    Attributes:
        policy: of any kind.
        env_id: a registered id.
        env_kwargs: arguments of that environment.
    """

    policy: Policy
    env_id: str
    env_kwargs: Mapping[str, Any]


def baselines_of(env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> dict[str, Baseline]:
    """The baselines of an id by name: random actions, and those that it is registered with.

    Args:
        env_id: a registered id.
        env_kwargs: arguments of the environment.

    Raises:
        ValueError: `env_id` is not registered, or an argument is out of range.
    """
    arguments = dict(env_kwargs or {})
    size = make_markets(env_id, 1, **arguments).action_map.size
    baselines = {"random": Baseline(policy=RandomPolicy(size), env_id=env_id, env_kwargs=arguments)}
    registered = ENVIRONMENTS.get(env_id.split(":")[-1])
    if registered is not None and registered.baselines is not None:
        own: Callable[[str, Mapping[str, Any]], Mapping[str, Baseline]] = imported(registered.baselines)
        baselines |= own(env_id, arguments)
    return baselines


def market_baselines(env_id: str, env_kwargs: Mapping[str, Any]) -> dict[str, Baseline]:
    """No leverage: the learner's own beliefs with κ = 0 and θ = 1, also where the action sets beliefs.

    It runs on ``hmgym/Leverage-v0``, whose shocks are the same.
    """
    plain = {name: value for name, value in env_kwargs.items() if name != "confidence"} | {"leverage_axes": 2}
    action_map = make_markets("hmgym/Leverage-v0", 1, **plain).action_map
    assert isinstance(action_map, ActionMap)
    return {"no_leverage": Baseline(policy=no_leverage(action_map), env_id="hmgym/Leverage-v0", env_kwargs=plain)}
