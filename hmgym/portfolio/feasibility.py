"""Whether any weights keep the constraints, and which of them cannot be kept.

First what is cheap and names the group: equalities that contradict each other, then the range of every group and limit
over the box. One group without limits is feasible when that passes. Otherwise the point nearest to the holdings is
looked for by the flow, for a short while; only where it is not found a linear program decides (HiGHS of scipy).
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from hmgym.portfolio.checks import common_shape
from hmgym.portfolio.primal_dual import settle
from hmgym.portfolio.program import Program, dot

_TOLERANCE = 1e-9  # of a constraint, relative to 1 or its own size
_RANK = 1e-10  # of singular values, relative to the largest
_STEPS = 100


@torch.no_grad()
def check_equalities(groups: Tensor, totals: Tensor) -> None:
    """Check that Uw = λ has a solution; U (..., M, N), λ (..., M).

    Raises:
        ValueError: it has none.
    """
    keep = independent(groups)
    if keep is None:
        return
    rest = totals - dot(keep, dot(keep.mT, totals))
    if (rest.abs() > _TOLERANCE * totals.abs().amax(-1, keepdim=True).clamp(min=1.0)).any():
        row = int(rest.abs().flatten(0, -2).amax(0).argmax()) if rest.ndim > 1 else int(rest.abs().argmax())
        raise ValueError(
            f"`group_totals` must agree where `groups` are redundant, got totals {float(rest.abs().max()):.3g} apart "
            f"(group {row}): the problem is infeasible"
        )


@torch.no_grad()
def independent(groups: Tensor) -> Tensor | None:
    """(..., M, M) orthonormal columns that span what Uw can be, other columns 0; None where that is everything."""
    m, n = groups.shape[-2:]
    size = groups.norm(dim=-1, keepdim=True)
    if m <= n and bool((size > 0.0).all()):
        scaled = groups / size
        factor, info = torch.linalg.cholesky_ex(scaled @ scaled.mT)
        if not info.any() and bool((factor.diagonal(dim1=-2, dim2=-1) > 1e-4).all()):
            return None
    left, values, _ = torch.linalg.svd(groups, full_matrices=False)
    kept = left * (values > _RANK * values[..., :1].clamp(min=1e-300)).to(left).unsqueeze(-2)
    return torch.nn.functional.pad(kept, (0, m - kept.shape[-1]))


@torch.no_grad()
def check_feasible(
    near: Tensor,
    groups: Tensor,
    totals: Tensor,
    limit_groups: Tensor | None,
    limits: Tensor | None,
    lower: Tensor | None,
    upper: Tensor | None,
) -> None:
    """Check that some weights keep all constraints, the equalities being consistent.

    Raises:
        ValueError: none do.
        ImportError: scipy is needed to decide and is missing (`pip install hmgym[portfolio]`).
    """
    if lower is None and upper is None and limit_groups is None:
        return
    low = torch.full_like(near, -torch.inf) if lower is None else lower
    high = torch.full_like(near, torch.inf) if upper is None else upper
    _check_range("group_totals", groups, totals, low, high, both=True)
    if limit_groups is not None and limits is not None:
        _check_range("group_limits", limit_groups, limits, low, high, both=False)
    elif groups.shape[-2] == 1:
        return
    identity = torch.eye(near.shape[-1], dtype=near.dtype, device=near.device)
    program = program_of(identity, -near, None, near, groups, totals, limit_groups, limits, low, high)[0]
    _, _, _, settled = settle(program, 1.0, _TOLERANCE, _STEPS)
    check_unsettled(program, settled)


def check_unsettled(program: Program, settled: Tensor) -> None:
    """Check that those problems are feasible that have not settled (B,).

    Raises:
        ValueError: one is not.
        ImportError: scipy is missing.
    """
    for row in (~settled).nonzero().flatten().tolist():
        if not _linear_program_feasible(program, row):
            raise ValueError(
                "`groups`, `limit_groups`, `lower` and `upper` must leave some weights, got constraints that "
                f"contradict each other (problem {row} of the batch): the problem is infeasible"
            )


def _linear_program_feasible(program: Program, row: int) -> bool:
    """Whether any weights keep the constraints of a problem.

    Raises:
        ImportError: scipy is missing.
    """
    linprog = scipy_module("optimize").linprog
    rows, bounds, m = program.rows[row].cpu().numpy(), program.bounds[row].cpu().numpy(), program.equalities
    box = torch.stack([program.lower[row], program.upper[row]], -1).cpu().numpy()
    limits = {"A_ub": rows[m:], "b_ub": bounds[m:] + _TOLERANCE} if rows.shape[0] > m else {}
    found = linprog([0.0] * rows.shape[1], A_eq=rows[:m], b_eq=bounds[:m], bounds=box, **limits)
    return int(found.status) != 2


def scipy_module(name: str) -> Any:
    """A module of scipy.

    Raises:
        ImportError: scipy is missing.
    """
    try:
        return importlib.import_module(f"scipy.{name}")
    except ImportError as error:
        raise ImportError('this needs scipy: pip install "hmgym[portfolio]"') from error


def program_of(
    hessian: Tensor,
    linear: Tensor,
    kink_rates: Tensor | None,
    kinks: Tensor,
    groups: Tensor,
    totals: Tensor,
    limit_groups: Tensor | None,
    limits: Tensor | None,
    lower: Tensor,
    upper: Tensor,
    *,
    scaled: bool = True,
) -> tuple[Program, Tensor, Tensor, Tensor | None, torch.Size]:
    """A batch as a program, scaled unless that is not wanted.

    Returns:
        The program; the scale of its objective (B, 1) and of its rows (B, M+P), by which multipliers return; what
        `independent` says of the groups (B, M, M); the batch.
    """
    n = linear.shape[-1]
    if limit_groups is None or limits is None:
        limit_groups, limits = groups.new_zeros(0, n), groups.new_zeros(0)
    batch = common_shape(
        hessian.shape[:-2], groups.shape[:-2], limit_groups.shape[:-2],
        *(x.shape[:-1] for x in (linear, kinks, totals, limits, lower, upper)),
        () if kink_rates is None else kink_rates.shape[:-1],
    )  # fmt: skip
    keep = independent(groups)
    if keep is not None:
        groups, totals = keep.mT @ groups, dot(keep.mT, totals)
        keep = _flat(keep, batch, 2)
    rows = torch.cat([_flat(groups, batch, 2), _flat(limit_groups, batch, 2)], -2).detach()
    bounds = torch.cat([_flat(totals, batch, 1), _flat(limits, batch, 1)], -1)
    size = rows.norm(dim=-1)
    size = torch.where((size > 0.0) & scaled, size, 1.0)
    hessian = _flat(hessian, batch, 2)
    scale = hessian.detach().diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
    scale = torch.where((scale > 0.0) & scaled, scale, 1.0)
    linear = _flat(linear, batch, 1)
    program = Program(
        hessian=hessian / scale.unsqueeze(-1),
        linear=linear / scale,
        kink_rates=torch.zeros_like(linear) if kink_rates is None else _flat(kink_rates, batch, 1) / scale,
        kinks=_flat(kinks, batch, 1),
        rows=rows / size.unsqueeze(-1),
        bounds=bounds / size,
        equalities=groups.shape[-2],
        lower=_flat(lower, batch, 1),
        upper=_flat(upper, batch, 1),
        give=torch.zeros_like(scale),
    )
    return program, scale, size, keep, batch


def _flat(x: Tensor, batch: torch.Size, kept: int) -> Tensor:
    last = x.shape[x.ndim - kept :]
    return x.expand(*batch, *last).reshape(batch.numel(), *last)


def _check_range(name: str, rows: Tensor, bounds: Tensor, lower: Tensor, upper: Tensor, *, both: bool) -> None:
    """Check the sum that weights within the box can have in each group, against its total or limit."""
    low, high = lower.unsqueeze(-2), upper.unsqueeze(-2)
    ends = torch.where(rows > 0.0, low, high), torch.where(rows > 0.0, high, low)
    least, most = (torch.where(rows == 0.0, 0.0, rows * end).sum(-1) for end in ends)
    room = _TOLERANCE * bounds.abs().clamp(min=1.0)
    for reached, short in ((least, bounds + room < least), (most, (bounds - room > most) & both)):
        if short.any():
            where = short.nonzero()[0]
            bound = float(bounds.expand(short.shape)[tuple(where)])
            raise ValueError(
                f"`{name}` must be within what `lower` and `upper` allow, "
                f"{'at least' if reached is least else 'at most'} {float(reached[tuple(where)]):g} "
                f"for group {int(where[-1])}, got {bound:g}: the problem is infeasible"
            )
