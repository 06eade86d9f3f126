"""Weights in bits, as an Ising problem, and a coherent Ising machine for it.

w = D(s + 1) with spins s = ±1 puts the weight of an asset on ub · (0, 1, …, 2^K − 1)/(2^K − 1), and what is minimised,

    f(w) + ρ‖Uw − λ‖² = −½ s'Js − h's + constant,

is the potential of the penalty flow. The machine's amplitudes x and error signals e follow

    ẋ = (p − 1)x − x³ + e ζ(Jx + h√a),   ė = −β e (x² − a)

(chaotic amplitude control: Leleu et al. 2019, Destabilization of local minima in analog spin systems by correction of
amplitude heterogeneity, Phys. Rev. Lett. 122). Spins are the signs of x, and the best that a trial passes is kept. It
is a heuristic: nothing is promised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hmgym.checks import integer
from hmgym.portfolio.checks import check_last, check_penalty, common_shape, tensor
from hmgym.portfolio.penalty import stiffness
from hmgym.portfolio.problem import PortfolioProblem
from hmgym.portfolio.program import dot

_GAIN, _TARGET, _FEEDBACK = 0.0, 0.5, 5.0  # p, a, and ζ in units of 1 / the root mean square of what couples a spin
_ADAPTATION = 3.5  # β
_STEP, _STEPS = 0.15, 1000
_START = 0.1  # deviation of amplitudes at the start
_LARGEST = 1.5  # amplitude and, times ten, error signal that Euler's steps may reach


@dataclass(frozen=True, kw_only=True, eq=False)
class IsingProblem:
    """Minimise −½ s'Js − h's + constant over s = ±1.

    Attributes:
        couplings: (..., S, S) J, symmetric, 0 on the diagonal.
        fields: (..., S) h.
        constant: (...).
        decoder: (..., N, S) D.

    Raises:
        ValueError: an argument is none of these.
    """

    couplings: Tensor
    fields: Tensor
    constant: Tensor
    decoder: Tensor

    def __post_init__(self) -> None:
        shapes = {
            "couplings": ("(..., S, S)", 2), "fields": ("(..., S)", 1), "constant": ("(...)", 0),
            "decoder": ("(..., N, S)", 2),
        }  # fmt: skip
        for name, (shape, dimensions) in shapes.items():
            object.__setattr__(self, name, tensor(name, getattr(self, name), shape, dimensions))
        spins = self.fields.shape[-1]
        check_last("couplings", self.couplings, "(..., S, S)", (spins, spins))
        check_last("decoder", self.decoder, "(..., N, S)", (self.decoder.shape[-2], spins))
        diagonal = self.couplings.diagonal(dim1=-2, dim2=-1)
        if not torch.allclose(self.couplings, self.couplings.mT) or bool((diagonal != 0.0).any()):
            raise ValueError("`couplings` must be symmetric with a diagonal of 0, got others")

    def energy(self, spins: Any) -> Tensor:
        """(...) of spins (..., S)."""
        s = tensor("spins", spins, "(..., S)", 1)
        check_last("spins", s, "(..., S)", (self.fields.shape[-1],))
        value: Tensor = self.constant - (s * (0.5 * dot(self.couplings, s) + self.fields)).sum(-1)
        return value

    def decode(self, spins: Any) -> Tensor:
        """Weights (..., N) of spins (..., S)."""
        s = tensor("spins", spins, "(..., S)", 1)
        check_last("spins", s, "(..., S)", (self.fields.shape[-1],))
        return dot(self.decoder, s + 1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class IsingResult:
    """What the trials found.

    Attributes:
        spins: (trials, ..., S) ±1, the best of each.
        energies: (trials, ...) theirs.
        best_spins: (..., S) of all.
        best_energy: (...).
    """

    spins: Tensor
    energies: Tensor
    best_spins: Tensor
    best_energy: Tensor


def encode(problem: PortfolioProblem, penalty: Any, bits: int = 3) -> IsingProblem:
    """The problem in bits, its equalities as a penalty ρ‖Uw − λ‖².

    Args:
        problem: of quadratic cost, without limits; lower bounds 0 or None, upper bounds above 0, None for 1.
        penalty: ρ > 0.
        bits: of a weight, 1 … 30.

    Raises:
        ValueError: an argument is none of these.
    """
    rate, bits = check_penalty(penalty), integer("bits", bits, 1)
    if bits > 30:
        raise ValueError(f"`bits` must be <= 30, got {bits}")
    if problem.cost != "quadratic":
        raise ValueError(f'`cost` must be "quadratic" for spins, got "{problem.cost}"')
    if problem.limit_groups is not None:
        raise ValueError("`limit_groups` must be None for spins, got limits")
    if problem.lower is not None and bool((problem.lower != 0.0).any()):
        raise ValueError(f"`lower` must be 0 or None for spins, got {float(problem.lower.detach().min()):g}")
    upper = torch.ones_like(problem.expected_returns) if problem.upper is None else problem.upper
    if not bool(((upper > 0.0) & upper.isfinite()).all()):
        raise ValueError("`upper` must be > 0 and finite for spins, got other bounds")
    n, batch = problem.assets, problem.batch
    place = 2.0 ** torch.arange(bits, dtype=upper.dtype, device=upper.device) / (2.0 * (2**bits - 1))
    share = torch.kron(torch.eye(n, dtype=upper.dtype, device=upper.device), place)
    decoder = (upper.unsqueeze(-1) * share).expand(*batch, n, n * bits)
    totals, holdings = problem.group_totals, problem.holdings
    pull = (problem.pull + 2.0 * rate * dot(problem.groups.mT, totals)).expand(*batch, n)
    matrix = stiffness(problem, rate).expand(*batch, n, n)
    middle = decoder.sum(-1)
    inner = decoder.mT @ matrix @ decoder
    diagonal = inner.diagonal(dim1=-2, dim2=-1)
    cost = problem.cost_weight * (problem.cost_rates * holdings.square()).sum(-1)
    constant = 0.5 * (middle * dot(matrix, middle)).sum(-1) - (pull * middle).sum(-1) + 0.5 * diagonal.sum(-1)
    return IsingProblem(
        couplings=torch.diag_embed(diagonal) - inner,
        fields=dot(decoder.mT, pull - dot(matrix, middle)),
        constant=constant + cost + rate * totals.square().sum(-1),
        decoder=decoder,
    )


@torch.no_grad()
def ising_machine(problem: IsingProblem, *, trials: int = 200, seed: int = 0) -> IsingResult:
    """Many trials of the machine side by side.

    Args:
        problem: a batch.
        trials: ≥ 1, of each problem.
        seed: ≥ 0, of the amplitudes at the start.

    Raises:
        ValueError: an argument is none of these.
    """
    trials, seed = integer("trials", trials, 1), integer("seed", seed, 0)
    J, h = problem.couplings, problem.fields
    batch = common_shape(J.shape[:-2], h.shape[:-1], problem.constant.shape)
    spins = h.shape[-1]
    J, h = J.expand(*batch, spins, spins), h.expand(*batch, spins)
    size = (J.square().sum(-1) + h.square()).mean(-1).sqrt()
    size = torch.where(size > 0.0, size, 1.0)[..., None]
    J, h = J / size[..., None], h / size
    generator = torch.Generator().manual_seed(seed)
    x = _START * torch.randn(trials, *batch, spins, generator=generator, dtype=h.dtype).to(h.device)
    e = torch.ones_like(x)
    kept, least = torch.ones_like(x), torch.full_like(x[..., 0], torch.inf)
    field = h * _TARGET**0.5
    for _ in range(_STEPS):
        # (trials, ..., S): J is symmetric
        pushed = torch.einsum("...s,...su->...u", x, J) + field
        s = torch.ones_like(x).copysign(x)
        energy = -(s * (0.5 * torch.einsum("...s,...su->...u", s, J) + h)).sum(-1)
        better = energy < least
        least = torch.where(better, energy, least)
        kept = torch.where(better.unsqueeze(-1), s, kept)
        square = x.square()
        x = x + _STEP * ((_GAIN - 1.0 - square) * x + _FEEDBACK * e * pushed)
        e = e * torch.exp(-_STEP * _ADAPTATION * (square - _TARGET))
        x, e = x.clamp(-_LARGEST, _LARGEST), e.clamp(max=10.0 * _LARGEST)
    energies = problem.energy(kept)
    best, where = energies.min(0)
    chosen = kept.gather(0, where[None, ..., None].expand(1, *kept.shape[1:]))[0]
    return IsingResult(spins=kept, energies=energies, best_spins=chosen, best_energy=best)
