"""PPO on Ray RLlib: on this machine with two environment runners, or on a cluster by the address alone.

    python examples/rllib_ppo.py                                          # starts Ray here, and stops it
    python examples/rllib_ppo.py --address auto                           # on a node of a running cluster
    python examples/rllib_ppo.py --address ray://head:10001               # from elsewhere, through Ray Client
    python examples/rllib_ppo.py --sweep 5                                # five seeds, each a Ray job
    python examples/rllib_ppo.py --sweep 5 --address http://head:8265     # the same, on a cluster

The code of hmgym and of this folder travels with the run; a node needs what hmgym imports, and ray[default,rllib].
Where the cluster asks for a token, set RAY_AUTH_MODE=token here too. Needs `pip install 'hmgym[rllib]'`, in a virtual
environment of its own: RLlib pins an older Gymnasium.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import ray
import torch
import tyro
from harness import compare
from ray.job_submission import JobStatus, JobSubmissionClient
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module import RLModule
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import register_env
from tqdm import tqdm

import hmgym
from hmgym.agents import evaluate_baselines, over_training_seeds
from hmgym.agents.progress import choose_with_bar

ROOT = Path(__file__).resolve().parents[1]
RESULT = "result of one run: "
"""What stands before the line that a seed sweep reads from the log of a job."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Arguments of the command line."""

    address: str = ""
    """of a Ray cluster: auto, ray://host:port, or http://host:port for a sweep; empty starts Ray here"""
    num_cpus: int = 3
    """CPUs that a Ray started here takes itself to have: one for each environment runner, one to spare"""
    sweep: int = 0
    """train this many seeds, each a Ray job, and pool them; 0 trains one, here"""
    jobs_at_once: int = 1
    """jobs of a sweep that run side by side"""
    env_id: str = "hmgym/Leverage-v0"
    """id of the environment"""
    seed: int = 0
    """of the markets and of the learner; the first one of a sweep"""
    total_timesteps: int = 300_000
    """environment steps, over all markets together"""
    env_runners: int = 2
    """processes that run markets"""
    envs_per_runner: int = 64
    """markets side by side in each of them"""
    steps_per_market: int = 32
    """steps of every market between two updates"""
    minibatch_size: int = 1024
    """steps in a gradient step"""
    num_epochs: int = 6
    """passes over the collected steps in an update"""
    episodes: int = 512
    """episodes of the evaluation"""
    screening_episodes: int = 64
    """episodes of every constant of the grid that the policy is compared with; 0 leaves the best constant out"""


class OwnMarkets(gym.vector.VectorWrapper):
    """Gives every market a seed of its own.

    RLlib seeds runner k with seed + k and a batch seeds row i with its seed + i: without this, two runners would run
    nearly the same markets.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin new episodes; a seed is spread over all rows."""
        seeds = None if seed is None else np.random.SeedSequence(seed).generate_state(self.num_envs).tolist()
        return self.env.reset(seed=seeds, options=options)


def make_markets(settings: dict[str, Any]) -> gym.vector.VectorEnv:
    """The markets of one environment runner, which clear together."""
    # The part before the colon is imported first: a runner is a process that has not imported hmgym.
    return OwnMarkets(gym.make_vec(f"hmgym:{settings['env_id']}", num_envs=settings["num_envs"]))


def config(args: Arguments) -> PPOConfig:
    """What RLlib trains, on its new API stack."""
    register_env("markets", make_markets)
    return (
        PPOConfig()
        .environment("markets", env_config={"env_id": args.env_id})
        .env_runners(
            num_env_runners=args.env_runners,
            num_envs_per_env_runner=args.envs_per_runner,
            gym_env_vectorize_mode="vector_entry_point",  # `make_markets` returns a whole batch
            rollout_fragment_length=args.steps_per_market,
            sample_timeout_s=600.0,  # the first steps on a new machine compile the kernels
        )
        .callbacks(on_environment_created=_clear_on_one_thread)
        .learners(num_learners=0)  # in this process; more than 0 are processes anywhere in the cluster
        .training(
            train_batch_size_per_learner=args.env_runners * args.envs_per_runner * args.steps_per_market,
            minibatch_size=args.minibatch_size,
            num_epochs=args.num_epochs,
            lr=1e-3,
            gamma=0.95,  # short, because an action earns its reward in the next month
            lambda_=0.9,
            clip_param=0.2,
            vf_clip_param=10.0,
            vf_loss_coeff=0.5,
            entropy_coeff=0.0,
            use_kl_loss=False,
            grad_clip=0.5,
        )
        .rl_module(
            model_config=DefaultModelConfig(
                fcnet_hiddens=[64, 64], fcnet_activation="tanh", vf_share_layers=False, free_log_std=True
            )
        )
        .debugging(seed=_spread(args.seed), log_level="ERROR")
    )


def _spread(seed: int) -> int:
    """Another seed, far from that of its neighbour: RLlib counts up from it."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0]) // 2


def _clear_on_one_thread(**kwargs: Any) -> None:
    """A runner keeps to the one CPU that Ray reckons it with."""
    hmgym.clearing.set_num_threads(1)


class MeanPolicy:
    """The mean action of a trained module: the policy that is evaluated."""

    def __init__(self, module: RLModule) -> None:
        self._module = module
        self._distribution = module.get_inference_action_dist_cls()

    @torch.no_grad()
    def __call__(self, observation: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Actions (E, size of one action) for observations (E, size)."""
        outputs = self._module.forward_inference({Columns.OBS: torch.as_tensor(observation)})
        mean = self._distribution.from_logits(outputs[Columns.ACTION_DIST_INPUTS]).to_deterministic().sample()
        return mean.clamp(-1.0, 1.0).numpy()


def train(args: Arguments) -> tuple[MeanPolicy, int, float]:
    """The trained policy, how many environment steps it took, and how many seconds."""
    algorithm = config(args).build_algo()
    env_steps, begin = 0, time.perf_counter()
    with tqdm(total=args.total_timesteps, unit="step", unit_scale=True, disable=None) as bar:
        while env_steps < args.total_timesteps:
            runners = algorithm.train()["env_runners"]
            so_far = int(runners["num_env_steps_sampled_lifetime"])
            bar.update(so_far - env_steps)
            bar.set_postfix(exploring_return=f"{runners.get('episode_return_mean', float('nan')):.2f}")
            env_steps = so_far
    seconds = time.perf_counter() - begin
    policy = MeanPolicy(algorithm.get_module())
    algorithm.stop()
    return policy, env_steps, seconds


def train_and_compare(args: Arguments) -> None:
    """Train one seed, on a Ray of its own or on the cluster, then compare with constants on the same shocks."""
    if args.address:
        # The runners get this copy of hmgym, whether or not their machines have one.
        ray.init(args.address, runtime_env={"py_modules": [str(ROOT / "hmgym")]}, logging_level=logging.ERROR)
    else:
        start_ray(args, include_dashboard=False)
    room = int(ray.cluster_resources().get("CPU", 0))
    if room < args.env_runners:
        print(f"Ray has {room} CPUs now; {args.env_runners} environment runners wait until there is one for each")
    try:
        policy, env_steps, seconds = train(args)
    finally:
        ray.shutdown()
    report = compare(
        policy, args.env_id, name="PPO (RLlib)", seed=args.seed, env_steps=env_steps, seconds=seconds,
        episodes=args.episodes, screening_episodes=args.screening_episodes,
    )  # fmt: skip
    print(RESULT + json.dumps({"seed": args.seed, "mean": report["final"]["mean"], "env_steps": env_steps}))


def sweep(args: Arguments) -> None:
    """Train several seeds, each as a Ray job, and give the interval over seeds of what they are ahead of constants."""
    if args.address:
        address, python = args.address, "python"
    else:
        address, python = f"http://{start_ray(args, include_dashboard=True).dashboard_url}", sys.executable
    client = JobSubmissionClient(address)
    seeds = range(args.seed, args.seed + args.sweep)
    try:
        means = _run_jobs(client, {seed: _command(args, seed, python) for seed in seeds}, args.jobs_at_once)
    finally:
        ray.shutdown()
    choice = None
    if args.screening_episodes:
        choice = choose_with_bar(
            args.env_id, screening_episodes=args.screening_episodes, episodes=args.episodes
        )  # fmt: skip
    print(f"\n{args.env_id}: PPO (RLlib), {len(means)} training seeds, {args.episodes} episodes of evaluation each")
    for name, baseline in evaluate_baselines(args.env_id, episodes=args.episodes, choice=choice).items():
        # All seeds and baselines met the same episodes: a difference of means is the mean of paired differences.
        ahead = over_training_seeds([mean - float(baseline.returns.mean()) for mean in means])
        print(
            f"  trained minus {name.replace('_', ' ')}: {ahead.mean:+.4f} "
            f"[{ahead.low:+.4f}, {ahead.high:+.4f}] (95 %, over training seeds)"
        )


def _command(args: Arguments, seed: int, python: str) -> str:
    """What a job runs: this file, for one seed, without the search for the best constant."""
    own = {"address": "auto", "seed": seed, "sweep": 0, "screening_episodes": 0}
    settings = {**dataclasses.asdict(args), **own}
    words = [word for name, value in settings.items() for word in ("--" + name.replace("_", "-"), str(value))]
    return shlex.join([python, "examples/rllib_ppo.py", *words])


def _run_jobs(client: JobSubmissionClient, commands: dict[int, str], at_once: int) -> list[float]:
    """Run one job a seed, a few at a time; the mean returns in the order of the seeds."""
    # Ray leaves out what .gitignore names, so the virtual environments stay here.
    runtime_env = {"working_dir": str(ROOT), "excludes": [".git", "docs", "tests", "benchmarks"]}
    waiting, running, means = list(commands), {}, {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                seed = waiting.pop(0)
                running[seed] = client.submit_job(
                    entrypoint=commands[seed], runtime_env=runtime_env, entrypoint_num_cpus=1
                )
                print(f"seed {seed}: submitted as {running[seed]}", flush=True)
            time.sleep(1.0)
            for seed, job in list(running.items()):
                status = client.get_job_status(job)
                if not status.is_terminal():
                    continue
                log = client.get_job_logs(job)
                results = [line for line in log.splitlines() if line.startswith(RESULT)]
                if status is not JobStatus.SUCCEEDED or not results:
                    raise RuntimeError(f"the job of seed {seed} ended as {status}; its log:\n{log}")
                means[seed] = float(json.loads(results[-1].removeprefix(RESULT))["mean"])
                del running[seed]
                print(f"seed {seed}: mean return {means[seed]:+.4f}", flush=True)
    finally:
        for job in running.values():
            client.stop_job(job)
    return [means[seed] for seed in commands]


def start_ray(args: Arguments, include_dashboard: bool) -> Any:
    """Start Ray on this machine, for this run alone."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    return ray.init(
        "local", num_cpus=args.num_cpus, include_dashboard=include_dashboard, logging_level=logging.ERROR,
    )  # fmt: skip


def main(argv: list[str]) -> int:
    """Train one seed or several."""
    args = tyro.cli(Arguments, args=argv, description=(__doc__ or "").split("\n\n")[0])
    logging.getLogger("ray").setLevel(logging.ERROR)
    if args.sweep == 1 or args.sweep < 0:
        raise ValueError(f"`--sweep` must be 0 (no sweep) or at least 2 seeds, got {args.sweep}")
    # The networks are small: a second thread of torch would only keep busy a core that clearing can use.
    torch.set_num_threads(1)
    if args.sweep:
        sweep(args)
    else:
        train_and_compare(args)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
