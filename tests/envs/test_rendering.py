from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import RecordVideo

from hmgym.envs import Line, Panel
from hmgym.envs.panels import log_ticks
from hmgym.envs.rendering import layout, rows_of

SMALL: dict[str, Any] = {"n_assets": 2, "n_investors": 8}


@pytest.fixture(autouse=True)
def _no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


def test_frame(env_id: str) -> None:
    env = gym.make(env_id, render_mode="rgb_array", **SMALL)
    env.reset(seed=0)
    first = env.render()
    for _ in range(10):
        env.step(env.action_space.sample())
    later = env.render()
    assert first.shape == later.shape == (640, 960, 3)
    assert later.dtype == np.uint8
    assert not np.array_equal(first, later)
    assert len(env.unwrapped.episode().unit_value) == 11
    env.reset()
    assert len(env.unwrapped.episode().unit_value) == 1
    env.close()


def test_human_mode_without_a_screen(env_id: str) -> None:
    env = gym.make(env_id, render_mode="human", **SMALL)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert env.render() is None
    env.close()
    env.reset(seed=1)  # a closed window opens again
    env.close()


def test_vector_frames_follow_their_own_episodes() -> None:
    env = gym.make_vec(
        "hmgym/Leverage-v0", 3, render_mode="rgb_array", autoreset_mode="Disabled", max_episode_steps=9, **SMALL
    )
    env.reset(seed=0)
    actions = np.zeros(env.action_space.shape, np.float32)
    for _ in range(4):
        env.step(actions)
    env.reset(options={"reset_mask": np.array([False, True, False])})
    env.step(actions)
    assert [len(env.unwrapped.episode(row).unit_value) for row in range(3)] == [6, 2, 6]
    frames = env.render()
    assert len(frames) == 3
    assert not np.array_equal(frames[0], frames[1])
    env.close()


def test_record_video(env_id: str, tmp_path: Path) -> None:
    env = RecordVideo(
        gym.make(env_id, render_mode="rgb_array", max_episode_steps=6, **SMALL),
        str(tmp_path / "videos"),
        episode_trigger=lambda episode: True,
        disable_logger=True,
    )
    env.reset(seed=0)
    truncated = False
    while not truncated:
        *_, truncated, _ = env.step(env.action_space.sample())
    env.close()
    videos = list(tmp_path.glob("videos/*.mp4"))
    assert len(videos) == 1
    assert videos[0].stat().st_size > 1000


def test_episode_needs_a_render_mode() -> None:
    env = gym.make("hmgym/Leverage-v0", **SMALL).unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match="`render_mode` must be set"):
        env.episode()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.9, 1100.0, [1.0, 10.0, 100.0, 1000.0]),
        (0.3, 1.7, [0.5, 1.0]),
        (42.0, 131.0, [50.0, 70.0, 100.0]),
        (0.99, 1.05, [1.0, 1.02, 1.04]),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_plain_numbers(low: float, high: float, expected: list[float]) -> None:
    ticks = log_ticks(low, high)
    assert set(np.round(expected, 12)) <= set(np.round(ticks, 12))
    assert all(low <= tick <= high for tick in ticks)
    assert 3 <= len(ticks) <= 8


def test_panels_fill_the_frame_without_overlap() -> None:
    line = Line(values=np.ones(2))
    wide, narrow = (Panel(title="", unit="", lines=(line,), wide=flag) for flag in (True, False))
    assert [len(row) for row in rows_of((narrow, narrow, wide, narrow))] == [2, 1, 1]
    boxes = layout((wide, narrow, narrow))
    assert [box[2] for box in boxes] == [912, 444, 444]
    assert boxes[0][1] + boxes[0][3] < boxes[1][1] == boxes[2][1]
    assert all(x + width <= 960 and y + height <= 640 for x, y, width, height in boxes)


def test_the_lines_of_a_market_bear_the_names_of_its_assets() -> None:
    env = gym.make("hmgym/Leverage-v0", render_mode="rgb_array", **SMALL).unwrapped
    env.reset(seed=0)
    prices, value, leverage = env.episode().panels()
    assert [line.label for line in prices.lines] == ["MSFT, fundamental value", "JPM, fundamental value", "MSFT", "JPM"]
    assert (len(value.lines), len(leverage.lines)) == (1, 2)
