"""A run goes on from its own last good checkpoint, whatever happened to the folder, and from no other run's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hmgym.agents.networks import SquashedGaussianPolicy
from hmgym.agents.training import TrainingPlan, TrainingResult, train

SMALL = {"n_assets": 2, "n_investors": 8, "max_episode_steps": 7}
OWN: dict[str, dict[str, Any]] = {"apg": {}, "ppo": {"algo": "ppo", "hyperparameters": {"n_steps": 8}}}
Runs = dict[str, tuple[Path, TrainingResult]]
SAID = "ignore:going back to checkpoint:RuntimeWarning"


def plan(out: Path, **changes: Any) -> TrainingPlan:
    given: dict[str, Any] = {
        "algo": "apg", "timesteps": 128, "num_envs": 4, "checkpoint_every": 32, "curve_episodes": 2,
        "env_kwargs": SMALL, "hyperparameters": {"horizon": 4},
    }  # fmt: skip
    return TrainingPlan(**{**given, **changes, "out": out})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A whole run of each of two algorithms."""
    folder = tmp_path_factory.mktemp("runs")
    return {algo: (folder / algo, train(plan(folder / algo, **own))) for algo, own in OWN.items()}


@pytest.fixture
def whole(runs: Runs) -> dict[str, torch.Tensor]:
    """Parameters that the run of apg ends with."""
    return parameters(runs["apg"][1])


def copy_of(runs: Runs, algo: str, out: Path) -> Path:
    return Path(shutil.copytree(runs[algo][0], out))


def parameters(result: TrainingResult) -> dict[str, torch.Tensor]:
    assert isinstance(result.policy, SquashedGaussianPolicy)
    return {name: value.clone() for name, value in result.policy.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("algo", "name", "changes"),
    [
        ("apg", "algo", {"algo": "shac"}),
        ("apg", "algo", {"algo": "ppo", "hyperparameters": {}}),
        ("apg", "env_id", {"env_id": "hmgym/Leverage-v0"}),
        ("apg", "seed", {"seed": 1}),
        ("apg", "num_envs", {"num_envs": 2}),
        ("apg", "n_assets", {"env_kwargs": {**SMALL, "n_assets": 3}}),
        ("apg", "n_learners", {"env_kwargs": {**SMALL, "n_learners": 2}}),
        ("apg", "horizon", {"hyperparameters": {"horizon": 8}}),
        ("apg", "timesteps", {"timesteps": 64}),
        ("ppo", "reward", {"env_kwargs": {**SMALL, "reward": "excess_return"}}),
        ("ppo", "learning_rate", {"hyperparameters": {"learning_rate": 1e-4}}),
        ("ppo", "algo", {"algo": "a2c"}),
    ],
)
def test_another_plan_is_refused_by_the_name_of_its_argument(
    algo: str, name: str, changes: dict[str, Any], runs: Runs
) -> None:
    out = runs[algo][0]
    before = sorted(path.name for path in (out / "checkpoints").iterdir())
    with pytest.raises(ValueError, match=f"`{name}` must be .*, got "):
        train(plan(out, **{**OWN[algo], **changes}, resume=True))
    assert before == sorted(path.name for path in (out / "checkpoints").iterdir())


def test_a_run_may_be_made_longer_and_saved_more_often(runs: Runs, tmp_path: Path) -> None:
    out = copy_of(runs, "apg", tmp_path / "run")
    assert train(plan(out, resume=True, timesteps=160, checkpoint_every=16)).env_steps == 160


@pytest.mark.parametrize("algo", ["apg", "ppo"])
def test_a_fresh_start_refuses_a_used_folder(algo: str, runs: Runs) -> None:
    with pytest.raises(ValueError, match="`out` must be a folder that no run has written to"):
        train(plan(runs[algo][0], **OWN[algo], seed=1))


def test_overwriting_removes_the_older_run_and_nothing_else(
    runs: Runs, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    out = copy_of(runs, "ppo", tmp_path / "run")
    older = out / "checkpoints" / "128"
    (out / "notes.txt").write_text("mine")
    (out / "report.json").write_text("{}")
    with pytest.raises(ValueError, match="`reward` must be"):
        train(plan(out, overwrite=True, env_kwargs={**SMALL, "reward": "excess_return"}))
    assert (older / "model.zip").exists(), "a refused plan must not remove anything"
    train(plan(out, timesteps=64, checkpoint_every=32, overwrite=True))
    assert not older.exists()
    assert not (out / "report.json").exists()
    assert (out / "notes.txt").read_text() == "mine"
    train(plan(out, timesteps=64, resume=True))


def damage(folder: Path, how: str) -> None:
    """What a full disk, a killed process or a user leaves."""
    agent = folder / "agent.pt"
    if how == "truncated":
        agent.write_bytes(agent.read_bytes()[:-200])
    elif how == "replaced by an older one":
        shutil.copy(folder.parent / "32" / "agent.pt", agent)
    elif how == "broken progress":
        (folder / "progress.json").write_text('{"seconds": 1.0, "cur')
    elif how == "empty":
        for path in folder.iterdir():
            path.unlink()
    else:
        shutil.copytree(folder, folder.parent / "backup")


@pytest.mark.parametrize("how", ["truncated", "replaced by an older one", "broken progress", "empty", "backup"])
def test_a_damaged_checkpoint_is_passed_over_and_said(
    how: str, runs: Runs, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    checkpoints = copy_of(runs, "apg", tmp_path / "cut") / "checkpoints"
    shutil.rmtree(checkpoints / "128")
    damage(checkpoints / "96", how)
    said = "backup is not named by its periods" if how == "backup" else r"going back to checkpoint .*64: .*96"
    with pytest.warns(RuntimeWarning, match=said):
        resumed = train(plan(tmp_path / "cut", resume=True))
    assert same(parameters(resumed), whole)
    assert sorted(path.name for path in checkpoints.iterdir() if path.name != "backup") == ["128", "32", "64", "96"]


@pytest.mark.filterwarnings(SAID)
def test_a_checkpoint_cut_off_over_an_older_one_does_not_count(
    runs: Runs,
    whole: dict[str, torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoints = copy_of(runs, "apg", tmp_path / "cut") / "checkpoints"
    damage(checkpoints / "128", "truncated")
    damage(checkpoints / "96", "truncated")

    def full_disk(self: SquashedGaussianPolicy, path: Path) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(SquashedGaussianPolicy, "save", full_disk)
        with pytest.raises(OSError, match="no space left"):
            train(plan(tmp_path / "cut", resume=True))
    assert same(parameters(train(plan(tmp_path / "cut", resume=True))), whole)
    assert sorted(path.name for path in checkpoints.iterdir()) == ["128", "32", "64", "96"]


def test_nothing_good_is_an_error_and_nothing_at_all_a_beginning(
    runs: Runs, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    out = copy_of(runs, "apg", tmp_path / "run")
    for folder in (out / "checkpoints").iterdir():
        damage(folder, "truncated")
    with pytest.raises(ValueError, match=r"`out` must hold a checkpoint that can be read, got .*agent.pt is not as it"):
        train(plan(out, resume=True))
    shutil.rmtree(out / "checkpoints")
    assert same(parameters(train(plan(out, resume=True))), whole)


def test_statistics_of_sb3_are_stored_without_pickle_and_restored_bit_for_bit(
    runs: Runs,
) -> None:
    out, first = runs["ppo"]
    folder = out / "checkpoints" / "128"
    assert not (folder / "vecnormalize.pkl").exists()
    with np.load(folder / "normalizer.npz", allow_pickle=False) as stored:
        assert {array.dtype for array in stored.values()} == {np.dtype(np.float64)}
    again = train(plan(out, **OWN["ppo"], resume=True))
    for moments in ("obs_rms", "ret_rms"):
        one, other = (getattr(result.policy._normalizer, moments) for result in (first, again))
        for part in ("mean", "var", "count"):
            assert np.array_equal(getattr(one, part), getattr(other, part)), (moments, part)


@pytest.mark.filterwarnings("ignore:going back to checkpoint:RuntimeWarning")
def test_an_older_checkpoint_goes_on_without_its_replay_buffer(tmp_path: Path) -> None:
    settings = {"learning_starts": 16, "batch_size": 16, "gradient_steps": 1, "buffer_size": 500}
    train(plan(tmp_path, algo="sac", hyperparameters=settings))
    assert [path.parent.name for path in tmp_path.glob("checkpoints/*/replay_buffer.pkl")] == ["128"]
    model = tmp_path / "checkpoints" / "128" / "model.zip"
    model.write_bytes(model.read_bytes()[:1000])
    with pytest.warns(RuntimeWarning, match="96 has no replay buffer, which only the newest checkpoint keeps"):
        assert train(plan(tmp_path, algo="sac", hyperparameters=settings, resume=True)).env_steps == 128
