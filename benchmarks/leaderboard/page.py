"""``docs/leaderboard.md`` and the picture of the learning curves, from what was gathered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.jobs import markdown_table
from benchmarks.training import with_interval
from hmgym.agents import PROTOCOL
from hmgym.analysis.figures import INK, SERIES, layout, log_scale, median_band, new_figure, save

_HEAD = """# Leaderboard

Written by `{command}`; figures in `benchmarks/results/leaderboard.json`. Return is the mean sum of rewards an episode
over {episodes:,} episodes of 120 months, the same for all, on the held-out span of the history (seeds from
{first_seed:,}; [agents](agents.md#the-evaluation-protocol) has the protocol). Of trained agents the training seed is
the unit: mean over seeds with Student's 95 % interval, "minus best constant" on the same episodes. Of the others the
episode is the unit. Growth is the return a year. Seconds are medians over seeds{workers}.

What an agent may see in training differs; when it acts, each sees the observation alone, but for the planners.

![Returns in training against environment steps, gradient steps and seconds](images/learning_curves.png)
"""
_TAIL = """
## A row from outside

Train on the id's own markets (the default span of the history, "training"), with a few seeds, and evaluate every
policy as the protocol says:

```python
>>> from hmgym.agents import PROTOCOL, RandomPolicy, evaluate
>>> env_id = "hmgym/Beliefs-v0"
>>> settings = PROTOCOL.report(env_id) | {"episodes": 4}  # leave `episodes` as it is
>>> run = evaluate(RandomPolicy(3), env_id, **settings)  # or anything with stable-baselines3's `predict`
>>> run.returns.shape
(4,)

```

Put a JSON file into `benchmarks/results/rows` and write the page again with
`python -m benchmarks.leaderboard --show`; it is put among the others:

```json
{"env_id": "hmgym/Beliefs-v0", "agent": "my agent", "sees": "observation", "version": "0.1.0",
 "means": [1.02, 1.05, 0.98, 1.01, 1.04], "env_steps": 1000000, "seconds": 600, "source": "https://…"}
```

`means` has the mean return of every training seed, `sees` what the agent may see in training that others may not: past
observations, gradients through the market, hidden state. An agent of the package is a line in
`benchmarks/leaderboard/agents.py`.
"""


def page(gathered: Mapping[str, Any], command: str) -> str:
    """The whole page in Markdown."""
    ids = gathered["environments"]
    workers = f", {gathered['workers']} runs at a time" if gathered.get("workers") else ""
    parts = [
        _HEAD.format(
            command=command, episodes=gathered["episodes"], first_seed=PROTOCOL.first_seed, workers=workers,
        )
    ]  # fmt: skip
    for env_id, found in ids.items():
        parts += [f"\n## `{env_id}`\n", _returns(found), _comments(found), *_to_target(found)]
    return "\n".join([*parts, _TAIL])


def _returns(found: Mapping[str, Any]) -> str:
    rows = [
        ("agent", "seeds", "return", "minus best constant", "growth a year", "ruined", "signals noise",
         "environment steps", "seconds", "may see in training")
    ]  # fmt: skip
    ordered = sorted(found["rows"].items(), key=lambda item: (item[1]["probe"], -item[1]["return"]["mean"]))
    for name, row in ordered:
        steps, seconds, ahead = row.get("env_steps"), row.get("seconds"), row.get("minus_best_constant")
        without, growth, ruined = row.get("without_information"), row.get("growth"), row.get("ruined")
        label = name.replace("_", " ") + (f" ({row['setting']})" if row.get("setting") else "")
        rows.append(
            (
                f"*{label}*" if row["probe"] else label, str(row["return"].get("seeds", "")),
                with_interval(row["return"]),
                "" if ahead is None else with_interval(ahead, "+.3f"), "" if growth is None else f"{growth:.1%}",
                "" if ruined is None else f"{ruined:.1%}", "" if without is None else f"{without['mean']:.3f}",
                "" if steps is None else f"{steps:,}", "" if seconds is None else f"{seconds:,.0f}",
                row["sees"] + (f"; {row['source']}" if row.get("source") else ""),
            )
        )  # fmt: skip
    return markdown_table(rows)


def _comments(found: Mapping[str, Any]) -> str:
    rows, gains = found["rows"], found["gains"]
    said = ["*Italics*: probes. Signals noise: the return of the same policy where signals are worth nothing."]
    agents = [name for name in ("APG", "APG with memory") if gains.get(name, 0.0) > 0.0]
    for name, label in (("best_rule", "The best one-line rule"), ("filter_rule", "The filter rule")):
        if name in gains:
            shares = [f"{gains[name] / gains[agent]:.0%} of the {gains[agent]:.3f} of {agent}" for agent in agents]
            said.append(
                f"{label} gains {gains[name]:+.3f} over {gains['floor']:.3f}, the better of no leverage and the best "
                f"constant{': ' + ', '.join(shares) if shares else ''}; restarts of its search ended at "
                f"{', '.join(f'{one:.3f}' for one in rows[name]['restarts'])} on the episodes it was chosen on."
            )
    grid = dict(zip(found["grid"]["settings"], found["grid"]["means"], strict=True))
    names = list(grid)
    if all(name.startswith("ℓ ") and "," not in name for name in names):
        best = max(grid.values())
        said.append(
            f"On the episodes that constants are chosen on, the ends of the box are {best - grid[names[0]]:.3f} "
            f"({names[0]}) and {best - grid[names[-1]]:.3f} ({names[-1]}) below the best constant."
        )
    return "\n" + " ".join(said)


def _to_target(found: Mapping[str, Any]) -> list[str]:
    if "target" not in found:
        return []
    rows = [("to PPO's final return", "environment steps", "gradient steps", "seconds", "runs that got there")]
    for name, row in found["rows"].items():
        reached = row.get("to_target")
        if reached is not None and not row["probe"]:
            values = [reached[key] for key in ("env_steps", "gradient_steps", "seconds")]
            shown = ["never" if value is None else f"{value:,.0f}" for value in values]
            if values[0] == 0:
                shown = ["0 (untrained)", "0", "0"]
            rows.append((name, *shown, f"{reached['reached']} of {reached['runs']}"))
    return [
        f"\nFirst points of the learning curves that are as high as PPO's last ones, {found['target']:.3f} on the "
        "episodes of the curves; medians over seeds. An untrained policy holds about the middle of the box.\n",
        markdown_table(rows),
    ]


@layout()
def draw(environments: Mapping[str, Any], path: Path) -> None:
    """Returns in training against environment steps, gradient steps and seconds: medians and ranges over seeds."""
    keys = {"env_steps": "environment steps", "gradient_steps": "gradient steps", "seconds": "seconds"}
    figure = new_figure(2.3 * len(environments) + 0.5)
    grid = figure.subplots(len(environments), 3, sharey="row", squeeze=False)
    for row, (env_id, found) in zip(grid, environments.items(), strict=True):
        drawn = {name: agent["curves"] for name, agent in found["rows"].items() if agent.get("curves")}
        drawn = {name: curves for name, curves in drawn.items() if not found["rows"][name]["probe"]}
        constant = found["best_constant_on_curve_episodes"]
        for axes, (key, label) in zip(row, keys.items(), strict=True):
            log_scale(axes, "x")
            for (name, curves), colour in zip(drawn.items(), SERIES, strict=False):
                xs, ys = ([curve[part][1:] for curve in curves] for part in (key, "mean_return"))
                median_band(axes, xs, ys, colour=colour, label=name)
            axes.axhline(constant, color=INK, ls="--", lw=1.0, label="best constant")
            axes.set_xlabel(label)
        row[0].set_ylabel("sum of rewards an episode")
        row[0].set_title(env_id)
        returns = [curve["mean_return"] for curves in drawn.values() for curve in curves]
        if returns:
            top, bottom = max(map(max, returns)), min(constant, min(min(curve[1:] or curve) for curve in returns))
            row[0].set_ylim(max(bottom, constant - 1.5) - 0.05, top + 0.05)
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(figure, path)
