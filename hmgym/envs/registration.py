"""The environment ids of hmgym, registered with Gymnasium on `import hmgym`."""

from __future__ import annotations

from typing import Any

from gymnasium.envs.registration import register, registry

MAX_EPISODE_STEPS = 120
"""Registered length of an episode, in periods: ten years of months."""

ENTRY_POINT = "hmgym.envs.single:MarketEnv"
VECTOR_ENTRY_POINT = "hmgym.envs.vector:MarketVectorEnv"

CONTROLS: dict[str, dict[str, bool]] = {
    "leverage": {"leverage": True, "beliefs": False},
    "beliefs": {"leverage": False, "beliefs": True},
    "both": {"leverage": True, "beliefs": True},
}
"""Which parts of the action an environment offers, by what the agent controls."""

ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "hmgym/Leverage-v0": CONTROLS["leverage"],
    "hmgym/Beliefs-v0": CONTROLS["beliefs"],
    "hmgym/LeverageBeliefs-v0": CONTROLS["both"],
}
"""Registered ids, and which parts of the action each one offers."""


def register_environments() -> None:
    """Register every id that Gymnasium does not hold yet."""
    for env_id, parts in ENVIRONMENTS.items():
        if env_id not in registry:
            register(
                id=env_id,
                entry_point=ENTRY_POINT,
                vector_entry_point=VECTOR_ENTRY_POINT,
                max_episode_steps=MAX_EPISODE_STEPS,
                kwargs=dict(parts),
            )
