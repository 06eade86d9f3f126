"""Markets that a policy is trained through: episodes of the environments' markets with the graph kept.

The same maps, shocks and transition as the environments, in tensors: with the same seeds and actions the rewards are
those of the vector environment, to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hmgym.checks import integer
from hmgym.envs.batch import SHOCK_PERIODS
from hmgym.envs.boxes import ActionBox, ObservationBox
from hmgym.envs.markets import MarketVectorEnv
from hmgym.envs.registration import ENVIRONMENTS
from hmgym.envs.shock_stream import ShockStream
from hmgym.envs.vector import make_markets
from hmgym.lazy import imported, lazy_names
from hmgym.market import Market, MarketState

_LEAST_WEALTH = 1e-9  # money; wealth below it counts as that much


def differentiable_market(
    env_id: str, smoothing: float | None, *, device: str | torch.device = "cpu", **env_kwargs: Any
) -> tuple[MarketVectorEnv, Market]:
    """An environment, for its maps and limits, and the market behind it, for gradients.

    Args:
        env_id: a registered id.
        smoothing: of the clearing; None takes that of the environment's configuration.
        device: where the market's tensors live.
        env_kwargs: arguments of the environment.

    Raises:
        ValueError: an argument is out of range, the id is no market, or its reward is another than the change of log
            unit value.
    """
    reward = env_kwargs.get("reward", "log_unit_value")
    if reward != "log_unit_value":
        raise ValueError(f'`reward` must be "log_unit_value" to be differentiated, got {reward!r}')
    face = make_markets(env_id, 1, **env_kwargs)
    if not isinstance(face, MarketVectorEnv):
        raise ValueError(f"`env_id` must name a market to be differentiated, got {env_id!r}")
    config = face.config if smoothing is None else face.config.replace(smoothing=smoothing)
    return face, Market(config, device=device)


@dataclass(frozen=True, kw_only=True)
class DifferentiablePeriod:
    """What one period of all markets brought; the markets have not been reset yet.

    Attributes:
        reward: shape (E, L), change of log unit value, with its graph.
        ruined: shape (E, L), bool.
        truncated: shape (E,), bool: the market has run all its months.
    """

    reward: Tensor
    ruined: Tensor
    truncated: Tensor

    @property
    def ended(self) -> Tensor:
        """Shape (E, L): learners whose episode has ended."""
        return self.ruined | self.truncated[:, None]


class Differentiable(Protocol):
    """What gradient agents train through: rows whose steps keep their graph, and whose rewards they ascend.

    Attributes:
        num_markets: rows E.
        n_learners: L.
        action_map: names and space of one learner's action.
        observation_map: names and space of one learner's observation.
        max_episode_steps: of an episode; None where it has no end.
        smoothing: of a clearing, where there is one.
        device: where tensors live.
    """

    num_markets: int
    max_episode_steps: int | None
    smoothing: float

    @property
    def n_learners(self) -> int:
        """L."""

    @property
    def action_map(self) -> ActionBox:
        """Of one learner."""

    @property
    def observation_map(self) -> ObservationBox:
        """Of one learner."""

    @property
    def device(self) -> torch.device:
        """Where tensors live."""

    @property
    def news(self) -> Tensor:
        """What came with the last step and is observed now, (E, N); N is 0 where there is none."""

    def observe(self) -> Tensor:
        """What each learner knows before it acts, (E, L, size), with its graph."""

    def step(self, action: Tensor) -> DifferentiablePeriod:
        """Run one period at actions (E, L, size of one action)."""

    def restart(self) -> None:
        """Begin a new episode in every row whose episode has ended."""

    def detach(self) -> None:
        """Cut the graph."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that a continued run needs."""

    def load_state_dict(self, stored: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""


class DifferentiableMarkets:
    """E markets of an environment, with L learners each, whose transitions keep their graph.

    Args:
        env_id: a registered id; its reward is the change of log unit value.
        num_markets: number of markets E.
        seed: market e draws from ``numpy.random.default_rng(seed + e)``.
        stagger: whether the first episodes are cut short by different numbers of months, so that resets do not
            coincide.
        smoothing: of the clearing; None takes that of the environment's configuration.
        device: where tensors live.
        env_kwargs: arguments of the environment, ``n_learners`` and ``max_episode_steps`` among them.

    Raises:
        ValueError: an argument is out of range, or the environment has another reward.
    """

    def __init__(
        self,
        env_id: str,
        num_markets: int,
        *,
        seed: int,
        stagger: bool = True,
        smoothing: float | None = None,
        device: str | torch.device = "cpu",
        **env_kwargs: Any,
    ) -> None:
        num_markets = integer("num_markets", num_markets, 1)
        face, self.market = differentiable_market(env_id, smoothing, device=device, **env_kwargs)
        self.env_id, self.num_markets, self.max_episode_steps = env_id, num_markets, face.max_episode_steps
        self.action_map, self.observation_map = face.action_map, face.observation_map
        self._generators = [np.random.default_rng(seed + row) for row in range(num_markets)]
        self._shocks = ShockStream(self.market, SHOCK_PERIODS)
        self._elapsed = np.zeros(num_markets, np.int64)
        self._finished = np.ones(num_markets, np.bool_)
        self._state: MarketState | None = None
        self._stepped = False
        self.restart()
        if stagger and self.max_episode_steps is not None:
            self._elapsed = np.arange(num_markets) * self.max_episode_steps // num_markets

    @property
    def n_learners(self) -> int:
        """L, learners of a market."""
        return self.market.config.n_learners

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.market.device

    @property
    def state(self) -> MarketState:
        """State of all markets, with its graph."""
        assert self._state is not None
        return self._state

    @property
    def smoothing(self) -> float:
        """Smoothing of the clearing; may be set between periods."""
        return self.market.config.smoothing

    @smoothing.setter
    def smoothing(self, value: float) -> None:
        if value != self.smoothing:
            self.market = Market(self.market.config.replace(smoothing=value), device=self.market.device)

    def observe(self) -> Tensor:
        """What each learner knows before it acts, shape (E, L, size), with its graph."""
        state = self.state
        seen = self.observation_map.tensor(state)
        newcomers = state.ruined[:, : self.n_learners]
        if self.n_learners > 1 and bool(newcomers.any()):
            # A newcomer sees itself seated; the others still see the ruined fund, as in the environments.
            seen = torch.where(newcomers[..., None], self.observation_map.tensor(self.market.seated(state)), seen)
        return seen

    def step(self, action: Tensor) -> DifferentiablePeriod:
        """Run one period in every market.

        Args:
            action: shape (E, L, size of one action), each in [-1, 1].

        Raises:
            ValueError: `action` has another shape, is out of range or not finite, or a market was not reset.
            ClearingError: a market did not clear.
        """
        if self._finished.any():
            raise ValueError("markets whose episode has ended must be reset with `restart` before `step`")
        shape = (self.num_markets, self.n_learners, self.action_map.size)
        if action.shape != shape:
            raise ValueError(f"`action` must have shape {shape}, got {tuple(action.shape)}")
        if not bool((action.detach().abs() <= 1.0).all()):  # also true of NaN
            raise ValueError(f"`action` must lie in [-1, 1], got {action.detach().flatten().tolist()[:8]}")
        with torch.no_grad():
            shocks = self._shocks.next(self._generators)
        state = self.state
        self._state, outcome = self.market.transition(state, self.action_map.to_market(action, state.prices), shocks)
        self._shocks.advance()
        self._stepped = True
        self._elapsed += 1
        over = np.zeros(self.num_markets, np.bool_)
        if self.max_episode_steps is not None:
            over = self._elapsed >= self.max_episode_steps
        self._finished = over | outcome.ruined.all(1).cpu().numpy()
        truncated = torch.from_numpy(over).to(self.market.device)
        return DifferentiablePeriod(reward=outcome.reward, ruined=outcome.ruined, truncated=truncated)

    @property
    def news(self) -> Tensor:
        """This month's news (E, N), log."""
        news: Tensor = self.state.news
        return news

    def posterior_news(self) -> Tensor:
        """Mean (E, N) of next month's news given signal and regime, log a month, also where the regime is hidden.

        It knows the model, which no learner observes.
        """
        state = self.state
        mean: Tensor = self.market.news_posterior.mean(state.signal, state.regime, state.news_variance)
        return mean

    def surprise(self, expected: Tensor) -> Tensor:
        """Log return (E, L) that news beyond what was expected brings to what is held now, to first order.

        A control variate for the return of the coming month: the news that came with the last `step`, to which the
        coming prices answer, less what was expected before it, times what each learner holds now. Its mean is zero
        whatever the learner does if the expectation is the mean given all that the learner acts upon.

        Args:
            expected: shape (E, N) or (E, L, N), news expected before the last `step`, log a month.

        Raises:
            RuntimeError: no `step` was taken since the markets began or were detached.
        """
        if not self._stepped:
            raise RuntimeError("call `step` before `surprise`")
        state = self.state
        if expected.ndim == 2:
            expected = expected[:, None]
        seats = slice(self.n_learners)
        wealth = state.wealth[:, seats, None].clamp(min=_LEAST_WEALTH)
        held = state.holdings[:, seats] * state.prices[:, None] / wealth
        surprise: Tensor = (held * (state.news[:, None] - expected)).sum(-1)
        return surprise

    def restart(self) -> None:
        """Begin a new episode in every market whose episode has ended; the others go on."""
        rows = np.flatnonzero(self._finished)
        if not rows.size:
            return
        with torch.no_grad():
            fresh = self.market.initial(self.market.draw_initial_shocks([self._generators[row] for row in rows]))
        if rows.size == self.num_markets:
            self._state = fresh
        else:
            self._state = self.state.with_rows(torch.from_numpy(rows).to(self.market.device), fresh)
        self._stepped = False
        self._shocks.restart(rows, self.num_markets)
        self._elapsed[rows] = 0
        self._finished[:] = False

    def detach(self) -> None:
        """Cut the graph: what happened so far is given."""
        self._state, self._stepped = self.state.detach(), False

    def state_dict(self) -> dict[str, Any]:
        """Everything that a continued run needs, as tensors, numbers and strings."""
        return {
            "state": self.state.detach().tensors(),
            "elapsed": torch.from_numpy(self._elapsed.copy()),
            "finished": torch.from_numpy(self._finished.copy()),
            "shocks": self._shocks.state_dict(),
            "generators": [generator.bit_generator.state for generator in self._generators],
            "smoothing": self.smoothing,
        }

    def load_state_dict(self, stored: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken, from markets made with the same arguments.

        Raises:
            ValueError: it was taken from another number of markets.
        """
        if len(stored["generators"]) != self.num_markets:
            raise ValueError(f"`stored` must be of {self.num_markets} markets, got {len(stored['generators'])}")
        device = self.market.device
        self._state = self.state.with_tensors({name: value.to(device) for name, value in stored["state"].items()})
        self._elapsed = stored["elapsed"].numpy().copy()
        self._finished = stored["finished"].numpy().copy()
        self._shocks.load_state_dict(stored["shocks"])
        self._stepped = False
        for generator, position in zip(self._generators, stored["generators"], strict=True):
            generator.bit_generator.state = position
        self.smoothing = stored["smoothing"]


def make_differentiable(env_id: str, num_markets: int, *, seed: int, **env_kwargs: Any) -> Differentiable:
    """What gradient agents train through on an id.

    Args:
        env_id: a registered id.
        num_markets: rows, where the id has no number of its own.
        seed: of the rows' draws.
        env_kwargs: arguments of the environment.

    Raises:
        ValueError: the id has nothing to train through, or an argument is out of range.
    """
    make_markets(env_id, 1, **env_kwargs).close()  # refuses what the environment refuses
    place = ENVIRONMENTS[env_id.split(":")[-1]].differentiable
    if place is None:
        raise ValueError(f"`env_id` must name a market to be differentiated, got {env_id!r}")
    made: Differentiable = imported(place)(env_id, num_markets, seed=seed, **env_kwargs)
    return made


__getattr__ = lazy_names(__name__, {"hmgym.envs.quoting.differentiable": ("DifferentiableQuoting",)})
