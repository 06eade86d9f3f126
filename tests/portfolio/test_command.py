"""The command `hmgym portfolio flow`: what it writes and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hmgym.cli import main


@pytest.fixture(autouse=True)
def threads():
    """Commands run torch on one thread; other tests need not."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("options", "said"),
    [([], "penalty flow of 4 assets"), (["--lower", "0", "--cost", "linear"], "primal-dual flow of 4 assets")],
)
def test_it_writes_weights_a_summary_and_a_figure(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "flow"
    assert main(["portfolio", "flow", "--assets", "4", "--points", "5", "--out", str(out), *options]) == 0
    assert said in capsys.readouterr().out
    assert said in (out / "summary.txt").read_text()
    rows = np.loadtxt(out / "weights.csv", delimiter=",", skiprows=1)
    assert rows.shape == (5, 5)
    np.testing.assert_allclose(rows[0], [0.0, *[0.25] * 4], atol=1e-15)
    np.testing.assert_allclose(rows[-1, 1:].sum(), 1.0, atol=2e-2)
    assert (out / "flow.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "must be one of flow, got none"),
        (["fly"], "must be one of flow, got fly"),
        (["flow", "--assets", "21"], "`assets` must be <= 20"),
        (["flow", "--penalty", "0"], "`penalty` must be"),
        (["flow", "--horizon", "-1"], "`horizon` must be"),
        (["flow", "--upper", "0.01"], "the problem is infeasible"),
        (["flow", "--prices", "none.csv"], "none.csv"),
    ],
)
def test_what_it_refuses(arguments: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["portfolio", *arguments, *(["--out", str(tmp_path / "flow")] if "flow" in arguments else [])])
    assert end.value.code == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "flow").exists()
