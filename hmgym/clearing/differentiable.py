"""Clearing as an operation that torch can differentiate and map: ``solve`` with its adjoint (``docs/clearing.md``)."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from hmgym.clearing.adjoint import pull_back
from hmgym.clearing.problem import INPUTS, Problem
from hmgym.clearing.solve import Options, Solved, solve


def differentiable_solve(problem: Problem, options: Options) -> Solved:
    """``solve`` whose prices, weights and holdings carry gradients to the problem's inputs."""
    return Solved(*_Clearing.apply(options, problem.start, *problem.inputs))  # type: ignore[no-untyped-call]


def _problem(inputs: Any, start: Tensor | None = None) -> Problem:
    return Problem(**dict(zip(INPUTS, inputs, strict=True)), start=start)


def _stacked(batch_size: int, dims: Any, tensors: Any) -> tuple[list[Tensor | None], int]:
    """Tensors of a map with what is mapped joined to the markets, which are a batch anyway; and how many markets."""
    out: list[Tensor | None] = []
    n_markets = 0
    for dim, x in zip(dims, tensors, strict=True):
        if x is None:
            out.append(None)
            continue
        x = x.expand(batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
        n_markets = x.shape[1]
        out.append(x.reshape(-1, *x.shape[2:]))
    return out, n_markets


def _unstacked(batch_size: int, tensors: Any) -> tuple[Any, Any]:
    """Results of the joined markets and the dimension in which they are mapped again."""
    results = tuple(None if x is None else x.reshape(batch_size, -1, *x.shape[1:]) for x in tensors)
    return results, tuple(None if x is None else 0 for x in results)


class _Clearing(torch.autograd.Function):
    @staticmethod
    def forward(options: Options, start: Tensor | None, *inputs: Tensor | None) -> Any:
        return tuple(solve(_problem(inputs, start), options))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        options, _, *tensors = inputs
        solved = Solved(*output)
        ctx.smoothing = options.smoothing
        ctx.save_for_backward(*tensors, solved.prices, solved.weights, solved.state)
        ctx.mark_non_differentiable(solved.residual, solved.iterations, solved.converged, solved.state)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        *inputs, prices, weights, state = ctx.saved_tensors
        solution = (prices, weights, state, *cotangents[:3])
        if ctx.smoothing > 0.0 and torch.is_grad_enabled():
            pulled = pull_back(_problem(inputs), *solution, smoothing=ctx.smoothing).inputs
        else:
            pulled = _PullBack.apply(ctx.smoothing, *solution, *inputs)  # type: ignore[no-untyped-call]
        return (None, None, *pulled)

    @staticmethod
    def vmap(info: Any, in_dims: Any, options: Options, *tensors: Tensor | None) -> Any:
        stacked, n_markets = _stacked(info.batch_size, in_dims[1:], tensors)
        rejected = tuple(part * n_markets + e for part in range(info.batch_size) for e in options.rejected)
        solved = _Clearing.apply(dataclasses.replace(options, rejected=rejected, memory=None), *stacked)  # type: ignore[no-untyped-call]
        return _unstacked(info.batch_size, solved)


class _PullBack(torch.autograd.Function):
    """The adjoint, which is not differentiable itself."""

    @staticmethod
    def forward(smoothing: float, *tensors: Tensor | None) -> Any:
        return pull_back(_problem(tensors[6:]), *tensors[:6], smoothing=smoothing).inputs  # type: ignore[arg-type]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        raise RuntimeError("`clear_market` has second derivatives only with `smoothing` > 0")

    @staticmethod
    def vmap(info: Any, in_dims: Any, smoothing: float, *tensors: Tensor | None) -> Any:
        stacked, _ = _stacked(info.batch_size, in_dims[1:], tensors)
        return _unstacked(info.batch_size, _PullBack.apply(smoothing, *stacked))  # type: ignore[no-untyped-call]
