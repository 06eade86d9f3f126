"""Training a pool's rule on past prices: by gradients through its runs, or by trying.

The rows of prices are split in time: windows of the first part train, the last part validates. What is held out from
both is the caller's to keep. A run on the validation part knows earlier prices, as the pool would have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hmgym.checks import check_interval, check_number, integer, integer_or_none, shown
from hmgym.pools.parameters import MINUTES_A_DAY, PoolConfig, PoolParameters, common_shape
from hmgym.pools.performance import objective_of, performance
from hmgym.pools.pool import PoolRun, PowerChannelPool
from hmgym.pools.rule import read_prices

Progress = Callable[[int, int], None]

TRAINED = ("sp_k", "logit_lamb", "logit_delta_lamb", "sp_exponents", "sp_pre_exp_scaling")
"""Parameters that training moves; the weights of the start stay."""

RANGES: dict[str, tuple[float, float]] = {
    "sp_k": (-1.0, 100.0),
    "logit_lamb": (-4.0, 8.0),
    "logit_delta_lamb": (-5.0, 5.0),
    "sp_exponents": (0.0, 4.0),
    "sp_pre_exp_scaling": (-3.0, 2.0),
}
"""Where `tune_pool` looks. That of `sp_exponents` begins at 0: below, all exponents are 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolTraining:
    """What training found.

    Attributes:
        parameters: of the set and epoch that were best on the validation part, without an axis of sets.
        objective: of these, on the validation part.
        best_set: which set.
        best_epoch: after which epoch; 0 is before any.
        sets: (S, …) parameters of every set at its own best epoch.
        trained: (epochs, S) objective, mean over each epoch's windows, before its step.
        validated: (epochs + 1, S) objective on the validation part, row 0 before any step.
    """

    parameters: PoolParameters
    objective: float
    best_set: int
    best_epoch: int
    sets: PoolParameters
    trained: Tensor
    validated: Tensor


def train_pool(
    parameters: PoolParameters,
    prices: Tensor,
    config: PoolConfig,
    *,
    objective: str = "daily_log_sharpe",
    window_days: int = 365,
    windows: int = 8,
    sets: int | None = None,
    validation_share: float = 0.3,
    patience: int = 20,
    epochs: int = 100,
    seed: int = 0,
    learning_rate: float = 0.05,
    weight_decay: float = 1e-3,
    clip: float = 1.0,
    noise: float = 0.5,
    days_per_year: float = 365.0,
    progress: Progress | None = None,
) -> PoolTraining:
    """Maximise an objective over random windows by AdamW, several parameter sets side by side.

    An epoch is a step on the mean over `windows` windows, the same for all sets. Gradients are clipped set by set.
    `sp_exponents` below 0, where it stands for the same and has no gradient, is put on 0, at first and after each step.

    Args:
        parameters: where training begins; an axis of sets is kept.
        prices: (T, N), time first, of the training and the validation part.
        config: of the pool.
        objective: a name of `OBJECTIVES`.
        window_days: length of a window, ≥ 3.
        windows: an epoch, ≥ 1.
        sets: S ≥ 1 made of `parameters` with noise in all but the first; None is those they have, or 1.
        validation_share: of the rows, the last, in (0, 1).
        patience: epochs without a better validation after which training ends, ≥ 1.
        epochs: at most, ≥ 0.
        seed: of windows and noise, ≥ 0.
        learning_rate: > 0.
        weight_decay: ≥ 0.
        clip: largest norm of a set's gradient, > 0.
        noise: standard deviation of what sets differ by, ≥ 0.
        days_per_year: 365, or 252 where rows are trading days.
        progress: told epochs done and to do.

    Raises:
        ValueError: an argument is none of these, or prices are too short for a window and a validation part.
    """
    patience, epochs = integer("patience", patience, 1), integer("epochs", epochs, 0)
    for name, value in (("learning_rate", learning_rate), ("clip", clip)):
        check_number(name, value, 0.0, strict=True)
    check_number("weight_decay", weight_decay, 0.0)
    task = _Task(parameters, prices, config, objective, window_days, windows, validation_share, days_per_year)
    random = torch.Generator().manual_seed(integer("seed", seed, 0))
    start = _sets(parameters, sets, noise, random)
    names = [name for name in TRAINED if name != "logit_delta_lamb" or config.alternative_decay]
    leaves = {name: start.to_dict()[name].detach().clone().requires_grad_() for name in names}
    with torch.no_grad():
        leaves["sp_exponents"].clamp_(min=0.0)  # stands for the same, and has a gradient
    optimizer = torch.optim.AdamW(leaves.values(), lr=learning_rate, weight_decay=weight_decay)

    def current() -> PoolParameters:
        return PoolParameters(**{**start.to_dict(), **leaves})

    trained: list[Tensor] = []
    validated = [task.validate(current())]
    best, best_at = validated[0].clone(), torch.zeros(len(validated[0]), dtype=torch.int64)
    kept = {name: leaf.detach().clone() for name, leaf in leaves.items()}
    waited = 0
    for epoch in range(1, epochs + 1):
        found = task.windows(current(), task.draw(random))
        trained.append(found.detach())
        optimizer.zero_grad()
        (-found.sum()).backward()  # type: ignore[no-untyped-call]
        _clip([leaf.grad for leaf in leaves.values() if leaf.grad is not None], clip)
        optimizer.step()
        with torch.no_grad():
            leaves["sp_exponents"].clamp_(min=0.0)
        validated.append(task.validate(current()))
        better = validated[-1] > best
        waited = 0 if bool(validated[-1].max() > best.max()) else waited + 1
        best = torch.where(better, validated[-1], best)
        best_at[better] = epoch
        for name, leaf in leaves.items():
            kept[name][better] = leaf.detach()[better]
        if progress is not None:
            progress(epoch, epochs)
        if waited >= patience:
            break
    every = PoolParameters(**{**start.to_dict(), **kept})
    chosen = int(best.argmax())
    return PoolTraining(
        parameters=every.map(lambda each: each[chosen]),
        objective=float(best[chosen]),
        best_set=chosen,
        best_epoch=int(best_at[chosen]),
        sets=every,
        trained=torch.stack(trained) if trained else best.new_zeros((0, len(best))),
        validated=torch.stack(validated),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolTuning:
    """What trying found.

    Attributes:
        parameters: of the trial that was best on the validation part, of those that were best in training.
        objective: of these, on the validation part.
        trained: of these, the mean over windows.
        study: Optuna's record of all trials.
    """

    parameters: PoolParameters
    objective: float
    trained: float
    study: Any


def tune_pool(
    parameters: PoolParameters,
    prices: Tensor,
    config: PoolConfig,
    *,
    objective: str = "daily_log_sharpe",
    trials: int = 100,
    finalists: int = 5,
    window_days: int = 365,
    windows: int = 8,
    validation_share: float = 0.3,
    seed: int = 0,
    days_per_year: float = 365.0,
    progress: Progress | None = None,
) -> PoolTuning:
    """Try parameters of `RANGES` with Optuna's tree-structured Parzen estimator, on windows that all trials share.

    Parameters have the shapes, scalar or per asset, and the initial weights of those given, which are the first trial.

    Args:
        parameters: one set, without an axis of sets.
        prices: (T, N) as for `train_pool`, with the other arguments of the same name.
        config: of the pool.
        objective: a name of `OBJECTIVES`.
        trials: ≥ 1.
        finalists: trials best on the windows, of which the validation part chooses, ≥ 1.
        window_days: length of a window, ≥ 3.
        windows: ≥ 1.
        validation_share: in (0, 1).
        seed: ≥ 0.
        days_per_year: 365, or 252 where rows are trading days.
        progress: told trials done and to do.

    Raises:
        ValueError: an argument is none of these.
        ImportError: Optuna is missing.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError('tune_pool needs optuna: pip install "hmgym[tune]"') from error
    trials, finalists = integer("trials", trials, 1), integer("finalists", finalists, 1)
    task = _Task(parameters, prices, config, objective, window_days, windows, validation_share, days_per_year)
    if parameters.initial_weights_logits.ndim != 1:
        raise ValueError(f"`parameters` must be one set, got {tuple(parameters.initial_weights_logits.shape)} logits")
    starts = task.draw(torch.Generator().manual_seed(integer("seed", seed, 0)))
    names = [name for name in RANGES if name != "logit_delta_lamb" or config.alternative_decay]
    names = [name for name in names if name != "sp_pre_exp_scaling" or config.pre_scaling]
    own = {name: parameters.to_dict()[name].detach() for name in names}

    def parameters_of(values: dict[str, float]) -> PoolParameters:
        changed: dict[str, Any] = {name: [values[f"{name}.{i}"] for i in range(len(own[name]))] for name in names}
        return PoolParameters(**{**parameters.to_dict(), **changed})

    def tried(trial: Any) -> float:
        values = {
            f"{name}.{i}": trial.suggest_float(f"{name}.{i}", *RANGES[name])
            for name in names
            for i in range(len(own[name]))
        }
        with torch.no_grad():
            found = float(task.windows(parameters_of(values), starts))
        if progress is not None:
            progress(trial.number + 1, trials)
        return found

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        first = {
            f"{name}.{i}": min(max(float(value), RANGES[name][0]), RANGES[name][1])
            for name in names
            for i, value in enumerate(own[name])
        }
        study.enqueue_trial(first)
        study.optimize(tried, n_trials=trials)
    finally:
        optuna.logging.set_verbosity(before)
    found = [(float(one.value), one.params) for one in study.trials if one.value is not None]
    done = sorted(found, key=lambda one: -one[0])[:finalists]
    candidates = [parameters_of(values) for _, values in done]
    validated = [float(task.validate(one)) for one in candidates]
    chosen = max(range(len(done)), key=validated.__getitem__)
    return PoolTuning(parameters=candidates[chosen], objective=validated[chosen], trained=done[chosen][0], study=study)


class _Task:
    """Runs over windows of the training part and over the validation part."""

    def __init__(
        self, parameters: PoolParameters, prices: Tensor, config: PoolConfig, objective: str, window_days: int,
        windows: int, validation_share: float, days_per_year: float,
    ) -> None:  # fmt: skip
        self.pool = PowerChannelPool(config)
        if not isinstance(parameters, PoolParameters):
            raise ValueError(f"`parameters` must be PoolParameters, got {shown(parameters)}")
        self.prices = read_prices("prices", prices)
        self._objective, self._days_per_year = objective_of(objective), days_per_year
        check_interval("validation_share", validation_share, 0.0, 1.0, open_interval=True)
        self._windows = integer("windows", windows, 1)
        chunk, each = config.chunk_rows, max(1, MINUTES_A_DAY // config.row_minutes)
        self._split = int(len(self.prices) * (1.0 - validation_share)) // chunk * chunk
        self._length = integer("window_days", window_days, 3) * each
        if self._length > self._split or len(self.prices) - self._split < 3 * each:
            rows = f"{self._split} rows to train and {len(self.prices) - self._split} to validate"
            raise ValueError(
                f"`prices` must hold a window of {self._length} rows before the validation part, got {rows}"
            )

    def draw(self, random: torch.Generator) -> list[int]:
        """First minutes of random windows of the training part."""
        config = self.pool.config
        places = (self._split - self._length) // config.chunk_rows + 1
        drawn = torch.randint(places, (self._windows,), generator=random)
        return [int(place) * config.chunk_minutes for place in drawn]

    def windows(self, parameters: PoolParameters, starts: Sequence[int]) -> Tensor:
        """Objective (…), mean over windows."""
        prices, each = self.prices[: self._split], self.pool.config.row_minutes
        return self._of(self.pool.windows(parameters, prices, starts, self._length * each)).mean(-1)

    @torch.no_grad()
    def validate(self, parameters: PoolParameters) -> Tensor:
        """Objective (…) on the validation part."""
        return self._of(self.pool.simulate(parameters, self.prices, start=self._split * self.pool.config.row_minutes))

    def _of(self, run: PoolRun) -> Tensor:
        config = self.pool.config
        return self._objective(performance(run, row_minutes=config.row_minutes, days_per_year=self._days_per_year))


def _sets(parameters: PoolParameters, sets: int | None, noise: float, random: torch.Generator) -> PoolParameters:
    """Parameters with one axis of sets."""
    check_number("noise", noise, 0.0)
    count = integer_or_none("sets", sets, 1)
    lead = common_shape(*(each.shape[:-1] for each in parameters.to_dict().values()))
    if lead:
        if len(lead) > 1 or count not in (None, lead[0]):
            raise ValueError(f"`sets` must be those of `parameters`, {tuple(lead)}, or None, got {sets}")
        return parameters.map(lambda each: each.detach().expand(lead[0], each.shape[-1]))
    made = {}
    for name, each in parameters.to_dict().items():
        copies = each.detach().expand(count or 1, -1).clone()
        if name in TRAINED:
            draws = torch.randn(copies.shape, generator=random, dtype=torch.float64)
            copies[1:] += noise * draws[1:]
        made[name] = copies
    return PoolParameters(**made)


def _clip(gradients: list[Tensor], largest: float) -> None:
    """Shrinks gradients (S, ·) whose norm over all tensors, set by set, is above the largest; in place."""
    norm = torch.stack([(each**2).sum(-1) for each in gradients]).sum(0).sqrt()
    scale = (largest / norm.clamp(min=1e-300)).clamp(max=1.0)[:, None]
    for each in gradients:
        each *= scale
