"""The projected primal-dual flow of a program, and the exact solution on the piece that it leads to.

With the augmented Lagrangian's gradient ∇L = Hw + c + U'(η + ρ(Uw − λ)) + G'ẑ, ẑ = [z + ρ(Gw − g)]₊,

    ẇ = prox(w − α∇L) − w,   η̇ = ρ(Uw − λ),   ż = ẑ − z

rests at the solution whatever ρ. It is followed in explicit steps of length one (they converge for
α ≤ 1/‖H + ρ(U'U + G'G)‖), and where those are slow in implicit steps of the flow of the Lagrangian itself,

    (w⁺ − w)/τ + ∂L ∋ 0,   η⁺ = η + τρ(Uw⁺ − λ),   z⁺ = [z + τρ(Gw⁺ − g)]₊,

which converge for every τ (the proximal method of multipliers). Each is a program of its own, solved by Newton's method
on the natural residual, and τ grows when that succeeds and falls when it does not. In between, Newton's method on the
program itself looks for the piece with the solution.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from hmgym.portfolio.program import Piece, Program, solve_on

_PIECES = 6  # that Newton's method looks at on the program itself
_PIECES_OF_A_STEP = 5  # likewise on an implicit step
_STRETCHES = (25, 200)  # explicit steps between looks
_FIRST, _CHANGE, _LONGEST = 10.0, 8.0, 1e10  # τ

Point = tuple[Tensor, Tensor]


@torch.no_grad()
def settle(
    program: Program, penalty: float, tolerance: float, max_iterations: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where the flow of every problem comes to rest.

    Args:
        program: scaled.
        penalty: ρ > 0.
        tolerance: of the natural residual.
        max_iterations: steps of the flow, at most.

    Returns:
        Weights (B, N), multipliers (B, M+P), residual (B,) and whether it is within tolerance (B,).
    """
    search = _Search(program, penalty, tolerance)
    search.look(_PIECES)
    done = 0
    for stretch in _STRETCHES:
        stretch = min(stretch, max_iterations - done)
        if not search.left.numel() or not stretch:
            break
        search.explicit(stretch)
        search.look(_PIECES)
        done += stretch
    while search.left.numel() and done < max_iterations:
        search.implicit()
        done += 1
    return search.weights, search.multipliers, search.residual, search.residual <= tolerance


class _Search:
    """The best points so far of all problems, and where the flow of those stands that are left."""

    def __init__(self, program: Program, penalty: float, tolerance: float) -> None:
        self.penalty, self.tolerance = penalty, tolerance
        self.left = torch.arange(program.linear.shape[0], device=program.linear.device)
        self.here = program.pick(self.left)
        self.w = self.here.prox(self.here.kinks, 0.0)
        self.y = torch.zeros_like(self.here.bounds)
        self.weights, self.multipliers = self.w.clone(), self.y.clone()
        self.residual = self.here.residual(self.w, self.y)
        self.length = torch.full_like(self.w[:, :1], _FIRST)

    def look(self, pieces: int, begun: Tensor | None = None) -> None:
        """Newton's method from where the flow stands, in all or those of a mask; what it solves has settled."""
        where = torch.arange(self.left.numel(), device=self.left.device)
        where = where if begun is None else where[begun]
        here, w, y = self.here.pick(where), self.w[where], self.y[where]
        for _ in range(pieces):
            if not where.numel():
                break
            w, y = solve_on(here, Piece.at(here, w, y), y)
            residual, rows = here.residual(w, y), self.left[where]
            better = residual < self.residual[rows]
            self.weights[rows[better]], self.multipliers[rows[better]] = w[better], y[better]
            self.residual[rows[better]] = residual[better]
            unsettled = ~(residual <= self.tolerance) & w.isfinite().all(-1)
            if not unsettled.all():
                where, here, w, y = where[unsettled], here.pick(unsettled), w[unsettled], y[unsettled]
        unsettled = ~(self.residual[self.left] <= self.tolerance)
        if not unsettled.all():
            self.left, self.here, self.length = self.left[unsettled], self.here.pick(unsettled), self.length[unsettled]
            self.w, self.y = self.w[unsettled], self.y[unsettled]

    def explicit(self, steps: int) -> None:
        """Steps of length one."""
        here, w, y = self.here, self.w, self.y
        alpha = explicit_step(here, self.penalty)
        for _ in range(steps):
            ahead = here.raised(y + self.penalty * here.excess(w, y))
            w = here.prox(w - alpha * here.slope(w, ahead), alpha)
            y = here.raised(y + self.penalty * here.excess(w, y))
        self.w, self.y = w, y

    def implicit(self) -> None:
        """One step of length τ, each problem's own, and a look at the piece that it ends on."""
        give = 1.0 / (self.length * self.penalty)
        step = dataclasses.replace(
            self.here,
            hessian=self.here.hessian + torch.diag_embed((1.0 / self.length).expand_as(self.w)),
            linear=self.here.linear - self.w / self.length,
            bounds=self.here.bounds - give * self.y,
            give=give,
        )
        w, y = self.w, self.y
        for _ in range(_PIECES_OF_A_STEP):
            w, y = solve_on(step, Piece.at(step, w, y), y)
            taken = step.residual(w, y) <= self.tolerance
            if taken.all():
                break
        here = taken.unsqueeze(-1)
        self.w, self.y = torch.where(here, w, self.w), torch.where(here, y, self.y)
        self.length = torch.where(here, self.length * _CHANGE, self.length / _CHANGE).clamp(max=_LONGEST)
        self.look(1, taken)


def explicit_step(program: Program, penalty: float) -> Tensor:
    """(B, 1) α: the largest for which steps of length one converge."""
    total = program.hessian + penalty * program.rows.mT @ program.rows
    step: Tensor = 1.0 / torch.linalg.matrix_norm(total, 2).unsqueeze(-1)
    return step
