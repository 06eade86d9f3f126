"""The examples run: each one as a command of its own, for seconds, where its library is installed.

`make examples` runs each of these tests in the virtual environment of its example.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
EPISODES = "256"  # with 32 an interval is as wide as what so short a training is ahead

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed here: make example-rllib has it"
)
needs_torchrl = pytest.mark.skipif(
    importlib.util.find_spec("torchrl") is None, reason="TorchRL is not installed here: make example-torchrl has it"
)


def run(*arguments: str, timeout: float = 240.0) -> str:
    """What a Python command prints, having left no process behind."""
    mark = f"HMGYM_EXAMPLE_RUN={uuid.uuid4()}"
    name, value = mark.split("=")
    environment = {
        **os.environ, name: value, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(EXAMPLES)]),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    deadline = time.monotonic() + 20.0
    while (left := _processes_with(mark)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left, f"left behind: {left}"
    return done.stdout


def _processes_with(mark: str) -> list[str]:
    """Commands of the processes that inherited an environment variable; none where there is no /proc."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it ended, or it is not ours
    return found


def ahead_of_random(table: str) -> float:
    """Lower end of the interval of what the trained policy is ahead of random actions."""
    row = re.search(r"^random .* [+-]\d+\.\d+ \[([+-]\d+\.\d+), [+-]\d+\.\d+\]$", table, re.MULTILINE)
    assert row is not None, table
    return float(row.group(1))


def test_cleanrl_learns() -> None:
    table = run(
        str(EXAMPLES / "cleanrl_ppo.py"), "--total-timesteps", "20000", "--num-envs", "64", "--minibatch-size", "512",
        "--episodes", EPISODES, "--screening-episodes", "0",
    )  # fmt: skip
    assert "PPO (one file)" in table
    assert ahead_of_random(table) > 0.0


@needs_ray
def test_rllib_learns() -> None:
    table = run(
        str(EXAMPLES / "rllib_ppo.py"),
        "--total-timesteps",
        "16000",
        "--episodes",
        EPISODES,
        "--screening-episodes",
        "0",
    )
    assert "PPO (RLlib)" in table
    assert ahead_of_random(table) > 0.0


@needs_ray
def test_rllib_sweep_pools_seeds() -> None:
    printed = run(
        str(EXAMPLES / "rllib_ppo.py"), "--sweep", "2", "--total-timesteps", "500", "--env-runners", "1",
        "--num-cpus", "2", "--envs-per-runner", "8", "--minibatch-size", "64", "--episodes", "2",
        "--screening-episodes", "0",
    )  # fmt: skip
    assert "2 training seeds" in printed
    assert re.search(r"trained minus random: [+-]\d+\.\d+ \[", printed)


@needs_ray
def test_rllib_runners_share_no_market() -> None:
    seeds = run(
        "-c",
        "from rllib_ppo import make_markets\n"
        "for worker in (1, 2):\n"
        "    markets = make_markets({'env_id': 'hmgym/Leverage-v0', 'num_envs': 4})\n"
        "    markets.reset(seed=100 + worker)\n"
        "    print(*markets.unwrapped.np_random_seed)\n",
    )
    assert len(set(seeds.split())) == 8


@needs_torchrl
@pytest.mark.parametrize(
    "arguments",
    [
        ["--num-envs", "64", "--total-timesteps", "40960", "--frames-per-batch", "2048", "--episodes", EPISODES],
        ["--num-envs", "1", "--total-timesteps", "256", "--frames-per-batch", "128", "--episodes", "4"],
    ],
    ids=["vector", "GymEnv"],
)
def test_torchrl_trains(arguments: list[str]) -> None:
    table = run(str(EXAMPLES / "torchrl_gym.py"), *arguments, "--screening-episodes", "0")
    assert "PPO (TorchRL)" in table
    if "64" in arguments:
        assert ahead_of_random(table) > 0.0
