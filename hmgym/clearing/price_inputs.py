"""Reads and checks the inputs of ``optimize_portfolio`` and ``find_equilibrium_prices``."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hmgym.clearing import price_kernels as kernels
from hmgym.clearing.inputs import SYMMETRY, as_float64
from hmgym.clearing.threads import as_array, over_markets

_INDEFINITE = 1e-9  # a negative eigenvalue up to this share of the largest one is rounding


@dataclass(frozen=True, kw_only=True)
class Portfolios:
    """The problems of B investors in each of E markets: float64 tensors on the CPU, of full shape."""

    covariance: Tensor  # (E, B, N, N)
    expected: Tensor  # (E, B, N)
    commission: Tensor  # (E, B, N)
    held: Tensor  # (E, B, N)
    wealth: Tensor  # (E, B)
    short: Tensor  # (E, B, N)
    long: Tensor  # (E, B, N)
    cash_short: Tensor  # (E, B)
    cash_long: Tensor  # (E, B)
    both_sides: bool  # commission on sales too

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors, in the order of the fields."""
        return tuple(getattr(self, field.name) for field in fields(self) if field.name != "both_sides")


def read_portfolios(
    Sigma: Any,
    expected_returns: Any,
    commission: Any,
    holdings: Any,
    budget: Any,
    short_leverage: Any,
    long_leverage: Any,
    commission_on: str,
    least_ndim: int,
) -> tuple[Portfolios, tuple[int, ...], torch.device]:
    """The problems, their batch shape (``()``, ``(B,)`` or ``(E, B)``) and the device the results belong on."""
    if commission_on not in ("buys", "trades"):
        raise ValueError(f'`commission_on` must be "buys" or "trades", got {commission_on!r}')
    given = (Sigma, expected_returns, commission, holdings, budget, short_leverage, long_leverage)
    device = next((x.device for x in given if isinstance(x, Tensor) and x.device.type != "cpu"), torch.device("cpu"))
    covariance = _read("Sigma", Sigma)
    shape = tuple(covariance.shape)
    if not least_ndim <= covariance.ndim <= 4 or shape[-1] != shape[-2] or 0 in shape:
        allowed = "(N, N), (B, N, N)" if least_ndim == 2 else "(B, N, N)"
        raise ValueError(f"`Sigma` must have shape {allowed} or (E, B, N, N), all >= 1, got {shape}")
    batch, N = shape[:-2], shape[-1]
    full = (*batch, N)

    def per_investor(name: str, value: Any) -> Tensor:
        return _fit(name, _read(name, value), batch)

    def per_asset(name: str, value: Any, scalar: bool) -> Tensor:
        x = _read(name, value)
        if (x.ndim == 0 and not scalar) or (x.ndim > 0 and x.shape[-1] != N):
            raise ValueError(f"`{name}` must have shape {full}, got {tuple(x.shape)}")
        return _fit(name, x, full)

    def either(name: str, value: Any) -> tuple[Tensor, Tensor]:
        """A limit or commission per investor, or per investor and asset; and its largest value, which is cash's."""
        x = _read(name, value)
        if x.ndim <= len(batch):
            one = _fit(name, x, batch, full)
            return one[..., None].expand(full), one
        every = _fit(name, x, full, batch)
        return every, every.amax(-1)

    def limit(name: str, value: Any) -> tuple[Tensor, Tensor]:
        """Limits of the assets and of cash, which may come first among N+1."""
        x = _read(name, value)
        if x.ndim <= len(batch) or x.shape[-1] != N + 1:
            return either(name, x)
        every = _fit(name, x, (*batch, N + 1))
        cash = every[..., 0]
        good = (cash >= 0.0) & (cash < torch.inf)
        if not bool(good.all()):
            raise ValueError(f"`{name}` must be finite and >= 0, got {float(cash[~good][0].detach()):.6g} for cash")
        return every[..., 1:], cash

    short, cash_short = limit("short_leverage", short_leverage)
    long, cash_long = limit("long_leverage", long_leverage)
    lead = (1,) * (2 - len(batch))
    tensors = {
        "covariance": covariance,
        "expected": per_asset("expected_returns", expected_returns, scalar=False),
        "commission": either("commission", commission)[0],
        "held": per_asset("holdings", holdings, scalar=True),
        "wealth": per_investor("budget", budget),
        "short": short,
        "long": long,
        "cash_short": cash_short,
        "cash_long": cash_long,
    }
    both_sides = commission_on == "trades"
    full_shape = {name: x.reshape(lead + tuple(x.shape)) for name, x in tensors.items()}
    return Portfolios(both_sides=both_sides, **full_shape), batch, device


def read_per_market(name: str, value: Any, batch: tuple[int, ...], N: int) -> Tensor:
    """Prices or supply, one vector a market: ``(E, N)``."""
    x = _read(name, value)
    shape = (*batch[:-1], N) if batch else (N,)
    if x.ndim == 0 or x.shape[-1] != N:
        raise ValueError(f"`{name}` must have shape {shape}, got {tuple(x.shape)}")
    return _fit(name, x, shape).reshape(-1, N)


def examine(
    problems: Portfolios, per_market: dict[str, np.ndarray[Any, Any]], uniform_limits: bool
) -> tuple[Portfolios, list[np.ndarray[Any, Any]], dict[int, str]]:
    """The problems with symmetric covariances; the arrays of their tensors; and the markets whose values are not
    admissible, each with what was expected and what came.

    One compiled pass tells whether anything may be wrong, and only then is what it is looked for.
    """
    arrays = [as_array(x) for x in problems.tensors()]
    covariance = arrays[0]
    found = np.empty(covariance.shape[:2], np.int64)
    rows = [x.reshape(-1, *x.shape[2:]) for x in (*arrays[:7], arrays[8])]
    over_markets(kernels.examine_portfolios, found.size, 1, *rows, SYMMETRY, found.reshape(-1))
    kinds = int(np.bitwise_or.reduce(found, None))
    reasons: dict[int, str] = {}
    if kinds & (kernels.DOUBTFUL | kernels.INDEFINITE) or not all(_is_positive(x).all() for x in per_market.values()):
        _require_values(arrays, per_market, uniform_limits, reasons)
    if kinds & kernels.SKEWED:
        largest = np.abs(covariance).max((-2, -1))
        asymmetry = np.abs(covariance - covariance.swapaxes(-1, -2)).max((-2, -1))
        expected = f"symmetric to {SYMMETRY:g} of its largest entry"
        _require(~(asymmetry > SYMMETRY * largest), "Sigma", expected, asymmetry, reasons)
    if kinds & kernels.ASYMMETRIC:
        arrays[0] = np.empty_like(covariance)
        over_markets(kernels.symmetrize_covariances, found.size, 1, rows[0], arrays[0].reshape(rows[0].shape))
        given = problems.covariance
        symmetric = 0.5 * (given + given.mT) if given.requires_grad else torch.from_numpy(arrays[0])
        problems = replace(problems, covariance=symmetric)
    if kinds & kernels.INDEFINITE:
        # What has no factor may still be singular.
        doubtful = (found & kernels.INDEFINITE) != 0
        suspects = np.where(np.isfinite(covariance[doubtful]), covariance[doubtful], 0.0)
        eigenvalues = np.linalg.eigvalsh(0.5 * (suspects + suspects.swapaxes(-1, -2)))
        least_eigenvalue = np.zeros(found.shape)
        least_eigenvalue[doubtful] = eigenvalues[:, 0]
        size = np.zeros(found.shape)
        size[doubtful] = np.abs(eigenvalues).max(-1)
        good = least_eigenvalue >= -_INDEFINITE * size
        _require(good, "Sigma", "positive semidefinite, its eigenvalues", least_eigenvalue, reasons)
    return problems, arrays, reasons


def _require_values(
    arrays: list[np.ndarray[Any, Any]],
    per_market: dict[str, np.ndarray[Any, Any]],
    uniform_limits: bool,
    reasons: dict[int, str],
) -> None:
    """Add the markets with numbers that are not admissible, one by one, to ``reasons``."""
    covariance, expected, commission, held, wealth, short, long, _, cash_long = arrays
    for name, x in (("Sigma", covariance), ("expected_returns", expected), ("holdings", held)):
        _require(np.isfinite(x), name, "finite", x, reasons)
    for name, x in (("budget", wealth), ("commission", commission), ("short_leverage", short)):
        _require((x >= 0) & (x < np.inf), name, "finite and >= 0", x, reasons)
    for name, x in per_market.items():
        _require(_is_positive(x), name, "finite and > 0", x, reasons)
    _require((long >= 0) & (long < np.inf), "long_leverage", "finite and >= 0", long, reasons)
    room = long.sum(-1) + cash_long
    enough = ~(room < 1.0 - 1e-12)
    if uniform_limits:
        least = 1.0 / (expected.shape[-1] + 1)
        _require(enough, "long_leverage", f">= 1/(N+1) = {least:.6g}", cash_long, reasons)
    else:
        _require(enough, "long_leverage", "such that the limits, cash's included, sum to >= 1", room, reasons)


def _is_positive(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    good: np.ndarray[Any, Any] = (x > 0) & (x < np.inf)
    return good


def _require(
    good: np.ndarray[Any, Any], name: str, expected: str, shown: np.ndarray[Any, Any], reasons: dict[int, str]
) -> None:
    """Add to ``reasons`` the markets in which not all is good, and which have no reason yet."""
    if good.all():
        return
    for e in range(good.shape[0]):
        if not good[e].all():
            where = tuple(int(k) for k in np.argwhere(~good[e])[0])
            reasons.setdefault(e, f"`{name}` must be {expected}, got {shown[e][where]:.6g} at {list(where)}")


def is_uniform(limit: Any, batch: tuple[int, ...]) -> bool:
    """Whether a limit is given per investor, not per asset."""
    return bool(np.ndim(limit.detach() if isinstance(limit, Tensor) else limit) <= len(batch))


def _read(name: str, value: Any) -> Tensor:
    x = as_float64(name, value)
    return x if x.device.type == "cpu" else x.to("cpu")


def _fit(name: str, x: Tensor, shape: tuple[int, ...], also: tuple[int, ...] | None = None) -> Tensor:
    """``x`` expanded to ``shape``."""
    if x.shape == shape:
        return x
    if x.ndim <= len(shape) and all(k in (1, m) for k, m in zip(reversed(x.shape), reversed(shape), strict=False)):
        return x.expand(shape)
    allowed = " or ".join(str(s) for s in sorted({shape, also} - {None}, key=lambda s: len(s or ())))
    raise ValueError(f"`{name}` must have shape {allowed}, or one that broadcasts to it, got {tuple(x.shape)}")
