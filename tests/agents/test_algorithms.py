"""Every algorithm is a record whose hyperparameters are flags."""

from __future__ import annotations

import ast
import dataclasses
import inspect

import pytest

from hmgym.agents.algorithms import ALGORITHMS, Algorithm, find_algorithm
from hmgym.agents.gradient_training import APG
from hmgym.agents.sb3.training import _OF_POLICY
from hmgym.agents.training import TrainingPlan, hyperparameters_of
from hmgym.commands.train import Arguments


def documented(cls: type) -> set[str]:
    """Fields of a dataclass, its own and inherited, that have a string under them."""
    found: set[str] = set()
    for base in cls.__mro__[:-1]:
        body = ast.parse(inspect.getsource(base)).body[0]
        assert isinstance(body, ast.ClassDef)
        for node, after in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                assert isinstance(node.target, ast.Name)
                found.add(node.target.id)
    return found


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_record(name: str) -> None:
    record = find_algorithm(name)
    assert record.name == name
    assert record.timesteps >= 1
    assert record.num_envs >= 1
    fields = dataclasses.fields(record.hyperparameters)
    settings = record.hyperparameters.__dataclass_params__
    assert settings.frozen
    assert all(item.kw_only and item.default is not dataclasses.MISSING for item in fields)
    names = {item.name for item in fields}
    assert names <= documented(record.hyperparameters)
    assert not names & {item.name for item in dataclasses.fields(Arguments)}, "two options of one name"
    with pytest.raises(ValueError, match=f"`hyperparameters` of {name} must be some of"):
        record.hyperparameters_for("hmgym/Leverage-v0", {"no_such_thing": 1})
    with pytest.raises(ValueError, match="`learning_rate` must lie in"):
        record.hyperparameters_for("hmgym/Leverage-v0", {"learning_rate": -1.0})


@pytest.mark.parametrize("name", ["ppo", "a2c", "sac", "td3", "tqc", "recurrent_ppo"])
def test_hyperparameters_of_sb3_are_what_its_constructor_takes(name: str) -> None:
    model, policy = find_algorithm(name).train.args
    names = {item.name for item in dataclasses.fields(find_algorithm(name).hyperparameters)}
    of_policy = names - set(inspect.signature(model.__init__).parameters)
    assert of_policy <= set(_OF_POLICY)
    assert of_policy <= set(inspect.signature(model.policy_aliases[policy].__init__).parameters)


def test_hyperparameters_by_environment() -> None:
    record = dataclasses.replace(APG, by_environment={"hmgym/Beliefs-v0": {"horizon": 5, "replay": 2}})
    assert record.hyperparameters_for("hmgym/Leverage-v0").horizon == 32
    there = record.hyperparameters_for("hmgym/Beliefs-v0", {"replay": 3})
    assert (there.horizon, there.replay) == (5, 3)


def test_a_record_of_its_own_is_found_by_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALGORITHMS, "again", "hmgym.agents.gradient_training:APG")
    assert isinstance(find_algorithm("again"), Algorithm)
    assert hyperparameters_of(TrainingPlan(algo="again"))["horizon"] == 32


def test_folders_tell_runs_apart() -> None:
    plans = [
        TrainingPlan(algo="apg"), TrainingPlan(algo="shac"), TrainingPlan(algo="apg", seed=1),
        TrainingPlan(algo="apg", env_id="hmgym/Leverage-v0"), TrainingPlan(algo="apg", num_envs=3),
        TrainingPlan(algo="apg", env_kwargs={"n_assets": 2}), TrainingPlan(algo="apg", hyperparameters={"horizon": 3}),
    ]  # fmt: skip
    assert len({plan.default_folder() for plan in plans}) == len(plans)
    longer = dataclasses.replace(plans[0], timesteps=7, checkpoint_every=3)
    assert longer.default_folder() == plans[0].default_folder()
