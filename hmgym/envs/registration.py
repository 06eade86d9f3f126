"""The environment ids of hmgym, registered with Gymnasium on `import hmgym`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gymnasium.envs.registration import register, registry

MAX_EPISODE_STEPS = 120
"""Registered length of a market's episode, in periods: ten years of months."""


@dataclass(frozen=True, kw_only=True)
class Registered:
    """What an id stands for.

    Attributes:
        entry_point: a :class:`~hmgym.envs.single.BatchEnv`, as ``"module:Class"``.
        vector_entry_point: a :class:`~hmgym.envs.vector.BatchVectorEnv`, likewise.
        max_episode_steps: periods after which an episode is truncated; None where episodes have an end of their own.
        arguments: keyword arguments that the id fixes.
        baselines: what agents are compared with besides random actions and the best constant: a function of `env_id`
            and `env_kwargs`, as ``"module:function"``; see :func:`hmgym.agents.baselines.baselines_of`.
        differentiable: what gradient agents train through: a function of `env_id`, `num_markets`, `seed` and the
            environment's arguments that returns a :class:`~hmgym.envs.differentiable.Differentiable`, likewise.
    """

    entry_point: str
    vector_entry_point: str
    max_episode_steps: int | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    baselines: str | None = None
    differentiable: str | None = None


CONTROLS: dict[str, dict[str, bool]] = {
    "leverage": {"leverage": True, "beliefs": False},
    "beliefs": {"leverage": False, "beliefs": True},
    "both": {"leverage": True, "beliefs": True},
}
"""Which parts of the action an environment of the market offers, by what the agent controls."""


def _market(control: str) -> Registered:
    return Registered(
        entry_point="hmgym.envs.markets:MarketEnv",
        vector_entry_point="hmgym.envs.markets:MarketVectorEnv",
        max_episode_steps=MAX_EPISODE_STEPS,
        arguments=CONTROLS[control],
        baselines="hmgym.agents.baselines:market_baselines",
        differentiable="hmgym.envs.differentiable:DifferentiableMarkets",
    )


ENVIRONMENTS: dict[str, Registered] = {
    "hmgym/Leverage-v0": _market("leverage"),
    "hmgym/Beliefs-v0": _market("beliefs"),
    "hmgym/LeverageBeliefs-v0": _market("both"),
    "hmgym/MarketMaking-v0": Registered(
        entry_point="hmgym.envs.quoting:MarketMakingEnv",
        vector_entry_point="hmgym.envs.quoting:MarketMakingVectorEnv",
        baselines="hmgym.agents.quoting:quoting_baselines",
        differentiable="hmgym.envs.quoting.differentiable:quoting_law",
    ),
    "hmgym/LOBMarketMaking-v0": Registered(
        entry_point="hmgym.envs.quoting:LOBMarketMakingEnv",
        vector_entry_point="hmgym.envs.quoting:LOBMarketMakingVectorEnv",
        baselines="hmgym.agents.quoting_books:book_baselines",
    ),
    "hmgym/Pool-v0": Registered(
        entry_point="hmgym.envs.pool_weights:PoolEnv",
        vector_entry_point="hmgym.envs.pool_weights:PoolVectorEnv",
        baselines="hmgym.agents.pool_rule:pool_baselines",
    ),
}
"""Every id of hmgym; one line an environment."""


def register_environments() -> None:
    """Register every id that Gymnasium does not hold yet."""
    for env_id, registered in ENVIRONMENTS.items():
        if env_id not in registry:
            _register(env_id, registered)


def register_environment(env_id: str, registered: Registered) -> None:
    """Add an id to those of hmgym, from a package of one's own.

    Raises:
        ValueError: the id is taken.
    """
    if env_id in registry:
        raise ValueError(f"`env_id` must be new, got {env_id!r}, which is registered")
    ENVIRONMENTS[env_id] = registered
    _register(env_id, registered)


def _register(env_id: str, registered: Registered) -> None:
    register(
        id=env_id,
        entry_point=registered.entry_point,
        vector_entry_point=registered.vector_entry_point,
        max_episode_steps=registered.max_episode_steps,
        kwargs=dict(registered.arguments),
    )
