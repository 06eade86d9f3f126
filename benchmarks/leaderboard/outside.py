"""Rows of agents that are not of this package: one JSON file each, in ``benchmarks/results/rows``.

    {"env_id": "hmgym/Beliefs-v0", "agent": "my agent", "sees": "observation", "version": "0.1.0",
     "means": [1.02, 1.05, 0.98, 1.01, 1.04], "env_steps": 1000000, "seconds": 600, "source": "https://…"}

`means` has an entry a training seed: the mean return of the trained policy on the episodes of the protocol,

    evaluate(policy, env_id, **PROTOCOL.report(env_id)).returns.mean()

with `evaluate` and `PROTOCOL` of `hmgym.agents`; `hmgym evaluate RUN` does the same. `ruined` and `growth` are
optional.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.training import over_seeds

NEEDED = {
    "env_id": str, "agent": str, "sees": str, "version": str, "means": list, "env_steps": int, "source": str,
}  # fmt: skip


def rows_from(folder: Path, env_id: str) -> dict[str, dict[str, Any]]:
    """The rows of an id, by name.

    Raises:
        ValueError: a file lacks something.
    """
    rows = {}
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        given = json.loads(path.read_text())
        for name, kind in NEEDED.items():
            if not isinstance(given.get(name), kind):
                raise ValueError(f"{path}: `{name}` must be {kind.__name__}, got {given.get(name)!r}")
        if not given["means"] or not all(isinstance(mean, int | float) for mean in given["means"]):
            raise ValueError(f"{path}: `means` must be numbers, one a training seed, got {given['means']!r}")
        if given["env_id"] == env_id:
            rows[given["agent"]] = {
                "return": over_seeds(given["means"]), "sees": given["sees"], "env_steps": given["env_steps"],
                "seconds": given.get("seconds"), "ruined": given.get("ruined"), "growth": given.get("growth"),
                "source": f"{given['source']} (hmgym {given['version']})", "probe": False,
            }  # fmt: skip
    return rows
