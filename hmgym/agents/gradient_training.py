"""Train the agents that backpropagate through the market, with checkpoints that continue a run bit for bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hmgym.agents.analytic_policy_gradient import AnalyticPolicyGradient, Update, WindowSettings
from hmgym.agents.networks import SquashedGaussianPolicy
from hmgym.agents.shac import ActorCriticSettings, ShortHorizonActorCritic
from hmgym.agents.training import (
    LearningCurve,
    Progress,
    TrainingPlan,
    TrainingResult,
    checkpoint_folder,
    newest_checkpoint,
)
from hmgym.envs.differentiable import DifferentiableMarkets

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_AGENTS: dict[str, tuple[type[AnalyticPolicyGradient], type[WindowSettings]]] = {
    "apg": (AnalyticPolicyGradient, WindowSettings),
    "shac": (ShortHorizonActorCritic, ActorCriticSettings),
}
HYPERPARAMETERS: dict[str, dict[str, Any]] = {
    name: dataclasses.asdict(settings()) for name, (_, settings) in _AGENTS.items()
}
"""Fields of :class:`WindowSettings` and :class:`ActorCriticSettings`."""
_AGENT_FILE, _POLICY_FILE, _PROGRESS_FILE = "agent.pt", "policy.pt", "progress.json"


def train(plan: TrainingPlan, progress: Progress | None = None) -> TrainingResult:
    """Train APG or SHAC as planned; writes checkpoints and TensorBoard logs under ``plan.out``.

    Args:
        plan: what to train.
        progress: told how far the run is.
    """
    plan.out.mkdir(parents=True, exist_ok=True)
    agent = make_agent(plan)
    curve = LearningCurve(plan)
    found = newest_checkpoint(plan.out) if plan.resume else None
    if found is not None:
        agent.load_state_dict(torch.load(found / _AGENT_FILE, weights_only=True))
        curve.read(found / _PROGRESS_FILE)
    each = agent.env_steps_per_update
    env_steps = agent.updates * each
    next_checkpoint = env_steps + plan.checkpoint_steps
    writer = _writer(plan)
    curve.start()
    while env_steps < plan.total_steps:
        curve.measure(agent.policy, env_steps, agent.gradient_steps)
        update = agent.update(env_steps / plan.total_steps)
        env_steps += each
        months = agent.markets.max_episode_steps or agent.settings.horizon
        _log(writer, update, env_steps, months, curve.seconds)
        if progress is not None:
            progress(env_steps, months * update.reward)
        if env_steps >= next_checkpoint and env_steps < plan.total_steps:
            next_checkpoint = env_steps + plan.checkpoint_steps
            _save(plan.out, agent, curve, env_steps)
    curve.measure(agent.policy, env_steps, agent.gradient_steps, last=True)
    curve.pause()
    _save(plan.out, agent, curve, env_steps)
    writer.close()
    return TrainingResult(policy=agent.policy, curve=curve.points, env_steps=env_steps, seconds=curve.seconds)


def make_agent(plan: TrainingPlan) -> AnalyticPolicyGradient:
    """The agent of a plan, untrained, with its markets."""
    agent, settings = _AGENTS[plan.algo]
    known = {item.name for item in dataclasses.fields(settings)}
    unknown = set(plan.hyperparameters) - known
    if unknown:
        raise ValueError(f"`hyperparameters` of {plan.algo} must be some of {sorted(known)}, got {sorted(unknown)}")
    chosen = settings(**plan.hyperparameters)
    markets = DifferentiableMarkets(plan.env_id, plan.num_markets, seed=plan.market_seed, **plan.env_kwargs)
    return agent(markets, chosen, plan.seed)


def load_policy(folder: Path) -> SquashedGaussianPolicy:
    """The policy of a checkpoint folder."""
    return SquashedGaussianPolicy.load(folder / _POLICY_FILE)


def _save(out: Path, agent: AnalyticPolicyGradient, curve: LearningCurve, env_steps: int) -> None:
    folder = checkpoint_folder(out, env_steps)
    torch.save(agent.state_dict(), folder / _AGENT_FILE)
    agent.policy.save(folder / _POLICY_FILE)
    curve.write(folder / _PROGRESS_FILE)


def _writer(plan: TrainingPlan) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError('training logs need TensorBoard: pip install "hmgym[train]"') from error
    writer: SummaryWriter = SummaryWriter(str(plan.out / "tensorboard" / plan.algo))
    return writer


def _log(writer: SummaryWriter, update: Update, env_steps: int, months: int, seconds: float) -> None:
    values = {
        "rollout/mean_return": months * update.reward,
        "train/gradient_norm": update.gradient_norm,
        "time/seconds": seconds,
    }
    for name, value in values.items():
        writer.add_scalar(name, value, env_steps)
