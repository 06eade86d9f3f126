"""A batch of markets as a stable-baselines3 `VecEnv`: no environment object a market, no loop over markets a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from hmgym.envs import make_markets

_PER_MARKET = ("np_random", "np_random_seed")


class MarketVecEnv(VecEnv):
    """A batch of markets for stable-baselines3, which does not take Gymnasium's vector environments.

    Ended episodes are reset in the same step. The info of such a step holds ``terminal_observation`` and what was known
    at the end (``unit_value``, ``wealth``, ...); the infos of other steps hold ``TimeLimit.truncated`` alone, because
    stable-baselines3 reads nothing else and dictionaries of arrays cost more than clearing the market does.

    With ``n_learners=L`` every market has L learners, each a row: one policy that acts in all E·L rows is L independent
    learners who share their parameters. See :class:`~hmgym.envs.BatchVectorEnv` for how their episodes begin and end.

    Args:
        env_id: a registered id, such as ``"hmgym/Leverage-v0"``.
        num_envs: number of markets E; `num_envs` of the adapter is the number of rows.
        full_info: whether every info holds what is known of its market.
        kwargs: arguments of the environment, ``max_episode_steps`` and ``n_learners`` among them.

    Raises:
        ValueError: `env_id` is no market, or an argument is out of range.
    """

    def __init__(self, env_id: str, num_envs: int, *, full_info: bool = False, **kwargs: Any) -> None:
        if "autoreset_mode" in kwargs:
            raise ValueError("`autoreset_mode` is fixed to SAME_STEP, as stable-baselines3 expects")
        self.markets = markets = make_markets(env_id, num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **kwargs)
        self.full_info = full_info
        self.actions: npt.NDArray[Any] = np.zeros(markets.action_space.shape or (), np.float32)
        self._own: list[dict[str, Any]] = [{} for _ in range(markets.num_envs)]
        super().__init__(markets.num_envs, markets.single_observation_space, markets.single_action_space)

    def reset(self) -> npt.NDArray[np.float32]:
        """Begin new episodes everywhere, with the seeds given to `seed` if there are any: s + e for market e."""
        observation, infos = self.markets.reset(seed=self._seeds[: self.markets.num_markets])
        self.reset_infos = _rows(infos, range(self.num_envs))
        self._reset_seeds()
        self._reset_options()
        return observation

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Keep the actions until `step_wait`."""
        self.actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Run one period in all rows."""
        period = self.markets.advance(self.actions)
        done = period.terminated | period.truncated
        infos: list[dict[str, Any]]
        if self.full_info:
            infos = _rows(self.markets.infos(), range(self.num_envs))
            for info in infos:
                info["TimeLimit.truncated"] = False
        else:
            infos = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        if period.final_observation is not None and period.final_infos is not None:
            ended = np.flatnonzero(done)
            first = _rows(self.markets.infos(), ended)
            for row, last, begin in zip(ended, _rows(period.final_infos, ended), first, strict=True):
                last["TimeLimit.truncated"] = bool(period.truncated[row] and not period.terminated[row])
                last["terminal_observation"] = period.final_observation[row].copy()
                infos[row] = last
                self.reset_infos[row] = begin
        return period.observation, period.reward.astype(np.float32), done, infos

    def close(self) -> None:
        """Close the window, if there is one."""
        self.markets.close()

    def get_images(self) -> Sequence[npt.NDArray[np.uint8] | None]:
        """One frame a market, None where the environment was made without `render_mode="rgb_array"`."""
        if self.render_mode != "rgb_array":
            return [None] * self.markets.num_markets
        return [self.markets.render_market(market) for market in range(self.markets.num_markets)]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute, row by row: what `set_attr` put there, else the environment's.

        Names of `info` (``"wealth"``, ``"prices"``, ...) give each row its own current value.

        Raises:
            AttributeError: there is no such attribute.
        """
        return [self._attribute(attr_name, index) for index in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Attach a value to the given rows, for `get_attr` to find.

        Raises:
            AttributeError: the environment itself has this attribute; all markets share one environment, made with its
                arguments.
        """
        for index in self._get_indices(indices):
            self._set_attribute(index, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method for each of the given rows.

        ``"render"`` and ``"episode"`` speak of the row's market, ``"get_wrapper_attr"``, ``"has_wrapper_attr"`` and
        ``"set_wrapper_attr"`` work as `get_attr` and `set_attr` do; another method is the environment's own.
        """
        return [self._call(method_name, index, *method_args, **method_kwargs) for index in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """False: no market is wrapped."""
        return [False for _ in self._get_indices(indices)]

    def _market(self, row: int) -> int:
        return row // self.markets.n_learners

    def _attribute(self, name: str, row: int) -> Any:
        if name in self._own[row]:
            return self._own[row][name]
        if name == "action_space":
            return self.markets.single_action_space
        if name == "observation_space":
            return self.markets.single_observation_space
        if name in _PER_MARKET:
            return getattr(self.markets, name)[self._market(row)]
        if hasattr(self.markets, name):
            return getattr(self.markets, name)
        infos = self.markets.infos() if self.markets.started else {}
        if name in infos:
            return infos[name][row]
        raise AttributeError(f"the environment has no attribute {name!r}")

    def _set_attribute(self, row: int, name: str, value: Any) -> None:
        if hasattr(self.markets, name):
            raise AttributeError(f"`{name}` belongs to the environment that all markets share: make it with that value")
        self._own[row][name] = value

    def _call(self, name: str, row: int, *args: Any, **kwargs: Any) -> Any:
        if name == "render":
            return self.markets.render_market(self._market(row))
        if name == "episode":
            return self.markets.episode(self._market(row))
        if name == "reset":
            if self.markets.n_learners > 1:
                raise AttributeError("`reset` of one row would end the episodes of the other learners of its market")
            alone = np.arange(self.num_envs) == row
            options = {**(kwargs.pop("options", None) or {}), "reset_mask": alone}
            seeds = [kwargs.pop("seed", None) if chosen else None for chosen in alone]
            observation, infos = self.markets.reset(seed=seeds, options=options)
            return observation[row], _rows(infos, [row])[0]
        if name in ("step", "advance", "close"):
            raise AttributeError(f"`{name}` acts on all markets: call it on the VecEnv itself")
        if name == "get_wrapper_attr":
            return self._attribute(args[0], row)
        if name == "has_wrapper_attr":
            try:
                self._attribute(args[0], row)
            except AttributeError:
                return False
            return True
        if name == "set_wrapper_attr":
            self._set_attribute(row, *args)
            return None
        return self._attribute(name, row)(*args, **kwargs)


def _rows(infos: dict[str, Any], rows: Sequence[int] | npt.NDArray[np.int64] | range) -> list[dict[str, Any]]:
    """One dictionary a row from a dictionary of arrays; Gymnasium's masks are left out."""
    names = [name for name in infos if not name.startswith("_")]
    return [{name: infos[name][row] for name in names} for row in rows]
