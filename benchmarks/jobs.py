"""Long benchmarks as jobs: each in a process and a folder of its own, resumable, with progress and time left.

A job is a function, ``module:name``, and arguments that JSON can hold. Its folder is named by a digest of all of these,
so that other settings make another folder and a result is never one of other settings. ``result.json`` is written last:
a job that has one is done, and one that was cut off is started again and goes on from its checkpoints.

    python -m benchmarks.jobs FOLDER      run one job, as the benchmarks do
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hmgym.lazy import imported

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
_JOB, _RESULT, _PROGRESS, _LOG = "job.json", "result.json", "progress.txt", "log.txt"
_EVERY = 60.0  # seconds between lines that only say how far it is


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job.

    Attributes:
        name: for people, and the beginning of its folder's name.
        kind: jobs of one kind take about as long as each other.
        call: ``module:name`` of a function ``call(out, progress, **arguments)`` that returns what JSON can hold;
            ``progress(share, text)`` may be told how far it is.
        arguments: of the function.
    """

    name: str
    kind: str
    call: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def folder(self, runs: Path) -> Path:
        """Where it writes."""
        described = json.dumps([self.call, self.arguments], sort_keys=True)
        return runs / f"{self.name}-{hashlib.sha256(described.encode()).hexdigest()[:8]}"


def run_jobs(jobs: Sequence[Job], runs: Path, workers: int) -> list[Any]:
    """The results of all jobs, in order; those that have none yet are run, `workers` processes at a time.

    Raises:
        RuntimeError: some failed; the others were run.
    """
    waiting = [job for job in jobs if not (job.folder(runs) / _RESULT).exists()]
    taken: dict[str, list[float]] = {}
    running: dict[str, tuple[Job, float]] = {}
    failed: list[str] = []
    begin, done = time.perf_counter(), 0
    lock = threading.Lock()

    def one(job: Job) -> tuple[Job, float, int]:
        with lock:
            running[job.name] = (job, time.perf_counter())
        status = _run_apart(job, runs, workers)
        with lock:
            _, since = running.pop(job.name)
        return job, time.perf_counter() - since, status

    def left() -> str:
        """Seconds of what is not done, by kind where one of the kind is done, over the workers."""
        known = [seconds for times in taken.values() for seconds in times]
        if not known:
            return "time left unknown"
        mean = sum(known) / len(known)
        expected = {kind: sum(times) / len(times) for kind, times in taken.items()}
        rest = sum(expected.get(job.kind, mean) for job in waiting[done + len(running) :])
        now = time.perf_counter()
        rest += sum(max(expected.get(job.kind, mean) - (now - since), 0.0) for job, since in running.values())
        return f"about {_clock(rest / workers)} left"

    _say(f"{len(jobs) - len(waiting)} of {len(jobs)} jobs are done already; {len(waiting)} to run, {workers} at a time")
    with ThreadPoolExecutor(workers) as pool:
        pending: set[Future[tuple[Job, float, int]]] = {pool.submit(one, job) for job in waiting}
        while pending:
            finished, pending = wait(pending, timeout=_EVERY, return_when=FIRST_COMPLETED)
            for future in finished:
                job, seconds, status = future.result()
                done += 1
                taken.setdefault(job.kind, []).append(seconds)
                said = f"{job.name}: {_clock(seconds)}"
                if status:
                    failed.append(job.name)
                    said += f", FAILED, see {job.folder(runs) / _LOG}"
                _say(f"{done}/{len(waiting)} {said}; {_clock(time.perf_counter() - begin)} so far, {left()}")
            if not finished:
                with lock:
                    shown = ", ".join(f"{name} {_read(job.folder(runs))}".strip() for name, (job, _) in running.items())
                    _say(f"{done}/{len(waiting)} running: {shown}; {left()}")
    if failed:
        raise RuntimeError(f"{len(failed)} jobs failed: {', '.join(failed)}")
    return [stored(job, runs) for job in jobs]


def _run_apart(job: Job, runs: Path, workers: int) -> int:
    out = job.folder(runs)
    out.mkdir(parents=True, exist_ok=True)
    (out / _JOB).write_text(json.dumps(dataclasses.asdict(job), indent=1))
    threads = max(1, (os.cpu_count() or 1) // workers)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HMGYM_BENCHMARK_THREADS": str(threads)}
    with (out / _LOG).open("a") as log:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.jobs", str(out.resolve())], check=False, cwd=ROOT, env=environment,
            stdout=log, stderr=log,
        )  # fmt: skip
    return done.returncode


def run_here(out: Path) -> None:
    """Run the job of a folder in this process."""
    import torch

    from hmgym.clearing.threads import set_num_threads

    torch.set_num_threads(1)
    set_num_threads(int(os.environ.get("HMGYM_BENCHMARK_THREADS", "1")))
    job = Job(**json.loads((out / _JOB).read_text()))

    def progress(share: float, text: str = "") -> None:
        (out / _PROGRESS).write_text(f"{share:.0%} {text}".strip())

    result = imported(job.call)(out, progress, **job.arguments)
    aside = out / (_RESULT + ".writing")
    aside.write_text(json.dumps(result))
    aside.rename(out / _RESULT)


def stored(job: Job, runs: Path) -> Any:
    """The result of a job, None where it has none yet."""
    path = job.folder(runs) / _RESULT
    return json.loads(path.read_text()) if path.exists() else None


def stored_first(jobs: Iterable[Job], runs: Path) -> list[Any]:
    """Results of jobs in order, up to the first that has none yet."""
    return list(itertools.takewhile(lambda one: one is not None, (stored(job, runs) for job in jobs)))


def command_of(module: str, argv: Sequence[str] | None) -> str:
    """The command that was given, without what says where to write and how many processes to take."""
    words, kept = iter(sys.argv[1:] if argv is None else argv), []
    for word in words:
        if word in ("--runs", "--results", "--docs", "--rows", "--workers"):
            next(words, None)
        else:
            kept.append(shlex.quote(word))
    return " ".join(["python -m", module, *kept])


def write_result(path: Path, command: str, found: Mapping[str, Any]) -> None:
    """Write figures of a benchmark, with the command that made them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"command": command, **found}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tables(results: Path, name: str, command: str, found: Mapping[str, Any], text: str) -> None:
    """Write a benchmark's figures as ``name.json`` and its tables as ``name.md``, and print these."""
    write_result(results / f"{name}.json", command, found)
    (results / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the first row is the head."""
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def _read(out: Path) -> str:
    path = out / _PROGRESS
    return path.read_text() if path.exists() else ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    run_here(Path(sys.argv[1]))
