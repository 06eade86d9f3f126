"""Agents that backpropagate through the market: their gradients, their markets, their checkpoints."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import functional_call

from hmgym.agents import evaluate
from hmgym.agents.analytic_policy_gradient import ActionRecord, AnalyticPolicyGradient, WindowSettings
from hmgym.agents.gradient_training import load_policy
from hmgym.agents.networks import Normalizer, SquashedGaussianPolicy
from hmgym.agents.shac import ActorCriticSettings, ShortHorizonActorCritic
from hmgym.agents.training import TrainingPlan, train
from hmgym.envs import make_markets
from hmgym.envs.differentiable import DifferentiableMarkets
from hmgym.market import MarketConfig

LEVERAGE, BELIEFS = "hmgym/Leverage-v0", "hmgym/Beliefs-v0"
SMALL = {"n_assets": 2, "n_investors": 8}


@pytest.mark.parametrize("env_id", [LEVERAGE, BELIEFS])
@pytest.mark.parametrize("n_learners", [1, 3])
def test_markets_are_those_of_the_vector_environment(env_id: str, n_learners: int) -> None:
    markets = DifferentiableMarkets(env_id, 4, seed=5, stagger=False, n_learners=n_learners, max_episode_steps=9)
    face = make_markets(env_id, 4, autoreset_mode="SameStep", n_learners=n_learners, max_episode_steps=9)
    observation, _ = face.reset(seed=5)
    random = np.random.default_rng(0)
    for month in range(20):
        seen = markets.observe()
        np.testing.assert_allclose(seen.detach().numpy().reshape(observation.shape), observation, atol=2e-7)
        action = random.uniform(-1.0, 1.0, face.action_space.shape)
        period = markets.step(torch.from_numpy(action).reshape(4, n_learners, -1))
        expected = face.advance(action)
        observation = expected.observation
        np.testing.assert_allclose(period.reward.numpy().ravel(), expected.reward, rtol=0.0, atol=1e-12)
        assert np.array_equal(period.ended.numpy().ravel(), expected.terminated | expected.truncated)
        assert bool(period.truncated.all()) == (month % 9 == 8)
        markets.restart()


def test_newcomers_see_themselves_and_the_others_see_the_ruined() -> None:
    config = MarketConfig(n_assets=2, n_investors=10, n_learners=3, ruin_fraction=0.9)
    markets = DifferentiableMarkets(LEVERAGE, 4, seed=5, stagger=False, config=config)
    face = make_markets(LEVERAGE, 4, autoreset_mode="SameStep", config=config, max_episode_steps=120)
    observation, _ = face.reset(seed=5)
    random, ruins = np.random.default_rng(0), 0
    for _ in range(60):
        seen = markets.observe().numpy().reshape(observation.shape)
        np.testing.assert_allclose(seen, observation, atol=2e-7)
        action = random.uniform(-1.0, 1.0, face.action_space.shape)
        period = markets.step(torch.from_numpy(action).reshape(4, 3, -1))
        expected = face.advance(action)
        observation, ruins = expected.observation, ruins + int(expected.terminated.sum())
        np.testing.assert_allclose(period.reward.numpy().ravel(), expected.reward, rtol=0.0, atol=1e-12)
        markets.restart()
    assert ruins > 0, "nobody was ruined: the test shows nothing"


@pytest.mark.parametrize("smoothing", [0.0, 1e-3])
@pytest.mark.parametrize("env_id", [LEVERAGE, BELIEFS])
def test_gradient_of_a_year_agrees_with_central_differences(env_id: str, smoothing: float) -> None:
    """Along the gradient and along random directions of the policy's parameters, feedback included.

    Away from kinks: a difference across one is not a derivative, so the exact one is checked at steps small enough to
    stay on one side and the median over directions and seeds is compared.
    """
    errors = []
    for seed in range(3):
        settings = WindowSettings(horizon=12, feedback=True, smoothing=smoothing)

        def year(
            parameters: dict[str, torch.Tensor], seed: int = seed, settings: WindowSettings = settings
        ) -> torch.Tensor:
            markets = DifferentiableMarkets(env_id, 8, seed=100 * seed, stagger=False, smoothing=settings.smoothing)
            agent = AnalyticPolicyGradient(markets, settings, seed)
            return agent.window([parameters])[0].sum()

        agent = AnalyticPolicyGradient(DifferentiableMarkets(env_id, 8, seed=0), settings, seed)
        torch.manual_seed(seed)
        center = {
            name: (value.detach() + 0.1 * torch.randn_like(value)).requires_grad_()
            for name, value in agent.policy.named_parameters()
        }
        gradients = dict(zip(center, torch.autograd.grad(year(center), list(center.values())), strict=True))
        length = torch.sqrt(sum((value**2).sum() for value in gradients.values()))
        directions = [{name: value / length for name, value in gradients.items()}]
        for _ in range(2):
            random = {name: torch.randn_like(value) for name, value in center.items()}
            size = torch.sqrt(sum((value**2).sum() for value in random.values()))
            directions.append({name: value / size for name, value in random.items()})
        for direction in directions:
            exact = float(sum((gradients[name] * direction[name]).sum() for name in center))
            ends = []
            for sign in (1.0, -1.0):
                moved = {name: value.detach() + sign * 1e-6 * direction[name] for name, value in center.items()}
                with torch.no_grad():
                    ends.append(float(year(moved)))
            difference = (ends[0] - ends[1]) / 2e-6
            errors.append(abs(exact - difference) / float(length))
    assert np.median(errors) < 1e-6
    assert sorted(errors)[-2] < 1e-4, errors  # one of nine may straddle a kink


@pytest.mark.parametrize("feedback", [True, False])
def test_one_step_is_the_policy_gradient_of_each_learner_s_own_return(feedback: bool) -> None:
    """Σ g'π has, at the policy that acted, the gradient of every seat's own return in its own parameters."""
    settings = WindowSettings(
        horizon=3, feedback=feedback, surprise_weight=0.0, epochs=1, batches=1, replay=1, max_gradient_norm=1e9
    )
    markets = DifferentiableMarkets(BELIEFS, 3, seed=1, n_learners=2)
    agent = AnalyticPolicyGradient(markets, settings, 0)
    agent._has_critic = True  # so that the last month counts
    stored = agent.state_dict()
    copies = [
        {name: value.detach().clone().requires_grad_() for name, value in agent.policy.named_parameters()}
        for _ in range(2)
    ]
    returns, _ = agent.window(copies)
    expected = [torch.zeros_like(value) for value in copies[0].values()]
    for seat in range(2):
        own = torch.autograd.grad(-returns[:, seat].sum() / 18, list(copies[seat].values()), retain_graph=seat == 0)
        expected = [total + gradient for total, gradient in zip(expected, own, strict=True)]
    agent.load_state_dict(stored)
    agent.update(0.0)
    for parameter, wanted in zip(agent.policy.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-10, atol=1e-15)


def test_surprise_has_mean_zero_and_explains_the_return() -> None:
    """What is subtracted does not move the mean, and takes out most of the variance."""
    markets = DifferentiableMarkets(LEVERAGE, 256, seed=1)
    agent = AnalyticPolicyGradient(markets, WindowSettings(horizon=2, surprise="posterior"), 0)
    frozen = {name: value.detach() for name, value in agent.policy.named_parameters()}
    surprises, rewards = [], []
    for _ in range(30):
        record = ActionRecord()
        _, window = agent.window([frozen], record)
        alive = ~window.ended[0, :, 0]
        surprises.append(record.surprise.detach()[alive, 0])
        rewards.append(window.rewards[1, alive, 0])
    surprise, reward = torch.cat(surprises), torch.cat(rewards)
    error = float(surprise.std()) / len(surprise) ** 0.5
    assert abs(float(surprise.mean())) < 4.0 * error
    assert float((reward - 0.9 * surprise).var()) < 0.4 * float(reward.var())


def test_trained_seats_and_others() -> None:
    markets = DifferentiableMarkets(BELIEFS, 2, seed=1, n_learners=2, **SMALL)
    with pytest.raises(ValueError, match="`others` must be given"):
        AnalyticPolicyGradient(markets, WindowSettings(), 0, learning_seats=(0,))
    with pytest.raises(ValueError, match="`learning_seats` must be some of"):
        AnalyticPolicyGradient(markets, WindowSettings(), 0, learning_seats=(2,))
    others = SquashedGaussianPolicy(markets.observation_map.size, markets.action_map.size)
    agent = AnalyticPolicyGradient(markets, WindowSettings(horizon=8), 0, learning_seats=(1,), others=others)
    before = [value.clone() for value in others.parameters()]
    update = agent.update(0.0)
    assert update.gradient_norm > 0.0
    assert all(torch.equal(old, new) for old, new in zip(before, others.parameters(), strict=True))


@pytest.mark.parametrize(
    ("algo", "n_learners", "memory"), [("apg", 1, 0), ("apg", 2, 0), ("shac", 1, 0), ("shac", 2, 4), ("apg", 1, 4)]
)
def test_a_resumed_run_is_the_uninterrupted_one(algo: str, n_learners: int, memory: int, tmp_path: Path) -> None:
    def run(folder: str, timesteps: int, resume: bool) -> dict[str, torch.Tensor]:
        plan = TrainingPlan(
            algo=algo, env_id=LEVERAGE, timesteps=512, num_envs=4 // n_learners, out=tmp_path / folder, resume=resume,
            checkpoint_every=128, curve_episodes=2,
            env_kwargs={**SMALL, "max_episode_steps": 7, "n_learners": n_learners},
            hyperparameters={"horizon": 4, "replay": 3, "smoothing": 1e-2, "last_smoothing": 1e-3, "memory": memory},
        )  # fmt: skip
        result = train(plan)
        if timesteps < 512:  # as if the run had been cut off after the checkpoint
            for later in (plan.out / "checkpoints").glob("*"):
                if int(later.name) > timesteps:
                    shutil.rmtree(later)
        else:
            assert result.env_steps == 512
            curves.append([(point.env_steps, point.gradient_steps, point.mean_return) for point in result.curve])
        return {name: value.clone() for name, value in result.policy.state_dict().items()}

    curves: list[list[tuple[int, int, float]]] = []
    whole = run("whole", 512, False)
    run("cut", 256, False)
    resumed = run("cut", 512, True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert curves[0] == curves[1]
    loaded = load_policy(tmp_path / "cut" / "checkpoints" / "512")
    observation = np.random.default_rng(0).uniform(-1.0, 1.0, (5, loaded.normalizer.mean.shape[0]))
    action, state = loaded.predict(observation, deterministic=True)
    assert (state is None) == (memory == 0)
    assert action.dtype == np.float32
    assert action.shape == (5, 1)
    np.testing.assert_array_equal(loaded.predict(observation[0], deterministic=True)[0], action[0])
    run_of_it = evaluate(loaded, LEVERAGE, episodes=3, env_kwargs={**SMALL, "max_episode_steps": 7})
    assert np.isfinite(run_of_it.returns).all()


@pytest.mark.parametrize("agent_type", [AnalyticPolicyGradient, ShortHorizonActorCritic])
def test_both_agents_learn(agent_type: type[AnalyticPolicyGradient]) -> None:
    markets = DifferentiableMarkets(BELIEFS, 16, seed=3)
    settings = ActorCriticSettings if agent_type is ShortHorizonActorCritic else WindowSettings
    agent = agent_type(markets, settings(horizon=8), 0)

    def mean_return() -> float:
        return float(evaluate(agent.policy, BELIEFS, episodes=64).returns.mean())

    before = mean_return()
    for step in range(30):
        agent.update(step / 30)
    assert mean_return() > before + 0.4


def test_critic_targets_by_hand() -> None:
    markets = DifferentiableMarkets(LEVERAGE, 1, seed=0, **SMALL)
    agent = ShortHorizonActorCritic(markets, ActorCriticSettings(horizon=3, discount=0.9, trace=0.5), 0)
    from hmgym.agents.analytic_policy_gradient import Window

    def column(*values: float) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)

    ended = torch.tensor([False, True, False]).view(-1, 1, 1)
    window = Window(
        torch.zeros(3, 1, 1, 1), column(1.0, 2.0, 3.0), ended, column(0.0, 5.0, 7.0), *[torch.zeros(3, 1, 1)] * 3,
        closed=False,
    )  # fmt: skip
    targets = agent._targets(window, column(10.0, 20.0, 30.0)).flatten().tolist()
    second = 2.0 + 0.9 * 5.0  # truncated: its own bootstrap, nothing of the next episode
    assert targets == pytest.approx([1.0 + 0.9 * (0.5 * 20.0 + 0.5 * second), second, 3.0 + 0.9 * 7.0])


def test_normalizer_holds_mean_and_variance_of_all_it_saw() -> None:
    random = torch.Generator().manual_seed(0)
    parts = [3.0 + 2.0 * torch.randn(n, 4, 5, dtype=torch.float64, generator=random) for n in (3, 7, 2)]
    normalizer = Normalizer(5)
    for part in parts:
        normalizer.update(part)
    everything = torch.cat(parts).reshape(-1, 5)
    torch.testing.assert_close(normalizer.mean, everything.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(normalizer.variance, everything.var(0, correction=0), rtol=1e-3, atol=1e-4)
    assert float(normalizer(everything).abs().max()) <= 10.0


def test_markets_keep_their_own_smoothing() -> None:
    markets = DifferentiableMarkets(LEVERAGE, 2, seed=0, smoothing=0.05, **SMALL)
    AnalyticPolicyGradient(markets, WindowSettings(horizon=2), 0).update(0.0)
    assert markets.smoothing == 0.05
    AnalyticPolicyGradient(markets, WindowSettings(horizon=2, smoothing=0.1, last_smoothing=1e-3), 0).update(0.5)
    assert markets.smoothing == pytest.approx(1e-2)


def test_gradients_reach_the_policy_through_its_own_feedback() -> None:
    """With feedback an observation moves with earlier actions; without it does not."""
    grads = []
    for feedback in (True, False):
        markets = DifferentiableMarkets(LEVERAGE, 2, seed=0, **SMALL)
        agent = AnalyticPolicyGradient(markets, WindowSettings(horizon=3, feedback=feedback), 0)
        copy = {name: value.detach().clone().requires_grad_() for name, value in agent.policy.named_parameters()}
        grads.append(torch.autograd.grad(agent.window([copy])[0].sum(), copy["mean.4.bias"])[0])
    assert not torch.equal(*grads)
    assert torch.allclose(*grads, rtol=0.5)


def test_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`reward` must be"):
        DifferentiableMarkets(LEVERAGE, 1, seed=0, reward="excess_return")
    with pytest.raises(ValueError, match="`num_markets` must be an integer >= 1"):
        DifferentiableMarkets(LEVERAGE, 0, seed=0)
    for field, value in (("horizon", 0), ("discount", 1.5), ("clip", 0.0), ("epochs", 0), ("last_smoothing", 0.1)):
        with pytest.raises(ValueError, match=f"`{field}`"):
            WindowSettings(**{field: value})
    with pytest.raises(ValueError, match="`critic_epochs`"):
        ActorCriticSettings(critic_epochs=0)
    with pytest.raises(ValueError, match="`hyperparameters` of apg"):
        train(TrainingPlan(algo="apg", out=tmp_path, hyperparameters={"trace": 0.5}))
    policy = SquashedGaussianPolicy(4, 2)
    with pytest.raises(ValueError, match="`observation` must have shape"):
        policy.predict(np.zeros(5))
    torch.save({"something": 1}, tmp_path / "else.pt")
    with pytest.raises(ValueError, match="`path` must be a file written by"):
        SquashedGaussianPolicy.load(tmp_path / "else.pt")
    markets = DifferentiableMarkets(LEVERAGE, 1, seed=0, stagger=False, max_episode_steps=1, **SMALL)
    with pytest.raises(ValueError, match="`action` must have shape"):
        markets.step(torch.zeros(1, 1, 3, dtype=torch.float64))
    for wrong in (1.5, float("nan")):
        with pytest.raises(ValueError, match="`action` must lie in"):
            markets.step(torch.full((1, 1, 1), wrong, dtype=torch.float64))
    with pytest.raises(ValueError, match="`stored` must be of 1 markets"):
        markets.load_state_dict(DifferentiableMarkets(LEVERAGE, 2, seed=0, **SMALL).state_dict())
    markets.step(torch.zeros(1, 1, 1, dtype=torch.float64))
    with pytest.raises(ValueError, match="must be reset with `restart`"):
        markets.step(torch.zeros(1, 1, 1, dtype=torch.float64))
    assert functional_call(policy, dict(policy.named_parameters()), (torch.zeros(1, 4, dtype=torch.float64),))[
        0
    ].shape == (1, 2)


def test_learned_surprise_has_mean_zero_given_what_is_observed() -> None:
    """A forecast fitted to earlier windows and then frozen errs by what no entry of the observation tells."""
    config = MarketConfig(fundamentals="gaussian", n_investors=8)
    markets = DifferentiableMarkets(LEVERAGE, 128, seed=7, config=config, hidden_regime=False)
    agent = AnalyticPolicyGradient(markets, WindowSettings(horizon=4), 0)
    forecast = agent._forecast
    assert forecast is not None
    assert agent._expected_news(markets.observe()) is None, "nothing was learnt yet: no surprise is taken out"
    frozen = {name: value.detach() for name, value in agent.policy.named_parameters()}
    surprises, errors, told, gaps = [], [], [], []
    for number in range(80):
        record = ActionRecord()
        with torch.no_grad():
            _, window = agent.window([frozen], record)
        if number < 60:
            forecast.learn(window.observations, window.news[:, :, None])
            continue
        posterior, expected = markets.posterior_news(), forecast(markets.observe())[:, 0]
        gaps.append(torch.stack([(expected - posterior).flatten(), (posterior - config.growth).flatten()]))
        surprises.append(record.surprise[~window.ended.any(0)[:, 0], 0])
        errors.append((window.news - forecast(window.observations)[:, :, 0]).flatten(0, 1))
        told.append(window.observations[:, :, 0].flatten(0, 1))
    surprise, error, observed = torch.cat(surprises), torch.cat(errors), torch.cat(told)
    assert abs(float(surprise.mean())) < 4.0 * float(surprise.std()) / len(surprise) ** 0.5
    products = error[:, :, None] * (observed - observed.mean(0))[:, None]
    scores = products.mean(0) / (products.std(0).clamp(min=1e-12) / len(error) ** 0.5)
    assert float(scores.abs().max()) < 4.0  # of 84
    off, moved = torch.cat(gaps, 1).square().mean(1).sqrt()
    assert float(off) < 0.15 * float(moved)


def test_forecast_knows_nothing_but_observations() -> None:
    markets = DifferentiableMarkets(BELIEFS, 4, seed=1, **SMALL)
    agent = AnalyticPolicyGradient(markets, WindowSettings(horizon=4), 0)
    agent.update(0.0)
    seen = markets.observe()
    before = agent._expected_news(seen)
    hidden = markets.state.tensors() | {"next_news": markets.state.next_news + 0.1}
    markets._state = markets.state.with_tensors(hidden)
    after = agent._expected_news(markets.observe())
    assert before is not None
    assert after is not None
    assert torch.equal(before, after)
    with pytest.raises(ValueError, match="`surprise` must be one of"):
        WindowSettings(surprise="oracle")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="call `step` before `surprise`"):
        DifferentiableMarkets(BELIEFS, 4, seed=1, **SMALL).surprise(before)


def _window_with_memory(
    settings: WindowSettings, seed: int = 0
) -> tuple[AnalyticPolicyGradient, dict[str, torch.Tensor]]:
    """An agent on a tiny market, and parameters that make its policy remember."""
    markets = DifferentiableMarkets(LEVERAGE, 3, seed=4, max_episode_steps=5, hidden_regime=True, **SMALL)
    agent = AnalyticPolicyGradient(markets, settings, seed)
    torch.manual_seed(seed)
    named = agent.policy.named_parameters()
    return agent, {name: (value.detach() + 0.1 * torch.randn_like(value)).requires_grad_() for name, value in named}


def test_gradient_of_a_policy_with_memory_agrees_with_central_differences() -> None:
    """Through the memory of eight months, an episode's end among them, which it must not pass."""
    settings = WindowSettings(horizon=8, feedback=True, memory=4)
    agent, center = _window_with_memory(settings)
    stored = agent.state_dict()

    def total(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        agent.load_state_dict(stored)
        return agent.window([parameters])[0].sum()

    gradients = dict(zip(center, torch.autograd.grad(total(center), list(center.values())), strict=True))
    assert all(float(gradients[name].norm()) > 0.0 for name in gradients if name.startswith("memory."))
    length = torch.sqrt(sum((value**2).sum() for value in gradients.values()))
    for name in ("memory.input.weight", "memory.carry.weight", "mean.0.weight"):
        direction = gradients[name] / gradients[name].norm()
        ends = []
        for sign in (1.0, -1.0):
            moved = {other: value.detach() for other, value in center.items()}
            moved[name] = moved[name] + sign * 1e-6 * direction
            with torch.no_grad():
                ends.append(float(total(moved)))
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(float(gradients[name].norm()), abs=1e-6 * float(length))


def test_one_step_with_memory_is_the_policy_gradient() -> None:
    """The steps after a window run the memory again: at the policy that acted the gradient is the window's own."""
    settings = WindowSettings(
        horizon=6, surprise="none", epochs=1, batches=1, replay=1, max_gradient_norm=1e9, memory=4, forecast_weight=0.0
    )
    agent, _ = _window_with_memory(settings)
    agent._has_critic = True  # so that the last month counts
    agent.update(0.0)  # so that there is something to remember
    stored = copy.deepcopy(agent.state_dict())
    parameters = {name: value.detach().clone().requires_grad_() for name, value in agent.policy.named_parameters()}
    returns, window = agent.window([parameters])
    assert bool((window.memory != 0.0).any())
    assert bool(window.starting.any())
    expected = torch.autograd.grad(-returns.sum() / 18, list(parameters.values()))
    agent.load_state_dict(stored)
    agent._replayed = []
    agent.update(0.0)
    for parameter, wanted in zip(agent.policy.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-9, atol=1e-15)


def test_memory_is_carried_and_forgotten_as_in_training(tmp_path: Path) -> None:
    """`predict` does what the window did, month by month; a file keeps the memory's size; sizes are checked."""
    agent, _ = _window_with_memory(WindowSettings(horizon=4, deviation=0.0, memory=4))
    agent.update(0.0)
    agent.policy.save(tmp_path / "policy.pt")
    policy = SquashedGaussianPolicy.load(tmp_path / "policy.pt")
    frozen = {name: value.detach() for name, value in agent.policy.named_parameters()}
    state = agent._memory[:, 0].numpy()
    for _ in range(3):
        _, window = agent.window([frozen])
        for month in range(4):
            _, state = policy.predict(window.observations[month, :, 0], state, window.starting[month, :, 0].numpy())
        np.testing.assert_allclose(state, agent._memory[:, 0].numpy(), rtol=0.0, atol=1e-14)
    seen = window.observations[0, :, 0].numpy()
    fresh, one = policy.predict(seen, None, None, True), policy.predict(seen[0], None, None, True)
    np.testing.assert_array_equal(fresh[0], policy.predict(seen, state, np.ones(3, np.bool_), True)[0])
    np.testing.assert_allclose(one[0], fresh[0][0], rtol=0.0, atol=1e-7)
    assert one[1] is not None
    assert one[1].shape == (4,)
    with pytest.raises(ValueError, match="`state` must have shape"):
        policy.predict(seen, np.zeros((3, 5)))
    kwargs = {**SMALL, "max_episode_steps": 5, "hidden_regime": True}
    together = evaluate(policy, LEVERAGE, episodes=4, env_kwargs=kwargs)
    apart = evaluate(policy, LEVERAGE, episodes=4, batch=1, env_kwargs=kwargs)
    np.testing.assert_allclose(together.returns, apart.returns, rtol=0.0, atol=1e-6)


def test_memory_learns_to_forecast_what_the_hidden_regime_tells() -> None:
    """With a regime that never changes the memory tells whether signals are good, which no single month does."""
    config = MarketConfig(n_assets=2, n_investors=8, regime_switch=0.0, signal_r2=0.5, fundamentals="gaussian")
    markets = DifferentiableMarkets(LEVERAGE, 16, seed=2, config=config, hidden_regime=True, max_episode_steps=48)
    agent = AnalyticPolicyGradient(markets, WindowSettings(horizon=16, memory=8), 0)
    for number in range(60):
        agent.update(number / 60)
    window, _ = agent.action_gradients()
    assert agent._gain is not None
    with torch.no_grad():
        inputs = agent.policy.normalizer(window.observations)[:, :, 0]
        memory = agent.policy.remember(inputs, window.memory[:, 0], window.starting[:, :, 0])
        seen, news = window.observations[:, :, 0], window.news
        without = agent._forecast.loss(seen, torch.zeros_like(news), news)
        assert float(agent._forecast.loss(seen, agent._gain(memory), news)) < 0.95 * float(without)
