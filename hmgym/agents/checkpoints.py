"""Checkpoints of a training run: written aside and renamed, checked by digest, with the plan that they belong to.

A checkpoint is a folder ``checkpoints/<periods>`` of a run. Its ``checkpoint.json`` holds the plan and the SHA-256
digest of every other file, so that one that was cut off, or damaged later, is told from a good one without loading it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "checkpoint.json"
WRITTEN = ("checkpoints", "tensorboard", "report.json", "learning_curve.png", "episode.png", "plausibility.png")
"""What a run writes into its folder: a folder that has any of it is used."""

_ASIDE = ".writing"  # suffix of a checkpoint that is not complete yet


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose files are all as they were written.

    Attributes:
        folder: where it is.
        env_steps: periods of training that it holds.
        plan: the run that it belongs to, as :meth:`TrainingPlan.described` gives it.
    """

    folder: Path
    env_steps: int
    plan: Mapping[str, Any]


@contextlib.contextmanager
def write_checkpoint(
    out: Path, env_steps: int, plan: Mapping[str, Any], transient: Sequence[str] = ()
) -> Iterator[Path]:
    """A folder to write into; it becomes the checkpoint after so many periods when the block ends.

    Args:
        out: folder of the run.
        env_steps: periods of training so far.
        plan: stored with it, ready for JSON.
        transient: names of files that only the newest checkpoint keeps, because they are large.
    """
    folder = out / "checkpoints" / str(env_steps)
    aside = folder.with_name(folder.name + _ASIDE)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    yield aside
    digests = {path.name: _digest(path) for path in sorted(aside.iterdir())}
    manifest = {"plan": plan, "files": digests, "transient": [name for name in transient if name in digests]}
    (aside / MANIFEST).write_text(json.dumps(manifest, indent=1))
    if folder.exists():  # a damaged one that the run went back behind
        shutil.rmtree(folder)
    aside.rename(folder)
    for other in folder.parent.iterdir():
        if other.name.endswith(_ASIDE):
            shutil.rmtree(other)
        for name in transient:
            if other != folder:
                (other / name).unlink(missing_ok=True)


def newest_checkpoint(out: Path) -> Checkpoint | None:
    """The newest good checkpoint of a run, None where no checkpoint was written yet.

    What is passed over on the way is told by a RuntimeWarning.

    Raises:
        ValueError: there are checkpoints and none of them is good.
    """
    parent = out / "checkpoints"
    folders = [path for path in parent.iterdir() if not path.name.endswith(_ASIDE)] if parent.is_dir() else []
    numbered = [path for path in folders if re.fullmatch(r"[0-9]+", path.name)]
    passed = [f"{path.name} is not named by its periods" for path in folders if path not in numbered]
    found = None
    for folder in sorted(numbered, key=lambda path: int(path.name), reverse=True):
        try:
            found = read_checkpoint(folder)
            break
        except ValueError as error:
            passed.append(str(error))
    if passed and found is not None:
        warnings.warn(f"going back to checkpoint {found.folder}: {'; '.join(passed)}", RuntimeWarning, stacklevel=2)
    if numbered and found is None:
        raise ValueError(f"`out` must hold a checkpoint that can be read, got {'; '.join(passed)}")
    return found


def read_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in a folder, its files checked.

    Raises:
        ValueError: it is no checkpoint, or one of its files is not as it was written.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        plan, files, transient = manifest["plan"], dict(manifest["files"]), manifest["transient"]
        env_steps = int(folder.name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} has no {MANIFEST} that can be read ({type(error).__name__}: {error})") from error
    for name, digest in files.items():
        path = folder / name
        if not path.is_file():
            if name in transient:
                continue
            raise ValueError(f"{folder} lacks {name}")
        if _digest(path) != digest:
            raise ValueError(f"{path} is not as it was written")
    return Checkpoint(folder=folder, env_steps=env_steps, plan=plan)


def find_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint that `path` is, or the newest good one of the run that it is the folder of.

    Raises:
        ValueError: there is none.
    """
    found = newest_checkpoint(path) if (path / "checkpoints").is_dir() else read_checkpoint(path)
    if found is None:
        raise ValueError(f"`path` must be a checkpoint or the folder of a run that has one, got {path}")
    return found


def check_folder(out: Path, *, overwrite: bool) -> None:
    """Check that a new run may write to a folder.

    Raises:
        ValueError: another run has written there and `overwrite` is not set, or `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"`out` must be a folder, got the file {out}")
    used = _written(out)
    if used and not overwrite:
        raise ValueError(
            f"`out` must be a folder that no run has written to, got {out} with {used[0].name} in it: "
            "set `resume` to go on with that run or `overwrite` to remove it"
        )


def open_folder(out: Path, *, overwrite: bool) -> None:
    """Make the folder of a new run, or remove what an older run wrote there; other files stay.

    Raises:
        ValueError: as `check_folder`.
    """
    check_folder(out, overwrite=overwrite)
    for path in _written(out):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    out.mkdir(parents=True, exist_ok=True)


def _written(out: Path) -> list[Path]:
    return [out / name for name in WRITTEN if (out / name).exists()]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
