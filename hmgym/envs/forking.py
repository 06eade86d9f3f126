"""Keeps forked workers alive: after a large parallel operation in the parent, a child may use one thread only.

A torch pool or a parallel compiled kernel that has run in the parent does not survive `fork`: the child waits for
threads that do not exist, or is killed. AsyncVectorEnv and SubprocVecEnv fork on Linux.
"""

from __future__ import annotations

import os

import torch

from hmgym.clearing import kernels

_registered = False


def _use_one_thread() -> None:
    torch.set_num_threads(1)
    set_serial = getattr(kernels, "set_serial", None)
    if set_serial is not None:
        set_serial(True)


def protect_forked_children() -> None:
    """Make every process forked from this one use one torch thread and the serial kernels. Idempotent."""
    global _registered
    if not _registered and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_use_one_thread)
        _registered = True
