"""What a release has to say in several places is the same everywhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import hmgym

ROOT = Path(__file__).parent.parent


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert citation is not None
    assert hmgym.__version__ == project["version"] == citation.group(1)


def test_links_of_the_contributing_page_lead_somewhere() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"make ([a-z]+)", text))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"check", "against"} <= targets
    assert not [name for name in targets if not re.search(rf"^{name}:.*## ", makefile, re.MULTILINE)]
    named = re.findall(r"`((?:docs|hmgym|benchmarks|tests|analysis|agents)/[\w./]*)`", text)
    named += re.findall(r"\]\(([^)#:]+)\)", text)
    missing = [path for path in named if not (ROOT / path).exists() and not (ROOT / "hmgym" / path).exists()]
    assert not missing
