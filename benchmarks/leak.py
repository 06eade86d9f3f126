"""Does the observation tell of next month's news more than it should? ``python -m benchmarks.leak``

What it should tell is the posterior mean given the signal, the regime and the variance of news, which
`hmgym.market.inference` knows exactly. A quadratic regression and an ensemble of trees try to explain what is left from
the whole observation, of this month and of the last three months, on markets that they have not seen. Then look-ups of
the history are compared with look-ups in permuted tables. Needs scikit-learn (`hmgym[checks]`).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hmgym.agents.evaluation import EVALUATION_SEED, estimate, evaluate
from hmgym.agents.lookup import HistoryLookup
from hmgym.envs import make_markets
from hmgym.market import Market

FloatArray = npt.NDArray[np.float64]

LARGEST_SHARE = 0.01
"""of the variance that the signal, the regime and the variance of news leave"""
_RESAMPLES = 500


def observed(
    env_id: str, *, markets: int, months: int, lags: int, seed: int, **env_kwargs: Any
) -> tuple[npt.NDArray[np.float32], FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """Random actions in many markets: what was observed, and the news that came.

    Returns:
        observations of `lags` months in a row, shape (n, lags × size); what the posterior mean leaves of next month's
        news, in standard deviations of that month, (n, N); all of that news, likewise; the market of each row, (n,).
    """
    run, rng = make_markets(env_id, markets, **env_kwargs), np.random.default_rng(seed)
    posterior, growth = Market(run.config).news_posterior, run.config.growth
    window: list[npt.NDArray[np.float32]] = []
    age = np.zeros(markets, np.int64)
    found: list[tuple[Any, ...]] = []
    observation, _ = run.reset(seed=seed)
    for _ in range(months):
        window = [*window, observation][-lags:]
        age += 1
        state, use = run.state.as_tensors(), np.flatnonzero(age >= lags)
        deviation = torch.sqrt(state.news_variance)
        mean = posterior.mean(state.signal, state.regime, state.news_variance)
        left, news = ((state.next_news - x) / deviation for x in (mean, torch.as_tensor(growth)))
        if use.size:
            found.append((np.concatenate([x[use] for x in window], 1), left.numpy()[use], news.numpy()[use], use))
        period = run.advance(rng.uniform(-1.0, 1.0, run.action_space.shape).astype(np.float32))
        observation = period.observation
        age[period.terminated | period.truncated] = 0
    run.close()
    columns = [np.concatenate(column) for column in zip(*found, strict=True)]
    return columns[0], columns[1], columns[2], columns[3]


def explained(target: FloatArray, guess: FloatArray, market: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Share of the variance explained out of sample, all assets together; 95 % of resamples of whole markets."""
    error, total = ((target - guess) ** 2).sum(1), (target**2).sum(1)
    sums = np.stack([np.bincount(market, weights=x) for x in (error, total)])
    rows = np.random.default_rng(0).integers(0, sums.shape[1], (_RESAMPLES, sums.shape[1]))
    resampled = 1.0 - sums[0][rows].sum(1) / sums[1][rows].sum(1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return {"share": float(1.0 - error.sum() / total.sum()), "ci95": [float(low), float(high)]}


def regressions(trees: int) -> dict[str, Any]:
    """Models by name, each with `fit` and `predict`; inputs lie in [-1, 1]."""
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    return {
        "quadratic": make_pipeline(
            StandardScaler(), PolynomialFeatures(2, include_bias=False), StandardScaler(), RidgeCV(np.logspace(1, 6, 6))
        ),
        "trees": ExtraTreesRegressor(trees, min_samples_leaf=20, max_features=0.5, random_state=0),
    }


def unexplained(env_id: str, *, markets: int, months: int, trees: int, **env_kwargs: Any) -> list[dict[str, Any]]:
    """What each model explains of what the posterior leaves."""
    rows = []
    for lags in (1, 3):
        size = {"markets": markets, "months": months, "lags": lags}
        seen, left, _, _ = observed(env_id, seed=EVALUATION_SEED, **size, **env_kwargs)
        unseen, target, news, market = observed(env_id, seed=EVALUATION_SEED + markets, **size, **env_kwargs)
        if lags == 1:
            rows.append({"model": "posterior mean", "lags": 1, **explained(news, news - target, market)})
        for name, model in regressions(trees).items():
            if lags > 1 and name == "quadratic":
                continue  # thousands of products of months with each other
            model.fit(seen, left)
            rows.append({"model": name, "lags": lags, **explained(target, model.predict(unseen), market)})
    return rows


def looked_up(env_id: str, *, episodes: int, permutations: int, **env_kwargs: Any) -> dict[str, Any]:
    """Returns of the look-up and of look-ups in permuted tables on the same episodes."""
    policy = HistoryLookup(env_id, **env_kwargs)
    arguments: dict[str, Any] = {"episodes": episodes, "env_kwargs": env_kwargs}
    own = evaluate(policy, env_id, **arguments)
    others = [evaluate(policy.permuted(seed), env_id, **arguments) for seed in range(permutations)]
    means = np.array([other.returns.mean() for other in others])
    return {
        "history": [own.result.mean, *own.result.ci95],
        "permuted": [float(means.mean()), float(means.std(ddof=1))],
        "difference": vars(estimate(own.returns - np.mean([other.returns for other in others], 0))),
        "rank": int((means > own.returns.mean()).sum()) + 1,
        "of": permutations + 1,
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns 1 where something is leaked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="hmgym/Beliefs-v0")
    parser.add_argument("--history", nargs="+", default=["training", "held-out"], help="spans of the packaged prices")
    parser.add_argument("--markets", type=int, default=1024)
    parser.add_argument("--months", type=int, default=60)
    parser.add_argument("--trees", type=int, default=100)
    parser.add_argument("--episodes", type=int, default=1024)
    parser.add_argument("--permutations", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "leak.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    report: dict[str, Any] = {"env": options.env, "spans": {}}
    for span in options.history:
        rows, looks = measured(options, span)
        report["spans"][span] = {"unexplained": rows, "lookup": looks}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    every = [row for span in report["spans"].values() for row in span["unexplained"]]
    leaked = any(row["ci95"][1] > LARGEST_SHARE for row in every if row["model"] != "posterior mean")
    return int(leaked)


def measured(options: argparse.Namespace, span: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What is explained and what a look-up earns on one span; prints both."""
    given = {"history": span}
    rows = unexplained(options.env, markets=options.markets, months=options.months, trees=options.trees, **given)
    sys.stdout.write(f"{span}\n")
    for row in rows:
        low, high = row["ci95"]
        sys.stdout.write(f"{row['model']:<16}{row['lags']} months  {row['share']:8.4f} ({low:.4f} to {high:.4f})\n")
    looks = looked_up(options.env, episodes=options.episodes, permutations=options.permutations, **given)
    difference = looks["difference"]
    sys.stdout.write(
        f"look-up {looks['history'][0]:.3f}, permuted {looks['permuted'][0]:.3f} (sd {looks['permuted'][1]:.3f} over "
        f"{options.permutations}); difference {difference['mean']:.3f} ({difference['low']:.3f} to "
        f"{difference['high']:.3f}); rank {looks['rank']} of {looks['of']}\n"
    )
    return rows, looks


if __name__ == "__main__":
    raise SystemExit(main())
