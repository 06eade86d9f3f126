"""Analytic policy gradient: ascent on the return of short windows, backpropagated through the market.

    R = Σ_{t<H} γ^t r_t,   a_t = π_φ(o_t, ε_t),   s_{t+1} = f(s_t, a_t, ξ_t)

with the graph of f kept. A window starts where the last one ended. Backpropagation gives g_t = dR/da_t of every month,
and φ ascends Σ_t g_t'π_φ(o_t, ε_t), whose gradient at the φ that acted is that of R. A few more steps than one are
taken on it, over the last windows, as long as the policy stays near where the gradients were taken: the market is the
dear part, the network is not. With several learners in a market they share φ and each ascends its own return with
respect to its own actions: the others are part of its market.

Noise that is known to be noise is taken out: the markets' own control variate, what unforeseen news adds to a month's
return. What was foreseen is the learner's own forecast, fitted to its own observations in earlier windows, so that
training sees no more than the policy will; or, as a privilege of training, the posterior of the model. Either is left
in the return. Where it falls short of the mean given all that the learner observes, the policy is not paid in full for
using the rest (docs/decisions.md has figures).

A policy with a memory carries it from window to window and forgets at the start of an episode. The steps after a window
run the memory again over the replayed months, from what it was before them, and backpropagate through them. The memory
also learns to forecast the news.

Source: Freeman et al. (2021), Brax; Xu et al. (2022), Accelerated policy learning with parallel differentiable
simulation, for the window; Schulman et al. (2017), Proximal policy optimization, for steps within a clipped distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hmgym.agents.networks import SquashedGaussianPolicy
from hmgym.agents.news_forecast import NewsForecast, TellsNews, news_columns
from hmgym.checks import integer
from hmgym.envs.differentiable import Differentiable, DifferentiableMarkets

Surprise = Literal["learned", "posterior", "none"]


@dataclass(frozen=True, kw_only=True)
class WindowSettings:
    """How a gradient agent learns."""

    horizon: int = 32
    """H, months of a window"""
    discount: float = 1.0
    """γ a month"""
    epochs: int = 2
    """passes over the replayed windows after each window"""
    batches: int = 4
    """minibatches of a pass"""
    replay: int = 8
    """windows that are kept, the newest among them; 1 keeps no older one"""
    clip: float = 0.3
    """how far the centre of the policy may move from where a gradient was taken, before tanh, and still follow it"""
    surprise: Surprise = "learned"
    """by what the unforeseen part of next month's news is told, which is noise: "learned", a forecast fitted to the
    learner's own observations; "posterior", the model's mean given signal and regime, which no learner observes;
    "none" leaves the noise in"""
    surprise_weight: float = 0.9
    """share of the unforeseen part of next month's news that is taken out of the return"""
    learning_rate: float = 4e-3
    """of Adam at the start; it falls to `last_learning_rate` times that over the run"""
    last_learning_rate: float = 0.0
    """as a share of the first"""
    betas: tuple[float, float] = (0.9, 0.95)
    """of Adam"""
    max_gradient_norm: float = 1.0
    """longer gradients are shortened to it"""
    deviation: float = 0.3
    """σ of the exploring policy, before tanh"""
    memory: int = 0
    """entries of the policy's memory, a gated recurrent unit that reads news, signal and the news' volatility; 0 is
    none"""
    forecast_weight: float = 1.0
    """of the squared error, in units of the news' volatility, of what the memory adds to the forecast of the news; 0
    leaves the memory to the policy gradient alone"""
    feedback: bool = False
    """whether gradients also flow through what the policy observes. An action moves later observations and so later
    actions; where these are good already their change is worth nothing to first order, and leaving that path out
    removes most of the gradient's variance"""
    smoothing: float | None = None
    """of the clearing at the start of the run; None takes the markets' own"""
    last_smoothing: float | None = None
    """at its end, reached geometrically; None keeps it"""

    def __post_init__(self) -> None:
        for name in ("horizon", "epochs", "batches", "replay"):
            integer(name, getattr(self, name), 1)
        integer("memory", self.memory, 0)
        if self.surprise not in get_args(Surprise):
            raise ValueError(f"`surprise` must be one of {list(get_args(Surprise))}, got {self.surprise!r}")
        for name, low, high in (
            ("discount", 0.0, 1.0),
            ("surprise_weight", 0.0, 1.0),
            ("learning_rate", 0.0, 1.0),
            ("last_learning_rate", 0.0, 1.0),
            ("smoothing", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if value is None and name == "smoothing":
                continue
            if not low <= value <= high:
                raise ValueError(f"`{name}` must lie in [{low:g}, {high:g}], got {value!r}")
        if not self.forecast_weight >= 0.0:
            raise ValueError(f"`forecast_weight` must be >= 0, got {self.forecast_weight!r}")
        for name in ("max_gradient_norm", "clip"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"`{name}` must be > 0, got {getattr(self, name)!r}")
        if self.last_smoothing is not None and not 0.0 < self.last_smoothing <= (self.smoothing or 0.0):
            raise ValueError(
                f"`last_smoothing` must lie in (0, smoothing], got {self.last_smoothing!r} and {self.smoothing!r}"
            )

    def smoothing_at(self, progress: float) -> float | None:
        """Smoothing of the clearing when this share of the run is done; None is the markets' own."""
        if self.last_smoothing is None or not self.smoothing:
            return self.smoothing
        return float(self.smoothing * (self.last_smoothing / self.smoothing) ** progress)

    def learning_rate_at(self, progress: float) -> float:
        """Learning rate when this share of the run is done."""
        return self.learning_rate * (1.0 - (1.0 - self.last_learning_rate) * progress)


class Window(NamedTuple):
    """What a window left behind, outside any graph; H periods, E markets, L learners."""

    observations: Tensor  # (H, E, L, size)
    rewards: Tensor  # (H, E, L)
    ended: Tensor  # (H, E, L) the learner's episode ended with this period
    values: Tensor  # (H, E, L) worth of what follows this period, where it is bootstrapped, else 0
    news: Tensor  # (H, E, N) that came with this period, seen in the next observation
    starting: Tensor  # (H, E, L) bool, an episode begins with this observation
    memory: Tensor  # (E, L, M) before the first observation
    closed: bool  # every episode came to an end of its own with the last period


class ActionRecord:
    """What a window leaves for its action gradients; filled by `AnalyticPolicyGradient.window`.

    Attributes:
        perturbations: a month, (E, L, size) zeros added to the actions, to be differentiated by.
        noise: a month, (E, seats, size) of the exploring policy.
        surprise: (E, seats) what unforeseen news added to the discounted return, to first order, with its graph.
    """

    def __init__(self) -> None:
        self.perturbations: list[Tensor] = []
        self.noise: list[Tensor] = []
        self.surprise: Tensor | float = 0.0


class ActionGradients(NamedTuple):
    """Gradients of windows by their actions: S rows of H months, or of one month each without a memory."""

    observations: Tensor  # (H, S, size)
    noise: Tensor  # (H, S, size of one action)
    centers: Tensor  # (H, S, size of one action) of the policy that acted, before tanh
    gradients: Tensor  # (H, S, size of one action)
    news: Tensor  # (H, S, N) that came after each observation
    starting: Tensor  # (H, S) bool, an episode begins with this observation
    memory: Tensor  # (S, M) before the first observation


class Update(NamedTuple):
    """What one window and the gradient steps after it were like."""

    reward: float  # mean reward of a month
    gradient_norm: float  # mean over the steps, before shortening


class AnalyticPolicyGradient:
    """The agent without a critic: what follows a window counts for nothing.

    Args:
        markets: to learn in; their state goes on from window to window.
        settings: how.
        seed: of the networks and of the exploration.
        learning_seats: learners of each market that the policy is trained on; None is all of them.
        others: the policy of the other learners; needed where there are any.

    Raises:
        ValueError: a seat is not there, or nobody plays for the others.
    """

    def __init__(
        self,
        markets: Differentiable,
        settings: WindowSettings,
        seed: int,
        *,
        learning_seats: tuple[int, ...] | None = None,
        others: SquashedGaussianPolicy | None = None,
    ) -> None:
        self.markets, self.settings, self.others = markets, settings, others
        everybody = tuple(range(markets.n_learners))
        self.seats = everybody if learning_seats is None else learning_seats
        if (
            not self.seats
            or any(seat not in everybody for seat in self.seats)
            or len(set(self.seats)) < len(self.seats)
        ):
            raise ValueError(f"`learning_seats` must be some of {everybody}, each once, got {learning_seats}")
        if others is None and len(self.seats) < len(everybody):
            raise ValueError("`others` must be given where some learners are not trained, got None")
        device = markets.device
        news = markets.observation_map if isinstance(markets.observation_map, TellsNews) else None
        if settings.memory and news is None:
            raise ValueError(f"`memory` must be 0 where rows are no paths of a market, got {settings.memory}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.policy = SquashedGaussianPolicy(
                markets.observation_map.size, markets.action_map.size, settings.deviation, settings.memory,
                None if news is None else news_columns(news),
            ).to(device)  # fmt: skip
            self._make_critic()
        self._random = torch.Generator().manual_seed(seed)
        self._forecast = None if news is None else NewsForecast(news, device)
        self._gain: nn.Linear | None = None
        if self._forecast is not None and settings.memory and settings.forecast_weight > 0.0:
            self._gain = nn.Linear(settings.memory, self._forecast.n_assets, dtype=torch.float64, device=device)
            nn.init.zeros_(self._gain.weight)
            nn.init.zeros_(self._gain.bias)
        self._learnt = [*self.policy.parameters(), *(() if self._gain is None else self._gain.parameters())]
        self._optimizer = torch.optim.Adam(self._learnt, lr=settings.learning_rate, betas=settings.betas, fused=False)
        self.gradient_steps = self.updates = 0
        self._replayed: list[ActionGradients] = []
        shape = (markets.num_markets, markets.n_learners)
        self._starting = torch.ones(shape, dtype=torch.bool, device=device)
        self._memory = torch.zeros(shape[0], len(self.seats), settings.memory, dtype=torch.float64, device=device)
        size = 0 if others is None else others.memory_size
        self._others_memory = torch.zeros(*shape, size, dtype=torch.float64, device=device)

    @property
    def env_steps_per_update(self) -> int:
        """Periods of a window, over all learners of all markets."""
        return self.settings.horizon * self.markets.num_markets * self.markets.n_learners

    def update(self, progress: float) -> Update:
        """Run one window and take the gradient steps that follow it.

        Args:
            progress: share of the run that is done, in [0, 1].

        Raises:
            RuntimeError: a gradient is not finite.
        """
        settings = self.settings
        smoothing = settings.smoothing_at(progress)
        if smoothing is not None:
            self.markets.smoothing = smoothing
        for group in self._optimizer.param_groups:
            group["lr"] = settings.learning_rate_at(progress)
        window, steps = self.action_gradients()
        self._replayed = [*self._replayed, steps][-settings.replay :]
        norm = self._ascend(_side_by_side(self._replayed))
        self.updates += 1
        self._learn_values(window)
        if self._forecast is not None:
            self._forecast.learn(window.observations, self._news_of_seats(window))
        self.policy.normalizer.update(window.observations)
        return Update(float(window.rewards.mean()), norm)

    def action_gradients(self) -> tuple[Window, ActionGradients]:
        """Run one window and differentiate every learning seat's return by its own actions.

        Without a critic the last month's actions are left out: all that they earn comes after the window, but for the
        learner's own mark, which they move. They count where every episode came to an end of its own there.
        """
        frozen: dict[str, Tensor] = {name: value.detach() for name, value in self.policy.named_parameters()}
        record = ActionRecord()
        returns, window = self.window([frozen] * len(self.seats), record)
        objective = returns - self.settings.surprise_weight * record.surprise
        gradients = []
        for at, seat in enumerate(self.seats):
            found = torch.autograd.grad(
                objective[:, at].sum(), record.perturbations, retain_graph=at + 1 < len(self.seats)
            )
            gradients.append(torch.stack([gradient[:, seat] for gradient in found]))
        whole = self._has_critic or self.settings.horizon == 1 or window.closed
        months = self.settings.horizon - (0 if whole else 1)
        stacked = torch.stack(gradients, 2)[:months], torch.stack(record.noise)[:months]
        ascent, noise = stacked
        if not bool(torch.isfinite(ascent).all()):
            raise RuntimeError(f"a gradient of window {self.updates} is not finite: shorten `horizon`")
        seen, starting = window.observations[:months], window.starting[:months]
        news = self._news_of_seats(window)[:months]
        with torch.no_grad():
            inputs, began = self.policy.normalizer(seen).flatten(1, 2), starting.flatten(1, 2)
            memory = self.policy.remember(inputs, window.memory.flatten(0, 1), began)
            centers = self.policy.center(inputs, memory).view(*noise.shape)

        def rows(part: Tensor) -> Tensor:
            """(H, S, …), or (1, H·S, …) where no month needs the one before."""
            return part.flatten(1, 2) if self.settings.memory else part.flatten(0, 2)[None]

        before = window.memory if self.settings.memory else window.memory[None].expand(months, -1, -1, -1)
        return window, ActionGradients(
            observations=rows(seen), noise=rows(noise), centers=rows(centers), gradients=rows(ascent),
            news=rows(news), starting=rows(starting), memory=before.flatten(0, -2),
        )  # fmt: skip

    def window(self, copies: list[dict[str, Tensor]], record: ActionRecord | None = None) -> tuple[Tensor, Window]:
        """Discounted returns (E, seats) of one window with their graph, and what the window left behind.

        Args:
            copies: the policy's parameters by name, one copy for every learning seat.
            record: filled, where it is given, with what action gradients need.
        """
        settings, markets, seats = self.settings, self.markets, list(self.seats)
        markets.restart()
        markets.detach()
        shape = (markets.num_markets, len(seats))
        weight = torch.ones(shape, dtype=torch.float64, device=markets.device)
        total = torch.zeros_like(weight)
        self._memory, self._others_memory = self._memory.detach(), self._others_memory.detach()
        remembered = self._memory
        observations, rewards, ends, values, news, starts = [], [], [], [], [], []
        for month in range(settings.horizon):
            seen = markets.observe()
            starts.append(self._starting[:, seats])
            noise = torch.randn(*shape, self.policy.action_size, generator=self._random, dtype=torch.float64)
            action = self._act(seen, noise.to(weight.device), copies)
            if record is not None:
                record.perturbations.append(torch.zeros_like(action, requires_grad=True))
                record.noise.append(noise.to(weight.device))
                action = action + record.perturbations[-1]
            expected = None if record is None or month == settings.horizon - 1 else self._expected_news(seen)
            period = markets.step(action)
            news.append(markets.news.detach())
            reward, ended, ruined = period.reward[:, seats], period.ended[:, seats], period.ruined[:, seats]
            self._starting = period.ended
            total = total + weight * reward
            weight = weight * settings.discount
            if record is not None and expected is not None:
                surprise = weight * cast(DifferentiableMarkets, markets).surprise(expected)[:, seats]
                record.surprise = record.surprise + torch.where(ended, torch.zeros_like(surprise), surprise)
            value = torch.zeros_like(weight)
            last = month == settings.horizon - 1
            if last or bool(ended.any()):
                value = self._bootstrap_value(ended | last)
                value = torch.where((ended | last) & ~ruined, value, torch.zeros_like(value))
                total = total + weight * value
            weight = torch.where(ended, torch.ones_like(weight), weight)
            observations.append(seen[:, seats].detach())
            rewards.append(reward.detach())
            ends.append(ended)
            values.append(value.detach())
            if not last:
                markets.restart()
        return total, Window(
            observations=torch.stack(observations), rewards=torch.stack(rewards), ended=torch.stack(ends),
            values=torch.stack(values), news=torch.stack(news), starting=torch.stack(starts), memory=remembered,
            closed=bool(ruined.all()),
        )  # fmt: skip

    def _expected_news(self, seen: Tensor) -> Tensor | None:
        """News (E, 1 or L, N) that is foreseen from what is observed now; None where no surprise is taken out."""
        if self._forecast is None or self.settings.surprise_weight == 0.0 or self.settings.surprise == "none":
            return None
        if self.settings.surprise == "posterior":
            return cast(DifferentiableMarkets, self.markets).posterior_news()[:, None]
        if not self._forecast.rows:
            return None
        gain = None
        if self._gain is not None:
            with torch.no_grad():
                gain = seen.new_zeros(*seen.shape[:2], self._forecast.n_assets)
                gain[:, list(self.seats)] = self._gain(self._memory)
        return self._forecast(seen, gain)

    def _news_of_seats(self, window: Window) -> Tensor:
        """News (H, E, L, N) after every observation."""
        return window.news[:, :, None].expand(-1, -1, len(self.seats), -1)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a continued run needs, as tensors, numbers and strings."""
        return {
            "policy": self.policy.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "random": self._random.get_state(),
            "gradient_steps": self.gradient_steps,
            "updates": self.updates,
            "replayed": [steps._asdict() for steps in self._replayed],
            "forecast": None if self._forecast is None else self._forecast.state_dict(),
            "gain": None if self._gain is None else self._gain.state_dict(),
            "starting": self._starting,
            "memory": self._memory.detach(),
            "others_memory": self._others_memory.detach(),
            "markets": self.markets.state_dict(),
        }

    def load_state_dict(self, stored: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.policy.load_state_dict(stored["policy"])
        self._optimizer.load_state_dict(stored["optimizer"])
        self._random.set_state(stored["random"])
        self.gradient_steps, self.updates = stored["gradient_steps"], stored["updates"]
        self._replayed = [ActionGradients(**steps) for steps in stored["replayed"]]
        if self._forecast is not None:
            self._forecast.load_state_dict(stored["forecast"])
        if self._gain is not None:
            self._gain.load_state_dict(stored["gain"])
        self._starting, self._memory = stored["starting"], stored["memory"]
        self._others_memory = stored["others_memory"]
        self.markets.load_state_dict(stored["markets"])

    def _act(self, seen: Tensor, noise: Tensor, copies: list[dict[str, Tensor]]) -> Tensor:
        """Actions (E, L, size) of all learners; each learning seat acts with its own copy of the parameters."""
        known = seen if self.settings.feedback else seen.detach()
        kept = (~self._starting).to(known.dtype).unsqueeze(-1)
        memory, after = self._memory * kept[:, list(self.seats)], []
        chosen: dict[int, Tensor] = {}
        for at, seat in enumerate(self.seats):
            given = known[:, seat], noise[:, at], memory[:, at]
            chosen[seat], remembered = functional_call(self.policy, copies[at], given)
            after.append(remembered)
        self._memory = torch.stack(after, 1)
        if self.others is not None:
            fixed = {name: value.detach() for name, value in self.others.named_parameters()}
            rest, self._others_memory = functional_call(
                self.others, fixed, (known, None, self._others_memory * kept)
            )  # fmt: skip
            for seat in range(self.markets.n_learners):
                chosen.setdefault(seat, rest[:, seat])
        return torch.stack([chosen[seat] for seat in range(self.markets.n_learners)], 1)

    def _ascend(self, steps: ActionGradients) -> float:
        """Gradient steps on the replayed action gradients; returns the mean norm."""
        settings, policy = self.settings, self.policy
        norms = []
        inputs = policy.normalizer(steps.observations)
        for _ in range(settings.epochs):
            order = torch.randperm(inputs.shape[1], generator=self._random).to(inputs.device)
            for rows in order.chunk(settings.batches):
                here = inputs[:, rows]
                memory = policy.remember(here, steps.memory[rows], steps.starting[:, rows])
                center, gradient = policy.center(here, memory), steps.gradients[:, rows]
                moved = center.detach() - steps.centers[:, rows]
                followed = (moved * gradient > 0.0) & (moved.abs() > settings.clip)
                gradient = torch.where(followed, torch.zeros_like(gradient), gradient)
                action = torch.tanh(center + policy.deviation * steps.noise[:, rows])
                loss = -(gradient * action).sum() / gradient[..., 0].numel()
                if self._forecast is not None and self._gain is not None and self._forecast.rows:
                    error = self._forecast.loss(steps.observations[:, rows], self._gain(memory), steps.news[:, rows])
                    loss = loss + settings.forecast_weight * error
                self._optimizer.zero_grad()
                torch.autograd.backward(loss)
                norms.append(torch.nn.utils.clip_grad_norm_(self._learnt, settings.max_gradient_norm))
                self._optimizer.step()
                self.gradient_steps += 1
        return float(torch.stack(norms).mean())

    # What a critic adds

    _has_critic = False

    def _make_critic(self) -> None:
        """No critic."""

    def _bootstrap_value(self, asked: Tensor) -> Tensor:
        """Worth (E, seats) of going on from the state as it is; only the entries `asked` for count."""
        return torch.zeros_like(asked, dtype=torch.float64)

    def _learn_values(self, window: Window) -> None:
        """Nothing to learn."""


def _side_by_side(windows: list[ActionGradients]) -> ActionGradients:
    """All rows of some windows."""
    joined = {
        name: torch.cat([getattr(window, name) for window in windows], 0 if name == "memory" else 1)
        for name in ActionGradients._fields
    }
    return ActionGradients(**joined)
