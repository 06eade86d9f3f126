"""Diagnostics of gradients: estimators against closed forms, the Jacobian against differences, the commands."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hmgym.agents.networks import SquashedGaussianPolicy
from hmgym.diagnostics.gradients import differences, estimators, jacobian, smoothing
from hmgym.diagnostics.gradients.__main__ import main
from hmgym.diagnostics.gradients.rollouts import OwnParameters, Setting, load_policy, parameters_of, untrained_policy
from hmgym.envs.differentiable import DifferentiableMarkets, DifferentiablePeriod
from hmgym.market import MarketConfig

LEVERAGE, BELIEFS = "hmgym/Leverage-v0", "hmgym/Beliefs-v0"
SMALL = (("n_assets", 2), ("n_investors", 8))


class PositionMap:
    """Of observations that are the position alone, which the agents take for their news."""

    size, names = 1, ("news", "signal", "news_volatility")

    def columns(self, name: str) -> slice:
        assert name in self.names
        return slice(0, 1)


class LinearQuadratic:
    """s' = .8 s + a + ξ, reward −s'² + jump · 1[a > 0]; what the agents need to know of markets."""

    n_learners, max_episode_steps, smoothing = 1, None, 0.0

    def __init__(self, num_markets: int, seed: int, jump: float = 0.0) -> None:
        self.num_markets, self.jump = num_markets, jump
        self.device = torch.device("cpu")
        self.observation_map, self.action_map = PositionMap(), SimpleNamespace(size=1)
        self._random = np.random.default_rng(seed)  # torch's would repeat the noise of the exploring policy
        self._position = torch.full((num_markets, 1, 1), 0.5, dtype=torch.float64)

    @property
    def state(self) -> Any:
        nobody = torch.zeros(self.num_markets, 1, dtype=torch.bool)
        return SimpleNamespace(ruined=nobody)

    @property
    def news(self) -> torch.Tensor:
        return torch.zeros(self.num_markets, 1, dtype=torch.float64)

    def restart(self) -> None: ...

    def detach(self) -> None:
        self._position = self._position.detach()

    def observe(self) -> torch.Tensor:
        return self._position

    def step(self, action: torch.Tensor) -> DifferentiablePeriod:
        shock = 0.1 * torch.from_numpy(self._random.standard_normal(action.shape))
        self._position = 0.8 * self._position + action + shock
        reward = (-(self._position**2) + self.jump * (action > 0.0))[..., 0]
        never = torch.zeros(self.num_markets, 1, dtype=torch.bool)
        return DifferentiablePeriod(reward=reward, ruined=never, truncated=never[:, 0])


def toy(jump: float = 0.0) -> Any:
    return lambda seed, tau: LinearQuadratic(256, seed, jump)


def toy_policy() -> SquashedGaussianPolicy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = SquashedGaussianPolicy(1, 1)
    with torch.no_grad():
        policy.mean[-1].bias.fill_(0.1)
    return policy


def test_pathwise_and_score_estimates_are_those_of_a_closed_form() -> None:
    """One month: d/db E[−(.4 + tanh(m + σ ε) + ξ)²] = −2 E[(.4 + t)(1 − t²)], the normal mean by quadrature."""
    policy, settings = toy_policy(), estimators.EstimatorSettings(samples=4096, smoothing=(), surprise_weight=0.0)
    with torch.no_grad():
        center = float(policy.mean(policy.normalizer(torch.full((1,), 0.5, dtype=torch.float64))))
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    squashed = np.tanh(center + settings.deviation * nodes)
    expected = -2.0 * ((0.4 + squashed) * (1.0 - squashed**2)) @ weights / weights.sum()
    found: dict[str, list[np.ndarray[Any, Any]]] = {}
    for number in range(16):
        for name, rows in estimators._estimates(toy(), policy, settings, 1, number)[0].items():
            found.setdefault(name, []).append(rows[:, -1].numpy())  # the last parameter is the bias before tanh
    for name in ("pathwise", "detached", "score", "score, twin"):
        sample = np.concatenate(found[name])
        assert abs(sample.mean() - expected) < 4.0 * sample.std() / len(sample) ** 0.5, name
    assert np.concatenate(found["score"]).var() > 3.0 * np.concatenate(found["pathwise"]).var()


def test_estimators_agree_where_returns_are_continuous_and_show_the_bias_of_a_jump() -> None:
    settings = estimators.EstimatorSettings(months=(1, 3), samples=2048, smoothing=(), surprise_weight=0.0)
    for jump, unbiased in ((0.0, True), (0.5, False)):
        rows = estimators.measure(toy(jump), toy_policy(), settings, "toy")["rows"]
        twins = [row for row in rows if row["estimator"] == "score, twin"]
        assert [row["months"] for row in twins] == [1, 3]
        for row in twins:
            assert row["resolved"]
            low, high = row["relative_bias_ci95"]
            width = high - low
            assert (low - width < 0.0 < high + width) == unbiased, row
    detached = next(row for row in rows if row["estimator"] == "detached" and row["months"] == 3)
    assert abs(detached["standard_errors"]) > 5.0


def test_rollouts_are_those_of_the_shared_parameters(tmp_path: Path) -> None:
    setting = Setting(env_id=BELIEFS, num_markets=3, env_kwargs=SMALL)
    policy = untrained_policy(setting, 0)
    window = estimators._window(estimators.EstimatorSettings(), 3)
    own = OwnParameters(setting.markets(5), policy, window, 1)
    leaf = parameters_of(policy, 3).requires_grad_()
    sample = own.sample(leaf)
    shared = super(OwnParameters, OwnParameters(setting.markets(5), policy, window, 1))
    copies = {name: value.detach().clone().requires_grad_() for name, value in policy.named_parameters()}
    agent = estimators.OwnParameters(setting.markets(5), policy, window, 1)
    agent._act = shared._act.__func__.__get__(agent)  # type: ignore[method-assign]
    returns = agent.window([copies])[0]
    torch.testing.assert_close(sample.returns, returns[:, 0], rtol=1e-12, atol=1e-14)
    (rows,) = torch.autograd.grad(sample.returns.sum(), leaf)
    whole = torch.cat([part.flatten() for part in torch.autograd.grad(returns.sum(), list(copies.values()))])
    torch.testing.assert_close(rows.sum(0), whole, rtol=1e-9, atol=1e-12)
    with_memory = SquashedGaussianPolicy(3, 1, memory=2)
    with_memory.save(tmp_path / "policy.pt")
    with pytest.raises(ValueError, match="`path` must be of a policy without a memory, got one of 2 entries"):
        load_policy(tmp_path / "policy.pt")
    several = DifferentiableMarkets(BELIEFS, 2, seed=0, n_learners=2)
    with pytest.raises(ValueError, match="`markets` must have one learner"):
        OwnParameters(several, policy, window, 0)


def test_coordinates_are_the_state() -> None:
    setting = Setting(env_id=LEVERAGE, num_markets=3, env_kwargs=SMALL)
    markets = setting.markets(1)
    for _ in range(3):
        markets.step(torch.zeros(3, 1, markets.action_map.size, dtype=torch.float64))
    state = markets.state
    here = jacobian.Coordinates(state)
    tensors = here.to_state(here.of(state), state)
    for name, value in state.tensors().items():
        torch.testing.assert_close(tensors[name], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("issuance_band", [10.0, 0.0])  # never beyond it, and always
@pytest.mark.parametrize("env_id", [LEVERAGE, BELIEFS])
def test_jacobian_agrees_with_differences(env_id: str, issuance_band: float) -> None:
    config = MarketConfig(issuance_band=issuance_band)
    setting = Setting(env_id=env_id, num_markets=4, env_kwargs=(*SMALL, ("config", config)))
    policy, markets = untrained_policy(setting, 0), setting.markets(2)
    with torch.no_grad():
        markets.step(policy(markets.observe())[0])
    start, state = markets.state_dict(), markets.state
    supply = state.supply
    _, found, _ = jacobian._jacobians(markets, policy)
    moved = (markets.state.supply / supply - 1.0).abs() > 1e-9  # beyond rounding
    assert bool(moved.all() if issuance_band == 0.0 else ~moved.any())
    after = jacobian.Coordinates(markets.state)
    here = jacobian.Coordinates(state)
    row = here.of(state)
    random = torch.Generator().manual_seed(0)
    for _ in range(3):
        direction = torch.randn(row.shape, generator=random, dtype=torch.float64)
        ends = []
        for sign in (1.0, -1.0):
            markets.load_state_dict(start | {"state": here.to_state(row + sign * 1e-7 * direction, state)})
            with torch.no_grad():
                markets.step(policy(markets.observe())[0])
            ends.append(after.of(markets.state))
        difference = (ends[0] - ends[1]) / 2e-7
        torch.testing.assert_close((found @ direction[..., None])[..., 0], difference, rtol=1e-4, atol=1e-4)


def test_differences_are_small() -> None:
    setting = Setting(env_id=LEVERAGE, num_markets=6, env_kwargs=SMALL)
    settings = differences.DifferenceSettings(months=(1, 4), smoothing=(0.0, 1e-2), seeds=6, directions=1)
    rows = differences.measure(setting, untrained_policy(setting, 0), settings)["rows"]
    assert [(row["months"], row["smoothing"]) for row in rows] == [(1, 0.0), (4, 0.0), (1, 1e-2), (4, 1e-2)]
    assert all(row["away_from_kinks"]["worst"] < 1e-4 for row in rows)
    assert all(row["all"]["median"] < 1e-6 for row in rows)


def test_smoothing_removes_zero_gradients_and_biases_prices_by_its_order() -> None:
    setting = Setting(env_id=BELIEFS, num_markets=16, env_kwargs=SMALL)
    settings = smoothing.SmoothingSettings(smoothing=(1e-4, 1e-2), months=4, seeds=0)
    found = smoothing.measure(setting, untrained_policy(setting, 0), settings)
    exact, little, much = found["rows"]
    assert exact["smoothing"] == exact["price_bias"]["worst"] == exact["gradient_bias"]["worst"] == 0.0
    assert exact["zero"] > 0.3 > 0.0 == much["zero"]
    assert 0.0 < little["price_bias"]["median"] < 0.2 * much["price_bias"]["median"]
    assert found["training"] == []


@pytest.mark.parametrize("what", ["differences", "estimators", "jacobian", "smoothing"])
def test_commands_write_figure_and_json(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--seeds", "4", "--months", "2", "--assets", "2", "--investors", "6"]
    sizes += ["--train-steps", "1024", "--runs", "1", "--run-steps", "1024", "--episodes", "2"]
    written = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        assert main([what, "--env", BELIEFS, "--out", str(folder), *sizes]) == 0
        parts = ("_variance", "_bias") if what == "estimators" else ("",)
        pictures = [folder / f"gradients_{what}{part}.png" for part in parts]
        assert all(picture.stat().st_size > 1000 for picture in pictures)
        written.append((folder / f"gradients_{what}.json").read_text())
    assert written[0] == written[1]
    before = [picture.read_bytes() for picture in pictures]
    for picture in pictures:
        picture.unlink()
    assert main([what, "--redraw", "--out", str(tmp_path / "b")]) == 0
    assert [picture.read_bytes() for picture in pictures] == before
    with pytest.raises(SystemExit):
        main([what, "--redraw", "--out", str(tmp_path / "empty")])
    results = json.loads(written[0])
    keys = {"jacobian": {"variants", "policy"}, "smoothing": {"rows", "training"}, "estimators": {"rows", "policy"}}
    assert all({"env_id", "settings", *keys.get(what, {"rows"})} <= set(result) for result in results)
    assert "Beliefs" in capsys.readouterr().out


def test_command_takes_policies(tmp_path: Path) -> None:
    setting = Setting(env_id=LEVERAGE, num_markets=2, env_kwargs=SMALL)
    untrained_policy(setting, 3).save(tmp_path / "policy.pt")
    arguments = ["differences", "--policy", str(tmp_path / "policy.pt"), "--out", str(tmp_path), "--seeds", "2"]
    with pytest.raises(SystemExit):
        main(arguments)  # two environments, one policy
    assert main([*arguments, "--env", LEVERAGE, "--months", "1", "--assets", "2", "--investors", "8"]) == 0
