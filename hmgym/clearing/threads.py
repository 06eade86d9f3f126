"""Runs a kernel over markets on several threads.

Kernels release the interpreter lock, so plain threads do. There is no OpenMP here: a forked child (AsyncVectorEnv,
SubprocVecEnv) may use the kernels at once, it only starts without the parent's threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

# Below this many portfolios on one thread, starting another costs more than it saves.
_PORTFOLIOS_A_THREAD = 160

_pool: ThreadPoolExecutor | None = None
_n_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_num_threads(count: int) -> None:
    """Threads that clearing may use, this process's cores by default (torch's own setting is another one)."""
    global _n_threads
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"`count` must be an integer >= 1, got {count!r}")
    _n_threads = count


def over_markets(kernel: Callable[..., None], n_markets: int, n_investors: int, *arguments: Any) -> None:
    """Call ``kernel(first, last, *arguments)`` on chunks of markets, on several threads where that pays."""
    global _pool
    n_threads = min(_n_threads, n_markets * n_investors // _PORTFOLIOS_A_THREAD, n_markets)
    if n_threads <= 1:
        kernel(0, n_markets, *arguments)
        return
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="hmgym-clearing")
    bounds = [n_markets * part // n_threads for part in range(n_threads + 1)]
    others = [_pool.submit(kernel, bounds[part], bounds[part + 1], *arguments) for part in range(1, n_threads)]
    kernel(bounds[0], bounds[1], *arguments)
    for other in others:
        other.result()


def as_array(x: torch.Tensor | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What a kernel takes: a C-contiguous view of a CPU tensor or array, or a copy where it is none."""
    return np.ascontiguousarray(x if isinstance(x, np.ndarray) else x.detach().numpy())


def _forget_threads() -> None:
    """In a forked child: the pool's threads are gone, and torch's own threads would wait for locks nobody holds."""
    global _pool, _n_threads
    _pool, _n_threads = None, 1
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
