"""The systems on the page: the active/passive fund market, the default market and a trained learner's episode.

A further one is a function that makes its `System`, and a line in `SYSTEMS`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hmgym.dashboard.system import Choice, Number, Shown, Slider, System

SEED = Number(name="seed", label="Seed", low=0, value=0)


def called(function: str, *positional: Any, **named: Any) -> str:
    """The call of a function as Python writes it."""
    arguments = [repr(value) for value in positional] + [f"{name}={value!r}" for name, value in named.items()]
    return f"{function}({', '.join(arguments)})"


def simulation(scenario: str, values: Mapping[str, Any]) -> Shown:
    """A run of `hmgym.simulate` with the values as its arguments."""
    from hmgym.simulation import simulate

    result = simulate(scenario, **values)
    return Shown(figure=result.plot(), summary=result.summary(), call=called("hmgym.simulate", scenario, **values))


def fund_market(runs: Path) -> System:
    """The active/passive fund market."""
    return System(
        name="funds", title="Active and passive funds",
        about="Retail investors hold assets and the units of active and of index funds, and move money between them; "
        "fees, the information cost and the risk-free rate are a year's.",
        controls=(
            Slider(name="months", label="Months", low=12, high=240, step=12, value=60),
            Slider(name="n_assets", label="Assets", low=1, high=50, step=1, value=20),
            Slider(name="n_retail", label="Retail investors", low=10, high=500, step=10, value=100),
            Slider(name="n_active", label="Active managers", low=0, high=20, step=1, value=10),
            Slider(name="n_passive", label="Index funds", low=0, high=20, step=1, value=5),
            Slider(name="risk_free", label="Risk-free rate", low=0.0, high=0.1, step=0.0025, value=0.02, unit="%"),
            Slider(name="active_fee", label="Active fee", low=0.0, high=0.05, step=0.0005, value=0.015, unit="%"),
            Slider(name="passive_fee", label="Passive fee", low=0.0, high=0.05, step=0.0005, value=0.005, unit="%"),
            Slider(
                name="information_cost", label="Information cost of active managers", low=0.0, high=0.03, step=0.0005,
                value=0.003, unit="%",
            ),
            Choice(
                name="rationality", label="Rationality of retail investors (β)", value=1.0,
                options=(0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0),
            ),
            Choice(
                name="price_mechanism", label="How prices come about", options=("clearing", "impact"), value="clearing"
            ),
            SEED,
        ),
        run=functools.partial(simulation, "active-passive"),
    )  # fmt: skip


def crowd_market(runs: Path) -> System:
    """The default market without a learner."""

    def run(values: Mapping[str, Any]) -> Shown:
        from hmgym.investors import PopulationConfig

        shares = {name: values[name] for name in ("fundamentalists", "trend_followers")}
        others = {name: value for name, value in values.items() if name not in shares}
        found = simulation("crowd", others | {"population": PopulationConfig(**shares)})
        short = called("hmgym.investors.PopulationConfig", **shares)
        call = called("hmgym.simulate", "crowd", **others).removesuffix(")") + f", population={short})"
        return Shown(figure=found.figure, summary=found.summary, call=call)

    return System(
        name="crowd", title="Default market",
        about="Fundamentalists, trend followers and sentiment traders clear one market a month. "
        "Whoever is neither of the first two is of the third kind.",
        controls=(
            Slider(name="months", label="Months", low=12, high=240, step=12, value=120),
            Slider(name="n_assets", label="Assets", low=1, high=20, step=1, value=3),
            Slider(name="n_investors", label="Investors", low=5, high=100, step=1, value=20),
            Slider(
                name="fundamentalists", label="Fundamentalists, share of investors", low=0.0, high=1.0, step=0.05,
                value=0.5, unit="%",
            ),
            Slider(
                name="trend_followers", label="Trend followers, share of investors", low=0.0, high=1.0, step=0.05,
                value=0.35, unit="%",
            ),
            Slider(
                name="trading_cost", label="Trading cost, of money traded", low=0.0, high=0.02, step=0.0005,
                value=0.004, unit="%",
            ),
            SEED,
        ),
        run=run,
    )  # fmt: skip


def learner_episode(runs: Path) -> System:
    """One episode of a trained policy on held-out months, beside its baselines that need no skill."""
    known = [path.parents[2].name for path in sorted(runs.glob("*/checkpoints/*/checkpoint.json"))]
    options = tuple(dict.fromkeys(known)) or ("",)

    def run(values: Mapping[str, Any]) -> Shown:
        if not values["folder"]:
            raise ValueError(f"`runs` must be a folder of training runs, got {runs}: `hmgym train` makes one")
        return episode(runs / values["folder"], values["seed"])

    return System(
        name="learner", title="Trained learner",
        about="One episode of a trained policy, on months that it was not trained on. Grey and dashed is what it is "
        "compared with, on the same shocks.",
        controls=(
            Choice(name="folder", label="Training run", options=options, value=options[0]),
            Number(name="seed", label="Seed of the episode", low=0, value=1_000_000),
        ),
        run=run,
    )  # fmt: skip


def episode(folder: Path, seed: int) -> Shown:
    """An episode of the newest checkpoint of a run.

    Raises:
        ValueError: the folder has no checkpoint that can be read.
        ImportError: a package that the algorithm needs is missing.
    """
    from hmgym.agents.algorithms import find_algorithm
    from hmgym.agents.baselines import baselines_of
    from hmgym.agents.checkpoints import find_checkpoint
    from hmgym.agents.evaluation import PROTOCOL
    from hmgym.agents.report import episode_figure, record_episode
    from hmgym.agents.training import TrainingPlan

    checkpoint = find_checkpoint(folder)
    plan = TrainingPlan.of_checkpoint(checkpoint)
    policy = find_algorithm(plan.algo).load_policy(checkpoint.folder, plan)
    env_kwargs = PROTOCOL.report(plan.env_id, plan.env_kwargs)["env_kwargs"]
    series = record_episode(policy, plan.env_id, seed=seed, env_kwargs=env_kwargs)
    beside = {
        name.replace("_", " "): record_episode(other.policy, other.env_id, seed=seed, env_kwargs=other.env_kwargs)
        for name, other in baselines_of(plan.env_id, env_kwargs).items()
        if name != "random"
    }
    summary: dict[str, float | str] = {"environment": plan.env_id, "trained for, months": float(checkpoint.env_steps)}
    for name, one in {plan.algo: series, **beside}.items():
        summary[f"{name}: months"] = float(len(one) - 1)
        for panel in one.panels():
            if panel.compared:
                summary[f"{name}: at the end, {panel.unit}"] = float(panel.lines[0].values[-1])
    return Shown(
        figure=episode_figure(series, f"{plan.env_id}: an episode of {plan.algo}, seed {seed}", beside),
        summary=summary, call=f'hmgym.dashboard.systems.episode(pathlib.Path("{folder}"), {seed})',
    )  # fmt: skip


SYSTEMS: dict[str, Callable[[Path], System]] = {
    "funds": fund_market,
    "crowd": crowd_market,
    "learner": learner_episode,
}
"""Makers of the systems by name, in the order of their tabs; each is told the folder of training runs."""
