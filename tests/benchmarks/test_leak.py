"""The leak test finds what it is given to find, and nothing in the market."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("sklearn")

from benchmarks import leak


def test_what_is_explained():
    rng = np.random.default_rng(0)
    target, market = rng.normal(size=(4000, 2)), np.repeat(np.arange(100), 40)
    found = leak.explained(target, 0.5 * target, market)
    assert found["share"] == pytest.approx(0.75)
    low, high = leak.explained(target, rng.normal(size=(4000, 2)) * 0.1, market)["ci95"]
    assert low < -0.01 < high < 0.01


def test_models_find_a_rule_and_a_table():
    rng = np.random.default_rng(0)
    rows = rng.uniform(-1.0, 1.0, (40, 3))
    row = rng.integers(0, 40, 12_000)
    seen, following = rows[row], rows[(row + 1) % 40]
    product = (seen[:, :1] * seen[:, 1:2]).repeat(3, 1)
    market = np.arange(12_000) // 10
    for name, target, least in (("quadratic", product, 0.99), ("trees", following, 0.9)):
        model = leak.regressions(trees=20)[name].fit(seen[:6000], target[:6000])
        assert leak.explained(target[6000:], model.predict(seen[6000:]), market[6000:])["share"] > least, name


def test_the_command(tmp_path, capsys):
    small = ["--markets", "16", "--months", "8", "--trees", "4", "--episodes", "4", "--permutations", "2"]
    assert leak.main([*small, "--out", str(tmp_path / "leak.json")]) in (0, 1)
    assert "look-up" in capsys.readouterr().out
    report = json.loads((tmp_path / "leak.json").read_text())
    assert list(report["spans"]) == ["training", "held-out"]
    for span in report["spans"].values():
        assert [row["model"] for row in span["unexplained"]] == ["posterior mean", "quadratic", "trees", "trees"]
        assert span["lookup"]["of"] == 3
