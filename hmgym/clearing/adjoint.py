"""The adjoint of clearing: from cotangents of prices, weights and holdings to those of every input.

With A the map from a move of r to a move of an investor's positions (on its free positions, budget kept) and
``H = diag(S p) + sum_b W_b A_b`` the Hessian of Psi, one symmetric positive definite solve a market,

    H lambda = u_bar - sum_b A_b omega_b,    q_b = omega_b + W_b (0, lambda),    a_b = A_b q_b,

gives everything (``docs/clearing.md`` derives it). On the CPU it goes through compiled kernels; elsewhere, and for
second derivatives (there are some with smoothing), through the same formulas in torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from hmgym.clearing import kernels, smooth_kernels
from hmgym.clearing.problem import INPUTS, Problem, per_position
from hmgym.clearing.solve import kernel_arrays
from hmgym.clearing.threads import as_array, over_markets


def pull_back(
    problem: Problem,
    prices: Tensor,
    weights: Tensor,
    state: Tensor,
    prices_bar: Tensor,
    weights_bar: Tensor,
    holdings_bar: Tensor,
    *,
    smoothing: float,
) -> Problem:
    """Cotangents of a problem from those of its solution; ``state`` are the states of its positions."""
    on_cpu = prices.device.type == "cpu"
    method = _with_kernel if on_cpu and not (smoothing > 0.0 and torch.is_grad_enabled()) else _with_torch
    return method(problem, smoothing, prices, weights, state, prices_bar, weights_bar, holdings_bar)


def _with_kernel(
    problem: Problem,
    smoothing: float,
    prices: Tensor,
    weights: Tensor,
    state: Tensor,
    prices_bar: Tensor,
    weights_bar: Tensor,
    holdings_bar: Tensor,
) -> Problem:
    E, B, n = weights.shape
    N = n - 1
    _, risk, wealth, short, long, supply, _, costly, reference, cost = kernel_arrays(problem)
    out = [np.zeros(shape) for shape in ((E, B, N), (E, B, N, N), (E, B), (E, B, n), (E, B, n), (E, N), (E, N))]
    out += [np.zeros((E, B, N)) if costly else np.zeros((1, 1, 1)) for _ in range(2)]
    solution = [as_array(x) for x in (prices, weights)]
    cotangents = [as_array(x) for x in (prices_bar, weights_bar, holdings_bar)]
    if smoothing > 0.0:
        over_markets(
            smooth_kernels.pull_back_markets, E, B, smoothing, risk, wealth, short, long, supply, *solution,
            costly, reference, cost, *cotangents, *out,
        )  # fmt: skip
    else:
        over_markets(
            kernels.pull_back_markets, E, B, risk, wealth, supply, *solution, as_array(state),
            reference, costly, *cotangents, *out,
        )  # fmt: skip
    bars = dict(zip(INPUTS, out, strict=True))
    for name in ("short_leverage", "long_leverage"):
        if getattr(problem, name).ndim == 2:
            # One after the other, so that the sum does not depend on how numpy groups terms.
            bars[name] = np.add.accumulate(bars[name], axis=-1)[..., -1]
    absent = () if costly else ("reference_weights", "trading_cost")
    fields: dict[str, Any] = {name: None if name in absent else torch.from_numpy(x) for name, x in bars.items()}
    return Problem(**fields)


def _with_torch(
    problem: Problem,
    smoothing: float,
    prices: Tensor,
    weights: Tensor,
    state: Tensor,
    prices_bar: Tensor,
    weights_bar: Tensor,
    holdings_bar: Tensor,
) -> Problem:
    risk, wealth, supply = problem.risk, problem.wealth, problem.supply
    reference, cost = problem.reference_weights, problem.trading_cost
    cleared = prices > 0
    # A market that did not clear takes part as one without cotangents: its gradients are zero.
    prices = torch.where(cleared, prices, torch.ones_like(prices))
    weights = torch.where(cleared[:, None, :1], weights, torch.zeros_like(weights))
    prices_bar = torch.where(cleared, prices_bar, torch.zeros_like(prices_bar))
    weights_bar = torch.where(cleared[:, None, :1], weights_bar, torch.zeros_like(weights_bar))
    holdings_bar = torch.where(cleared[:, None], holdings_bar, torch.zeros_like(holdings_bar))
    E, B, n = weights.shape
    N = n - 1
    solvent = wealth > 0
    rich = torch.where(solvent, wealth, torch.zeros_like(wealth))
    hessian = weights.new_zeros((E, B, n, n))
    hessian[..., 1:, 1:] = 2.0 * risk
    free = (state & 1).bool() & solvent[..., None]
    if smoothing > 0.0:
        free = solvent[..., None].expand_as(weights)
        tau = smoothing * risk.diagonal(dim1=-2, dim2=-1).mean(-1)
        # Weights of investors without wealth are none of their choice and may stand at a limit.
        above, below = (
            torch.where(free, distance, torch.ones_like(distance))
            for distance in (
                weights + per_position(problem.short_leverage, n),
                per_position(problem.long_leverage, n) - weights,
            )
        )
        curvature = tau[..., None] * (1.0 / above**2 + 1.0 / below**2)
        if reference is not None and cost is not None:
            slope_by_cost, slope_by_weight, slope_by_tau = _smooth_cost_slopes(weights[..., 1:] - reference, cost, tau)
            curvature = curvature + pad(slope_by_weight, (1, 0))
        curvature = torch.where(free, curvature, torch.zeros_like(curvature))
        hessian = hessian + torch.diag_embed(curvature)
    A = _response(hessian, free)

    per_price = holdings_bar / prices[:, None]
    omega = weights_bar + pad(rich[..., None] * per_price, (1, 0))
    omega = torch.where(solvent[..., None], omega, torch.zeros_like(omega))
    u_bar = prices * prices_bar - (rich[..., None] * weights[..., 1:] * per_price).sum(1)
    H = torch.diag_embed(supply * prices) + (rich[..., None, None] * A[..., 1:, 1:]).sum(1)
    first = torch.einsum("ebij,ebj->ebi", A, omega)[..., 1:].sum(1)
    factor, _ = torch.linalg.cholesky_ex(H)
    price_multiplier = torch.cholesky_solve((u_bar - first)[..., None], factor)[..., 0]

    q = omega + pad(rich[..., None] * price_multiplier[:, None], (1, 0))
    a = torch.einsum("ebij,ebj->ebi", A, q)
    marginal = q - torch.einsum("ebij,ebj->ebi", hessian, a)
    # beta from any free position: there the marginal is beta itself.
    beta = (marginal * free).sum(-1, keepdim=True) / free.sum(-1, keepdim=True).clamp(min=1)
    rho = torch.where(solvent[..., None], marginal - beta, torch.zeros_like(marginal))
    risky, held = a[..., 1:], weights[..., 1:]
    risk_bar = -(risky[..., :, None] * held[..., None, :] + held[..., :, None] * risky[..., None, :])
    risk_bar = torch.where(solvent[..., None, None], risk_bar, torch.zeros_like(risk_bar))
    wealth_bar = ((per_price + price_multiplier[:, None]) * held).sum(-1)
    wealth_bar = torch.where(solvent, wealth_bar, torch.zeros_like(wealth_bar))
    reference_bar = cost_bar = None
    if smoothing > 0.0:
        short_bar = -(tau[..., None] * a / above**2)
        long_bar = tau[..., None] * a / below**2
        tau_bar = (a * (1.0 / above - 1.0 / below)).sum(-1)
        if reference is not None and cost is not None:
            reference_bar = risky * slope_by_weight
            cost_bar = -risky * slope_by_cost
            tau_bar = tau_bar - (risky * slope_by_tau).sum(-1)
        risk_bar = risk_bar + (smoothing / N) * tau_bar[..., None, None] * torch.eye(N, dtype=a.dtype, device=a.device)
    else:
        zero = torch.zeros_like(rho)
        short_bar = -torch.where(state == kernels.AT_LOWER, rho, zero)
        long_bar = torch.where(state == kernels.AT_UPPER, rho, zero)
        if reference is not None and cost is not None:
            at_reference = state[..., 1:] == kernels.AT_REFERENCE
            reference_bar = torch.where(at_reference, rho[..., 1:], zero[..., 1:])
            cost_bar = -torch.sign(held - reference) * risky
    return Problem(
        beliefs=risky,
        risk=risk_bar,
        wealth=wealth_bar,
        short_leverage=short_bar if problem.short_leverage.ndim == 3 else short_bar.sum(-1),
        long_leverage=long_bar if problem.long_leverage.ndim == 3 else long_bar.sum(-1),
        supply=-price_multiplier * prices,
        orders=price_multiplier,
        reference_weights=reference_bar,
        trading_cost=cost_bar,
    )


def _response(hessian: Tensor, free: Tensor) -> Tensor:
    """A: positions' response to r on the free set with the budget kept, zero elsewhere. Shape of ``hessian``."""
    n = hessian.shape[-1]
    both = free[..., :, None] & free[..., None, :]
    eye = torch.eye(n, dtype=hessian.dtype, device=hessian.device)
    kkt = hessian.new_zeros((*hessian.shape[:-2], n + 1, n + 1))
    kkt[..., :n, :n] = torch.where(both, hessian, eye * (~free)[..., None])
    kkt[..., :n, n] = free.to(hessian.dtype)
    kkt[..., n, :n] = free.to(hessian.dtype)
    kkt[..., n, n] = (~free.any(-1)).to(hessian.dtype)
    right = hessian.new_zeros((n + 1, n))
    right[:n] = eye
    A = torch.linalg.solve(kkt, right.expand(*kkt.shape[:-1], n))[..., :n, :]
    return torch.where(both, A, torch.zeros_like(A))


def _smooth_cost_slopes(x: Tensor, cost: Tensor, tau: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Derivatives of the smoothed slope of cost ``c x / (tau/c + sqrt((tau/c)^2 + x^2))`` by c, by x and by tau."""
    pays = cost > 0
    c = torch.where(pays, cost, torch.ones_like(cost))
    width = tau[..., None] / c
    root = torch.sqrt(width**2 + x**2)
    total = width + root
    zero = torch.zeros_like(x)
    by_x = torch.where(pays, c * width / (total * root), zero)
    by_width = torch.where(pays, -c * x / (total * root), zero)
    by_cost = torch.where(pays, x / total, zero) - by_width * width / c
    return by_cost, by_x, by_width / c
