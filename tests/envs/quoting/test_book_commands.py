"""Recorded books on the command line: what train and evaluate take, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hmgym.cli import main
from hmgym.data import read_lobster
from tests.data.recordings import lobster, write

ENV = "hmgym/LOBMarketMaking-v0"
SHORT = ["steps=3", "events_per_step=4"]


@pytest.fixture(autouse=True)
def threads():
    """Commands run torch on one thread; other tests need not."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def files(tmp_path):
    messages, book = lobster(1, events=120)
    return [str(write(tmp_path / "messages.csv", messages)), str(write(tmp_path / "book.csv", book))]


def test_a_policy_is_trained_and_evaluated_on_a_recording(files, tmp_path, capsys):
    out = tmp_path / "run"
    few = ["--episodes", "4", "--screening-episodes", "1"]
    sizes = ["--timesteps", "64", "--num-envs", "4", "--curve-episodes", "0", "--out", str(out)]
    assert main(["train", "--env", ENV, *sizes, *few, "--lobster", *files, "--parameters", *SHORT]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["settings"]["book"] == {"lobster": files}
    assert (report["settings"]["steps"], report["protocol"]["span"]) == (3, "held-out")
    assert {"hjb", "constant", "best_constant", "random"} <= set(report["baselines"])
    assert main(["evaluate", str(out), *few, "--out", str(out / "again.json")]) == 0
    again = json.loads((out / "again.json").read_text())
    assert again["final"]["mean"] == report["final"]["mean"]
    other = [str(write(tmp_path / f"{i}.csv", lines)) for i, lines in enumerate(lobster(2, events=120))]
    assert read_lobster(*other).source == other[1]
    assert main(["evaluate", str(out), *few, "--lobster", *other, "--out", str(out / "other.json")]) == 0
    assert other[1] in json.loads((out / "other.json").read_text())["settings"]["book"]["lobster"]
    assert main(["evaluate", "hjb", "--env", ENV, *few, "--lobster", *files, "--parameters", *SHORT]) == 0
    capsys.readouterr()


def test_a_backtest_on_a_recorded_book(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(write(tmp_path / f"{i}.csv", lines)) for i, lines in enumerate(lobster(1, events=120))]
    out = tmp_path / "out"
    options = ["--lobster", *files, "--runs", "20", "--strategies", "hjb", "constant", "--parameters", *SHORT]
    assert main(["backtest", *options, "--out", str(out)]) == 0
    assert sorted(path.suffix for path in out.iterdir()) == [".csv", *[".png"] * 5, ".txt"]
    summary = (out / "summary.txt").read_text()
    assert f"Market making on a recorded book, {files[1]}: episodes that begin in rows " in summary
    assert "exact" not in summary
    with pytest.raises(SystemExit):
        main(["backtest", *options, "render_mode=human", "--out", str(out)])
    assert "which are an environment's" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["train", "--curve-episodes", "0"], ["evaluate", "random"]])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--env", "hmgym/MarketMaking-v0", "--lobster", "M", "B"], "`env` must run on a recorded book, such"),
        (["--env", ENV, "--lobster", "M", "B", "--binance", "F"], "`lobster` and `binance` must not both be given"),
        (["--env", ENV, "--binance", "F"], "`symbol` must be given with `binance`"),
        (["--env", ENV, "--symbol", "BTCUSDT"], "`symbol` and `binance_market` go with `binance`"),
        (["--env", ENV, "--lobster", "no such file", "B"], "no such file: cannot be read as a LOBSTER message file"),
        (["--env", ENV, "--parameters", "depth=3"], "must be some of"),
    ],
)  # fmt: skip
def test_options_that_are_refused(command, options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main([*command, *options])
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_recording_that_is_too_short_to_be_evaluated_on_is_not_trained_on(files, tmp_path, capsys):
    out = tmp_path / "run"
    with pytest.raises(SystemExit):
        main(["train", "--env", ENV, "--lobster", *files, "--parameters", "steps=5", "--out", str(out)])
    assert "must be < 36, the rows of the span 'held-out'" in capsys.readouterr().err
    assert not out.exists()
