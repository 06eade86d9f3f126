"""Diagnostics of gradients through the market.

``python -m hmgym.diagnostics.gradients differences|estimators|jacobian|smoothing|all`` prints a table and writes
``gradients_<what>.json`` and ``gradients_<what>.png`` (two pictures for `estimators`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from hmgym.agents.networks import SquashedGaussianPolicy
from hmgym.diagnostics.gradients import differences, estimators, jacobian, smoothing
from hmgym.diagnostics.gradients.reporting import counted, read_json, title, write_json
from hmgym.diagnostics.gradients.rollouts import Setting, load_policy, trained_policy, untrained_policy
from hmgym.market import MarketConfig
from hmgym.market.config import FUNDAMENTALS

Result = list[dict[str, Any]]
ENVIRONMENTS = ("hmgym/Leverage-v0", "hmgym/Beliefs-v0")
_BATCH = 128  # markets side by side where the number of samples is free


class _Run:
    """One call of the command line: environments and their policies."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self._trained: dict[str, SquashedGaussianPolicy] = {}

    def setting(self, env_id: str, num_markets: int) -> Setting:
        sizes: dict[str, Any] = {"n_assets": self.options.assets, "n_investors": self.options.investors}
        if self.options.fundamentals is not None:
            sizes["config"] = MarketConfig(fundamentals=self.options.fundamentals)
        kept = tuple((name, value) for name, value in sizes.items() if value is not None)
        return Setting(env_id=env_id, num_markets=num_markets, env_kwargs=kept)

    def untrained(self, setting: Setting) -> SquashedGaussianPolicy:
        return untrained_policy(setting, self.options.seed)

    def trained(self, setting: Setting) -> SquashedGaussianPolicy:
        """The policy given for this environment, or one trained for `--train-steps` periods."""
        env_id = setting.env_id
        if env_id not in self._trained:
            if self.options.policy:
                self._trained[env_id] = load_policy(self.options.policy[self.options.env.index(env_id)])
            else:
                for _ in counted([env_id], f"training {title(env_id)}"):
                    self._trained[env_id] = trained_policy(setting, self.options.seed, self.options.train_steps)
        return self._trained[env_id]

    def both(self, measure: Callable[[Setting, SquashedGaussianPolicy, str], dict[str, Any]], markets: int) -> Result:
        """Measure at the untrained and at the trained policy of every environment."""
        results = []
        for env_id in self.options.env:
            setting = self.setting(env_id, markets)
            for name, policy in (("untrained", self.untrained), ("trained", self.trained)):
                found = measure(setting, policy(setting), f"{self.options.what} {title(env_id)}, {name}")
                results.append({"env_id": env_id, "policy": name, **found})
        return results

    def differences(self) -> Result:
        options = self.options
        settings = differences.DifferenceSettings(seed=options.seed)
        settings = replace(settings, seeds=options.seeds or settings.seeds, months=options.months or settings.months)
        results = []
        for env_id in options.env:
            setting = self.setting(env_id, settings.seeds)
            policy = self.trained(setting) if options.policy else self.untrained(setting)
            results.append(differences.measure(setting, policy, settings))
        return results

    def estimators(self) -> Result:
        options = self.options
        settings = estimators.EstimatorSettings(seed=options.seed)
        settings = replace(
            settings, samples=options.seeds or settings.samples, months=options.months or settings.months
        )
        markets = min(_BATCH, max(2, settings.samples // 2))
        return self.both(
            lambda setting, policy, label: estimators.measure(setting.markets, policy, settings, label), markets
        )

    def jacobian(self) -> Result:
        settings = jacobian.JacobianSettings(seed=self.options.seed)
        settings = replace(settings, months=max(self.options.months or (settings.months,)))
        return self.both(
            lambda setting, policy, label: jacobian.measure(setting, policy, settings, label),
            self.options.seeds or 16,
        )

    def smoothing(self) -> Result:
        options = self.options
        settings = smoothing.SmoothingSettings(seed=options.seed)
        settings = replace(
            settings, seeds=settings.seeds if options.runs is None else options.runs,
            months=max(options.months or (settings.months,)), timesteps=options.run_steps or settings.timesteps,
            episodes=options.episodes,
        )  # fmt: skip
        results = []
        for env_id in options.env:
            setting = self.setting(env_id, options.seeds or _BATCH)
            policy = self.trained(setting) if options.policy else self.untrained(setting)
            results.append(smoothing.measure(setting, policy, settings))
        return results


_PARTS: dict[str, tuple[ModuleType, Callable[[_Run], Result]]] = {
    "differences": (differences, _Run.differences),
    "estimators": (estimators, _Run.estimators),
    "jacobian": (jacobian, _Run.jacobian),
    "smoothing": (smoothing, _Run.smoothing),
}


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*_PARTS, "all"))
    parser.add_argument("--env", nargs="+", default=list(ENVIRONMENTS), help="registered ids")
    parser.add_argument("--policy", nargs="+", type=Path, help="policy.pt of a checkpoint, one for every --env")
    parser.add_argument("--out", type=Path, default=Path("runs/gradients"), help="folder of the JSON")
    parser.add_argument("--figures", type=Path, help="folder of the figures, --out when it is not given")
    parser.add_argument("--redraw", action="store_true", help="draw from the JSON in --out, measure nothing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, help="markets, the sample size")
    parser.add_argument("--months", type=int, nargs="+", help="lengths of the rollout")
    parser.add_argument("--train-steps", type=int, default=65_536, help="of the trained policy without --policy")
    parser.add_argument("--runs", type=int, help="training runs of each smoothing schedule; 0 for none")
    parser.add_argument("--run-steps", type=int, help="environment steps of such a run")
    parser.add_argument("--episodes", type=int, default=512, help="that such a run's policy is evaluated on")
    parser.add_argument("--fundamentals", choices=FUNDAMENTALS)
    parser.add_argument("--assets", type=int)
    parser.add_argument("--investors", type=int)
    options = parser.parse_args(arguments)
    if options.policy and len(options.policy) != len(options.env):
        parser.error(f"--policy must name one file for every --env, {len(options.env)}, got {len(options.policy)}")
    options.months = None if options.months is None else tuple(options.months)
    figures = options.figures or options.out
    for folder in (options.out, figures):
        folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # small networks: more threads only wait for one another
    run = _Run(options)
    for what in _PARTS if options.what == "all" else [options.what]:
        options.what = what
        part, measure = _PARTS[what]
        stored = options.out / f"gradients_{what}.json"
        if options.redraw:
            if not stored.exists():
                parser.error(f"--redraw needs {stored}, which --out does not hold")
            results = read_json(stored)
        else:
            results = measure(run)
            write_json(results, stored)
        part.plot(results, figures / f"gradients_{what}.png")
        sys.stdout.write(part.table(results) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
