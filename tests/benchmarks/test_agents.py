"""The picture of the stored learning curves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "agents.json"


def test_stored_curves_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3")
    from benchmarks.agents import draw

    draw(json.loads(RESULTS.read_text())["environments"], tmp_path / "new" / "curves.png")
    assert (tmp_path / "new" / "curves.png").stat().st_size > 10_000
