"""Planners: no network, but gradient ascent on imagined months before every action.

    max_{a_1 … a_{K−1}}  (1/S) Σ_s Σ_{k≤K} γ^{k−1} r_k,      a_K = a_{K−1},      a_k ∈ [−1, 1],

S samples of what the next K months may bring, the same for all steps of the ascent, through K differentiable
transitions. The first action is executed, and the plan, shifted by a month, is where the next ascent starts. The last
action is held for two months: alone, it could do no more than move its own mark.

A planner is a baseline that knows the model: the transition, its constants and the other investors, their errors,
moods and traits included. It does not know the future: next month's news is imagined from the signal and the regime
(:meth:`hmgym.market.Market.imagine`), everything after it from the model.

A plan is open-loop: it fixes later actions before the signals they could answer to. So a longer horizon sees more of
what an action does to later prices, and undervalues being able to react.

Source: Ng and Jordan (2000), PEGASUS, for the search with fixed random numbers; Heess et al. (2015), Learning
continuous control policies by stochastic value gradients, for gradients through a model; Rawlings, Mayne and Diehl
(2017), Model Predictive Control, for the receding horizon.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hmgym.checks import integer
from hmgym.envs.differentiable import differentiable_market
from hmgym.market import MarketState, Shocks

# What is moved so that the samples have the right mean; of the other exogenous parts of a state one month is kept.
_NEWS = ("log_value", "news", "signal", "next_news", "news_variance")
_BETAS, _EPSILON = (0.8, 0.95), 1e-12
_SAME = 1e-9  # log price; the last close and what the last return says of it differ by rounding
_REACH = 2.0  # half of all draws from a box of twice the size lie outside, and are clipped to a face


@dataclass(frozen=True, kw_only=True)
class PlanningSettings:
    """How a planner plans.

    Attributes:
        horizon: K months, the last two with one action.
        samples: S imagined futures of every market.
        iterations: steps of the ascent.
        learning_rate: of Adam at the first step, in the unit of an action; it falls to a tenth at the last.
        starts: other first actions that are tried, one after another, before the ascent starts from the best. Where a
            limit or a belief does not matter the gradient is zero, and the return has several tops.
        smoothing: of the imagined clearing; 0 is exact, None takes the environment's.
        discount: γ a month.
    """

    horizon: int = 4
    samples: int = 8
    iterations: int = 4
    learning_rate: float = 0.3
    starts: int = 16
    smoothing: float | None = None
    discount: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (("horizon", 2), ("samples", 1), ("iterations", 0), ("starts", 0)):
            integer(name, getattr(self, name), least)
        for name, low, high in (("learning_rate", 0.0, 2.0), ("smoothing", 0.0, 1.0), ("discount", 0.0, 1.0)):
            value = getattr(self, name)
            if value is None and name == "smoothing":
                continue
            if not isinstance(value, (int, float)) or not low <= value <= high:
                raise ValueError(f"`{name}` must lie in [{low:g}, {high:g}], got {value!r}")


class Futures(NamedTuple):
    """What S samples of the coming months may bring to each of E markets, whatever is done; row e·S + s is sample s."""

    first: Shocks  # of the first month, (E, …): the same clearing in every sample
    later: list[Shocks]  # of the other K − 1 months, each (E·S, …)
    states: list[dict[str, Tensor]]  # what the states entering these months owe to no action, (E·S, …)


class _Plan(NamedTuple):
    """What is left of an act for the next one."""

    actions: Tensor  # (E, K − 1, size)
    month: Tensor  # (E,) in which the first of them was executed
    prices: Tensor  # (E, N) last close then, which tells a market that goes on from another


class PlannerPolicy:
    """Gradient ascent through an open-loop horizon, renewed every month.

    The policy draws from one generator for all markets, so what a market gets depends on those beside it, as with any
    policy that draws at random; nothing else does.

    Args:
        env_id: a registered id; its reward is the change of log unit value.
        settings: how; None takes `default_settings`.
        seed: of what is imagined.
        env_kwargs: arguments of the environment.

    Raises:
        ValueError: the environment has another reward or several learners.
    """

    default_settings = PlanningSettings()

    def __init__(
        self, env_id: str, settings: PlanningSettings | None = None, *, seed: int = 0, **env_kwargs: Any
    ) -> None:
        self.settings = settings = self.default_settings if settings is None else settings
        face, self.market = differentiable_market(env_id, settings.smoothing, **env_kwargs)
        if face.config.n_learners != 1:
            raise ValueError(f"`n_learners` must be 1 for a planner, got {face.config.n_learners}")
        self.env_id, self.action_map = env_id, face.action_map
        self.imagined_steps = 0
        """Transitions of a market that were imagined so far; the first month of a plan is one for all samples."""
        self._random = np.random.default_rng(seed)
        self._last: _Plan | None = None

    def act(self, state: MarketState) -> npt.NDArray[np.float32]:
        """The first actions (E, size) of the best plans found; the plans are kept for the next month.

        Args:
            state: the markets; `next_news` is not read.

        Raises:
            ValueError: `state` is of other markets.
            ClearingError: an imagined market did not clear.
        """
        self._check(state)
        with torch.inference_mode(False), torch.enable_grad():
            state = state.detach().clone()
            plan = self.ascend(state, self.imagine(state), self._start(state))
        self._last = _Plan(plan, state.month, state.prices)
        actions: npt.NDArray[np.float32] = plan[:, 0].numpy().astype(np.float32)
        return actions

    def imagine(self, state: MarketState) -> Futures:
        """Draw what the coming months may bring.

        The samples are few, and the error of their mean would be the drift that the plan rides on. So the news of every
        month is moved to have the mean it should have: the posterior's in the next month, the growth after it.
        """
        samples, market = self.settings.samples, self.market
        rows = state.n_markets * samples
        uniforms = self._random.random((state.n_markets, samples, market.news_posterior.draws))
        # Next month's news in S strata, from bad to good.
        uniforms[..., 0] = (np.arange(samples) + uniforms[..., 0]) / samples
        months = [_side_by_side(market.draw_shocks([self._random], periods=rows)) for _ in range(self.settings.horizon)]
        states: list[dict[str, Tensor]] = []
        with torch.no_grad():  # any action: only what it has no part in is kept
            current = state.select(torch.arange(state.n_markets).repeat_interleave(samples))
            current = market.imagine(current, torch.from_numpy(uniforms.reshape(rows, -1)))
            mean = market.news_posterior.mean(state.signal, state.regime, state.news_variance)
            # What is known of the news stays as it is: this month's signal was seen.
            current = dataclasses.replace(current, next_news=current.next_news + self._shift(current, mean))
            for shocks in months[:-1]:
                current, _ = market.transition(current, None, shocks)
                self.imagined_steps += rows
                shift = self._shift(current, torch.full_like(mean, market.config.growth))
                told = market.config.signal_r2**0.5 * current.regime.unsqueeze(-1)
                current = dataclasses.replace(
                    current, next_news=current.next_news + shift, signal=current.signal + told * shift
                )
                given = current.exogenous()
                states.append({name: given[name] for name in _NEWS} if states else given)
        return Futures(months[0].map(lambda drawn: drawn[::samples]), months[1:], states)

    def expected_return(self, state: MarketState, futures: Futures, plan: Tensor) -> Tensor:
        """Mean over the samples of the discounted log return, (E,), with its graph.

        Args:
            state: the markets.
            futures: of these markets, from `imagine`.
            plan: shape (E, K − 1, size), each in [-1, 1].

        Raises:
            ValueError: `plan` has another shape.
            ClearingError: an imagined market did not clear.
        """
        settings, market = self.settings, self.market
        n_markets, samples = state.n_markets, settings.samples
        expected = (n_markets, settings.horizon - 1, self.action_map.size)
        if tuple(plan.shape) != expected:
            raise ValueError(f"`plan` must have shape {expected}, got {tuple(plan.shape)}")
        self.imagined_steps += n_markets * (1 + samples * len(futures.later))
        # The first clearing knows nothing of the samples, so it is done once for all of them.
        current, outcome = market.transition(state, self._natural(state, plan[:, 0]), futures.first)
        repeated = torch.arange(n_markets).repeat_interleave(samples)
        current = current.select(repeated)
        first = outcome.reward[:, 0]
        running = ~outcome.ruined[repeated, 0]
        total, weight = torch.zeros_like(repeated, dtype=torch.float64), settings.discount
        for month, (shocks, given) in enumerate(zip(futures.later, futures.states, strict=True), start=1):
            current = current.with_tensors(given)
            chosen = plan[:, min(month, plan.shape[1] - 1)][repeated]
            current, outcome = market.transition(current, self._natural(current, chosen), shocks)
            total = total + weight * (running * outcome.reward[:, 0])
            running = running & ~outcome.ruined[:, 0]
            weight *= settings.discount
        return first + total.reshape(n_markets, samples).mean(-1)

    def ascend(self, state: MarketState, futures: Futures, plan: Tensor) -> Tensor:
        """The best plans (E, K − 1, size) met on the way up from `plan`, or from a better start.

        Args:
            state: the markets.
            futures: of these markets, from `imagine`.
            plan: shape (E, K − 1, size), each in [-1, 1].
        """
        settings = self.settings
        with torch.no_grad():
            worth = self.expected_return(state, futures, plan) if settings.starts else plan.new_empty(plan.shape[0])
            for _ in range(settings.starts):
                other = self._another_start(plan)
                worth, plan = _better(worth, plan, self.expected_return(state, futures, other), other)
        most, best = torch.full_like(worth, -torch.inf), plan
        mean, square = torch.zeros_like(plan), torch.zeros_like(plan)
        for step in range(settings.iterations):
            plan = plan.detach().requires_grad_()
            worth = self.expected_return(state, futures, plan)
            (gradient,) = torch.autograd.grad(worth.sum(), plan)
            plan = plan.detach()
            most, best = _better(most, best, worth.detach(), plan)
            mean = _BETAS[0] * mean + (1.0 - _BETAS[0]) * gradient
            square = _BETAS[1] * square + (1.0 - _BETAS[1]) * gradient**2
            deviation = torch.sqrt(square / (1.0 - _BETAS[1] ** (step + 1))) + _EPSILON
            rate = settings.learning_rate * (1.0 - 0.9 * step / max(settings.iterations - 1, 1))
            plan = (plan + rate / (1.0 - _BETAS[0] ** (step + 1)) * mean / deviation).clamp(-1.0, 1.0)
        with torch.no_grad():
            return _better(most, best, self.expected_return(state, futures, plan), plan)[1]

    def _shift(self, current: MarketState, mean: Tensor) -> Tensor:
        """What moves the mean of the samples of next month's news (E·S, N) to `mean` (E, N)."""
        drawn = current.next_news.reshape(mean.shape[0], self.settings.samples, -1)
        return (mean - drawn.mean(1)).repeat_interleave(self.settings.samples, 0)

    def _start(self, state: MarketState) -> Tensor:
        """Plans (E, K − 1, size): last month's, a month on, in markets that go on; the middle of the box in others."""
        shape = (state.n_markets, self.settings.horizon - 1, self.action_map.size)
        start = torch.zeros(shape, dtype=torch.float64)
        last = self._last
        if last is None or last.prices.shape != state.prices.shape:
            return start
        before = torch.log(state.prices) - state.last_return
        goes_on = (state.month == last.month + 1) & ((before - torch.log(last.prices)).abs() <= _SAME).all(-1)
        shifted = torch.cat([last.actions[:, 1:], last.actions[:, -1:]], 1)
        return torch.where(goes_on[:, None, None], shifted, start)

    def _another_start(self, plan: Tensor) -> Tensor:
        """The plan with another action in its first month, from the box or, as often, from its faces."""
        drawn = self._random.uniform(-_REACH, _REACH, (plan.shape[0], 1, plan.shape[2])).clip(-1.0, 1.0)
        return torch.cat([torch.from_numpy(drawn), plan[:, 1:]], 1)

    def _check(self, state: MarketState) -> None:
        if not isinstance(state, MarketState):
            raise ValueError(f"`state` must be a MarketState, got {state!r}"[:200])
        expected = (self.market.config.n_investors, self.market.config.n_assets)
        if tuple(state.holdings.shape[1:]) != expected:
            raise ValueError(
                f"`state` must be of (investors, assets) = {expected}, got {tuple(state.holdings.shape[1:])}"
            )

    def _natural(self, state: MarketState, actions: Tensor) -> Any:
        return self.action_map.to_market(actions.unsqueeze(1), state.prices)


class MyopicPolicy(PlannerPolicy):
    """Ascent on the expected log unit value at the next close, two clearings on, one action held.

    Its own mark at this close is not what it maximises: what a purchase lifts now, the next close takes back.
    """

    default_settings = PlanningSettings(horizon=2, samples=16)

    def __init__(
        self, env_id: str, settings: PlanningSettings | None = None, *, seed: int = 0, **env_kwargs: Any
    ) -> None:
        super().__init__(env_id, settings, seed=seed, **env_kwargs)
        if self.settings.horizon != 2:
            raise ValueError(f"`horizon` must be 2 for the myopic policy, got {self.settings.horizon}")


def _better(worth: Tensor, plan: Tensor, other_worth: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Of two plans a market, and what they are worth, the better one."""
    better = other_worth > worth
    return torch.where(better, other_worth, worth), torch.where(better[:, None, None], other, plan)


def _side_by_side(shocks: Shocks) -> Shocks:
    """Periods of one market's generator as one period of as many markets."""
    return shocks.map(lambda drawn: drawn[:, 0])
