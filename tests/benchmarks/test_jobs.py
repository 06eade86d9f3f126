"""Jobs of the long benchmarks: run once, found again, and named by what they depend on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("stable_baselines3")

from benchmarks.jobs import Job, markdown_table, run_here, run_jobs


def job(name: str, **arguments: Any) -> Job:
    return Job(name=name, kind="test", call="tests.benchmarks.test_jobs:work", arguments=arguments)


def work(out: Path, progress: Any, *, number: int) -> dict[str, int]:
    """What the jobs here do."""
    progress(0.5, "half way")
    if number < 0:
        raise ValueError("`number` must be >= 0")
    with (out / "calls.txt").open("a") as calls:
        calls.write("x")
    return {"twice": 2 * number}


def test_a_job_runs_once_and_is_found_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [job("one", number=1), job("two", number=2)]
    assert run_jobs(jobs, tmp_path, workers=2) == [{"twice": 2}, {"twice": 4}]
    assert "0 of 2 jobs are done already" in capsys.readouterr().out
    assert run_jobs(jobs, tmp_path, workers=2) == [{"twice": 2}, {"twice": 4}]
    assert "2 of 2 jobs are done already" in capsys.readouterr().out
    assert (jobs[0].folder(tmp_path) / "calls.txt").read_text() == "x"
    assert (jobs[0].folder(tmp_path) / "progress.txt").read_text() == "50% half way"
    assert job("one", number=3).folder(tmp_path) != jobs[0].folder(tmp_path)


def test_what_fails_is_named_and_the_others_run(tmp_path: Path) -> None:
    jobs = [job("bad", number=-1), job("good", number=1)]
    with pytest.raises(RuntimeError, match="1 jobs failed: bad"):
        run_jobs(jobs, tmp_path, workers=1)
    assert json.loads((jobs[1].folder(tmp_path) / "result.json").read_text()) == {"twice": 2}
    assert "`number` must be >= 0" in (jobs[0].folder(tmp_path) / "log.txt").read_text()


def test_a_job_may_be_run_in_this_process(tmp_path: Path) -> None:
    import torch

    before = torch.get_num_threads()
    one = job("here", number=4)
    out = one.folder(tmp_path)
    out.mkdir(parents=True)
    (out / "job.json").write_text(
        json.dumps({"name": one.name, "kind": one.kind, "call": one.call, "arguments": dict(one.arguments)})
    )
    run_here(out)
    torch.set_num_threads(before)
    assert json.loads((out / "result.json").read_text()) == {"twice": 8}


def test_tables() -> None:
    assert markdown_table([("a", "b"), ("1", "2")]) == "| a | b |\n|---|---|\n| 1 | 2 |"
