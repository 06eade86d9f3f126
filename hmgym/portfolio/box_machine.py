"""A coherent Ising machine of continuous variables for quadratic programs over a box, convex or not.

    min ½ w'Qw + q'w   over   lb ≤ w ≤ ub,     w = ½(c/S (ub − lb) + ub + lb),   S = √(p − 1),
    ċ = (p − 1 − c²)c − κ ∂f/∂c + noise.

κ grows over a trial, so that the gain, which pulls to the corners, is felt first and the objective last. Amplitudes
beyond ±S are at a bound. It is a heuristic: nothing is promised. (After Khosravi, Yildiz, Perdomo-Ortiz, Mabuchi,
Yamamoto and others 2022, Non-convex quadratic programming using coherent optical networks.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hmgym.checks import integer
from hmgym.portfolio.checks import batch_shape, check_last, tensor
from hmgym.portfolio.program import dot

_PUMP = 1.5  # p
_STEPS = 1500
_STRENGTHS = (3.0, 1e5)  # κ at the start and the end, in units of one over the largest curvature in c
_STEP = 0.1  # of time, over 1 + κ
_NOISE = 0.3  # at the start, falling to 0


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxResult:
    """What the trials found.

    Attributes:
        weights: (trials, ..., N) at the end of each, in the box.
        objectives: (trials, ...) ½ w'Qw + q'w of them.
        best_weights: (..., N) of all.
        best_objective: (...).
    """

    weights: Tensor
    objectives: Tensor
    best_weights: Tensor
    best_objective: Tensor


@torch.no_grad()
def box_machine(quadratic: Any, linear: Any, lower: Any, upper: Any, *, trials: int = 200, seed: int = 0) -> BoxResult:
    """Many trials of the machine side by side.

    Args:
        quadratic: (..., N, N) Q, symmetric, of any sign.
        linear: (..., N) q.
        lower: (..., N) or a number, finite.
        upper: (..., N) or a number, finite, ≥ `lower`.
        trials: ≥ 1, of each problem.
        seed: ≥ 0, of starts and noise.

    Raises:
        ValueError: an argument is none of these.
    """
    trials, seed = integer("trials", trials, 1), integer("seed", seed, 0)
    q = tensor("linear", linear, "(..., N)", 1)
    n = q.shape[-1]
    Q = tensor("quadratic", quadratic, "(..., N, N)", 2)
    check_last("quadratic", Q, "(..., N, N)", (n, n))
    if not torch.allclose(Q, Q.mT):
        raise ValueError(f"`quadratic` must be symmetric, got entries {float((Q - Q.mT).abs().max()):.3g} apart")
    low, high = (tensor(name, x, "(..., N) or (...)", 0) for name, x in (("lower", lower), ("upper", upper)))
    for name, x in (("lower", low), ("upper", high)):
        if x.ndim and x.shape[-1] not in (1, n):
            raise ValueError(f"`{name}` must be (..., N) with N = {n} or (...), got {tuple(x.shape)}")
    if (low > high).any():
        raise ValueError(f"`lower` must be <= `upper`, got one that is {float((low - high).max()):g} above")
    batch = batch_shape(
        {"quadratic": Q.shape[:-2], "linear": q.shape[:-1], "lower": low.shape[:-1], "upper": high.shape[:-1]}
    )
    generator = torch.Generator().manual_seed(seed)
    saturation = (_PUMP - 1.0) ** 0.5
    half, middle = 0.5 * (high - low), 0.5 * (high + low)
    half, middle = half.expand(*batch, n), middle.expand(*batch, n)
    per = half / saturation  # dw/dc
    size = torch.linalg.matrix_norm(per.unsqueeze(-1) * Q * per.unsqueeze(-2), 2)
    size = torch.maximum(size, (per * (q + dot(Q, middle))).abs().amax(-1) / saturation)
    size = torch.where(size > 0.0, size, 1.0)[..., None]
    c = torch.randn(trials, *batch, n, generator=generator, dtype=q.dtype).to(q.device) * 0.5 * saturation
    first, last = _STRENGTHS
    for step in range(_STEPS):
        done = step / (_STEPS - 1)
        strength = first * (last / first) ** done
        w = middle + per * c.clamp(-saturation, saturation)
        slope = per * (torch.einsum("...n,...nm->...m", w, Q) + q) / size
        length = _STEP / (1.0 + strength)
        noise = torch.randn(c.shape, generator=generator, dtype=q.dtype).to(q.device)
        c = c + length * ((_PUMP - 1.0 - c.square()) * c - strength * slope)
        c = c + _NOISE * (1.0 - done) * length**0.5 * noise
        c = c.clamp(-saturation, saturation)
    w = middle + per * c
    objectives = (w * (0.5 * torch.einsum("...n,...nm->...m", w, Q) + q)).sum(-1)
    best, where = objectives.min(0)
    chosen = w.gather(0, where[None, ..., None].expand(1, *w.shape[1:]))[0]
    return BoxResult(weights=w, objectives=objectives, best_weights=chosen, best_objective=best)
