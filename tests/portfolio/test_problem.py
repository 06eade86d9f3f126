"""What a portfolio problem refuses, and its objective."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from hmgym.portfolio import PortfolioProblem, project, solve
from tests.portfolio.problems import arguments, problem


def test_the_objective_is_the_formula() -> None:
    for cost in ("quadratic", "linear"):
        given = problem(3, cost=cost)
        w = torch.linspace(-1.0, 1.0, 6, dtype=torch.float64)
        for row in range(3):
            mu, theta = given.expected_returns[row].numpy(), given.covariance[row].numpy()
            away, nu = w.numpy() - given.holdings[row].numpy(), given.cost_rates[row].numpy()
            paid = 0.8 * (nu * away**2).sum() if cost == "quadratic" else (nu * abs(away)).sum()
            expected = -mu @ w.numpy() + 0.75 * w.numpy() @ theta @ w.numpy() + paid
            assert float(given.objective(w)[row]) == pytest.approx(expected, rel=1e-13)


def test_arrays_lists_and_numbers_are_taken() -> None:
    given = {name: x.tolist() if torch.is_tensor(x) else x for name, x in arguments(bounds=True).items()}
    listed = PortfolioProblem(**given)
    arrays = PortfolioProblem(**{name: np.asarray(x) if isinstance(x, list) else x for name, x in given.items()})
    assert listed.expected_returns.dtype == torch.float64
    torch.testing.assert_close(solve(listed).weights, solve(arrays).weights)
    with pytest.raises(dataclasses.FrozenInstanceError):
        listed.cost = "linear"  # type: ignore[misc]


BAD: list[tuple[str, Any]] = [
    ("expected_returns", [0.0] * 5 + [float("nan")]),
    ("expected_returns", "up"),
    ("expected_returns", [True] * 6),
    ("expected_returns", 1.0),
    ("covariance", torch.eye(5)),
    ("covariance", torch.diag(torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, -0.1]))),
    ("covariance", torch.eye(6) + torch.eye(6).roll(1, 0)),
    ("risk_aversion", -1.0),
    ("risk_aversion", None),
    ("cost_rates", [-0.1] * 6),
    ("cost_rates", [0.1] * 5),
    ("cost_weight", float("inf")),
    ("cost_weight", -1.0),
    ("holdings", [0.1] * 7),
    ("groups", torch.ones(6)),
    ("groups", torch.ones(2, 5)),
    ("groups", torch.ones(0, 6)),
    ("group_totals", [1.0, 0.5, 0.2]),
    ("cost", "cubic"),
    ("lower", [0.0] * 4),
    ("lower", float("inf")),
    ("lower", 2.0),
    ("upper", float("nan")),
    ("upper", -float("inf")),
    ("limit_groups", torch.ones(2, 5)),
    ("group_limits", None),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=[f"{name}-{i}" for i, (name, _) in enumerate(BAD)])
def test_a_bad_argument_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must"):
        PortfolioProblem(**arguments(limits=2, bounds=True) | {name: value})


def test_batches_that_do_not_go_together_are_named() -> None:
    with pytest.raises(ValueError, match=r"`holdings` must have leading dimensions that go with \(3,\), got \(2,\)"):
        PortfolioProblem(**arguments(3) | {"holdings": torch.zeros(2, 6)})


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (
            {"groups": torch.ones(2, 6), "group_totals": [1.0, 0.9]},
            "`group_totals` must agree where `groups` are redund",
        ),
        ({"groups": torch.zeros(1, 6), "group_totals": [1.0]}, "`group_totals` must agree"),
        ({"lower": 0.2}, "`group_totals` must be within .* at least 1.2 for group 0, got 1"),
        ({"upper": 0.1}, "`group_totals` must be within .* at most 0.6 for group 0, got 1"),
        ({"limit_groups": torch.ones(1, 6), "group_limits": [-1.0], "lower": 0.0}, "`group_limits` must be within"),
        ({"limit_groups": torch.ones(1, 6), "group_limits": [0.9]}, "`groups`, `limit_groups`.* contradict"),
        (
            {
                "limit_groups": torch.tensor([[1.0] * 3 + [0] * 3, [0] * 3 + [1.0] * 3]),
                "group_limits": [0.4, 0.4],
                "lower": 0.0,
            },
            "`groups`, `limit_groups`.* contradict",
        ),
    ],
)
def test_infeasible_problems_are_named(changed: dict[str, Any], named: str) -> None:
    given = arguments(groups=1) | changed
    with pytest.raises(ValueError, match=f"{named}.*: the problem is infeasible"):
        PortfolioProblem(**given)
    names = ("groups", "group_totals", "limit_groups", "group_limits", "lower", "upper")
    with pytest.raises(ValueError, match="infeasible"):
        project(given["holdings"], **{name: given[name] for name in names if name in given})


def test_one_infeasible_problem_of_a_batch_is_named() -> None:
    limits = torch.tensor([[0.5, 0.6], [0.5, 0.4]])
    rows = torch.tensor([[1.0] * 3 + [0] * 3, [0] * 3 + [1.0] * 3])
    with pytest.raises(ValueError, match="problem 1 of the batch"):
        PortfolioProblem(**arguments(2, groups=1) | {"limit_groups": rows, "group_limits": limits, "lower": -9.0})


def test_an_objective_that_does_not_fix_the_weights_is_named() -> None:
    for changed in ({"risk_aversion": 0.0, "cost_weight": 0.0}, {"covariance": torch.zeros(6, 6), "cost": "linear"}):
        with pytest.raises(ValueError, match="must fix the weights"):
            solve(PortfolioProblem(**arguments(groups=1) | changed))


def test_one_riskless_asset_is_fixed_by_the_budget() -> None:
    theta = torch.diag(torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64))
    cash = PortfolioProblem(
        expected_returns=[0.0, 0.1, 0.2], covariance=theta, risk_aversion=2.0, cost_rates=[0.0] * 3,
        holdings=[1.0, 0.0, 0.0], groups=[[1.0] * 3], group_totals=[1.0],
    )  # fmt: skip
    torch.testing.assert_close(solve(cash).weights, torch.tensor([0.85, 0.05, 0.1], dtype=torch.float64))
