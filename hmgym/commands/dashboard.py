"""Serve a page with sliders that runs markets and trained policies, to this machine alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hmgym.commands.console import check_at_least, parse, refusals, say

PROG = "hmgym dashboard"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options."""

    port: int = 5006
    """that the page is served on; 0 takes a free one"""
    runs: Path = Path("runs")
    """folder of training runs, whose episodes the page shows"""
    show: bool = False
    """open it in the browser"""


def main(argv: Sequence[str]) -> int:
    """Serve until interrupted; returns the exit status."""
    arguments = parse(Arguments, argv, prog=PROG, description=__doc__)
    torch.set_num_threads(1)
    with refusals(PROG):
        check_at_least(arguments, port=0)
        from hmgym.dashboard.page import serve
    serve(
        arguments.runs, port=arguments.port, show=arguments.show,
        ready=lambda address: say(f"Serving {address} until interrupted"),
    )  # fmt: skip
    return 0
