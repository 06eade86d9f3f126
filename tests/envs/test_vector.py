"""The vector environment: row i equals a single environment seeded s + i, in every autoreset mode."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from hmgym.market import Market, MarketConfig

ROWS = 5
# Ruin at a tenth below the start ends many episodes early, each in its own month.
FRAGILE = MarketConfig(n_assets=2, n_investors=8, ruin_fraction=0.9)
STATE_TOLERANCE = {"rtol": 1e-12, "atol": 1e-12}


STURDY = FRAGILE.replace(ruin_fraction=0.01)


def native(
    env_id: str, mode: str, steps: int = 40, config: MarketConfig = FRAGILE
) -> gym.vector.VectorEnv[Any, Any, Any]:
    return gym.make_vec(env_id, ROWS, max_episode_steps=steps, autoreset_mode=mode, config=config)


def synced(env_id: str, mode: str, steps: int = 40, config: MarketConfig = FRAGILE) -> SyncVectorEnv:
    def make() -> gym.Env[Any, Any]:
        return gym.make(env_id, max_episode_steps=steps, config=config)

    return SyncVectorEnv([make] * ROWS, autoreset_mode=mode)


def assert_same_infos(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        if key == "final_obs":
            for mine, other in zip(ours[key], value, strict=True):
                assert (mine is None) == (other is None)
                if other is not None:
                    np.testing.assert_allclose(mine, other, atol=1e-6)
        elif isinstance(value, dict):
            assert_same_infos(ours[key], value)
        else:
            assert ours[key].shape == value.shape
            np.testing.assert_allclose(ours[key], value, err_msg=key, **STATE_TOLERANCE)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_rows_equal_single_environments_across_resets(env_id: str, mode: str) -> None:
    ours, theirs = native(env_id, mode), synced(env_id, mode)
    first, second = ours.reset(seed=11), theirs.reset(seed=11)
    np.testing.assert_array_equal(first[0], second[0])
    assert_same_infos(first[1], second[1])
    ours.action_space.seed(0)
    ends = 0
    for _ in range(100):
        actions = ours.action_space.sample()
        mine, other = ours.step(actions), theirs.step(actions)
        np.testing.assert_allclose(mine[0], other[0], atol=1.2e-7)
        np.testing.assert_allclose(mine[1], other[1], **STATE_TOLERANCE)
        np.testing.assert_array_equal(mine[2], other[2])
        np.testing.assert_array_equal(mine[3], other[3])
        assert_same_infos(mine[4], other[4])
        ends += int(mine[2].sum() + mine[3].sum())
    assert ends >= ROWS, "the comparison must span resets"


def test_bit_for_bit_on_reward(env_id: str) -> None:
    """Rewards are equal to the last bit: the market uses no routine whose rounding depends on the batch."""
    batch, single = gym.make_vec(env_id, 16), gym.make(env_id)
    batch.reset(seed=5)
    single.reset(seed=8)
    batch.action_space.seed(1)
    for _ in range(30):
        actions = batch.action_space.sample()
        assert batch.step(actions)[1][3] == single.step(actions[3])[1]


def test_disabled_mode_asks_for_a_reset_and_takes_a_mask(env_id: str) -> None:
    ours, theirs = native(env_id, "Disabled", 3, STURDY), synced(env_id, "Disabled", 3, STURDY)
    ours.reset(seed=0)
    theirs.reset(seed=0)
    actions = np.zeros(ours.action_space.shape, np.float32)
    for _ in range(3):
        ended = ours.step(actions)[3]
        theirs.step(actions)
    assert ended.all()
    with pytest.raises(ValueError, match=r"markets \[0, 1, 2, 3, 4\] have ended"):
        ours.step(actions)
    mask = np.array([True, False, True, False, False])
    mine, other = ours.reset(options={"reset_mask": mask}), theirs.reset(options={"reset_mask": mask.copy()})
    np.testing.assert_allclose(mine[0], other[0], atol=1.2e-7)
    assert_same_infos(mine[1], other[1])
    with pytest.raises(ValueError, match=r"markets \[1, 3, 4\] have ended"):
        ours.step(actions)
    ours.reset(options={"reset_mask": ~mask})
    assert not ours.step(actions)[3].any()


def test_seed_forms(env_id: str) -> None:
    env = native(env_id, "NextStep")
    from_int = env.reset(seed=7)[0]
    np.testing.assert_array_equal(env.reset(seed=[7, 8, 9, 10, 11])[0], from_int)
    assert env.unwrapped.np_random_seed == (7, 8, 9, 10, 11)
    partly = env.reset(seed=[7, None, None, None, 11])[0]
    np.testing.assert_array_equal(partly[[0, 4]], from_int[[0, 4]])
    assert not np.array_equal(partly[1], from_int[1])
    with pytest.raises(ValueError, match="`seed` must be an int or hold one seed for each of 5 markets, got 2"):
        env.reset(seed=[1, 2])


@pytest.mark.parametrize(
    ("mask", "error"),
    [
        ([True] * ROWS, TypeError),
        (np.ones(ROWS), TypeError),
        (np.ones(3, np.bool_), ValueError),
        (np.zeros(ROWS, np.bool_), ValueError),
    ],
)
def test_wrong_reset_masks(mask: Any, error: type[Exception]) -> None:
    env = native("hmgym/Leverage-v0", "Disabled")
    env.reset(seed=0)
    with pytest.raises(error, match="reset_mask"):
        env.reset(options={"reset_mask": mask})


def test_next_step_ignores_the_action_of_a_market_that_is_reset(env_id: str) -> None:
    env = native(env_id, "NextStep", 2, STURDY)
    env.reset(seed=0)
    actions = np.zeros(env.action_space.shape, np.float32)
    env.step(actions)
    assert env.step(actions)[3].all()
    observation, reward, terminated, truncated, info = env.step(np.full_like(actions, np.nan))
    assert env.observation_space.contains(observation)
    np.testing.assert_array_equal(reward, np.zeros(ROWS))
    assert not terminated.any()
    assert not truncated.any()
    np.testing.assert_array_equal(info["unit_value"], np.ones(ROWS))
    with pytest.raises(ValueError, match="must be finite"):
        env.step(np.full_like(actions, np.nan))


def test_arrays_are_fresh(env_id: str) -> None:
    env, twin = native(env_id, "SameStep"), native(env_id, "SameStep")
    actions = np.zeros(env.action_space.shape, np.float32)
    env.reset(seed=0)
    twin.reset(seed=0)
    for _ in range(45):
        returned = env.step(actions)
        kept = copy.deepcopy(returned)
        spoilt = twin.step(actions)
        np.testing.assert_array_equal(spoilt[0], returned[0])
        for value in (
            *spoilt[:4],
            *(v for k, v in spoilt[4].items() if isinstance(v, np.ndarray) and k != "final_obs"),
        ):
            value[...] = 0
        np.testing.assert_array_equal(returned[0], kept[0])


def test_no_truncation_without_a_limit(env_id: str) -> None:
    env = gym.make_vec(env_id, 2, max_episode_steps=None, n_assets=2, n_investors=8)
    env.reset(seed=0)
    actions = np.full(env.action_space.shape, -1.0, np.float32)
    assert not any(env.step(actions)[3].any() for _ in range(125))


def test_registered_limit_is_counted_by_the_vector_environment(env_id: str) -> None:
    env = gym.make_vec(env_id, 2, n_assets=2, n_investors=8)
    env.reset(seed=0)
    actions = np.full(env.action_space.shape, -1.0, np.float32)
    flags = [env.step(actions)[3].all() for _ in range(120)]
    assert flags == [False] * 119 + [True]


def test_pickle_and_deepcopy(env_id: str) -> None:
    env = native(env_id, "SameStep")
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(7):
        env.step(env.action_space.sample())
    clones = [pickle.loads(pickle.dumps(env)), copy.deepcopy(env)]
    for _ in range(60):
        actions = env.action_space.sample()
        expected = env.step(actions)
        for clone in clones:
            got = clone.step(actions)
            np.testing.assert_array_equal(got[0], expected[0])
            np.testing.assert_array_equal(got[1], expected[1])


def test_vector_wrappers_of_gymnasium(env_id: str) -> None:
    env = gym.wrappers.vector.RecordEpisodeStatistics(native(env_id, "NextStep", steps=4, config=STURDY))
    env.reset(seed=0)
    actions = np.zeros(env.action_space.shape, np.float32)
    infos = [env.step(actions)[4] for _ in range(4)]
    assert "episode" in infos[-1]
    env = gym.wrappers.vector.DictInfoToList(native(env_id, "SameStep", steps=4, config=STURDY))
    env.reset(seed=0)
    listed = [env.step(actions)[4] for _ in range(4)][-1]
    assert len(listed) == ROWS
    assert "final_obs" in listed[0]


def test_autoreset_mode_is_accepted_as_enum() -> None:
    env = gym.make_vec("hmgym/Beliefs-v0", 2, autoreset_mode=AutoresetMode.DISABLED)
    assert env.metadata["autoreset_mode"] is AutoresetMode.DISABLED


@pytest.mark.parametrize("axes", [1, 2])
def test_shocks_of_a_first_episode_are_those_of_single_draws(axes: int) -> None:
    """Drawing ahead changes no number: the environment equals the market driven by one draw a period."""
    env = gym.make("hmgym/Leverage-v0", max_episode_steps=-1, leverage_axes=axes)
    env.reset(seed=4)
    unwrapped: Any = env.unwrapped
    market = Market(unwrapped.config)
    generators = [np.random.default_rng(4)]
    state = market.initial(market.draw_initial_shocks(generators))
    torch.testing.assert_close(state.prices, unwrapped.state.prices, rtol=0, atol=0)
    values = np.array([[[-0.5, 0.125][:axes]]])
    for _ in range(65):
        action = unwrapped.action_map.to_market(values, state.prices)
        state, _ = market.transition(state, action, market.draw_shocks(generators))
        env.step(values[0, 0].astype(np.float32))
    torch.testing.assert_close(state.prices, unwrapped.state.prices, rtol=1e-12, atol=0)


LEARNERS = 3
CROWDED = FRAGILE.replace(n_learners=LEARNERS, n_investors=10)


def learners(env_id: str, steps: int = 40, config: MarketConfig = CROWDED, **arguments: Any) -> Any:
    env = gym.make_vec(env_id, 2, config=config, max_episode_steps=steps, **arguments)
    assert env.num_envs == 2 * LEARNERS
    assert env.action_space.shape[0] == env.observation_space.shape[0] == 2 * LEARNERS
    return env.unwrapped


def test_a_ruined_learner_s_row_begins_anew_in_the_same_market(env_id: str) -> None:
    env = learners(env_id)
    env.reset(seed=2)
    env.action_space.seed(0)
    ruins = 0
    total = np.zeros(env.num_envs)
    unit_value = env.observation_map.columns("log_unit_value")
    for _ in range(120):
        month = env.state.month.repeat_interleave(LEARNERS).numpy()
        observation, reward, terminated, truncated, infos = env.step(env.action_space.sample())
        total += reward
        for row in np.flatnonzero(terminated | truncated):
            assert total[row] == pytest.approx(np.log(infos["final_info"]["unit_value"][row]), abs=1e-10)
            assert infos["unit_value"][row] == 1.0
            assert observation[row, unit_value] == 0.0
            total[row] = 0.0
        now = env.state.month.repeat_interleave(LEARNERS).numpy()
        alone = terminated & ~truncated & (now == month + 1)  # in a market that goes on
        ruins += int(alone.sum())
        for row in np.flatnonzero(alone):
            assert infos["final_info"]["unit_value"][row] == pytest.approx(CROWDED.ruin_fraction)
            assert not infos["holdings"][row].any()
            assert observation[row, 0] == pytest.approx(np.tanh(0.5))  # all of its wealth is cash
            # The newcomer's share of all wealth is its target, of the wealth that all had before it came.
            share = float(env.observation_map.unsquash(observation[row], "wealth_share")[0])
            assert share == pytest.approx(CROWDED.learner_share, rel=0.25)
        np.testing.assert_array_equal(truncated.reshape(2, -1).any(1), truncated.reshape(2, -1).all(1))
    assert ruins > 3


def test_what_a_newcomer_sees_is_what_its_first_month_starts_with() -> None:
    """The market's own replacement, with the traits that it then draws, shows it the same."""
    env = learners("hmgym/Leverage-v0")
    env.reset(seed=0)
    env.action_space.seed(1)
    for _ in range(200):
        observation, *_, infos = env.step(env.action_space.sample())
        if env.state.ruined[:, :LEARNERS].any():  # else the market was reset too
            break
    ruined = env.state.ruined[:, :LEARNERS].numpy()
    shown, wealth = observation.reshape(2, LEARNERS, -1)[ruined], infos["wealth"].reshape(2, LEARNERS)[ruined]
    _, reward, *_, infos = env.step(np.zeros(env.action_space.shape, np.float32))
    batch: Any = env._batch
    state, _, shocks = batch._last_period
    seated, _ = batch._runs.scenario.open(state, shocks)
    np.testing.assert_array_equal(shown, env.observation_map(seated)[ruined])
    np.testing.assert_array_equal(wealth, seated.wealth[:, :LEARNERS][ruined])
    assert not np.array_equal(shown, env.observation_map(state)[ruined])
    began = ruined.ravel()
    np.testing.assert_allclose(np.log(infos["unit_value"])[began], reward[began], atol=1e-12)


def test_memory_of_a_reward_begins_anew_with_the_newcomer() -> None:
    env = learners("hmgym/Leverage-v0", reward="differential_sharpe")
    env.reset(seed=0)
    env.action_space.seed(1)
    reward: Any = env._batch.reward
    for _ in range(40):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        fresh = (terminated | truncated).reshape(2, LEARNERS)
        assert (reward.sharpe.first[fresh] == reward.MEAN).all()
        assert (reward.sharpe.first[~fresh] != reward.MEAN).all()


def test_a_market_without_learners_left_begins_anew() -> None:
    env = learners("hmgym/Leverage-v0", config=CROWDED.replace(ruin_fraction=0.99))
    env.reset(seed=0)
    restarts = 0
    for _ in range(40):
        _, _, terminated, truncated, _ = env.step(np.ones(env.action_space.shape, np.float32))
        gone = terminated.reshape(2, LEARNERS).all(1) & ~truncated.reshape(2, LEARNERS).any(1)
        restarts += int(gone.sum())
        assert (env.state.month.numpy()[gone] == 0).all()
    assert restarts > 0


@pytest.mark.parametrize("mode", ["NextStep", "Disabled"])
def test_several_learners_do_not_wait(mode: str) -> None:
    with pytest.raises(ValueError, match='`autoreset_mode` must be "SameStep"'):
        learners("hmgym/Leverage-v0", autoreset_mode=mode)
