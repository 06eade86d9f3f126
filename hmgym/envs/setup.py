"""From the keyword arguments of `gym.make` to a batch of markets; shared by the single and the vector environment."""

from __future__ import annotations

import dataclasses
from typing import Any

from hmgym.envs.actions import ActionMap
from hmgym.envs.batch import MarketBatch
from hmgym.envs.rewards import RewardFunction
from hmgym.market import MarketConfig

RENDER_MODES = ("rgb_array", "human")
RENDER_FPS = 12


def make_config(config: MarketConfig | None, n_assets: int | None, n_investors: int | None) -> MarketConfig:
    """The economy that an environment runs: `config`, or the default one, with the sizes that were asked for.

    Raises:
        ValueError: `config` is of another type or a size is impossible.
    """
    if config is not None and not isinstance(config, MarketConfig):
        raise ValueError(f"`config` must be a MarketConfig or None, got {type(config).__name__}")
    sizes: dict[str, Any] = {}
    if n_assets is not None:
        sizes["n_assets"] = n_assets
    if n_investors is not None:
        sizes["n_investors"] = n_investors
    return MarketConfig(**sizes) if config is None else dataclasses.replace(config, **sizes)


def check_render_mode(render_mode: str | None) -> str | None:
    """Return `render_mode`, or raise a ValueError that lists the modes there are."""
    if render_mode is not None and render_mode not in RENDER_MODES:
        raise ValueError(f"`render_mode` must be None or one of {list(RENDER_MODES)}, got {render_mode!r}")
    return render_mode


def make_batch(
    *,
    num_markets: int,
    leverage: bool,
    beliefs: bool,
    confidence: bool,
    n_assets: int | None,
    n_investors: int | None,
    reward: str | RewardFunction,
    config: MarketConfig | None,
    record: bool,
) -> MarketBatch:
    """A batch of markets for these arguments; see :class:`~hmgym.envs.single.MarketEnv` for their meaning."""
    economy = make_config(config, n_assets, n_investors)
    action_map = ActionMap(n_assets=economy.n_assets, leverage=leverage, beliefs=beliefs, confidence=confidence)
    return MarketBatch(economy, action_map, reward, num_markets, record)
