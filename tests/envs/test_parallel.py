"""Several learners in one market: what PettingZoo demands, and that one learner is the single environment."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from hmgym.envs import ParallelMarketEnv, make_markets, parallel_env
from hmgym.envs.setup import LEARNERS_SHARE
from hmgym.market import Market, MarketConfig

with warnings.catch_warnings():  # PettingZoo's tests import its games, by names that it has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from pettingzoo.test import parallel_api_test, parallel_seed_test

SMALL: dict[str, Any] = {"n_assets": 2, "n_investors": 9}
IDS = {"leverage": "hmgym/Leverage-v0", "beliefs": "hmgym/Beliefs-v0", "both": "hmgym/LeverageBeliefs-v0"}
# Ruin at a tenth below the start ends many episodes early, each in its own month.
FRAGILE = MarketConfig(n_assets=2, n_investors=9, n_learners=3, ruin_fraction=0.9)


def sample(env: ParallelMarketEnv) -> dict[str, Any]:
    return {agent: env.action_space(agent).sample() for agent in env.agents}


def seed_spaces(env: ParallelMarketEnv) -> None:
    for number, agent in enumerate(env.possible_agents):
        env.action_space(agent).seed(number)


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, tuple):
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("control", sorted(IDS))
@pytest.mark.parametrize("n_learners", [1, 2, 4])
def test_pettingzoo_checks(control: str, n_learners: int, capsys: pytest.CaptureFixture[str]) -> None:
    def make() -> ParallelMarketEnv:
        return parallel_env(n_learners=n_learners, control=control, confidence=control != "leverage", **SMALL)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(make(), num_cycles=130)
        parallel_seed_test(make, num_cycles=40)


@pytest.mark.parametrize("n_learners", [2, 3])
def test_pettingzoo_checks_where_learners_are_ruined(n_learners: int, capsys: pytest.CaptureFixture[str]) -> None:
    fragile = FRAGILE.replace(n_learners=n_learners)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(parallel_env(config=fragile, control="both"), num_cycles=130)
        parallel_seed_test(lambda: parallel_env(config=fragile, control="both"), num_cycles=60)


@pytest.mark.parametrize("control", sorted(IDS))
@pytest.mark.parametrize("config", [MarketConfig(n_assets=2, n_investors=9), FRAGILE.replace(n_learners=1)])
def test_one_learner_is_the_single_environment_bit_for_bit(control: str, config: MarketConfig) -> None:
    single = gym.make(IDS[control], config=config, max_episode_steps=40, amplification=True)
    env = parallel_env(config=config, control=control, max_episode_steps=40, amplification=True)
    ended: set[str] = set()
    for seed in (5, None, 6, None):
        observation, info = env.reset(seed=seed)
        assert_same((observation["learner_0"], info["learner_0"]), single.reset(seed=seed))
        single.action_space.seed(seed)
        while env.agents:
            action = single.action_space.sample()
            ours, theirs = env.step({"learner_0": action}), single.step(action)
            assert_same(tuple(part["learner_0"] for part in ours), theirs)
        assert theirs[2] or theirs[3]
        ended.add("ruin" if theirs[2] else "months")
    assert "months" in ended or config.ruin_fraction == 0.9


def test_markets_of_a_batch_are_parallel_environments() -> None:
    batch = make_markets("hmgym/LeverageBeliefs-v0", 2, n_learners=3, autoreset_mode="SameStep", **SMALL)
    env = parallel_env(n_learners=3, control="both", **SMALL)
    observation, _ = batch.reset(seed=3)
    assert batch.num_envs == 6
    ours, _ = env.reset(seed=4)
    batch.action_space.seed(0)
    for _ in range(20):
        np.testing.assert_array_equal(np.stack(list(ours.values())), observation[3:])
        actions = batch.action_space.sample()
        observation, reward, *_ = batch.step(actions)
        ours, rewards, *_ = env.step(dict(zip(env.agents, actions[3:], strict=True)))
        np.testing.assert_array_equal(list(rewards.values()), reward[3:])


def test_learners_see_each_other_and_move_each_others_prices() -> None:
    env, twin = (parallel_env(n_learners=2, control="beliefs", **SMALL) for _ in range(2))
    env.reset(seed=0)
    twin.reset(seed=0)
    bullish, bearish = np.ones(2, np.float32), -np.ones(2, np.float32)
    _, _, _, _, info = env.step({"learner_0": bullish, "learner_1": bullish})
    _, _, _, _, other = twin.step({"learner_0": bullish, "learner_1": bearish})
    assert (info["learner_0"]["prices"] > other["learner_0"]["prices"]).all()
    np.testing.assert_array_equal(info["learner_0"]["prices"], info["learner_1"]["prices"])


def test_shares_and_cash_are_conserved_when_learners_are_ruined() -> None:
    env = parallel_env(config=FRAGILE.replace(trading_cost=0.002), control="both", max_episode_steps=60)
    ruins = 0
    for seed in range(6):
        env.reset(seed=seed)
        seed_spaces(env)
        start = env.market_state
        cash = start.total_cash
        total = dict.fromkeys(env.agents, 0.0)
        while env.agents:
            _, rewards, terminated, _, infos = env.step(sample(env))
            state = env.market_state
            assert float((state.holdings.sum(1) / state.supply - 1.0).abs().max()) <= 1e-9
            assert float((state.total_cash - cash).abs() / state.gross_money) <= 1e-9
            for agent, reward in rewards.items():
                total[agent] += reward
                assert total[agent] == pytest.approx(np.log(infos[agent]["unit_value"]), abs=1e-10)
                if terminated[agent]:
                    ruins += 1
                    assert infos[agent]["unit_value"] == pytest.approx(0.9)
    assert ruins > 3


def test_the_seat_of_a_ruined_learner_acts_by_itself() -> None:
    """From the next month on it is the market's own transition in which only the others act."""
    env = parallel_env(config=FRAGILE, control="both")
    market = Market(FRAGILE, arrays="numpy")
    for seed in range(20):
        env.reset(seed=seed)
        seed_spaces(env)
        while len(env.agents) == 3:
            env.step(sample(env))
        if len(env.agents) == 2:  # one alone was ruined
            break
    (dead,) = (seat for seat, agent in enumerate(env.possible_agents) if agent not in env.agents)
    for months_dead in range(3):
        before, living = env._batch._current, list(env.agents)
        actions = sample(env)
        env.step(actions)
        _, action, shocks = env._batch._last_period
        own = market.own_action(before)
        for name in ("short_leverage", "long_leverage", "beliefs"):
            np.testing.assert_array_equal(getattr(action, name)[:, dead], getattr(own, name)[:, dead])
        mapped = env.action_map.to_market(
            env.action_map.check(
                [[actions.get(agent, np.zeros(env.action_map.size)) for agent in env.possible_agents]], 1, 3
            ),
            before.prices,
        )
        for agent in living:
            seat = env.possible_agents.index(agent)
            np.testing.assert_array_equal(action.beliefs[:, seat], mapped.beliefs[:, seat])
        state = env._batch._current
        assert bool(before.ruined[0, dead]) == (months_dead == 0)
        assert bool(state.wealth[0, dead] > 0.0)
        expected, _ = market.transition(before, action, shocks)
        np.testing.assert_array_equal(expected.prices, state.prices)
        if not env.agents:
            break
    assert months_dead >= 1


def test_the_dead_leave_and_the_others_go_on() -> None:
    env = parallel_env(config=FRAGILE, control="leverage", max_episode_steps=50)
    lengths: dict[str, int] = {}
    for seed in range(5):
        env.reset(seed=seed)
        lengths = dict.fromkeys(env.possible_agents, 0)
        while env.agents:
            acted = list(env.agents)
            results = env.step({agent: np.ones(1, np.float32) for agent in acted})
            assert all(list(part) == acted for part in results)
            for agent in acted:
                lengths[agent] += 1
                assert (agent in env.agents) == (not results[2][agent] and not results[3][agent])
        assert max(lengths.values()) <= 50
        assert env.step({}) == ({}, {}, {}, {}, {})
    assert env.num_agents == 0
    assert env.max_num_agents == 3


def test_pickle_and_deepcopy_in_the_middle_of_an_episode() -> None:
    env = parallel_env(config=FRAGILE, control="both", render_mode="rgb_array")
    env.reset(seed=2)
    seed_spaces(env)
    for _ in range(4):
        env.step(sample(env))
    env.render()
    clones = [pickle.loads(pickle.dumps(env)), copy.deepcopy(env)]
    for _ in range(6):
        actions = sample(env)
        expected = env.step(actions)
        for clone in clones:
            assert_same(clone.step(actions), expected)
    assert_same(clones[0].reset(), env.reset())


@pytest.mark.parametrize("n_learners", [1, 3])
@pytest.mark.parametrize("render_mode", ["rgb_array", "human"])
def test_rendering(n_learners: int, render_mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = parallel_env(n_learners=n_learners, render_mode=render_mode, **SMALL)
    env.reset(seed=0)
    env.step(sample(env))
    frame = env.render()
    assert (frame is None) == (render_mode == "human")
    if frame is not None:
        assert frame.shape == (640, 960, 3)
    assert env.episode().unit_value.shape == ((2,) if n_learners == 1 else (2, n_learners))
    env.close()
    with pytest.raises(ValueError, match="`render_mode` must be set"):
        parallel_env(**SMALL).episode()


def test_a_central_view_and_spaces() -> None:
    env = parallel_env(n_learners=3, **SMALL)
    observation, _ = env.reset(seed=0)
    assert env.state_space.contains(env.state())
    np.testing.assert_array_equal(env.state(), np.concatenate(list(observation.values())))
    assert env.metadata["name"] == "hmgym_v0"
    assert all(env.observation_space(agent).contains(observation[agent]) for agent in env.agents)
    one, other = observation["learner_0"], env.step(sample(env))[0]["learner_0"]
    assert not np.shares_memory(one, other)


def test_shares_of_many_learners() -> None:
    assert parallel_env().config.n_learners == 2
    one = MarketConfig.learner_share
    many = round(2.0 * LEARNERS_SHARE / one)  # so many that the share of one would be all of the wealth
    for n_learners, share in ((1, one), (2, one), (5, one), (many, LEARNERS_SHARE / many)):
        assert parallel_env(n_learners=n_learners, n_investors=2 * many).config.learner_share == share
    assert parallel_env(config=FRAGILE).config is not None
    assert len(parallel_env(config=FRAGILE).possible_agents) == 3
    assert parallel_env(config=FRAGILE.replace(learner_share=0.2), n_learners=2).config.learner_share == 0.2


def test_a_users_reward_returns_one_number_a_learner() -> None:
    env = parallel_env(n_learners=2, reward=lambda previous, outcome, state: state.unit_value, **SMALL)
    env.reset(seed=0)
    _, rewards, _, _, infos = env.step(sample(env))
    assert rewards == {agent: info["unit_value"] for agent, info in infos.items()}
    env = parallel_env(n_learners=2, reward=lambda previous, outcome, state: state.month, **SMALL)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"`reward` must return numbers of shape \(1, 2\), got shape \(1,\)"):
        env.step(sample(env))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"control": "prices"}, "`control` must be one of"),
        ({"n_learners": 0}, "`config.n_learners` must be >= 1"),
        ({"n_learners": 19}, "`n_investors` must be >= n_learners"),
        ({"n_learners": 2.5}, "`n_learners` must be an integer"),
        ({"max_episode_steps": 0}, "`max_episode_steps` must be an integer >= 1"),
        ({"confidence": True}, "`confidence` must be False"),
        ({"render_mode": "ansi"}, "`render_mode` must be"),
        ({"config": MarketConfig(learner_share=0.5), "n_learners": 2}, "`learner_share` times n_learners"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parallel_env(**arguments)


@pytest.mark.parametrize(("axes", "last"), [(1, "leverage"), (2, "long_leverage")])
def test_wrong_actions(axes: int, last: str) -> None:
    env = parallel_env(n_learners=2, leverage_axes=axes, **SMALL)
    with pytest.raises(RuntimeError, match="call `reset`"):
        env.step({})
    env.reset(seed=0)
    good = np.zeros(axes, np.float32)
    for actions in ({"learner_0": good}, {"learner_0": good, "learner_1": good, "learner_2": good}):
        with pytest.raises(
            ValueError, match=r"`actions` must hold one action for each of \['learner_0', 'learner_1'\]"
        ):
            env.step(actions)
    with pytest.raises(ValueError, match=f"got nan for `{last}` of learner 1 of market 0"):
        env.step({"learner_0": good, "learner_1": np.array([0.0, np.nan][-axes:])})
    with pytest.raises(ValueError, match="`action` must"):
        env.step({"learner_0": good, "learner_1": np.zeros(3)})


def test_import_without_pettingzoo_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['pettingzoo'] = None\n"
        "import hmgym.envs\n"
        "assert 'hmgym.envs.parallel' not in sys.modules\n"
        "try:\n    hmgym.envs.parallel_env()\n"
        "except ImportError as error:\n    assert 'hmgym[multi]' in str(error), error\n"
        "else:\n    raise AssertionError\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
