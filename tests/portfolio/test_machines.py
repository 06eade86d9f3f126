"""Weights in bits and the two machines, against brute force."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from hmgym.portfolio import IsingProblem, box_machine, encode, ising_machine
from tests.portfolio.problems import problem


def all_spins(count: int) -> Tensor:
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=count)), dtype=torch.float64)


def test_the_energy_is_the_potential() -> None:
    given = problem(3, assets=4, upper=torch.tensor([1.0, 0.5, 0.8, 2.0]), lower=0.0, groups=1)
    coded = encode(given, 5.0, 2)
    assert coded.couplings.shape == (3, 8, 8)
    assert coded.decoder.shape == (3, 4, 8)
    for spins in all_spins(8)[::17]:
        w = coded.decode(spins)
        missed = (given.groups @ w[..., None])[..., 0] - given.group_totals
        expected = given.objective(w) + 5.0 * missed.square().sum(-1)
        torch.testing.assert_close(coded.energy(spins), expected, rtol=1e-12, atol=1e-12)
    lattice = coded.decode(all_spins(8)[:, None])[:, 0, 1].unique()
    torch.testing.assert_close(lattice, torch.arange(4).double() / 6.0)


def test_a_batch_is_its_rows() -> None:
    given = problem(3, assets=3, groups=1)
    coded = encode(given, 2.0)
    for row in range(3):
        one = IsingProblem(
            couplings=coded.couplings[row],
            fields=coded.fields[row],
            constant=coded.constant[row],
            decoder=coded.decoder[row],
        )
        spins = all_spins(9)
        torch.testing.assert_close(one.energy(spins), coded.energy(spins[:, None])[:, row])


def test_the_ising_machine_finds_small_ground_states() -> None:
    given = problem(6, assets=3, groups=1)
    coded = encode(given, 2.0, 2)
    least = coded.energy(all_spins(6)[:, None]).min(0).values
    found = ising_machine(coded, trials=50)
    assert found.spins.shape == (50, 6, 6)
    assert (found.spins.abs() == 1.0).all()
    torch.testing.assert_close(found.energies, coded.energy(found.spins))
    torch.testing.assert_close(found.best_energy, coded.energy(found.best_spins))
    assert (found.energies >= least - 1e-12).all()
    torch.testing.assert_close(found.best_energy, found.energies.min(0).values)
    assert int((found.best_energy <= least + 1e-9).sum()) >= 3
    again = ising_machine(coded, trials=50)
    assert torch.equal(again.spins, found.spins)
    assert not torch.equal(ising_machine(coded, trials=50, seed=1).spins, found.spins)


def test_the_box_machine_finds_the_best_of_small_programs() -> None:
    draw = torch.Generator().manual_seed(0)
    Q = torch.randn(8, 4, 4, generator=draw, dtype=torch.float64)
    Q, q = Q + Q.mT, torch.randn(8, 4, generator=draw, dtype=torch.float64)
    low, high = torch.tensor([-1.0, 0.0, 0.5, 2.0]).double(), torch.tensor([1.0, 3.0, 1.5, 2.0]).double()
    found = box_machine(Q, q, low, high, trials=40)
    assert found.weights.shape == (40, 8, 4)
    assert ((found.weights >= low) & (found.weights <= high)).all()
    w = found.best_weights
    expected = 0.5 * (w * (Q @ w[..., None])[..., 0]).sum(-1) + (q * w).sum(-1)
    torch.testing.assert_close(found.best_objective, expected)
    for row in range(8):
        assert float(found.best_objective[row]) <= best_of_box(Q[row], q[row], low, high) + 1e-7
    shared = box_machine(Q[0], q[0], 0.0, 1.0, trials=3, seed=2)
    assert shared.weights.shape == (3, 4)
    assert torch.equal(shared.weights, box_machine(Q[0], q[0], 0.0, 1.0, trials=3, seed=2).weights)


def best_of_box(Q: Tensor, q: Tensor, low: Tensor, high: Tensor) -> float:
    """Over all choices of which weights are at which bound."""
    best = float("inf")
    for state in itertools.product((-1, 0, 1), repeat=len(q)):
        at = torch.tensor(state)
        w, free = torch.where(at == 1, high, low), at == 0
        if free.any():
            slope = q[free] + Q[free][:, ~free] @ w[~free]
            w[free] = torch.linalg.solve(Q[free][:, free], -slope)
        if ((w >= low) & (w <= high)).all():
            best = min(best, float(0.5 * w @ Q @ w + q @ w))
    return best


@pytest.mark.parametrize(
    ("options", "arguments", "named"),
    [
        ({"cost": "linear"}, (1.0,), "`cost` must"),
        ({"limits": 1}, (1.0,), "`limit_groups` must"),
        ({"lower": -0.1}, (1.0,), "`lower` must"),
        ({"lower": 0.0, "upper": [1.0] * 5 + [float("inf")]}, (1.0,), "`upper` must"),
        ({}, (0.0,), "`penalty` must"),
        ({}, (1.0, 0), "`bits` must"),
        ({}, (1.0, 31), "`bits` must"),
    ],
)
def test_what_cannot_be_encoded_is_named(options: dict[str, Any], arguments: tuple[Any, ...], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        encode(problem(groups=1, **options), *arguments)


def test_bad_arguments_are_named() -> None:
    coded = encode(problem(assets=3, groups=1), 1.0, 1)
    for name in ("trials", "seed"):
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            ising_machine(coded, **{name: -1})
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            box_machine(torch.eye(2), [0.0, 0.0], 0.0, 1.0, **{name: -1})
    with pytest.raises(ValueError, match="`spins` must be"):
        coded.energy([1.0, -1.0])
    with pytest.raises(ValueError, match="`couplings` must be symmetric"):
        IsingProblem(couplings=torch.eye(2), fields=[0.0, 0.0], constant=0.0, decoder=torch.eye(2))
    for changed, named in (
        ({"quadratic": torch.eye(3)}, "quadratic"),
        ({"quadratic": [[0.0, 1.0], [0.0, 0.0]]}, "quadratic"),
        ({"lower": 2.0}, "lower"),
        ({"upper": float("inf")}, "upper"),
        ({"linear": "a"}, "linear"),
    ):
        given: dict[str, Any] = {"quadratic": torch.eye(2), "linear": [0.0, 0.0], "lower": 0.0, "upper": 1.0}
        with pytest.raises(ValueError, match=f"`{named}` must be"):
            box_machine(**given | changed)
